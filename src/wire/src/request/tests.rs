//! Behaviour of the scanner and the splicer together.

use bytes::Bytes;

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

/// The facts of a body, the same for one piece and byte by byte.
#[track_caller]
fn facts(body: &str) -> Facts {
    let whole = scan(body.as_bytes(), usize::MAX).unwrap();
    let single = scan(body.as_bytes(), 1).unwrap();
    assert_eq!(whole.facts(), single.facts());
    whole.facts().clone()
}

/// What `change` makes of a body that arrives in portions of `size` bytes and is sent on once the
/// model is known and `dispatch` bytes are there.
fn edit(body: &[u8], change: &Change<'_>, size: usize, dispatch: u64) -> Vec<u8> {
    let mut scanner = Scanner::new();
    let mut frames = Frames::new();
    let mut splicer = None;
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        scanner.feed(chunk).unwrap();
        frames.push(Bytes::copy_from_slice(chunk));
        if scanner.facts().model.is_some() && scanner.scanned() >= dispatch {
            let splicer = splicer.get_or_insert_with(|| Splicer::new(change, &scanner));
            splicer.advance(&scanner, &frames, &mut out);
        }
    }
    scanner.finish().unwrap();
    let mut splicer = splicer.unwrap_or_else(|| Splicer::new(change, &scanner));
    splicer.advance(&scanner, &frames, &mut out);
    assert!(splicer.finished(&scanner));
    let edited = out.concat();
    let expected = i64::try_from(body.len()).unwrap() + splicer.growth();
    assert_eq!(i64::try_from(edited.len()).unwrap(), expected);
    edited
}

#[test]
fn tells_the_routed_members() {
    let facts = facts(
        r#" {"messages":[{"model":"x"}],"\u006dodel":"a\u002f\ud83d\ude00","stream":true,"n":2,
            "max_tokens":null,"best_of":-1,"stream_options":{"include_usage":false}} "#,
    );
    assert_eq!(facts.model.unwrap().text(), Some("a/\u{1f600}"));
    assert_eq!(facts.stream, Some(Flag::True));
    assert_eq!(facts.n, Some(Number::Integer(2)));
    assert_eq!(facts.max_tokens, Some(Number::Null));
    assert_eq!(facts.best_of, Some(Number::Other));
    let options = facts.stream_options.unwrap().options;
    let Options::Object { empty: false, include_usage: Some((Flag::False, _)) } = options else {
        panic!("{options:?}");
    };
}

#[test]
fn edits_whole_and_late_bodies() {
    let change = Change { model: "up", include_usage: true };
    let body = br#"{"model":"m","stream":true,"messages":[]} "#;
    let whole = edit(body, &change, usize::MAX, u64::MAX);
    assert_eq!(
        whole,
        br#"{"model":"up","stream":true,"messages":[],"stream_options":{"include_usage":true}} "#
    );
    assert_eq!(edit(body, &change, 1, 0), whole);
    let plain = br#"{"model":"m"}"#;
    assert_eq!(edit(plain, &change, usize::MAX, u64::MAX), br#"{"model":"up"}"#);
    let late = edit(plain, &change, 1, 0);
    assert_eq!(late.trim_ascii_end().last(), Some(&b'}'));
    assert!(late.starts_with(br#"{"model":"up"  "#));
}
