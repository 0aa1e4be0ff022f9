//! Answers that break off and are continued by another target: together they are the whole answer, once,
//! or the client is told.

#![cfg(test)]
#![expect(clippy::string_slice, reason = "a cut within a character is a mistake of the test's")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenroute_wire::meter::{Identity, Options, Resume, Start};

mod support;

use support::{HALVES, Relayed, chat, read_json, read_plainly, relay_events, split_at_chance};

/// Repeatable chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A string's code units, as a client in JavaScript has them.
fn units(text: &str) -> Vec<u16> {
    let mut units = Vec::new();
    for character in text.chars() {
        match u32::from(character) {
            half @ 0xf_d800..0xf_e000 => units.push(u16::try_from(half - HALVES).unwrap()),
            _ => units.extend_from_slice(character.encode_utf16(&mut [0; 2])),
        }
    }
    units
}

/// The chunks that a client reads.
fn chunks(out: &[u8]) -> Vec<Value> {
    read_plainly(out).iter().filter_map(|event| read_json(&event.data)).collect()
}

/// The text that a client makes of a stream.
fn client_units(out: &[u8]) -> Vec<u16> {
    let contents = chunks(out);
    let contents =
        contents.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    contents.flat_map(units).collect()
}

fn client_text(out: &[u8]) -> String {
    String::from_utf16(&client_units(out)).unwrap()
}

/// What names a target's chunks.
struct Voice {
    members: Value,
}

impl Voice {
    fn new(chance: &mut Chance) -> Self {
        let mut members = json!({
            "id": format!("chatcmpl-{}", chance.below(1000)), "object": "chat.completion.chunk",
            "created": 1_760_000_000 + chance.below(1000), "model": "other/m-1",
        });
        if chance.once_in(2) {
            members["system_fingerprint"] = json!("fp_1");
        }
        Self { members }
    }

    fn say(&self, choices: &str, chance: &mut Chance) -> String {
        let mut members: Vec<_> = self
            .members
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| format!("\"{key}\":{value}"))
            .collect();
        members.insert(chance.below(members.len() + 1), format!("\"choices\":{choices}"));
        if chance.once_in(3) {
            members.insert(chance.below(members.len() + 1), "\"usage\": null".to_owned());
        }
        let line = [",", ", ", ",\ndata: "][chance.below(3)];
        format!("data: {{{}}}\n\n", members.join(line))
    }

    fn say_delta(&self, delta: &str, finish: &str, chance: &mut Chance) -> String {
        let mut members = [
            format!("\"delta\":{delta}"),
            format!("\"finish_reason\":{finish}"),
            "\"index\":0".into(),
        ];
        let at = chance.below(3);
        members.swap(0, at);
        self.say(&format!("[{{{}}}]", members.join(",")), chance)
    }

    /// A whole answer of this text, in deltas of any length and with any escapes.
    fn tell(&self, text: &str, chance: &mut Chance) -> Vec<u8> {
        let mut out = String::new();
        out += &self.say_delta(r#"{"role":"assistant","content":""}"#, "null", chance);
        for _ in 0..chance.below(3) {
            out += ": keep-alive\n\n";
            let thought = [r#"{"reasoning_content":"hm"}"#, r#"{"content":null,"reasoning":"so"}"#]
                [chance.below(2)];
            out += &self.say_delta(thought, "null", chance);
        }
        let units: Vec<u16> = text.encode_utf16().collect();
        let (mut rest, longest) = (&units[..], 1 + chance.below(12));
        while !rest.is_empty() {
            let (now, after) = rest.split_at((1 + chance.below(longest)).min(rest.len()));
            rest = after;
            let content = write_string(now, chance);
            let role = if chance.once_in(4) { "\"role\":\"assistant\", " } else { "" };
            let delta = format!("{{{role}\"content\":{content}}}");
            let last = rest.is_empty() && chance.once_in(4);
            out += &self.say_delta(&delta, if last { "\"stop\"" } else { "null" }, chance);
            if last {
                return (out + "data: [DONE]\n\n").into_bytes();
            }
        }
        out += &self.say_delta("{}", "\"stop\"", chance);
        (out + "data: [DONE]\n\n").into_bytes()
    }
}

/// A JSON string of code units; what is half a pair is always escaped.
fn write_string(units: &[u16], chance: &mut Chance) -> String {
    let mut out = String::from("\"");
    for character in char::decode_utf16(units.iter().copied()) {
        match character {
            Err(half) => out += &escape(half.unpaired_surrogate()),
            Ok(character) if chance.once_in(5) => {
                character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &escape(*unit));
            }
            Ok(character) => {
                let text = Value::from(character.to_string()).to_string();
                out += &text[1..text.len() - 1];
            }
        }
    }
    out + "\""
}

