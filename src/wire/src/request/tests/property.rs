//! Generated bodies: any split gives one verdict, the verdict is that of another JSON reader, and
//! what is sent is what came but for the edits.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn space() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t\r\n]{0,3}"]
}

/// The text of a string, quotes included.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ -!#-\\[\\]-~]{0,12}",
        1 => "[é€😀ſK\u{7f}]{1,3}",
        1 => prop::sample::select(vec![
            r"\\", r#"\""#, r"\/", r"\n", r"\u0041", r"\uD83d\ude00", r"\ud800", r"\udc00",
        ]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["model", "\\\"model\\\":", "{", "}]"]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

/// The text of a value.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        string(),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        prop::sample::select(vec!["true", "false", "null"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let item =
            (space(), inner, space()).prop_map(|(a, item, b)| format!("{a}{item}{b}")).boxed();
        let member = (space(), key(), space(), item.clone())
            .prop_map(|(a, key, b, item)| format!("{a}{key}{b}:{item}"));
        prop_oneof![
            prop::collection::vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 0..4)
                .prop_map(|members| { format!("{{{}}}", members.join(",")) }),
        ]
    })
}

/// The text of a key that is not routed at the top, but may be one that is deeper down.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        string(),
        prop::sample::select(vec!["\"model\"", "\"n\"", "\"stream\"", "\"include_usage\""])
            .prop_map(str::to_owned),
    ]
}

/// A member, and the one that is to be sent in its place.
type Member = (String, String);

fn options() -> impl Strategy<Value = Member> {
    let pair = |came: &str, sent: &str| Just((came.to_owned(), sent.to_owned()));
    prop_oneof![
        pair("null", r#"{"include_usage":true}"#),
        pair("{ }", r#"{"include_usage":true }"#),
        pair(r#"{"x":[{}]}"#, r#"{"include_usage":true,"x":[{}]}"#),
        pair(r#"{"x":{},"include_usage":false}"#, r#"{"x":{},"include_usage":true}"#),
        pair(r#"{"include_\u0075sage": null }"#, r#"{"include_\u0075sage": true }"#),
        pair(r#"{"include_usage":true}"#, r#"{"include_usage":true}"#),
        pair("[null]", "[null]"),
    ]
}

/// A body, what it is to become if usage is asked for, and what of that is put before its end.
#[derive(Clone, Debug)]
struct Body {
    came: String,
    sent: String,
}

prop_compose! {
    fn bodies()(
        others in prop::collection::vec(("\"_[a-z]{0,8}\"", value()), 0..5),
        model in string(),
        stream in prop::option::of(prop::sample::select(vec!["true", "false", "null", "1"])),
        options in prop::option::of(options()),
        order in any::<[prop::sample::Index; 3]>(),
        spaces in prop::collection::vec(space(), 8),
    ) -> Body {
        let mut members: Vec<Member> = others
            .into_iter()
            .map(|(key, value)| format!("{key}:{value}"))
            .map(|text| (text.clone(), text))
            .collect();
        let asks = stream == Some("true");
        let mut insert = |place: usize, key: &str, came: &str, sent: &str| {
            let at = order[place].index(members.len() + 1);
            members.insert(at, (format!("{key}:{came}"), format!("{key}:{sent}")));
        };
        insert(0, r#""mod\u0065l" "#, &model, "\"up/1\"");
        if let Some(stream) = stream {
            insert(1, "\"stream\"", stream, stream);
        }
        let added = if asks && options.is_none() { r#","stream_options":{"include_usage":true}"# } else { "" };
        if let Some((came, sent)) = &options {
            insert(2, "\"stream_options\"", came, if asks { sent } else { came });
        }
        let write = |pick: fn(&Member) -> &String, added: &str| {
            let list: Vec<String> = members
                .iter()
                .zip(spaces.iter().cycle())
                .map(|(member, space)| format!("{space}{}{space}", pick(member)))
                .collect();
            format!("{0}{{{1}{added}}}{0}", spaces[7], list.join(","))
        };
        Body { came: write(|member| &member.0, ""), sent: write(|member| &member.1, added) }
    }
}

/// A change of some bytes for others that mean something in JSON, or nothing at all.
fn mutate(body: &str, changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    const BYTES: &[u8] = b"{}[]:,\"\\ \n0123456789-+.eEtfnu\0\x80\xc3\xe2\xf0\xffmodel";
    let mut bytes = body.as_bytes().to_vec();
    for (at, how, which) in changes {
        let at = at.index(bytes.len().max(1));
        let byte = BYTES[usize::from(*which) % BYTES.len()];
        match how % 4 {
            0 if at < bytes.len() => drop(bytes.remove(at)),
            1 if at < bytes.len() => bytes[at] = byte,
            2 => bytes.truncate(at),
            _ => bytes.insert(at.min(bytes.len()), byte),
        }
    }
    bytes
}

/// Whether another reader takes the body for one JSON object.
fn is_object(body: &[u8]) -> bool {
    let object = body.trim_ascii_start().first() == Some(&b'{');
    object
        && std::str::from_utf8(body)
            .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn feed(body: &[u8], sizes: &[usize]) -> Result<Facts, Malformed> {
    let mut scanner = Scanner::new();
    let mut rest = body;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (frame, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        scanner.feed(frame)?;
        rest = after;
        assert!(scanner.settled() <= scanner.scanned());
    }
    scanner.finish()?;
    Ok(scanner.facts().clone())
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..40_usize, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_split_gives_one_verdict_and_it_is_that_of_another_reader(
        body in bodies(),
        changes in prop::collection::vec(any::<(prop::sample::Index, u8, u8)>(), 0..4),
        sizes in sizes(),
    ) {
        let bytes = mutate(&body.came, &changes);
        let whole = feed(&bytes, &[usize::MAX]);
        prop_assert_eq!(&whole, &feed(&bytes, &sizes));
        match whole {
            Ok(_) => prop_assert!(is_object(&bytes)),
            Err(Malformed::Syntax | Malformed::Incomplete | Malformed::Utf8) => {
                prop_assert!(!is_object(&bytes));
            }
            // These may stand in a document that another reader takes.
            Err(Malformed::DuplicateKey | Malformed::Depth) => {}
            Err(Malformed::MemberTooLong | Malformed::NumberTooLong) => {
                prop_assert!(false, "no such member was generated");
            }
        }
        if changes.is_empty() {
            prop_assert!(is_object(&bytes));
        }
    }

    #[test]
    fn sends_what_came_but_for_the_edits(
        body in bodies(), size in 1..60_usize, dispatch in any::<prop::sample::Index>(),
    ) {
        let ask = Change { model: "up/1", include_usage: true, ..Change::default() };
        prop_assert_eq!(&edit(&body.came, &ask), &body.sent);
        let late = attempt(body.came.as_bytes(), &ask, size, dispatch.index(body.came.len()));
        prop_assert_eq!(late.verdict, Ok(()));
        let late = String::from_utf8(late.sent).unwrap();
        let (front, back) = late.rsplit_once('}').unwrap();
        let (whole_front, whole_back) = body.sent.rsplit_once('}').unwrap();
        prop_assert_eq!(front.trim_end(), whole_front.trim_end());
        prop_assert_eq!(back, whole_back);
        prop_assert!(is_object(late.as_bytes()));
    }
}
