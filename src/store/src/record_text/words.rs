//! Words of records read back: they are `&'static str` in a record and text in the journal.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// What stands for a word that this program does not keep.
const UNKNOWN: &str = "unknown";
/// Longest word that is kept.
const WORD_BYTES_MAX: usize = 64;
/// Words that are kept for as long as the process lives. There are some sixty in all, most of them known to
/// the data plane alone; a newer program may know a few more.
const WORDS_MAX: usize = 512;

static WORDS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

/// The word itself, or a stand-in if it is none that a record could have.
pub(super) fn keep(word: &str) -> &'static str {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if word.len() > WORD_BYTES_MAX || !word.bytes().all(plain) {
        return UNKNOWN;
    }
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    let words = words.get_or_insert_default();
    if let Some(known) = words.get(word) {
        return known;
    }
    if words.len() >= WORDS_MAX {
        return UNKNOWN;
    }
    let kept: &'static str = Box::leak(Box::from(word));
    words.insert(kept);
    kept
}
