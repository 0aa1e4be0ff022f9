//! Behaviour of the scanner and the splicer together: the harness, and what the scanner tells.

mod prefilling;
mod property;
mod splicing;

use bytes::Bytes;
use tokenroute_domain::money::ServiceTier;

use super::*;

/// Scans a body in portions of `size` bytes.
fn scan(body: &[u8], size: usize) -> Result<Scanner, Malformed> {
    let mut scanner = Scanner::new();
    for frame in body.chunks(size) {
        scanner.feed(frame)?;
    }
    scanner.finish()?;
    Ok(scanner)
}

/// The verdict on a body, which must not depend on how it is split.
#[track_caller]
fn verdict(body: &[u8]) -> Option<Malformed> {
    let whole = scan(body, usize::MAX);
    for size in 1..=7 {
        match (&whole, scan(body, size)) {
            (Ok(whole), Ok(split)) => assert_eq!(whole.facts(), split.facts()),
            (whole, split) => assert_eq!(whole.as_ref().err().copied(), split.err()),
        }
    }
    whole.err()
}

#[track_caller]
fn facts(body: &str) -> Facts {
    assert_eq!(verdict(body.as_bytes()), None, "{body}");
    scan(body.as_bytes(), usize::MAX).unwrap().facts().clone()
}

/// One attempt at a body that arrives in portions of `size` bytes and is sent on once the model is
/// known and `dispatch` bytes are there.
struct Attempt {
    sent: Vec<u8>,
    /// How far the body had been sent when its end or its fault came.
    offset: u64,
    verdict: Result<(), Malformed>,
}

fn attempt(body: &[u8], change: &Change<'_>, size: usize, dispatch: usize) -> Attempt {
    let mut scanner = Scanner::new();
    let mut frames = Frames::new();
    let mut splicer: Option<Splicer> = None;
    let mut out = Vec::new();
    let mut verdict = Ok(());
    for chunk in body.chunks(size) {
        verdict = scanner.feed(chunk);
        frames.push(Bytes::copy_from_slice(chunk));
        if scanner.facts().model.is_some() && frames.end() >= dispatch.try_into().unwrap() {
            let splicer = splicer.get_or_insert_with(|| Splicer::new(change, &scanner));
            splicer.advance(&scanner, &frames, &mut out);
            assert!(splicer.offset() <= scanner.settled());
        }
        if verdict.is_err() {
            break;
        }
    }
    let offset = splicer.as_ref().map_or(0, Splicer::offset);
    let verdict = verdict.and_then(|()| scanner.finish());
    if verdict.is_ok() {
        let mut splicer = splicer.unwrap_or_else(|| Splicer::new(change, &scanner));
        splicer.advance(&scanner, &frames, &mut out);
        assert!(splicer.finished(&scanner));
        let grown = i64::try_from(body.len()).unwrap() + splicer.growth();
        assert_eq!(grown, i64::try_from(out.concat().len()).unwrap(), "the length is not exact");
    }
    Attempt { sent: out.concat(), offset, verdict }
}

/// What a whole body becomes.
#[track_caller]
fn edit(body: &str, change: &Change<'_>) -> String {
    let attempt = attempt(body.as_bytes(), change, usize::MAX, usize::MAX);
    assert_eq!(attempt.verdict, Ok(()), "{body}");
    String::from_utf8(attempt.sent).unwrap()
}

#[test]
fn tells_the_routed_members() {
    let facts = facts(
        r#" {"messages":[{"model":"x","n":7}],"\u006dodel":"a\/\u002d\ud83d\ude00é","stream":true,
            "n":2,"max_tokens":null,"best_of":-1,"max_completion_tokens":18446744073709551616,
            "stream_options":{"x":[],"include_usage":false}} "#,
    );
    assert_eq!(facts.model.unwrap().text(), Some("a/-\u{1f600}é"));
    assert_eq!(facts.stream, Some(Flag::True));
    assert_eq!(facts.n, Some(Number::Integer(2)));
    assert_eq!(facts.max_tokens, Some(Number::Null));
    assert_eq!(facts.best_of, Some(Number::Other));
    assert_eq!(facts.max_completion_tokens, Some(Number::Other));
    let options = facts.stream_options.unwrap().options;
    let Options::Object { empty: false, include_usage: Some((Flag::False, _)) } = options else {
        panic!("{options:?}");
    };
}

