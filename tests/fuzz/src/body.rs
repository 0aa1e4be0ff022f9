//! Request bodies made up by chance: most are sound, some have one thing wrong, some are broken.

use crate::chance::Chance;

/// Writes one body.
pub fn write(chance: &mut Chance) -> Vec<u8> {
    let mut members = Vec::new();
    for key in ROUTED {
        if chance.once_in(2) {
            members.push(write_routed(key, chance));
        }
        if chance.once_in(120) {
            members.push(write_routed(key, chance));
        }
    }
    for key in NOTED {
        if chance.once_in(8) {
            members.push(write_noted(key, chance));
        }
    }
    for _ in 0..chance.below(6) {
        members.push(format!("{}:{}{}", write_key(chance), space(chance), write_value(chance, 4)));
    }
    for place in (1..members.len()).rev() {
        members.swap(place, chance.below(place.saturating_add(1)));
    }
    let list: Vec<String> = members
        .iter()
        .map(|member| format!("{}{member}{}", space(chance), space(chance)))
        .collect();
    let text = format!("{}{{{}{}}}{}", space(chance), space(chance), list.join(","), space(chance));
    let mut body = text.into_bytes();
    if chance.once_in(2) {
        mutate(&mut body, chance);
    }
    body
}

/// Keys that must be unique.
const ROUTED: &[&str] = &[
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "best_of",
    "messages",
];

/// Keys that something depends on, but may occur twice.
const NOTED: &[&str] = &[
    "prompt",
    "input",
    "tools",
    "functions",
    "logprobs",
    "continue_final_message",
    "add_generation_prompt",
];

fn write_noted(key: &str, chance: &mut Chance) -> String {
    let value = match chance.below(3) {
        0 => chance.pick(&["true", "false", "null", "[]", "{ }", "[null]"]).into(),
        _ => write_value(chance, 3),
    };
    format!("{}{}:{}{value}", spell(key, chance), space(chance), space(chance))
}

fn write_routed(key: &str, chance: &mut Chance) -> String {
    let value = match key {
        "model" => match chance.below(40) {
            0 => write_value(chance, 2),
            1 => format!("\"{}\"", "m".repeat(4090_usize.saturating_add(chance.below(9)))),
            _ => write_text(chance),
        },
        "stream" => {
            let usual = ["true", "true", "true", "false", "null"];
            let odd = ["\"true\"", "1", "{\"stream\":true}", "[true]"];
            if chance.once_in(12) { chance.pick(&odd).into() } else { chance.pick(&usual).into() }
        }
        "stream_options" => write_options(chance),
        "messages" => match chance.below(8) {
            0 => write_value(chance, 3),
            1 => format!("[{}]", space(chance)),
            _ => write_list(chance, 3),
        },
        _ => write_count(chance),
    };
    format!("{}{}:{}{value}", spell(key, chance), space(chance), space(chance))
}

fn write_options(chance: &mut Chance) -> String {
    let mut members = Vec::new();
    for _ in 0..chance.below(3) {
        members.push(format!("{}:{}", write_key(chance), write_value(chance, 2)));
    }
    if chance.once_in(2) {
        let flag = chance.pick(&["true", "false", "null", "0", "\"true\"", "{}", "[false]"]);
        members.push(format!("{}{}:{flag}", spell("include_usage", chance), space(chance)));
    }
    if chance.once_in(80) {
        members.push("\"include_usage\":false".into());
    }
    let long = 4060_usize.saturating_add(chance.below(60));
    match chance.below(40) {
        0..5 => "null".into(),
        5 => write_value(chance, 3),
        6 => format!("{{{}{}}}", " ".repeat(long), members.join(",")),
        7..10 => format!("{{{}}}", space(chance)),
        _ => format!("{{{}{}{}}}", space(chance), members.join(","), space(chance)),
    }
}

/// A number where a count should stand, plain for the most part.
fn write_count(chance: &mut Chance) -> String {
    match chance.below(24) {
        0 => "null".into(),
        1 => "18446744073709551615".into(),
        2 => "18446744073709551616".into(),
        3 => write_value(chance, 2),
        4..8 => write_number(chance),
        _ => chance.below(5000).to_string(),
    }
}

fn write_number(chance: &mut Chance) -> String {
    let sign = chance.pick(&["", "", "-"]);
    let digits = match chance.below(200) {
        0 => 4290_usize.saturating_add(chance.below(20)),
        1..20 => 20,
        _ => chance.below(6),
    };
    let whole = if digits == 0 { "0".into() } else { write_digits(digits, chance) };
    let fraction = if chance.once_in(4) { ".0625" } else { "" };
    let power = chance.pick(&["", "", "", "e5", "E-7", "e+400", "e00"]);
    format!("{sign}{whole}{fraction}{power}")
}

fn write_digits(count: usize, chance: &mut Chance) -> String {
    let first = chance.pick(&['1', '9']);
    std::iter::once(first).chain((1..count).map(|_| chance.pick(&['0', '5', '9']))).collect()
}

/// The key, spelled in one of the ways that mean it, or seldom in another case.
fn spell(key: &str, chance: &mut Chance) -> String {
    let (escapes, shouts) = (chance.once_in(6), chance.once_in(150));
    let spelled: String =
        key.chars().map(|letter| spell_letter(letter, escapes, shouts, chance)).collect();
    format!("\"{spelled}\"")
}

