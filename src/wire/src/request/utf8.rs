//! Whether bytes that come in portions are UTF-8 together.

/// Longest character, in bytes.
const CHARACTER_BYTES_MAX: usize = 4;

/// A character that is not whole yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Partial {
    bytes: [u8; CHARACTER_BYTES_MAX],
    len: usize,
}

/// What one more byte made of a partial character.
pub(super) enum Step {
    /// It is not whole yet.
    Partial,
    /// It is whole.
    Whole,
    /// It cannot be one.
    Invalid,
}

impl Partial {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.len = 0;
        for byte in bytes {
            self.push(*byte);
        }
    }

    /// Adds the next byte.
    pub(super) fn push(&mut self, byte: u8) -> Step {
        let Some(place) = self.bytes.get_mut(self.len) else { return Step::Invalid };
        *place = byte;
        self.len = self.len.saturating_add(1);
        match std::str::from_utf8(self.bytes()) {
            Ok(_) => Step::Whole,
            Err(error) if error.error_len().is_none() => Step::Partial,
            Err(_) => Step::Invalid,
        }
    }
}

/// Splits off a character at the end that has begun and is not whole.
pub(super) fn split_partial(bytes: &[u8]) -> (&[u8], &[u8]) {
    for (back, &byte) in (1..CHARACTER_BYTES_MAX).zip(bytes.iter().rev()) {
        let whole = match byte {
            0x80..=0xbf => continue,
            0x00..=0x7f => 1,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
        };
        let at = if whole > back { bytes.len().saturating_sub(back) } else { bytes.len() };
        return bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    }
    (bytes, &[])
}

/// How many bytes from the start are UTF-8; `None` if all are.
pub(super) fn find_fault(bytes: &[u8]) -> Option<usize> {
    if simdutf8::basic::from_utf8(bytes).is_ok() {
        return None;
    }
    std::str::from_utf8(bytes).err().map(|error| error.valid_up_to())
}
