//! Fuzzes the form of keys: what a client presents is a key of ours, or is refused without a look-up.
//!
//! Each target runs for a few seconds; `BOLERO_RANDOM_TEST_TIME_MS` sets another time.

use std::path::Path;
use std::time::Duration;

use tokenroute_domain::key::{KEY_LEN, PREFIX, RawKey};
use tokenroute_fuzz::chance::Chance;

const TIME: Duration = Duration::from_secs(2);
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Texts that have the form of a key, of which at most one in so many may be taken for one.
const GUESSES: usize = 200_000;
const ACCEPTED_ONE_IN: usize = 10_000;

/// What must hold for any bytes.
fn check(bytes: &[u8]) {
    let Ok(key) = RawKey::parse(bytes) else { return };
    assert_eq!(key.expose().as_bytes(), bytes, "another key than was presented");
    assert_eq!(bytes.len(), KEY_LEN);
    assert!(
        bytes.starts_with(PREFIX.as_bytes())
            && bytes.iter().skip(PREFIX.len()).all(u8::is_ascii_alphanumeric)
    );
    assert!(bytes.starts_with(key.shown().as_bytes()));
    let shown = format!("{key:?}");
    assert!(!shown.contains(key.expose().split_at(PREFIX.len()).1));
}

#[test]
fn bytes() {
    bolero::check!().with_test_time(TIME).for_each(|bytes: &[u8]| {
        check(bytes);
        check(&[PREFIX.as_bytes(), bytes].concat());
    });
}

#[test]
fn keys_and_what_is_nearly_one() {
    type Near = ([u8; 32], usize, u8);
    bolero::check!().with_test_time(TIME).with_type::<Near>().cloned().for_each(
        |(chance, place, byte)| {
            let key = RawKey::new(chance);
            let text = key.expose().as_bytes();
            assert_eq!(RawKey::parse(text).as_ref(), Ok(&key));
            check(text);
            let place = place.checked_rem(KEY_LEN).unwrap_or_default();
            let (before, rest) = text.split_at(place);
            let (own, after) = rest.split_at(1);
            if own != [byte] {
                assert!(
                    RawKey::parse(&[before, &[byte], after].concat()).is_err(),
                    "another character at {place}"
                );
            }
            assert!(
                RawKey::parse(&[before, after].concat()).is_err(),
                "one character less at {place}"
            );
            assert!(
                RawKey::parse(&[before, &[byte], rest].concat()).is_err(),
                "one more at {place}"
            );
            let swapped: Vec<u8> = after.iter().take(1).chain(own).copied().collect();
            if after.first().is_some_and(|next| own != [*next]) {
                let rest = after.split_at(1).1;
                assert!(
                    RawKey::parse(&[before, &swapped, rest].concat()).is_err(),
                    "two swapped at {place}"
                );
            }
        },
    );
}

#[test]
fn guesses_that_look_like_keys_are_refused_without_a_look_up() {
    let mut chance = Chance::new(11);
    let mut accepted = 0;
    for _ in 0..GUESSES {
        let digits = (PREFIX.len()..KEY_LEN).map(|_| chance.pick(DIGITS));
        let guess: Vec<u8> = PREFIX.bytes().chain(digits).collect();
        check(&guess);
        accepted += usize::from(RawKey::parse(&guess).is_ok());
    }
    assert!(accepted * ACCEPTED_ONE_IN <= GUESSES, "{accepted} guesses were taken for keys");
}

#[test]
fn corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/key");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read(entry.unwrap().path()).unwrap();
        check(&text);
        assert!(RawKey::parse(&text).is_err(), "the corpus holds nothing that is a key");
        count += 1;
    }
    assert!(count >= 10, "the corpus is gone");
}