fn spell_letter(letter: char, escapes: bool, shouts: bool, chance: &mut Chance) -> String {
    let letter = match letter {
        's' if shouts && chance.once_in(2) => '\u{17f}',
        'k' if shouts && chance.once_in(2) => '\u{212a}',
        other if shouts && chance.once_in(3) => other.to_ascii_uppercase(),
        other => other,
    };
    let code = u32::from(letter);
    match chance.below(4) {
        0 if escapes => format!("\\u{code:04x}"),
        1 if escapes => format!("\\u{code:04X}"),
        _ => letter.to_string(),
    }
}

fn write_key(chance: &mut Chance) -> String {
    match chance.below(8) {
        0 => write_text(chance),
        1 => {
            let near =
                ["models", "mode", "Model1", "mo del", "max_token", "", "n ", "\\u006e\\u0000"];
            format!("\"{}\"", chance.pick(&near))
        }
        _ => {
            format!("\"{}\"", chance.pick(&["messages_", "role", "content", "tools", "user", "a"]))
        }
    }
}

/// A string, quotes included.
fn write_text(chance: &mut Chance) -> String {
    const PIECES: &[&str] = &[
        "gpt-5",
        "openai/",
        "a",
        " ",
        "\\\\",
        "\\\"",
        "\\/",
        "\\n",
        "\\t",
        "\\b\\f\\r",
        "é",
        "€",
        "\u{1f600}",
        "\u{7f}",
        "\u{2028}",
        "\u{ffff}",
        "\\u0000",
        "\\u00e9",
        "\\uD83D\\ude00",
        "\\\"model\\\":\\\"x\\\"",
        "{",
        "}]",
        "//",
        "\u{feff}",
        "The quick brown fox jumps over the lazy dog, and the dog does not mind it at all today. ",
    ];
    const HALVES: &[&str] = &["\\ud800", "\\uDFff", "\\ud83d\\ud83d\\ude00", "\\ud800\\u0041"];
    let mut text = String::from("\"");
    for _ in 0..chance.below(5) {
        let odd = chance.once_in(60);
        text.push_str(if odd { chance.pick(HALVES) } else { chance.pick(PIECES) });
    }
    text.push('"');
    text
}

/// Any value, nested at most `depth` levels (seldom a great deal more).
fn write_value(chance: &mut Chance, depth: usize) -> String {
    let items = chance.below(4);
    let inner = depth.saturating_sub(1);
    match chance.below(if depth == 0 { 6 } else { 10 }) {
        0 => chance.pick(&["true", "false", "null"]).into(),
        1 => write_number(chance),
        2 if chance.once_in(20) => {
            let levels = 55_usize.saturating_add(chance.below(20));
            format!("{}{}", "[".repeat(levels), "]".repeat(levels))
        }
        2..6 => write_text(chance),
        6 | 7 => write_list(chance, inner),
        _ => {
            let list: Vec<String> = (0..items)
                .map(|_| {
                    let key = if chance.once_in(3) {
                        spell(chance.pick(ROUTED), chance)
                    } else {
                        write_key(chance)
                    };
                    format!(
                        "{}{key}:{}{}",
                        space(chance),
                        write_value(chance, inner),
                        space(chance)
                    )
                })
                .collect();
            format!("{{{}}}", list.join(","))
        }
    }
}

fn write_list(chance: &mut Chance, depth: usize) -> String {
    let items = chance.below(4);
    let list: Vec<String> =
        (0..items).map(|_| format!("{}{}", space(chance), write_value(chance, depth))).collect();
    format!("[{}{}]", list.join(","), space(chance))
}

fn space(chance: &mut Chance) -> &'static str {
    if chance.once_in(5) { chance.pick(&[" ", "\n", "\r\n\t", "  "]) } else { "" }
}

/// Changes a few bytes for others that mean something, or nothing, to a reader of JSON.
fn mutate(body: &mut Vec<u8>, chance: &mut Chance) {
    const BYTES: &[u8] =
        b"{}[]:,\"\\ \t\n/0123456789-+.eEtrufalsn\0\x0c\x1f\x7f\x80\xbf\xc3\xe2\xed\xf0\xf4\xff";
    const PIECES: &[&[u8]] = &[
        b"\xef\xbb\xbf",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"//",
        b"/**/",
        b",",
        b"{}",
        b"\\u12",
        b"\\ud83d",
        b"\"\"",
        b"\xc3\xa9",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xf4\x90\x80\x80",
        b"01",
        b"1.",
        b"1e",
        b"True",
        b"'",
        b"\xc2\xa0",
        b"\xe2\x80\xa8",
        b"\x00",
        b":",
        b"]",
        b"0x1",
        b"\"model\":\"x\",",
        b"\"MODEL\":1,",
        b"\"stream\":true,",
    ];
    for _ in 0..=chance.below(3) {
        let at = chance.below(body.len().saturating_add(1));
        match chance.below(10) {
            0..4 => {
                drop(body.splice(at..at.saturating_add(1).min(body.len()), [chance.pick(BYTES)]));
            }
            4..6 => body.insert(at, chance.pick(BYTES)),
            6 => drop(body.splice(at..at.saturating_add(1).min(body.len()), [])),
            7 => drop(body.splice(at..at, chance.pick(PIECES).iter().copied())),
            8 => {
                let end = at.saturating_add(chance.below(30)).min(body.len());
                let copy = body.get(at..end).unwrap_or_default().to_vec();
                let to = chance.below(body.len().saturating_add(1));
                drop(body.splice(to..to, copy));
            }
            _ if chance.once_in(3) => body.truncate(at),
            _ => body.extend_from_slice(chance.pick(PIECES)),
        }
    }
}