fn escape(unit: u16) -> String {
    if unit & 1 == 0 { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") }
}

fn resume(identity: &Identity, start: Start, delivered_tokens: u64) -> Options {
    let resume = Resume { identity: identity.clone(), start, delivered_tokens, prompt_tokens: 7 };
    Options { resume: Some(Box::new(resume)), ..chat(false) }
}

fn afresh(identity: &Identity, delivered: &str) -> Options {
    resume(identity, Start::Afresh { delivered: Arc::from(delivered) }, 0)
}

/// The options of a target that is given the text, and the text that it is given.
fn prefilled<'a>(identity: &Identity, delivered: &'a str) -> (Options, &'a str) {
    let given = delivered.trim_end();
    let trimmed = delivered[given.len()..].to_owned();
    (resume(identity, Start::Prefilled { trimmed }, 7), given)
}

/// Each chunk has the identity, and nothing that the client has from the first answer or must not have.
#[track_caller]
fn assert_joined(out: &[u8], identity: &Identity) {
    for chunk in chunks(out) {
        for name in ["id", "object", "created", "model", "system_fingerprint"] {
            let given = identity.value(name).map(|raw| serde_json::from_str::<Value>(raw).unwrap());
            // A member that the target does not give is not made up.
            if chunk.get(name).is_some() || name != "system_fingerprint" {
                assert_eq!(chunk.get(name), given.as_ref(), "{name} of {chunk}");
            }
        }
        let delta = &chunk["choices"][0]["delta"];
        for gone in ["role", "reasoning", "reasoning_content"] {
            assert!(delta.get(gone).is_none(), "{gone} in {chunk}");
        }
    }
}

/// Relays an answer that goes on, whole and split; that must make no difference.
#[track_caller]
fn go_on(stream: &[u8], options: &Options, chance: &mut Chance) -> Relayed {
    let whole = relay_events([stream], options.clone());
    let seed = u64::try_from(chance.below(1 << 30)).unwrap();
    let split = relay_events(split_at_chance(stream, seed, 90), options.clone());
    assert_eq!(whole, split);
    let identity = &options.resume.as_ref().unwrap().identity;
    assert_joined(&whole.out, identity);
    assert_eq!(whole.facts.identity.as_ref(), Some(identity));
    whole
}

struct Fixture {
    name: String,
    stream: Vec<u8>,
}

fn fixtures() -> Vec<Fixture> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let streams = paths.filter(|path| path.extension().is_some_and(|kind| kind == "sse"));
    let mut fixtures: Vec<_> = streams
        .filter(|path| {
            let expected: Value =
                serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
            expected["endpoint"] == "chat_completions"
        })
        .map(|path| Fixture {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            stream: fs::read(&path).unwrap(),
        })
        .collect();
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    fixtures
}

/// Streams that another target can never go on from.
const NEVER: &[&str] = &[
    "error_first",
    "mistral_thinking",
    "openai_audio",
    "openai_parallel_tools",
    "openai_tools",
    "refusal",
    "two_choices_logprobs",
    "two_choices_one_open",
];

#[test]
fn a_recorded_answer_that_is_cut_anywhere_becomes_whole() {
    let mut never = Vec::new();
    for Fixture { name, stream } in fixtures() {
        let mut chance = Chance(5);
        let mut known = None;
        let whole = relay_events([&stream[..]], chat(false));
        for cut in 0..stream.len() {
            let first = relay_events([&stream[..cut]], chat(false));
            let Some(delivered) = first.facts.delivered.clone() else { continue };
            if known.as_ref() == Some(&delivered) {
                continue;
            }
            assert_eq!(client_text(&first.out), delivered, "{name} cut at {cut}");
            let identity = first.facts.identity.clone().unwrap();
            let text = client_text(&whole.out);
            for _ in 0..4 {
                continue_both_ways(&text, &delivered, &identity, &mut chance);
            }
            known = Some(delivered);
        }
        if known.is_none() {
            never.push(name);
        }
    }
    assert_eq!(never, NEVER);
}

