//! Fuzzes the request scanner and splicer, with raw bytes and with bodies that are nearly sound.
//!
//! Each target runs for a few seconds; `BOLERO_RANDOM_TEST_TIME_MS` sets another time.

use std::path::Path;
use std::time::Duration;

use serde::de::IgnoredAny;
use tokenroute_fuzz::attempt::send;
use tokenroute_fuzz::body;
use tokenroute_fuzz::chance::Chance;
use tokenroute_wire::request::{Change, Malformed, Scanner};

const TIME: Duration = Duration::from_secs(5);

/// Whether another reader takes the body for one JSON object.
fn is_object(body: &[u8]) -> bool {
    let object = body.trim_ascii_start().first() == Some(&b'{');
    let Ok(text) = std::str::from_utf8(body) else { return false };
    object && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Scans a body in one piece.
fn scan(body: &[u8]) -> (Scanner, Result<(), Malformed>) {
    let mut scanner = Scanner::new();
    let verdict = scanner.feed(body).and_then(|()| scanner.finish());
    (scanner, verdict)
}

/// What must hold for any bytes, however they are split and whenever they are sent on.
fn check(body: &[u8], seed: u64) {
    let (whole, verdict) = scan(body);
    let change =
        Change { model: "up\"stream/\u{e9}\n", include_usage: seed & 1 == 0, ..Change::default() };
    let attempt = send(body, &change, &mut Chance::new(seed));
    assert_eq!(verdict.is_ok(), attempt.verdict.is_ok());
    match verdict {
        Ok(()) => {
            assert!(is_object(body));
            assert_eq!(whole.facts(), attempt.scanner.facts());
            assert_eq!(attempt.offset, length(body));
            let grown = length(body).checked_add_signed(attempt.growth);
            assert_eq!(Some(length(&attempt.sent)), grown);
            assert!(is_object(&attempt.sent));
            let (sent, verdict) = scan(&attempt.sent);
            if verdict == Err(Malformed::MemberTooLong) {
                // What is added can make a member longer than a client's may be.
                return;
            }
            assert_eq!(verdict, Ok(()), "what is sent is not sound");
            let model = sent.facts().model.as_ref().map(|model| model.text());
            assert_eq!(model, whole.facts().model.is_some().then_some(Some(change.model)));
            assert_eq!(sent.facts().stream, whole.facts().stream);
            assert_eq!(sent.facts().max_tokens, whole.facts().max_tokens);
        }
        Err(malformed) => {
            let settled = attempt.scanner.settled();
            assert!(attempt.offset <= settled && settled <= length(body));
            assert!(attempt.offset < length(body) || malformed == Malformed::Incomplete);
            match malformed {
                Malformed::Syntax | Malformed::Incomplete | Malformed::Utf8 => {
                    assert!(!is_object(body), "{malformed}");
                }
                Malformed::Depth
                | Malformed::DuplicateKey
                | Malformed::MemberTooLong
                | Malformed::NumberTooLong => {}
            }
        }
    }
}

#[test]
fn bytes() {
    bolero::check!().with_test_time(TIME).for_each(|bytes: &[u8]| {
        let (seed, body) = bytes.split_at(bytes.len().min(8));
        let seed = seed.iter().fold(0, |seed, byte| (seed << 8) | u64::from(*byte));
        check(body, seed);
        check(&[br#"{"model":"m",""#, body].concat(), seed);
    });
}

#[test]
fn bodies() {
    bolero::check!().with_test_time(TIME).with_type::<u64>().for_each(|seed| {
        let mut chance = Chance::new(*seed);
        let body = body::write(&mut chance);
        check(&body, chance.draw());
    });
}

#[test]
fn corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/request");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let body = std::fs::read(entry.unwrap().path()).unwrap();
        for seed in 0..200 {
            check(&body, seed);
        }
        count += 1;
    }
    assert!(count >= 10, "the corpus is gone");
}
