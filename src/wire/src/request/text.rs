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
        let mut specials = Specials::new(bytes);
        let mut at = 0_usize;
        loop {
            if *self == Self::Outside {
                let Some(found) = specials.find(at) else { return Ok(None) };
                at = found;
            }
            let Some(&byte) = bytes.get(at) else { return Ok(None) };
            at = at.saturating_add(1);
            *self = match (*self, byte) {
                (Self::Outside, b'"') => return Ok(Some(at)),
                (Self::Outside, b'\\') => {
                    let whole = escape_len(bytes.get(at..).unwrap_or_default());
                    at = at.saturating_add(whole.unwrap_or(0));
                    if whole.is_some() { Self::Outside } else { Self::Backslash }
                }
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

/// How many of the bytes after a backslash belong to its escape; `None` if that takes a closer
/// look, because it is faulty or not all there.
#[inline]
fn escape_len(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => Some(1),
        [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|byte| byte.is_ascii_hexdigit()) => {
            Some(5)
        }
        _ => None,
    }
}

/// How many bytes are looked at in one step, one bit of `Specials::marks` each.
const BLOCK_BYTES: usize = 64;

/// How many are looked at first, since most strings are short.
const FIRST_BYTES: usize = 16;

/// Where the quotes, backslashes and control characters of some bytes stand.
struct Specials<'a> {
    bytes: &'a [u8],
    /// Where the block begins that `marks` is of.
    start: usize,
    /// One bit for each byte of the block, the first one lowest.
    marks: u64,
    /// Where the next block begins.
    end: usize,
}

impl<'a> Specials<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        match bytes.first_chunk::<FIRST_BYTES>() {
            Some(first) => Self { bytes, start: 0, marks: mark(first), end: FIRST_BYTES },
            None => Self { bytes, start: 0, marks: 0, end: 0 },
        }
    }

    /// The first one that is not before `at`. To be asked with rising offsets.
    fn find(&mut self, at: usize) -> Option<usize> {
        let within = u32::try_from(at.saturating_sub(self.start)).unwrap_or(u32::MAX);
        let ahead = self.marks.checked_shr(within).unwrap_or(0);
        if ahead != 0 {
            return Some(at.saturating_add(first_bit(ahead)));
        }
        let start = at.max(self.end);
        let (blocks, tail) = self.bytes.get(start..)?.as_chunks::<BLOCK_BYTES>();
        let plain = blocks.iter().take_while(|block| is_plain(block)).count();
        self.start = start.saturating_add(plain.saturating_mul(BLOCK_BYTES));
        self.end = self.start.saturating_add(BLOCK_BYTES);
        self.marks = blocks.get(plain).map_or_else(|| mark(&pad(tail)), mark);
        (self.marks != 0).then(|| self.start.saturating_add(first_bit(self.marks)))
    }
}

fn first_bit(marks: u64) -> usize {
    usize::try_from(marks.trailing_zeros()).unwrap_or(0)
}

/// A last block, filled up with spaces, which are nothing special.
fn pad(tail: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut block = [b' '; BLOCK_BYTES];
    for (place, byte) in block.iter_mut().zip(tail) {
        *place = *byte;
    }
    block
}

/// Whether a block has nothing special. Without branches, so that it is compiled to vectors.
#[inline]
fn is_plain(block: &[u8; BLOCK_BYTES]) -> bool {
    let special =
        |byte: u8| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < b' ');
    block.iter().fold(0, |found, &byte| found | special(byte)) == 0
}

/// One bit for each byte of a block, set if it is special.
#[inline]
fn mark<const BYTES: usize>(block: &[u8; BYTES]) -> u64 {
    // Brings the lowest bits of eight bytes together in the highest byte.
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let (words, _) = block.as_chunks::<8>();
    words.iter().rev().fold(0, |marks, word| {
        let specials = mark_word(u64::from_le_bytes(*word)) >> 7;
        (marks << 8) | (specials.wrapping_mul(GATHER) >> 56)
    })
}

/// Sets the highest bit of each byte that is special.
#[inline]
fn mark_word(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOWS: u64 = ONES * 0x7f;
    // The highest bit of each byte is set if the byte is not 0; no carry leaves a byte.
    let present = |word: u64| (word & LOWS).wrapping_add(LOWS) | word;
    let quote = present(word ^ (ONES * 0x22));
    let backslash = present(word ^ (ONES * 0x5c));
    let control = present(word & (ONES * 0xe0));
    !(quote & backslash & control) & (ONES * 0x80)
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
