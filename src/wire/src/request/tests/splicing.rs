//! What the splicer sends, and when.

use super::*;

const ASK: Change<'_> = Change {
    model: "up/1",
    include_usage: true,
    prefill: None,
    output_tokens_max: None,
    output_cap: None,
};

/// Each body, and what it becomes if usage is to be asked for.
const BODIES: &[(&str, &str)] = &[
    (r#"{"model":"m"}"#, r#"{"model":"up/1"}"#),
    (r#"{"model":7,"a":1}"#, r#"{"model":"up/1","a":1}"#),
    (
        r#" {"stream":true , "model" : "m" } "#,
        r#" {"stream":true , "model" : "up/1" ,"stream_options":{"include_usage":true}} "#,
    ),
    (
        r#"{"model":"m","stream":true,"stream_options":{},"z":1}"#,
        r#"{"model":"up/1","stream":true,"stream_options":{"include_usage":true},"z":1}"#,
    ),
    (
        r#"{"stream_options": { } ,"model":"m","z":[{}],"stream":true}"#,
        r#"{"stream_options": {"include_usage":true } ,"model":"up/1","z":[{}],"stream":true}"#,
    ),
    (
        r#"{"model":"m","stream_options":null,"z":"a","stream":true}"#,
        r#"{"model":"up/1","stream_options":{"include_usage":true},"z":"a","stream":true}"#,
    ),
    (
        r#"{"model":"m","stream":true,"stream_options":{ "a":[1] }}"#,
        r#"{"model":"up/1","stream":true,"stream_options":{"include_usage":true, "a":[1] }}"#,
    ),
    (
        r#"{"stream_options":{"a":{"include_usage":false},"include_usage": false },"model":"\u006d","stream":true}"#,
        r#"{"stream_options":{"a":{"include_usage":false},"include_usage": true },"model":"up/1","stream":true}"#,
    ),
    (
        r#"{"stream":true,"model":"m","stream_options":{"include_usage":null}}"#,
        r#"{"stream":true,"model":"up/1","stream_options":{"include_usage":true}}"#,
    ),
];

/// Bodies of which nothing but the model changes, though usage is to be asked for.
const UNASKED: &[&str] = &[
    r#"{"model":"m","stream":false,"stream_options":null}"#,
    r#"{"model":"m","stream_options":{"include_usage":false},"stream":false}"#,
    r#"{"stream_options":{},"model":"m","a":"b"}"#,
    r#"{"model":"m","stream":"true","stream_options":{}}"#,
    r#"{"model":"m","stream":null}"#,
    r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
    r#"{"model":"m","stream":true,"stream_options":{"include_usage":"yes"}}"#,
    r#"{"model":"m","stream":true,"stream_options":[]}"#,
    r#"{"model":"m","stream":true,"stream_options":{"include_usage":0}}"#,
];

#[test]
fn edits_a_whole_body() {
    for (body, edited) in BODIES {
        assert_eq!(edit(body, &ASK), *edited);
    }
    for body in UNASKED {
        assert_eq!(edit(body, &ASK), body.replace("\"m\"", "\"up/1\""));
    }
    let (body, change) = (BODIES[2].0, Change { include_usage: false, ..ASK });
    assert_eq!(edit(body, &change), r#" {"stream":true , "model" : "up/1" } "#);
    assert_eq!(edit("{}", &ASK), "{}");
}

#[test]
fn a_late_body_differs_by_spaces_before_its_end_only() {
    let unasked = UNASKED.iter().map(|body| (*body, body.replace("\"m\"", "\"up/1\"")));
    let asked = BODIES.iter().map(|(body, edited)| (*body, (*edited).to_owned()));
    for (body, edited) in asked.chain(unasked) {
        for size in [1, 2, 3, 7, 64] {
            for dispatch in 0..=body.len() {
                let late = attempt(body.as_bytes(), &ASK, size, dispatch);
                let late = String::from_utf8(late.sent).unwrap();
                let (front, back) = late.rsplit_once('}').unwrap();
                let (whole_front, whole_back) = edited.rsplit_once('}').unwrap();
                assert_eq!(back, whole_back);
                assert_eq!(front.trim_end(), whole_front.trim_end(), "at {dispatch} by {size}");
            }
        }
    }
}

#[test]
fn reserves_nothing_once_the_change_is_known() {
    for (start, growth) in [
        (r#"{"model":"m","stream":false,"#, 3),
        (r#"{"model":"m","stream":true,"stream_options":null,"#, 3 + 18),
        (r#"{"model":"m","stream_options":{"include_usage":true},"#, 3),
        (r#"{"model":"m","stream":true,"stream_options":{"include_usage":false},"#, 3 - 1),
        (r#"{"model":"m","stream":true,"#, 3 + 40),
        (r#"{"model":"m","#, 3 + 40),
    ] {
        let mut scanner = Scanner::new();
        scanner.feed(start.as_bytes()).unwrap();
        assert_eq!(Splicer::new(&ASK, &scanner).growth(), growth, "{start}");
        let change = Change { include_usage: false, ..ASK };
        assert_eq!(Splicer::new(&change, &scanner).growth(), 3, "{start}");
    }
}

#[test]
fn a_model_is_written_as_a_string() {
    let model = "a\"b\\c\n\u{1}\u{1f}\u{7f}é\u{1f600}";
    let edited = edit(r#"{"model":"m"}"#, &Change { model, ..Change::default() });
    assert_eq!(facts(&edited).model.unwrap().text(), Some(model));
    let value: serde_json::Value = serde_json::from_str(&edited).unwrap();
    assert_eq!(value["model"], model);
}

#[test]
fn the_end_of_a_faulty_body_is_never_sent() {
    for body in [
        r#"{"model":"m","a":[1,2],"model":"n"}"#,
        r#"{"model":"m","a":[1,2],"\u006dodel":"n"}"#,
        r#"{"model":"m","a":[1,2],"Stream":true}"#,
        r#"{"model":"m","a":[1,2]]"#,
        r#"{"model":"m","a":[1,2],}"#,
        r#"{"model":"m","a":[1,2]} x"#,
        r#"{"model":"m","a":[1,2]}{}"#,
        "{\"model\":\"m\",\"a\":[1,2]}\u{feff}",
        r#"{"model":"m","a":[1,2]"#,
    ] {
        for size in 1..=body.len() {
            let attempt = attempt(body.as_bytes(), &ASK, size, 0);
            assert!(attempt.verdict.is_err(), "{body}");
            let sent = String::from_utf8(attempt.sent).unwrap();
            assert!(!sent.contains('}'), "{sent}");
            assert!(attempt.offset < u64::try_from(body.len()).unwrap() || !body.contains('}'));
        }
    }
}

#[test]
fn sends_slices_of_the_frames() {
    let frames: Vec<Bytes> = [r#"{"a":"bc"#, r#"d","model":"m","e":"f"#, r#"g"}"#]
        .iter()
        .map(|frame| Bytes::copy_from_slice(frame.as_bytes()))
        .collect();
    let (mut scanner, mut kept, mut out) = (Scanner::new(), Frames::new(), Vec::new());
    for frame in &frames {
        scanner.feed(frame).unwrap();
        kept.push(frame.clone());
    }
    scanner.finish().unwrap();
    Splicer::new(&ASK, &scanner).advance(&scanner, &kept, &mut out);
    let within =
        |piece: &Bytes| frames.iter().any(|frame| frame.as_ptr_range().contains(&piece.as_ptr()));
    let copied: Vec<&Bytes> = out.iter().filter(|piece| !within(piece)).collect();
    assert_eq!(copied, ["\"up/1\""]);
    assert_eq!(out.len(), 5);
}

/// Sends a large body from its first frame on, giving up what was sent. Returns what was sent and
/// the most bytes that were kept at a time.
fn stream(body: &[u8]) -> (Vec<u8>, u64) {
    let (mut scanner, mut frames, mut out) = (Scanner::new(), Frames::new(), Vec::new());
    let mut splicer: Option<Splicer> = None;
    let mut kept_max = 0;
    for chunk in body.chunks(64 * 1024) {
        scanner.feed(chunk).unwrap();
        frames.push(Bytes::copy_from_slice(chunk));
        let splicer = splicer.get_or_insert_with(|| Splicer::new(&ASK, &scanner));
        splicer.advance(&scanner, &frames, &mut out);
        frames.release_before(splicer.offset());
        kept_max = kept_max.max(frames.len_bytes());
    }
    scanner.finish().unwrap();
    let mut splicer = splicer.unwrap();
    splicer.advance(&scanner, &frames, &mut out);
    let sent = out.concat();
    assert!(splicer.finished(&scanner));
    let grown = i64::try_from(body.len()).unwrap() + splicer.growth();
    assert_eq!(i64::try_from(sent.len()).unwrap(), grown);
    // What was given up cannot be sent again.
    let mut again = Vec::new();
    Splicer::new(&ASK, &scanner).advance(&scanner, &frames, &mut again);
    assert!(!frames.whole() && again.is_empty());
    (sent, kept_max)
}

#[test]
fn options_ahead_of_stream_are_held_back_within_a_bound() {
    let body = |first: &str, len: usize| {
        let prompt = "x".repeat(len);
        format!(r#"{{"model":"m",{first}"prompt":"{prompt}","stream":true}}"#).into_bytes()
    };
    let usage = |sent: &[u8]| {
        let facts = facts(std::str::from_utf8(sent).unwrap());
        facts.stream_options.unwrap().options
    };
    let held = usize::try_from(HELD_BYTES_MAX).unwrap();
    let (sent, kept) = stream(&body("", held));
    assert!(matches!(usage(&sent), Options::Object { include_usage: Some((Flag::True, _)), .. }));
    assert!(kept < 128 * 1024, "{kept}");
    let (sent, kept) = stream(&body(r#""stream_options":null,"#, held - 100));
    assert!(matches!(usage(&sent), Options::Object { include_usage: Some((Flag::True, _)), .. }));
    assert!(kept > HELD_BYTES_MAX - 128 * 1024, "{kept}");
    let (sent, kept) = stream(&body(r#""stream_options":null,"#, held + 200_000));
    assert_eq!(usage(&sent), Options::Null);
    assert!(kept <= HELD_BYTES_MAX + 128 * 1024, "{kept}");
}

#[test]
fn sends_nothing_if_it_began_before_the_model_was_known() {
    let (mut scanner, mut frames, mut out) = (Scanner::new(), Frames::new(), Vec::new());
    let mut splicer = Splicer::new(&ASK, &scanner);
    let body = br#"{"model":"m"}"#;
    scanner.feed(body).unwrap();
    frames.push(Bytes::from_static(body));
    scanner.finish().unwrap();
    splicer.advance(&scanner, &frames, &mut out);
    assert!(out.is_empty() && !splicer.finished(&scanner));
}

#[test]
fn sends_nothing_more_of_a_body_that_has_failed() {
    let (mut scanner, mut frames, mut out) = (Scanner::new(), Frames::new(), Vec::new());
    for (frame, sound) in [(r#"{"model":"m","a":"#, true), ("1]", false)] {
        assert_eq!(scanner.feed(frame.as_bytes()).is_ok(), sound);
        frames.push(Bytes::from_static(frame.as_bytes()));
    }
    let mut splicer = Splicer::new(&ASK, &scanner);
    splicer.advance(&scanner, &frames, &mut out);
    assert!(out.is_empty() && splicer.offset() == 0);
}
