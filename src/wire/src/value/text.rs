//! A JSON string as it stands in its text, and what it says when its escapes are resolved.

use std::borrow::Cow;

use memchr::memchr;

/// A string as it stands in the text, still escaped.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

/// A stretch of a string, its escapes resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Characters that stand for themselves; never empty.
    Plain(&'a str),
    /// A character that was escaped.
    Escaped(char),
    /// Half a surrogate pair whose other half does not stand beside it: no character, as it stands.
    Half(u16),
}

impl<'a> Text<'a> {
    /// A string between whose quotes `raw` is written; whether there may be escapes in it.
    pub(super) fn new(raw: &'a str, escaped: bool) -> Self {
        Self { raw, escaped }
    }

    /// The string as written between its quotes.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Whether the string is empty.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The string itself, if it is written as it is.
    pub fn plain(&self) -> Option<&'a str> {
        (!self.escaped).then_some(self.raw)
    }

    /// The string itself; half a surrogate pair becomes U+FFFD.
    pub fn decode(&self) -> Cow<'a, str> {
        if let Some(plain) = self.plain() {
            return Cow::Borrowed(plain);
        }
        let mut out = String::with_capacity(self.raw.len());
        for (piece, _) in self.pieces() {
            match piece {
                Piece::Plain(part) => out.push_str(part),
                Piece::Escaped(character) => out.push(character),
                Piece::Half(_) => out.push(char::REPLACEMENT_CHARACTER),
            }
        }
        Cow::Owned(out)
    }

    /// The decoded string piece by piece, without a buffer for the whole of it, and where in
    /// [`Self::raw`] each piece begins.
    pub fn pieces(&self) -> impl Iterator<Item = (Piece<'a>, usize)> + use<'a> {
        let raw = self.raw;
        let mut at = 0;
        std::iter::from_fn(move || {
            let rest = raw.get(at..).filter(|rest| !rest.is_empty())?;
            let start = at;
            let plain = memchr(b'\\', rest.as_bytes()).unwrap_or(rest.len());
            let (piece, length) = match rest.get(..plain).filter(|before| !before.is_empty()) {
                Some(before) => (Piece::Plain(before), plain),
                None => unescape(rest),
            };
            at += length;
            Some((piece, start))
        })
    }

    /// The string in two, where a piece begins or within a plain one.
    pub fn split_at(&self, offset: usize) -> (Self, Self) {
        let (before, after) = self.raw.split_at_checked(offset).unwrap_or((self.raw, ""));
        (Self { raw: before, ..*self }, Self { raw: after, ..*self })
    }
}

/// Reads the escape at the start of `text`: what it stands for, and its length in bytes.
fn unescape(text: &str) -> (Piece<'static>, usize) {
    let bytes = text.as_bytes();
    let simple = match bytes.get(1) {
        Some(b'u') => None,
        Some(b'b') => Some('\u{8}'),
        Some(b'f') => Some('\u{c}'),
        Some(b'n') => Some('\n'),
        Some(b'r') => Some('\r'),
        Some(b't') => Some('\t'),
        Some(other) => Some(char::from(*other)),
        None => return (Piece::Escaped(char::REPLACEMENT_CHARACTER), text.len()),
    };
    if let Some(character) = simple {
        return (Piece::Escaped(character), 2);
    }
    let first = bytes.get(2..6).and_then(unit).unwrap_or_default();
    if let Some(character) = char::from_u32(u32::from(first)) {
        return (Piece::Escaped(character), 6);
    }
    let second = match bytes.get(6..12) {
        Some([b'\\', b'u', hex @ ..]) => unit(hex),
        _ => None,
    };
    match second.and_then(|second| join_halves(first, second)) {
        Some(character) => (Piece::Escaped(character), 12),
        None => (Piece::Half(first), 6),
    }
}

/// The character that two halves of surrogate pairs stand for, if they are one pair.
pub(crate) fn join_halves(first: u16, second: u16) -> Option<char> {
    char::decode_utf16([first, second]).next()?.ok()
}

/// Four hexadecimal digits.
pub(super) fn unit(hex: &[u8]) -> Option<u16> {
    hex.iter().try_fold(0_u16, |sum, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(sum << 4 | u16::try_from(digit).ok()?)
    })
}
