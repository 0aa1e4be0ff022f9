//! Finds the usage at the top level of a JSON document that is too large to keep. It follows strings
//! and brackets and nothing else: whether the document is valid is not its business.

use tokenroute_domain::money::ServiceTier;

use super::counts::Counts;
use crate::value::Reader;
use crate::words::length_before;

/// Longest `usage` value that is read, in bytes.
const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Longest key that is looked at, in bytes with its quotes: `usage` with every letter escaped.
const KEY_BYTES_MAX: usize = 32;

/// Follows one document.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    depth: u64,
    place: Place,
    /// At depth 1, before a colon.
    before_colon: bool,
    /// The last key at depth 1, with its quotes.
    key: Vec<u8>,
    wanted: Wanted,
    value: Vec<u8>,
    ended: bool,
    error: bool,
    usage: Option<Counts>,
    service_tier: Option<ServiceTier>,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Outside,
    String,
    /// In a string, behind a backslash.
    Escape,
}

/// Which member's value is gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    #[default]
    None,
    Usage,
    Error,
    ServiceTier,
}

impl Tracker {
    /// Whether the document has ended.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether it has an `error` member that is not null.
    pub(super) fn error(&self) -> bool {
        self.error
    }

    /// The service tier that it names at its top level.
    pub(super) fn service_tier(&self) -> Option<ServiceTier> {
        self.service_tier
    }

    /// The usage at its top level.
    pub(super) fn usage(&self) -> Option<Counts> {
        self.usage
    }

    pub(super) fn feed(&mut self, part: &[u8]) {
        let mut rest = part;
        while !self.ended {
            let plain = self.plain_length(rest);
            let Some((plain, [byte, after @ ..])) = rest.split_at_checked(plain) else {
                self.gather(rest);
                return;
            };
            self.gather(plain);
            self.step(*byte);
            rest = after;
        }
    }

    /// How many bytes change nothing, whatever they are.
    fn plain_length(&self, bytes: &[u8]) -> usize {
        match self.place {
            Place::Escape => 0,
            Place::String => memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len()),
            Place::Outside if self.depth > 1 => before_bracket_or_quote(bytes),
            Place::Outside => {
                let tells = |byte: &u8| b"\"{}[],:".contains(byte);
                bytes.iter().position(tells).unwrap_or(bytes.len())
            }
        }
    }

    fn step(&mut self, byte: u8) {
        let next = match self.place {
            Place::Outside => return self.step_outside(byte),
            Place::Escape => Place::String,
            Place::String => match byte {
                b'"' => Place::Outside,
                b'\\' => Place::Escape,
                _ => Place::String,
            },
        };
        self.gather(&[byte]);
        self.place = next;
    }

    fn step_outside(&mut self, byte: u8) {
        let closing = matches!(byte, b'}' | b']');
        if self.depth == 1 && (closing || byte == b',') {
            self.end_value();
        }
        match byte {
            b'"' => {
                self.place = Place::String;
                if self.depth == 1 && self.before_colon {
                    self.key.clear();
                }
            }
            b'{' | b'[' => {
                self.depth += 1;
                self.before_colon |= self.depth == 1 && byte == b'{';
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.ended = self.depth == 0;
            }
            b':' if self.depth == 1 && self.before_colon => {
                self.before_colon = false;
                self.begin_value();
                return;
            }
            _ => {}
        }
        self.gather(&[byte]);
    }

    /// Keeps bytes of a wanted value, or of a key; one too many and nothing is wanted any more.
    fn gather(&mut self, bytes: &[u8]) {
        if self.wanted != Wanted::None {
            let room = VALUE_BYTES_MAX.saturating_sub(self.value.len());
            if bytes.len() > room {
                self.wanted = Wanted::None;
            } else {
                self.value.extend_from_slice(bytes);
            }
        } else if self.depth == 1 && self.before_colon && self.place != Place::Outside {
            let room = KEY_BYTES_MAX.saturating_sub(self.key.len());
            // A key that is cut here lacks its closing quote, so it equals no name.
            self.key.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
        }
    }

    fn begin_value(&mut self) {
        self.value.clear();
        let key = Reader::of_bytes(&self.key).and_then(|mut key| Ok(key.string()?.decode()));
        self.wanted = match key.as_deref() {
            Ok("usage") => Wanted::Usage,
            Ok("error") => Wanted::Error,
            Ok("service_tier") => Wanted::ServiceTier,
            _ => Wanted::None,
        };
    }

    fn end_value(&mut self) {
        match self.wanted {
            Wanted::None => {}
            Wanted::Usage => {
                let read =
                    Reader::of_bytes(&self.value).and_then(|mut value| Counts::read(&mut value));
                self.usage = read.ok().flatten();
            }
            Wanted::Error => self.error |= self.value.trim_ascii() != b"null",
            Wanted::ServiceTier => {
                let read = Reader::of_bytes(&self.value).and_then(|mut value| value.string());
                self.service_tier = read.ok().map(|name| ServiceTier::named(&name.decode()));
            }
        }
        self.wanted = Wanted::None;
        self.before_colon = true;
    }
}

/// How many bytes stand before the first quote or bracket.
fn before_bracket_or_quote(bytes: &[u8]) -> usize {
    length_before(bytes, |word| {
        // `[` and `{`, `]` and `}` differ in one bit.
        let folded = word.with(0x20);
        word.equal(b'"') | folded.equal(b'{') | folded.equal(b'}')
    })
}
