//! The reader against `serde_json`: what it accepts, what it gives, and where things stand.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

/// Whether the reader takes a text for one JSON value.
fn accepts(bytes: &[u8]) -> bool {
    Reader::of_bytes(bytes)
        .and_then(|mut reader| {
            reader.skip()?;
            reader.finish()
        })
        .is_ok()
}

/// Builds what the reader gives, so that it can be compared.
fn build(reader: &mut Reader<'_>) -> Result<Value, Malformed> {
    Ok(match reader.kind()? {
        Kind::Object => {
            let mut members = serde_json::Map::new();
            reader.object(|reader, key| {
                members.insert(key.text.decode().into_owned(), build(reader)?);
                Ok(())
            })?;
            Value::Object(members)
        }
        Kind::Array => {
            let mut items = Vec::new();
            reader.array(|reader| {
                items.push(build(reader)?);
                Ok(())
            })?;
            Value::Array(items)
        }
        Kind::Text => Value::String(reader.string()?.decode().into_owned()),
        Kind::Number => serde_json::from_str(reader.number()?).unwrap(),
        Kind::Bool => Value::Bool(reader.bool()?),
        Kind::Null => {
            reader.null()?;
            Value::Null
        }
    })
}

#[test]
fn what_is_not_json_is_malformed() {
    let bad = [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "{]",
        "[}",
        "[1,]",
        "{\"a\":1,}",
        "{,}",
        "[,1]",
        "{\"a\" 1}",
        "{a:1}",
        "{1:1}",
        "{\"a\":}",
        "[1 2]",
        "01",
        "-",
        "-a",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "NaN",
        "Infinity",
        "nul",
        "nulll",
        "truefalse",
        "tru",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u123\"",
        "\"\n\"",
        "\"\u{1f}\"",
        "1 1",
        "{}{}",
        "\u{feff}{}",
        "// c\n1",
        "'a'",
        "\"\\u+123\"",
        "[1}",
        "{\"a\":1]",
    ];
    for text in bad {
        assert!(!accepts(text.as_bytes()), "{text:?}");
        assert!(!accepts(format!("[{text}]").as_bytes()) || text.trim().is_empty(), "[{text:?}]");
    }
    for bytes in [&b"\"\xff\""[..], b"\"\xed\xa0\x80\"", b"\"\xc3", b"\xef\xbb\xbf1"] {
        assert!(!accepts(bytes));
    }
}

#[test]
fn all_legal_spellings_are_read() {
    let good = [
        "0",
        "-0",
        "1e400",
        "-1.5E-7",
        " \t\r\n1 ",
        "\"\u{7f}\"",
        "\"\\/\\b\\f\\n\\r\\t\\\"\\\\\"",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        "{\"\":\"\"}",
        "{ \"a\" : [ 1 , { } , null ] , \"b\" : true }",
        "\"\\ud800\"",
    ];
    for text in good {
        assert!(accepts(text.as_bytes()), "{text:?}");
    }
}

#[test]
fn escapes_become_what_they_stand_for() {
    let cases = [
        (r#""\u0061\n\/\"\\""#, "a\n/\"\\"),
        (r#""\ud83d\ude00!""#, "\u{1f600}!"),
        (r#""\uD83D""#, "\u{fffd}"),
        (r#""\ude00\ud83dx""#, "\u{fffd}\u{fffd}x"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
        (r#""é\u00e9""#, "éé"),
    ];
    for (json, text) in cases {
        assert_eq!(Reader::new(json).string().unwrap().decode(), text, "{json}");
    }
}

#[test]
fn depth_is_bounded_in_every_way_of_reading() {
    for (opening, closing) in [("[", "]"), ("{\"a\":", "}")] {
        for (depth, accepted) in [(64, true), (65, false), (100_000, false)] {
            let inner = if opening == "[" { "" } else { "1" };
            let text = opening.repeat(depth) + inner + &closing.repeat(depth);
            assert_eq!(accepts(text.as_bytes()), accepted, "{opening} {depth}");
            assert_eq!(build(&mut Reader::new(&text)).is_ok(), accepted, "{opening} {depth}");
        }
    }
}

#[test]
fn a_member_tells_where_it_stands() {
    let text = r#" {"a" : 1 ,  "b":[2], "a":{"c":3}}"#;
    let mut reader = Reader::new(text);
    let mut places = Vec::new();
    reader
        .object(|reader, key| {
            let value = reader.skip()?;
            places.push((key.text.raw(), key.start, key.comma, text.get(value.clone()).unwrap()));
            assert_eq!(reader.offset(), value.end);
            Ok(())
        })
        .unwrap();
    let comma = |nth: usize| text.match_indices(',').nth(nth).map(|(at, _)| at);
    assert_eq!(
        places,
        [("a", 2, None, "1"), ("b", 13, comma(0), "[2]"), ("a", 22, comma(1), "{\"c\":3}")]
    );
}

#[test]
fn a_cut_text_gives_what_is_there() {
    let text = r#"{"a":"one","b":"t\u0077o \ud83d\ude00 é"}"#.as_bytes();
    for end in 0..text.len() {
        let mut reader = Reader::of_prefix(&text[..end]);
        let mut said = String::new();
        let read = reader.object(|reader, _| {
            said.push_str(&reader.string()?.decode());
            Ok(())
        });
        assert!(read.is_err(), "{end}");
        let whole = "onetwo \u{1f600} é";
        let half_a_pair = said.replace('\u{fffd}', "");
        assert!(whole.starts_with(&half_a_pair), "{end} {said:?}");
        assert!(end < 11 || said.starts_with("one"), "{end}");
    }
}

fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[a-z]{0,12}",
        "[ -~]{0,40}",
        any::<String>(),
        Just("\u{1f600}\\\"\n\u{0}".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 4.0)),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Changes a byte, takes one out or puts one in.
fn mutate(bytes: &mut Vec<u8>, at: usize, byte: u8, how: u8) {
    if bytes.is_empty() {
        return;
    }
    let at = at % bytes.len();
    match how % 3 {
        0 => bytes[at] = byte,
        1 => drop(bytes.remove(at)),
        _ => bytes.insert(at, byte),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_gives_what_serde_gives(value in json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.unwrap();
        let mut reader = Reader::of_bytes(text.as_bytes()).unwrap();
        prop_assert_eq!(build(&mut reader).unwrap(), value);
        reader.finish().unwrap();
        let mut reader = Reader::new(&text);
        prop_assert_eq!(reader.skip().unwrap(), 0..text.len());
    }

    #[test]
    fn it_accepts_what_serde_accepts(
        value in json(),
        at: usize,
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\ 0-1.eE+utfn\n"[..])],
        how: u8,
    ) {
        let mut bytes = serde_json::to_vec(&value).unwrap();
        mutate(&mut bytes, at, byte, how);
        let expected = std::str::from_utf8(&bytes)
            .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
        prop_assert_eq!(accepts(&bytes), expected, "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        accepts(&bytes);
        Reader::of_prefix(&bytes).skip().unwrap_or_default();
    }
}
