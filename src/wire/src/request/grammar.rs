//! JSON's grammar as a machine that takes bytes in any portions and tells what it meets.
//!
//! It knows no member's name and keeps no text: that is `member`'s work.

use super::facts::Number;
use super::numeral::Numeral;
use super::text::Escape;
use super::{Malformed, offset};

/// How deep objects and arrays may nest; the top-level object is at depth 1.
pub const DEPTH_MAX: u32 = u64::BITS;

/// What a value was, once it was seen whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    Text,
    True,
    False,
    Null,
    Number(Number),
}

/// Who hears what the grammar meets. A key's or value's depth is that of the object or array
/// that holds it.
pub(super) trait Listener {
    /// The top-level object begins; `at` is the offset after its `{`.
    fn opened(&mut self, at: u64);
    /// The top-level object's `}` stands at `at`.
    fn closed(&mut self, at: u64);
    /// A key's string begins.
    fn key_began(&mut self, depth: u32);
    /// A key's string has ended.
    fn key_ended(&mut self, depth: u32) -> Result<(), Malformed>;
    /// A value begins at `at`; `text` if it is a string.
    fn value_began(&mut self, depth: u32, at: u64, text: bool);
    /// A value has ended before `end`.
    fn value_ended(&mut self, depth: u32, kind: Kind, end: u64) -> Result<(), Malformed>;
    /// A portion of the inside of the string that is being read, escapes as they came.
    fn text(&mut self, raw: &[u8]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Key,
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Literal {
    True,
    False,
    Null,
}

impl Literal {
    fn letters(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::True => Kind::True,
            Self::False => Kind::False,
            Self::Null => Kind::Null,
        }
    }
}

/// What must come next.
#[derive(Clone, Copy, Debug)]
enum State {
    /// The document.
    Document,
    /// A key or the end of the object.
    FirstKey,
    /// A key.
    Key,
    /// The colon after a key.
    Colon,
    /// A value or the end of the array.
    FirstValue,
    /// A value.
    Value,
    /// A comma or the end of the object or array.
    After,
    /// The rest of a string.
    Text(Role, Escape),
    /// The rest of a literal, of which so many letters were seen.
    Literal(Literal, usize),
    /// The rest of `Grammar::numeral`.
    Number,
    /// Nothing but white space.
    End,
}

/// The machine. Its state is a few words, whatever the document's length.
#[derive(Clone, Debug)]
pub(super) struct Grammar {
    state: State,
    /// The number that is being read, if one is.
    numeral: Numeral,
    depth: u32,
    /// One bit an open object (1) or array (0), the innermost lowest.
    objects: u64,
    offset: u64,
}

impl Grammar {
    pub(super) fn new() -> Self {
        Self {
            state: State::Document,
            numeral: Numeral::default(),
            depth: 0,
            objects: 0,
            offset: 0,
        }
    }

    /// How many bytes were taken.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the document is whole.
    pub(super) fn ended(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Takes the next bytes of the document.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        listener: &mut impl Listener,
    ) -> Result<(), Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = match self.state {
                State::Text(role, escape) => self.take_text(role, escape, rest, listener)?,
                State::Number => self.take_number(rest, listener)?,
                State::Literal(literal, seen) => {
                    self.take_literal(literal, seen, rest, listener)?
                }
                State::Document
                | State::FirstKey
                | State::Key
                | State::Colon
                | State::FirstValue
                | State::Value
                | State::After
                | State::End => {
                    let space = rest.iter().take_while(|byte| is_space(**byte)).count();
                    self.offset = self.offset.saturating_add(offset(space));
                    rest = rest.get(space..).unwrap_or_default();
                    let Some(&byte) = rest.first() else { return Ok(()) };
                    self.take_mark(byte, listener)?;
                    1
                }
            };
            self.offset = self.offset.saturating_add(offset(used));
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    fn take_mark(&mut self, byte: u8, listener: &mut impl Listener) -> Result<(), Malformed> {
        match (self.state, byte) {
            (State::Document, b'{') => {
                listener.opened(self.offset.saturating_add(1));
                self.open(true)
            }
            (State::FirstKey | State::Key, b'"') => {
                listener.key_began(self.depth);
                self.state = State::Text(Role::Key, Escape::Outside);
                Ok(())
            }
            (State::Colon, b':') => {
                self.state = State::Value;
                Ok(())
            }
            (State::After, b',') => {
                self.state = if self.in_object() { State::Key } else { State::Value };
                Ok(())
            }
            (State::FirstKey | State::After, b'}') if self.in_object() => self.close(listener),
            (State::FirstValue | State::After, b']') if !self.in_object() => self.close(listener),
            (State::FirstValue | State::Value, _) => self.begin_value(byte, listener),
            (
                State::Document
                | State::FirstKey
                | State::Key
                | State::Colon
                | State::After
                | State::Text(..)
                | State::Literal(..)
                | State::Number
                | State::End,
                _,
            ) => Err(Malformed::Syntax),
        }
    }