/// The client has the beginning of a text; it gets the rest, of a target of either kind.
#[track_caller]
fn continue_both_ways(text: &str, delivered: &str, identity: &Identity, chance: &mut Chance) {
    let rest = &text[delivered.len()..];
    let stream = Voice::new(chance).tell(text, chance);
    let again = go_on(&stream, &afresh(identity, delivered), chance);
    assert!(!again.diverged && again.facts.done && again.facts.complete && again.facts.semantic);
    assert_eq!(client_text(&again.out), rest, "afresh after {delivered:?}");
    assert_eq!(again.facts.text, rest);
    assert!(again.facts.suppressed.ends_with(delivered), "{:?}", again.facts.suppressed);

    let (options, given) = prefilled(identity, delivered);
    for answer in [&text[given.len()..], rest] {
        // Of the second one nobody could tell that it says the white space another time.
        if answer == rest && rest.starts_with(char::is_whitespace) && given != delivered {
            continue;
        }
        let stream = Voice::new(chance).tell(answer, chance);
        let rest_alone = go_on(&stream, &options, chance);
        assert!(!rest_alone.diverged && rest_alone.facts.done);
        assert_eq!(client_text(&rest_alone.out), rest, "prefilled {given:?}");
        assert_eq!(rest_alone.facts.text, rest);
    }
}

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z]{1,6}",
        2 => Just(" ".to_owned()),
        1 => prop::sample::select(vec!["\n\n", "\"", "\\", "\t", "\u{a0}", "\u{fffd}", "\u{2028}"])
            .prop_map(str::to_owned),
        1 => "[é€😀👩🇨\u{301}]{1,3}",
    ];
    prop::collection::vec(piece, 1..14).prop_map(|pieces| pieces.concat())
}

/// A first answer of a text, cut somewhere.
fn begin(text: &str, chance: &mut Chance) -> (String, Option<Identity>, Vec<u16>) {
    let stream = Voice::new(chance).tell(text, chance);
    let cut = chance.below(stream.len());
    let first = relay_events([&stream[..cut]], chat(false));
    let units = client_units(&first.out);
    match first.facts.delivered {
        Some(delivered) => {
            assert_eq!(units, delivered.encode_utf16().collect::<Vec<_>>());
            (delivered, first.facts.identity, units)
        }
        None => (String::new(), None, units),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_chain_of_targets_tells_the_text_once(text in text(), seed: u64) {
        let chance = &mut Chance(seed);
        let (mut delivered, identity, mut client) = begin(&text, chance);
        let Some(identity) = identity else { return Ok(()) };
        for _ in 0..5 {
            let voice = Voice::new(chance);
            let (options, stream) = if chance.once_in(2) {
                (afresh(&identity, &delivered), voice.tell(&text, chance))
            } else {
                let (options, given) = prefilled(&identity, &delivered);
                (options, voice.tell(&text[given.len()..], chance))
            };
            let cut = if chance.once_in(3) { stream.len() } else { chance.below(stream.len()) };
            let leg = go_on(&stream[..cut], &options, chance);
            prop_assert!(!leg.diverged);
            client.extend(client_units(&leg.out));
            let said = &leg.facts.text;
            prop_assert_eq!(leg.facts.semantic, leg.facts.complete || !client_units(&leg.out).is_empty());
            if leg.facts.complete {
                prop_assert_eq!(String::from_utf16(&client).unwrap(), text);
                return Ok(());
            }
            // A client that has half a character cannot be helped by a target that says it whole.
            let Some(content) = leg.facts.delivered.clone() else { return Ok(()) };
            prop_assert_eq!(&content, said);
            delivered += &content;
            prop_assert_eq!(&client, &delivered.encode_utf16().collect::<Vec<_>>());
        }
    }

    #[test]
    fn another_answer_is_told_and_nothing_of_it_passes(text in text(), other in text(), seed: u64) {
        let chance = &mut Chance(seed);
        let (delivered, identity, _) = begin(&text, chance);
        let Some(identity) = identity else { return Ok(()) };
        let keep = chance.below(text.len() + 1);
        let other = format!("{}{other}", &text[..text.floor_char_boundary(keep)]);
        let stream = Voice::new(chance).tell(&other, chance);
        let leg = go_on(&stream, &afresh(&identity, &delivered), chance);
        if let Some(rest) = other.strip_prefix(&delivered) {
            prop_assert!(!leg.diverged && leg.facts.done);
            prop_assert_eq!(client_text(&leg.out), rest);
        } else {
            prop_assert!(leg.diverged && !leg.facts.done && !leg.facts.semantic);
            prop_assert!(leg.facts.text.is_empty());
            prop_assert!(chunks(&leg.out).is_empty());
        }
    }
}
