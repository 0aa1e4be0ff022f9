//! How the journal's bytes are cut into frames: `length | checksum | kind | body`. Knows nothing of what a
//! body says.
//!
//! Length (of kind and body) and checksum are four bytes each, lowest first. The checksum is CRC-32 over
//! the length, the kind and the body, so that a length that was damaged is not believed.

use std::io::{self, Read};

/// Bytes before the kind.
const HEAD_BYTES: usize = 8;
/// Longest kind and body together. A record with every attempt that a call can have is far shorter; a
/// length beyond it is damage.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;

/// A body that is too long to be a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Adds a frame to `out` whose body `fill` adds, or nothing.
pub(super) fn write(
    kind: u8,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Vec<u8>),
) -> Result<(), TooLong> {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    out.push(kind);
    fill(out);
    let (whole, length) = match out.get_mut(start..) {
        Some(whole) => (whole.len(), whole.len().saturating_sub(HEAD_BYTES)),
        None => return Err(TooLong),
    };
    if length > FRAME_BYTES_MAX || whole < HEAD_BYTES {
        out.truncate(start);
        return Err(TooLong);
    }
    let length = u32::try_from(length).map_err(|_| TooLong)?.to_le_bytes();
    if let Some((head, rest)) =
        out.get_mut(start..).and_then(|whole| whole.split_at_mut_checked(HEAD_BYTES))
    {
        let (length_place, sum_place) = head.split_at_mut(length.len());
        length_place.copy_from_slice(&length);
        sum_place.copy_from_slice(&checksum(length, rest).to_le_bytes());
    }
    Ok(())
}

fn checksum(length: [u8; 4], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(rest);
    hasher.finalize()
}

/// A whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) body: &'a [u8],
    /// With its head.
    pub(super) bytes: u64,
}

/// Reads frames up to the first that is torn or damaged.
#[derive(Debug)]
pub(super) struct Frames<R> {
    from: R,
    buffer: Vec<u8>,
    /// Bytes of whole frames so far.
    whole: u64,
}

impl<R: Read> Frames<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, buffer: Vec::new(), whole: 0 }
    }

    /// The next frame; `None` at the end and at the first that is not whole: then it is over.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame<'_>>> {
        let mut head = [0; HEAD_BYTES];
        if !fill(&mut self.from, &mut head)? {
            return Ok(None);
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = head;
        let length_bytes = [l0, l1, l2, l3];
        let length = usize::try_from(u32::from_le_bytes(length_bytes)).unwrap_or(usize::MAX);
        if length == 0 || length > FRAME_BYTES_MAX {
            return Ok(None);
        }
        self.buffer.resize(length, 0);
        if !fill(&mut self.from, &mut self.buffer)? {
            return Ok(None);
        }
        if checksum(length_bytes, &self.buffer) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Ok(None);
        }
        let Some((kind, body)) = self.buffer.split_first() else { return Ok(None) };
        let bytes = u64::try_from(HEAD_BYTES.saturating_add(length)).unwrap_or(u64::MAX);
        self.whole = self.whole.saturating_add(bytes);
        Ok(Some(Frame { kind: *kind, body, bytes }))
    }

    /// How many bytes the whole frames had.
    pub(super) const fn whole(&self) -> u64 {
        self.whole
    }
}

/// Fills `buffer`; `false` if the end came before.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
