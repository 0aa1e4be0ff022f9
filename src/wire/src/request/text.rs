//! The inside of a JSON string: where it ends, and what its escapes mean.

use super::Malformed;

/// How far into an escape a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// In none.
    Outside,
    /// The backslash was the last byte.
    Backslash,
    /// So many hexadecimal digits of `\uXXXX` are still to come.
    Hex(u8),
}

impl Escape {
    /// Reads on in a string. `Some` is how many bytes belong to it, the closing quote included;
    /// `None` if all of them do and it goes on.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut rest = bytes;
        loop {
            if *self == Self::Outside {
                let Some(at) = find_special(rest) else { return Ok(None) };
                rest = rest.get(at..).unwrap_or_default();
            }
            let Some((&byte, after)) = rest.split_first() else { return Ok(None) };
            rest = after;
            *self = match (*self, byte) {
                (Self::Outside, b'"') => return Ok(Some(bytes.len().saturating_sub(rest.len()))),
                (Self::Outside, b'\\') => Self::Backslash,
                (Self::Backslash, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')
                | (Self::Hex(1), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => Self::Outside,
                (Self::Backslash, b'u') => Self::Hex(4),
                (Self::Hex(left), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    Self::Hex(left.saturating_sub(1))
                }
                (Self::Outside | Self::Backslash | Self::Hex(_), _) => {
                    return Err(Malformed::Syntax);
                }
            };
        }
    }
}

/// How many bytes are looked at in one step where nothing special stands.
const BLOCK_BYTES: usize = 64;

/// The first byte that is a quote, a backslash or a control character.
fn find_special(bytes: &[u8]) -> Option<usize> {
    let (blocks, _) = bytes.as_chunks::<BLOCK_BYTES>();
    let plain = blocks.iter().take_while(|block| is_plain(block)).count();
    let skipped = plain.saturating_mul(BLOCK_BYTES);
    let rest = bytes.get(skipped..)?;
    let (words, tail) = rest.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = mark_specials(u64::from_le_bytes(*word));
        if found != 0 {
            let within = usize::try_from(found.trailing_zeros() / 8).unwrap_or(0);
            return Some(skipped.saturating_add(index.saturating_mul(8)).saturating_add(within));
        }
    }
    let at = tail.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0x00..=0x1f))?;
    Some(bytes.len().saturating_sub(tail.len()).saturating_add(at))
}

/// Whether a block has nothing special. Without branches, so that it is compiled to vectors.
#[inline]
fn is_plain(block: &[u8; BLOCK_BYTES]) -> bool {
    let special =
        |byte: u8| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20);
    block.iter().fold(0, |found, &byte| found | special(byte)) == 0
}

/// Sets the highest bit of bytes that are special. Exact up to the first one that is, in
/// little-endian order: a borrow runs only upwards from there.
#[inline]
fn mark_specials(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5c);
    ((quote.wrapping_sub(ONES) & !quote)
        | (backslash.wrapping_sub(ONES) & !backslash)
        | (word.wrapping_sub(ONES * 0x20) & !word))
        & HIGHS
}

/// A string held half a surrogate pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unpaired;

/// The characters of a string's inside that `Escape::skip` has accepted.
#[derive(Clone, Debug)]
pub(super) struct Characters<'a> {
    raw: std::str::Chars<'a>,
}

impl<'a> Characters<'a> {
    pub(super) fn new(raw: &'a str) -> Self {
        Self { raw: raw.chars() }
    }

    /// The code unit of `\uXXXX` after the `u`.
    fn unit(&mut self) -> u32 {
        let mut digits = self.raw.by_ref().take(4).filter_map(|digit| digit.to_digit(16));
        digits.by_ref().fold(0, |unit, digit| (unit << 4) | digit)
    }

    fn unicode(&mut self) -> Result<char, Unpaired> {
        let first = self.unit();
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or(Unpaired);
        }
        if self.raw.next() != Some('\\') || self.raw.next() != Some('u') {
            return Err(Unpaired);
        }
        let second = self.unit();
        if !(0xdc00..0xe000).contains(&second) {
            return Err(Unpaired);
        }
        let high = (first & 0x3ff) << 10;
        char::from_u32(0x1_0000_u32.saturating_add(high | (second & 0x3ff))).ok_or(Unpaired)
    }
}

impl Iterator for Characters<'_> {
    type Item = Result<char, Unpaired>;

    /// The next character. After `Unpaired` what follows means nothing.
    fn next(&mut self) -> Option<Self::Item> {
        let character = self.raw.next()?;
        if character != '\\' {
            return Some(Ok(character));
        }
        Some(match self.raw.next()? {
            'b' => Ok('\u{8}'),
            'f' => Ok('\u{c}'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'u' => self.unicode(),
            itself => Ok(itself),
        })
    }
}

/// Writes a text as a JSON string, quotes included.
pub(super) fn quote(text: &str) -> String {
    const HEX: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\0'..='\u{1f}' => {
                quoted.push_str(if character < '\u{10}' { "\\u000" } else { "\\u001" });
                let low = usize::try_from(u32::from(character) & 0xf).unwrap_or(0);
                quoted.extend(HEX.get(low));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
