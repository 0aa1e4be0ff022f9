//! A text that is gathered from many strings and kept up to a bound, so that its tokens can be counted.

use crate::value::Text as JsonText;

/// Keeps the first bytes of a text and counts them all.
#[derive(Debug, Default)]
pub(super) struct Text {
    kept: String,
    bytes_max: usize,
    bytes_total: u64,
}

/// A point to go back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    kept: usize,
    bytes_total: u64,
}

impl Text {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    pub(super) fn kept(&self) -> &str {
        &self.kept
    }

    pub(super) fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    pub(super) fn push(&mut self, text: JsonText<'_>) {
        text.each_part(|part| self.push_part(part));
    }

    pub(super) fn push_part(&mut self, part: &str) {
        // Once something did not fit, nothing behind it is kept: what is kept is a true beginning.
        let whole = u64::try_from(self.kept.len()) == Ok(self.bytes_total);
        self.bytes_total =
            self.bytes_total.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
        if whole {
            let room = self.bytes_max.saturating_sub(self.kept.len());
            let end = part.floor_char_boundary(room);
            self.kept.push_str(part.get(..end).unwrap_or_default());
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { kept: self.kept.len(), bytes_total: self.bytes_total }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.kept.truncate(mark.kept);
        self.bytes_total = mark.bytes_total;
    }
}