#[test]
fn tells_where_values_stand() {
    let body = r#" { "stream_options" : { "include_usage" : null } , "model" : "mé" } "#;
    let facts = facts(body);
    let text = |span: Span| {
        let (start, end) = (span.start.try_into().unwrap(), span.end.try_into().unwrap());
        body.get::<std::ops::Range<usize>>(start..end).unwrap()
    };
    assert_eq!(text(facts.model.unwrap().span), r#""mé""#);
    let options = facts.stream_options.unwrap();
    assert_eq!(text(options.span), r#"{ "include_usage" : null }"#);
    let Options::Object { include_usage: Some((Flag::Null, span)), .. } = options.options else {
        panic!("{options:?}");
    };
    assert_eq!(text(span), "null");
    assert_eq!(facts.open, Some(2));
    assert_eq!(facts.close, Some(u64::try_from(body.len() - 2).unwrap()));
    assert!(!facts.empty);
}

#[test]
fn is_not_fooled_by_decoys() {
    for body in [
        r#"{"messages":[{"model":"x"}]}"#,
        r#"{"a":{"model":"x","model":"y"}}"#,
        r#"{"a":"\"model\":\"x\""}"#,
        r#"{"a":"{\\","b":"\"model\":"}"#,
        r#"{"models":"x","mode":"x","model ":"x","":"x","model\u0000":"x"}"#,
        r#"{"a":["model","x"]}"#,
        r#"{"stream_options":{"model":"x","a":{"include_usage":true}}}"#,
    ] {
        let facts = facts(body);
        assert_eq!(facts.model, None, "{body}");
        if let Some(options) = facts.stream_options {
            assert_eq!(
                options.options,
                Options::Object { empty: false, include_usage: None },
                "{body}"
            );
        }
    }
}

#[test]
fn names_that_are_no_text_are_in_no_table() {
    let name = |value: &str| facts(&format!("{{\"model\":{value}}}")).model.unwrap().name;
    for value in [r#""\ud800""#, r#""a\udc00b""#, r#""\ud800\u0041""#, r#""\ud83d\ud83d""#] {
        assert_eq!(name(value), Name::Unpaired, "{value}");
    }
    for value in ["null", "true", "1", "[\"m\"]", "{\"model\":\"m\"}"] {
        assert_eq!(name(value), Name::NotText, "{value}");
    }
    assert_eq!(name(r#""""#), Name::Text(String::new()));
    assert_eq!(name(r#""\"\\\/\b\f\n\r\t\u0000""#), Name::Text("\"\\/\u{8}\u{c}\n\r\t\0".into()));
}

#[test]
fn reads_counts_and_flags_as_they_are() {
    let n = |value: &str| facts(&format!("{{\"n\":{value}}}")).n.unwrap();
    for value in ["-0", "-1", "1.0", "1e2", "0.5", "1E+400", "18446744073709551616", "\"1\"", "[]"]
    {
        assert_eq!(n(value), Number::Other, "{value}");
    }
    assert_eq!(n("0"), Number::Integer(0));
    assert_eq!(n("18446744073709551615"), Number::Integer(u64::MAX));
    let stream = |value: &str| facts(&format!("{{\"stream\":{value}}}")).stream.unwrap();
    assert_eq!(stream("true"), Flag::True);
    assert_eq!(stream("false"), Flag::False);
    assert_eq!(stream("null"), Flag::Null);
    assert_eq!(stream("\"true\""), Flag::Other);
    assert_eq!(stream("1"), Flag::Other);
    let options = |value: &str| {
        facts(&format!("{{\"stream_options\":{value}}}")).stream_options.unwrap().options
    };
    assert_eq!(options(" null "), Options::Null);
    assert_eq!(options("{ }"), Options::Object { empty: true, include_usage: None });
    assert_eq!(options("[{}]"), Options::Other);
}

#[test]
fn refuses_what_is_not_one_object() {
    for body in [
        "[]",
        "1",
        "\"a\"",
        "null",
        "}",
        "{}}",
        "{}{}",
        "{},",
        "{} x",
        "\u{feff}{}",
        "{]",
        "[}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        "{,}",
        r#"{"a" 1}"#,
        r#"{"a":[1,]}"#,
        r#"{"a":[,1]}"#,
        r#"{"a":[1 2]}"#,
        r#"{"a":1 "b":2}"#,
        "{a:1}",
        "{'a':1}",
        r#"{"a":[1}}"#,
        r#"{"a":{"b":1]}"#,
        r#"{"a":NaN}"#,
        r#"{"a":Infinity}"#,
        r#"{"a":-Infinity}"#,
        r#"{"a":nul}"#,
        r#"{"a":True}"#,
        r#"{"a":truex}"#,
        r#"{"a":nulll}"#,
        r#"{"a":01}"#,
        r#"{"a":1.}"#,
        r#"{"a":.5}"#,
        r#"{"a":+1}"#,
        r#"{"a":-}"#,
        r#"{"a":1e}"#,
        r#"{"a":1e+}"#,
        r#"{"a":--1}"#,
        r#"{"a":0x1}"#,
        r#"{"a":1_0}"#,
        r#"{"a":-01}"#,
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12"}"#,
        r#"{"a":"\u12g4"}"#,
        r#"{"a":"\U0041"}"#,
        "{\"a\":\"\n\"}",
        "{\"a\":\"\0\"}",
        "{\"a\n\":1}",
        "{\"a\":1}\0",
        "{\u{a0}}",
        "{\u{c}}",
        "{\"a\":1}//",
        "/**/{}",
        "{\"é\":é}",
    ] {
        assert_eq!(verdict(body.as_bytes()), Some(Malformed::Syntax), "{body}");
    }
    for body in ["", " ", "{", r#"{"a"#, r#"{"a":"\u12"#, r#"{"a":tr"#, r#"{"a":1"#, r#"{"a":[1"#] {
        assert_eq!(verdict(body.as_bytes()), Some(Malformed::Incomplete), "{body}");
    }
}

#[test]
fn finds_what_is_special_wherever_it_stands() {
    let places = (0..20).chain(60..70).chain(76..84).chain(140..150);
    for (place, byte) in places.flat_map(|place| (0..0x80_u8).map(move |byte| (place, byte))) {
        for after in [1, 7, 90] {
            let text =
                ["x".repeat(place).as_bytes(), &[byte], "y".repeat(after).as_bytes()].concat();
            let body = [b"{\"model\":\"", text.as_slice(), b"\"}"].concat();
            let scanned = scan(&body, usize::MAX);
            if byte < 0x20 || byte == b'"' || byte == b'\\' {
                assert!(scanned.is_err(), "{byte:#x} at {place} before {after}");
            } else {
                let model = scanned.unwrap().facts().model.clone().unwrap();
                assert_eq!(model.text().map(str::as_bytes), Some(text.as_slice()));
            }
        }
    }
}

#[test]
fn refuses_what_is_not_utf8() {
    for inside in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x28\xa1",
        b"\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xf8\x88\x80\x80\x80",
    ] {
        let body = [br#"{"a":""#, inside, br#""}"#].concat();
        assert_eq!(verdict(&body), Some(Malformed::Utf8), "{inside:x?}");
        let cut = [br#"{"a":""#, inside].concat();
        assert_eq!(verdict(&cut), Some(Malformed::Utf8), "{inside:x?}");
    }
    assert_eq!(verdict("{\"a\":\"é\u{20ac}\u{1f600}\u{10ffff}\u{7f}\"}".as_bytes()), None);
}

#[test]
fn refuses_a_routed_key_twice_in_any_spelling_or_case() {
    for key in [
        "model",
        "stream",
        "stream_options",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "best_of",
    ] {
        let escaped: String =
            key.bytes().fold(String::new(), |text, byte| format!("{text}\\u{byte:04X}"));
        for second in [key, &escaped] {
            let body = format!("{{\"{key}\":null,\"a\":\"b\",\"{second}\":null}}");
            assert_eq!(verdict(body.as_bytes()), Some(Malformed::DuplicateKey), "{body}");
        }
        let body = format!("{{\"{escaped}\":null}}");
        assert_eq!(verdict(body.as_bytes()), None, "{body}");
        let body = format!("{{\"{}\":null}}", key.to_uppercase());
        assert_eq!(verdict(body.as_bytes()), Some(Malformed::DuplicateKey), "{body}");
    }
    for body in [
        "{\"\u{17f}tream\":true}",
        r#"{"\u017ftream_option\u017F":{}}"#,
        "{\"max_to\u{212a}ens\":1}",
        r#"{"stream_options":{"include_usage":true,"include_usage":true}}"#,
        r#"{"stream_options":{"Include_Usage":true}}"#,
        r#"{"stream_options":{"include_u\u017fage":true}}"#,
    ] {
        assert_eq!(verdict(body.as_bytes()), Some(Malformed::DuplicateKey), "{body}");
    }
    for body in [
        r#"{"a":1,"a":2,"A":3}"#,
        r#"{"include_usage":1,"include_usage":2}"#,
        r#"{"tools":1,"tools":2,"Tools":3,"prompt":1,"prompt":2,"INPUT":3,"input":4}"#,
        r#"{"stream_options":[{"include_usage":1,"Include_usage":2}]}"#,
        r#"{"mod\ud800":1,"model\ud800":1,"\u212A":1}"#,
        "{\"ｍodel\":1,\"m\u{f6}del\":1}",
    ] {
        assert_eq!(verdict(body.as_bytes()), None, "{body}");
    }
}

#[test]
fn bounds_depth() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!("{{\"a\":{open}{close}}}")
    };
    assert_eq!(verdict(nested(64).as_bytes()), None);
    assert_eq!(verdict(nested(65).as_bytes()), Some(Malformed::Depth));
    for depth in [100_000, 5_000_000] {
        assert_eq!(scan(nested(depth).as_bytes(), 4096).err(), Some(Malformed::Depth));
        let objects = "{\"a\":".repeat(depth);
        assert_eq!(scan(objects.as_bytes(), 4096).err(), Some(Malformed::Depth));
    }
    let mixed = format!("{}{}", "{\"a\":[".repeat(32), "]}".repeat(32));
    assert_eq!(verdict(mixed.as_bytes()), None);
}

#[test]
fn bounds_members_and_numbers() {
    let model = |len: usize| format!("{{\"model\":\"{}\",\"n\":1}}", "m".repeat(len));
    let bound = usize::try_from(MODEL_BYTES_MAX).unwrap();
    assert_eq!(facts(&model(bound - 2)).model.unwrap().text().unwrap().len(), bound - 2);
    assert_eq!(verdict(model(bound - 1).as_bytes()), Some(Malformed::MemberTooLong));
    let list = |len: usize| format!("{{\"stream_options\":[{}]}}", " ".repeat(len));
    let bound = usize::try_from(STREAM_OPTIONS_BYTES_MAX).unwrap();
    assert_eq!(verdict(list(bound - 2).as_bytes()), None);
    assert_eq!(verdict(list(bound - 1).as_bytes()), Some(Malformed::MemberTooLong));
    let long_key = format!("{{\"{}\":\"{}\"}}", "model".repeat(2000), "m".repeat(9000));
    assert_eq!(verdict(long_key.as_bytes()), None);
    let integer = |sign: &str, digits: usize| format!("{{\"a\":{sign}{}}}", "1".repeat(digits));
    for sign in ["", "-"] {
        assert_eq!(verdict(integer(sign, 4300).as_bytes()), None);
        assert_eq!(verdict(integer(sign, 4301).as_bytes()), Some(Malformed::NumberTooLong));
    }
    let real = format!("{{\"a\":{0}.{0}e{0}}}", "1".repeat(4301));
    assert_eq!(verdict(real.as_bytes()), None);
}

#[test]
fn an_open_member_that_is_too_long_is_refused_before_it_ends() {
    let mut scanner = Scanner::new();
    let start = format!("{{\"model\":\"{}", "m".repeat(5000));
    assert_eq!(scanner.feed(start.as_bytes()), Err(Malformed::MemberTooLong));
    assert_eq!(scanner.settled(), 0);
}

#[test]
fn a_failure_stays() {
    let mut scanner = Scanner::new();
    scanner.feed(b"{\"a\":").unwrap();
    assert_eq!(scanner.settled(), 5);
    assert_eq!(scanner.feed(b"1]"), Err(Malformed::Syntax));
    assert_eq!(scanner.feed(b"}"), Err(Malformed::Syntax));
    assert_eq!(scanner.finish(), Err(Malformed::Syntax));
    assert_eq!(scanner.settled(), 5);
    let mut scanner = scan(b"{}", 1).unwrap();
    assert_eq!(scanner.feed(b""), Ok(()));
    assert_eq!(scanner.feed(b" "), Err(Malformed::Syntax));
}

#[test]
fn settles_all_but_what_may_change() {
    let mut scanner = Scanner::new();
    let mut settled = |portion: &str| {
        scanner.feed(portion.as_bytes()).unwrap();
        scanner.settled()
    };
    assert_eq!(settled(r#"{"model": "#), 10);
    assert_eq!(settled(r#""m"#), 10);
    assert_eq!(settled(r#"odel""#), 17);
    assert_eq!(settled(r#","stream_options":{"a":"#), 35);
    assert_eq!(settled("1} "), 43);
    assert_eq!(settled(",\"a\":\"b"), 50);
    assert_eq!(settled("\"}"), 51);
    assert_eq!(settled(" \n"), 51);
    scanner.finish().unwrap();
    assert_eq!(scanner.settled(), 54);
    let mut scanner = Scanner::new();
    scanner.feed(b"{\"a\":\"\xe2\x82").unwrap();
    assert_eq!(scanner.settled(), 6);
    assert_eq!(scanner.scanned(), 8);
}

#[test]
fn long_white_space_at_the_end_is_let_through() {
    let mut scanner = Scanner::new();
    scanner.feed(b"{}").unwrap();
    let space = vec![b' '; usize::try_from(TRAILING_BYTES_MAX).unwrap() - 1];
    scanner.feed(&space).unwrap();
    assert_eq!(scanner.settled(), 1);
    scanner.feed(b"  ").unwrap();
    assert_eq!(scanner.settled(), scanner.scanned());
}

#[test]
fn tells_the_service_tier() {
    let tier = |body: &str| facts(body).service_tier;
    assert_eq!(tier(r#"{"model":"m"}"#), None);
    for (value, expected) in [
        (r#""auto""#, ServiceTier::Auto),
        ("null", ServiceTier::Auto),
        (r#""default""#, ServiceTier::Default),
        (r#""fl\u0065x""#, ServiceTier::Flex),
        (r#""priority""#, ServiceTier::Priority),
        (r#""scale""#, ServiceTier::Scale),
        (r#""Flex""#, ServiceTier::Other),
        (r#""priority ""#, ServiceTier::Other),
        (r#""\ud800""#, ServiceTier::Other),
        ("1", ServiceTier::Other),
        (r#"["flex"]"#, ServiceTier::Other),
    ] {
        assert_eq!(tier(&format!(r#"{{"service_tier":{value}}}"#)), Some(expected), "{value}");
    }
    let decoy = r#"{"messages":[{"service_tier":"flex"}],"x":{"service_tier":"flex"}}"#;
    assert_eq!(tier(decoy), None);
    for twice in [
        r#"{"service_tier":"flex","service_tier":"priority"}"#,
        r#"{"service_tier":"flex","Service_Tier":"priority"}"#,
    ] {
        assert_eq!(verdict(twice.as_bytes()), Some(Malformed::DuplicateKey), "{twice}");
    }
    let long = format!(r#"{{"service_tier":"flex{}"}}"#, "x".repeat(10_000));
    assert_eq!(tier(&long), Some(ServiceTier::Other));
}

#[test]
fn counts_prompts_but_not_the_tokens_of_one() {
    for (prompt, expected) in [
        (r#""a""#, 0),
        (r#"["a","b"]"#, 2),
        ("[1,2,3]", 0),
        ("[[1,2],[3],[]]", 3),
        ("[]", 0),
        ("null", 0),
    ] {
        assert_eq!(facts(&format!(r#"{{"prompt":{prompt}}}"#)).prompts, expected, "{prompt}");
    }
    // Either of two may be the one that counts.
    assert_eq!(facts(r#"{"prompt":["a"],"prompt":["b","c"]}"#).prompts, 3);
    assert_eq!(facts(r#"{"input":["a","b"],"messages":["c"]}"#).prompts, 0);
}

#[test]
fn counts_what_bytes_do_not_bound() {
    let parts = |parts: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":[{parts}]}}],"model":"m"}}"#);
        let facts = facts(&body);
        (facts.images, facts.files)
    };
    assert_eq!(parts(r#"{"type":"text","text":"image_url"}"#), (0, 0));
    let image = r#"{"type":"image_url","image_url":{"url":"https://h/i"}}"#;
    assert_eq!(parts(image), (1, 0));
    assert_eq!(parts(&[image; 3].join(",")), (3, 0));
    assert_eq!(parts(&image.replace("\"image_url\":", r#""im\u0061ge_url":"#)), (1, 0));
    assert_eq!(parts(&image.replace("\"image_url\":", r#""\u0069mage_URL":"#)), (1, 0));
    assert_eq!(parts(r#"{"type":"file","file":{"file_id":"f"}}"#), (0, 1));
    assert_eq!(parts(r#"{"video_url":{}},{"video":{}},{"audio_url":{}}"#), (0, 3));
    assert_eq!(
        parts(r#"{"type":"input_audio","input_audio":{"data":"AA","format":"wav"}}"#),
        (0, 0)
    );
    let elsewhere =
        r#"{"image_url":1,"tools":[{"function":{"parameters":{"image_url":1,"file":2}}}]}"#;
    assert_eq!((facts(elsewhere).images, facts(elsewhere).files), (0, 0));
}
