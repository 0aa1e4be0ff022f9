//! A text that is gathered from many strings and kept up to a bound, so that its tokens can be counted
//! and another target can go on from it.

use crate::value::{Piece, Text as JsonText, join_halves};

/// Keeps the first bytes of a text and counts them all.
#[derive(Debug, Default)]
pub(super) struct Text {
    kept: String,
    bytes_max: usize,
    bytes_total: u64,
    /// Half a surrogate pair that it ends in: the other half may come with the next string.
    half: Option<u16>,
    /// Whether it had half a pair that stayed alone, in whose place U+FFFD is kept.
    torn: bool,
}

/// A point to go back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    kept: usize,
    bytes_total: u64,
    half: Option<u16>,
    torn: bool,
}

impl Text {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    pub(super) fn kept(&self) -> &str {
        &self.kept
    }

    /// Whether [`Self::kept`] is all that came, as it came.
    pub(super) fn is_whole(&self) -> bool {
        self.half.is_none() && !self.torn && self.kept_all()
    }

    pub(super) fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    pub(super) fn push(&mut self, text: JsonText<'_>) {
        if let (None, Some(plain)) = (self.half, text.plain()) {
            return self.push_part(plain);
        }
        for (piece, _) in text.pieces() {
            let first = self.half.take();
            let pair = match (first, piece) {
                (Some(first), Piece::Half(second)) => join_halves(first, second),
                (Some(_) | None, Piece::Plain(_) | Piece::Escaped(_) | Piece::Half(_)) => None,
            };
            if let Some(character) = pair {
                self.push_character(character);
                continue;
            }
            if first.is_some() {
                self.torn = true;
                self.push_character(char::REPLACEMENT_CHARACTER);
            }
            match piece {
                Piece::Plain(part) => self.push_part(part),
                Piece::Escaped(character) => self.push_character(character),
                Piece::Half(unit) => self.half = Some(unit),
            }
        }
    }

    fn push_character(&mut self, character: char) {
        self.push_part(character.encode_utf8(&mut [0; 4]));
    }

    pub(super) fn push_part(&mut self, part: &str) {
        // Once something did not fit, nothing behind it is kept: what is kept is a true beginning.
        let whole = self.kept_all();
        self.bytes_total =
            self.bytes_total.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        if whole {
            let room = self.bytes_max.saturating_sub(self.kept.len());
            let end = part.floor_char_boundary(room);
            self.kept.push_str(part.get(..end).unwrap_or_default());
        }
    }

    fn kept_all(&self) -> bool {
        u64::try_from(self.kept.len()) == Ok(self.bytes_total)
    }

    pub(super) fn mark(&self) -> Mark {
        let Self { half, torn, bytes_total, .. } = *self;
        Mark { kept: self.kept.len(), bytes_total, half, torn }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.kept.truncate(mark.kept);
        self.bytes_total = mark.bytes_total;
        self.half = mark.half;
        self.torn = mark.torn;
    }
}
