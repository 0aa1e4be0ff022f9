//! A pull reader of one complete JSON text: it validates as it goes, borrows all it gives and tells
//! where each member stands, so that one can be cut out. It builds no tree and is not incremental.
//!
//! Members come in order; of equal keys the last one wins in a caller that simply assigns.

use std::ops::Range;

use crate::words::length_before;

mod text;

#[cfg(test)]
mod tests;

pub(crate) use text::join_halves;
pub use text::{Piece, Text};

/// Deepest nesting that is read; the outermost value is at depth 1.
pub const DEPTH_MAX: u32 = 64;

/// Length of the longest escape: `\uXXXX`.
const ESCAPE_BYTES_MAX: usize = 6;

/// The text is not JSON, or nests deeper than [`DEPTH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON text")]
pub struct Malformed;

/// What a value begins like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    Text,
    /// A digit or `-`.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
}

/// A member's key, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The key itself.
    pub text: Text<'a>,
    /// Offset of its first quote.
    pub start: usize,
    /// Offset of the comma before it; `None` for the first member.
    pub comma: Option<usize>,
}

/// Reads a JSON text from its start to its end.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// The text may break off: a string that it breaks off in is given as far as it goes.
    cut: bool,
}

impl<'a> Reader<'a> {
    /// A reader at the start of a text.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, cut: false }
    }

    /// A reader of bytes, which must be UTF-8.
    pub fn of_bytes(bytes: &'a [u8]) -> Result<Self, Malformed> {
        simdutf8::basic::from_utf8(bytes).map(Self::new).or(Err(Malformed))
    }

    /// A reader of a text that may have been cut anywhere: it reads as far as the bytes are UTF-8, gives
    /// the beginning of a string that was cut, and fails only behind it.
    pub fn of_prefix(bytes: &'a [u8]) -> Self {
        let text = match simdutf8::compat::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes
                .get(..error.valid_up_to())
                .and_then(|valid| std::str::from_utf8(valid).ok())
                .unwrap_or_default(),
        };
        Self { cut: true, ..Self::new(text) }
    }

    /// Offset of the next byte to read.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// A stretch of the text, as it is written.
    pub fn slice(&self, range: Range<usize>) -> Option<&'a str> {
        self.text.get(range)
    }

    /// What the next value begins like.
    pub fn kind(&mut self) -> Result<Kind, Malformed> {
        match self.next_byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            _ => Err(Malformed),
        }
    }

    /// Reads an object. `member` is called for each member with the reader before its value, which it
    /// may read or leave.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Key<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.enter(b'{')?;
        if self.take(b'}') {
            return self.leave();
        }
        let mut comma = None;
        loop {
            let key = self.key(comma)?;
            self.next_byte();
            let before = self.at;
            member(self, key)?;
            if self.at == before {
                self.skip()?;
            }
            if !self.take(b',') {
                break;
            }
            comma = self.at.checked_sub(1);
        }
        self.expect(b'}')?;
        self.leave()
    }

    /// Reads an array. `item` is called with the reader before each item, which it may read or leave.
    pub fn array(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.enter(b'[')?;
        if self.take(b']') {
            return self.leave();
        }
        loop {
            self.next_byte();
            let before = self.at;
            item(self)?;
            if self.at == before {
                self.skip()?;
            }
            if !self.take(b',') {
                break;
            }
        }
        self.expect(b']')?;
        self.leave()
    }

    /// Reads a string.
    pub fn string(&mut self) -> Result<Text<'a>, Malformed> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_length(self.rest());
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') if self.escape().is_ok() => escaped = true,
                Some(b'\\') | None if self.cut && self.rest().len() < ESCAPE_BYTES_MAX => break,
                _ => return Err(Malformed),
            }
        }
        let raw = self.text.get(start..self.at).ok_or(Malformed)?;
        let closed = self.byte() == Some(b'"');
        self.at = if closed { self.at + 1 } else { self.text.len() };
        Ok(Text::new(raw, escaped))
    }

    /// Reads a number, as it is written.
    pub fn number(&mut self) -> Result<&'a str, Malformed> {
        self.next_byte();
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        self.text.get(start..self.at).ok_or(Malformed)
    }

    /// Reads `true` or `false`.
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        let value = self.next_byte() == Some(b't');
        self.word(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// Reads `null`.
    pub fn null(&mut self) -> Result<(), Malformed> {
        self.next_byte();
        self.word("null")
    }

    /// Passes over the next value, whatever it is, and gives the place of it.
    pub fn skip(&mut self) -> Result<Range<usize>, Malformed> {
        self.next_byte();
        let start = self.at;
        // One bit for each open level: set for an object. Depth is bounded, so they fit.
        let (mut objects, mut levels) = (0_u64, 0_u32);
        loop {
            let kind = self.kind()?;
            match kind {
                Kind::Object | Kind::Array => {
                    let object = kind == Kind::Object;
                    self.enter(if object { b'{' } else { b'[' })?;
                    objects = objects << 1 | u64::from(object);
                    levels += 1;
                    if !self.take(if object { b'}' } else { b']' }) {
                        if object {
                            self.key(None)?;
                        }
                        continue;
                    }
                    self.leave()?;
                    objects >>= 1;
                    levels -= 1;
                }
                Kind::Text => drop(self.string()?),
                Kind::Number => drop(self.number()?),
                Kind::Bool => drop(self.bool()?),
                Kind::Null => self.null()?,
            }
            // The value has ended; so do all levels that close right after it.
            loop {
                if levels == 0 {
                    return Ok(start..self.at);
                }
                let object = objects & 1 == 1;
                if self.take(b',') {
                    if object {
                        self.key(None)?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' })?;
                self.leave()?;
                objects >>= 1;
                levels -= 1;
            }
        }
    }

    /// Nothing but white space may follow.
    pub fn finish(&mut self) -> Result<(), Malformed> {
        if self.next_byte().is_none() { Ok(()) } else { Err(Malformed) }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space.
    fn next_byte(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other,
            }
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.next_byte() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: u8) -> Result<(), Malformed> {
        if self.take(wanted) { Ok(()) } else { Err(Malformed) }
    }

    fn enter(&mut self, opening: u8) -> Result<(), Malformed> {
        self.expect(opening)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(Malformed) } else { Ok(()) }
    }

    fn leave(&mut self) -> Result<(), Malformed> {
        self.depth = self.depth.checked_sub(1).ok_or(Malformed)?;
        Ok(())
    }

    fn key(&mut self, comma: Option<usize>) -> Result<Key<'a>, Malformed> {
        self.next_byte();
        let start = self.at;
        let text = self.string()?;
        self.expect(b':')?;
        Ok(Key { text, start, comma })
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(Malformed) } else { Ok(()) }
    }

    fn word(&mut self, word: &str) -> Result<(), Malformed> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(Malformed);
        }
        self.at += word.len();
        Ok(())
    }

    /// Passes over one escape.
    fn escape(&mut self) -> Result<(), Malformed> {
        match self.rest().get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') if self.rest().get(2..6).is_some_and(|hex| text::unit(hex).is_some()) => {
                self.at += 6;
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

/// How many bytes at the start are neither quote, backslash nor control character.
fn plain_length(bytes: &[u8]) -> usize {
    length_before(bytes, |word| word.equal(b'"') | word.equal(b'\\') | word.below(0x20))
}
