//! Looks for bytes eight at a time. It allocates nothing and needs no special instructions.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = ONES << 7;

/// Eight bytes. What is found in them is told by the highest bit of each byte; a borrow can set bits
/// above a true one, so only the lowest bit is sure, and only that one is used.
#[derive(Clone, Copy)]
pub(crate) struct Word(u64);

impl Word {
    /// Marks the bytes that equal `byte`.
    pub(crate) fn equal(self, byte: u8) -> u64 {
        zeros(self.0 ^ (ONES * u64::from(byte)))
    }

    /// Marks the bytes below `bound`, which is at most 0x80.
    pub(crate) fn below(self, bound: u8) -> u64 {
        self.0.wrapping_sub(ONES * u64::from(bound)) & !self.0 & HIGHS
    }

    /// The bytes with these bits set.
    pub(crate) fn with(self, bits: u8) -> Self {
        Self(self.0 | (ONES * u64::from(bits)))
    }
}

fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// How many bytes stand before the first one that `marks` marks. It must not mark a space.
pub(crate) fn length_before(bytes: &[u8], marks: impl Fn(Word) -> u64) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut length = 0;
    for word in words {
        let found = marks(Word(u64::from_le_bytes(*word)));
        if found != 0 {
            return length + first(found);
        }
        length += 8;
    }
    let mut last = [b' '; 8];
    last.iter_mut().zip(rest).for_each(|(slot, byte)| *slot = *byte);
    let found = marks(Word(u64::from_le_bytes(last)));
    length + if found == 0 { rest.len() } else { first(found) }
}

fn first(found: u64) -> usize {
    usize::try_from(found.trailing_zeros() / 8).unwrap_or_default()
}