    fn begin_value(&mut self, byte: u8, listener: &mut impl Listener) -> Result<(), Malformed> {
        listener.value_began(self.depth, self.offset, byte == b'"');
        self.state = match byte {
            b'"' => State::Text(Role::Value, Escape::Outside),
            b'{' => return self.open(true),
            b'[' => return self.open(false),
            b't' => State::Literal(Literal::True, 1),
            b'f' => State::Literal(Literal::False, 1),
            b'n' => State::Literal(Literal::Null, 1),
            _ if self.numeral.begin(byte) => State::Number,
            _ => return Err(Malformed::Syntax),
        };
        Ok(())
    }

    fn take_text(
        &mut self,
        role: Role,
        mut escape: Escape,
        bytes: &[u8],
        listener: &mut impl Listener,
    ) -> Result<usize, Malformed> {
        let Some(used) = escape.skip(bytes)? else {
            listener.text(bytes);
            self.state = State::Text(role, escape);
            return Ok(bytes.len());
        };
        listener.text(bytes.get(..used.saturating_sub(1)).unwrap_or_default());
        match role {
            Role::Key => {
                self.state = State::Colon;
                listener.key_ended(self.depth)?;
            }
            Role::Value => self.end_value(Kind::Text, used, listener)?,
        }
        Ok(used)
    }

    fn take_number(
        &mut self,
        bytes: &[u8],
        listener: &mut impl Listener,
    ) -> Result<usize, Malformed> {
        let Some(used) = self.numeral.skip(bytes) else { return Ok(bytes.len()) };
        self.end_value(Kind::Number(self.numeral.end()?), used, listener)?;
        Ok(used)
    }

    fn take_literal(
        &mut self,
        literal: Literal,
        seen: usize,
        bytes: &[u8],
        listener: &mut impl Listener,
    ) -> Result<usize, Malformed> {
        let missing = literal.letters().get(seen..).unwrap_or_default();
        let used = missing.len().min(bytes.len());
        if missing.get(..used) != bytes.get(..used) {
            return Err(Malformed::Syntax);
        }
        if used < missing.len() {
            self.state = State::Literal(literal, seen.saturating_add(used));
        } else {
            self.end_value(literal.kind(), used, listener)?;
        }
        Ok(used)
    }

    /// Ends the value that reaches `used` bytes beyond the current offset.
    fn end_value(
        &mut self,
        kind: Kind,
        used: usize,
        listener: &mut impl Listener,
    ) -> Result<(), Malformed> {
        self.state = State::After;
        listener.value_ended(self.depth, kind, self.offset.saturating_add(offset(used)))
    }

    fn open(&mut self, object: bool) -> Result<(), Malformed> {
        if self.depth >= DEPTH_MAX {
            return Err(Malformed::Depth);
        }
        self.depth = self.depth.saturating_add(1);
        self.objects = (self.objects << 1) | u64::from(object);
        self.state = if object { State::FirstKey } else { State::FirstValue };
        Ok(())
    }

    fn close(&mut self, listener: &mut impl Listener) -> Result<(), Malformed> {
        let kind = if self.in_object() { Kind::Object } else { Kind::Array };
        self.depth = self.depth.saturating_sub(1);
        self.objects >>= 1;
        if self.depth == 0 {
            self.state = State::End;
            listener.closed(self.offset);
            return Ok(());
        }
        self.end_value(kind, 1, listener)
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

#[inline]
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
