//! A body as it arrived: frames held by reference, addressed by offset, given up from the front.

use std::collections::VecDeque;

use bytes::Bytes;

use super::offset;

#[derive(Clone, Debug)]
struct Frame {
    start: u64,
    bytes: Bytes,
}

impl Frame {
    fn end(&self) -> u64 {
        self.start.saturating_add(offset(self.bytes.len()))
    }
}

/// The frames of one body that are still kept. Its caller bounds it: it knows no limit itself.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    kept: VecDeque<Frame>,
    start: u64,
    end: u64,
}

impl Frames {
    /// No frames.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next frame.
    pub fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let frame = Frame { start: self.end, bytes };
        self.end = frame.end();
        self.kept.push_back(frame);
    }

    /// How many bytes are kept.
    pub fn len_bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// How many bytes have arrived, kept or given up.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The bytes that are kept, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.kept.iter().map(|frame| frame.bytes.as_ref())
    }

    /// The bytes that are kept from `start` on, in order; none if the first of them was given up.
    pub(super) fn parts_from(&self, start: u64) -> impl Iterator<Item = &[u8]> {
        let frames = if start < self.start { self.kept.len() } else { 0 };
        self.kept.range(frames..).map(move |frame| {
            let skipped = usize::try_from(start.saturating_sub(frame.start)).unwrap_or(usize::MAX);
            frame.bytes.get(skipped..).unwrap_or_default()
        })
    }

    /// Gives up frames that lie wholly before `offset`: an attempt that starts over cannot have
    /// them again.
    pub fn release_before(&mut self, offset: u64) {
        while self.kept.front().is_some_and(|frame| frame.end() <= offset) {
            self.kept.pop_front();
        }
        self.start = self.kept.front().map_or(self.end, |frame| frame.start);
    }

    /// Whether nothing was given up, so that another attempt can send the body.
    pub fn whole(&self) -> bool {
        self.start == 0
    }

    /// Appends the bytes of `start..end` to `out` as slices of the frames. Tells how far it came:
    /// not at all if the first of them was given up, and not beyond what has arrived.
    pub(super) fn slice(&self, start: u64, end: u64, out: &mut Vec<Bytes>) -> u64 {
        let end = end.min(self.end);
        if start < self.start || start >= end {
            return start;
        }
        let first = self.kept.partition_point(|frame| frame.end() <= start);
        let mut reached = start;
        for frame in self.kept.range(first..) {
            if reached >= end {
                break;
            }
            let from = usize::try_from(reached.saturating_sub(frame.start)).unwrap_or(usize::MAX);
            let to = usize::try_from(end.min(frame.end()).saturating_sub(frame.start))
                .unwrap_or(usize::MAX);
            out.push(frame.bytes.slice(from..to));
            reached = end.min(frame.end());
        }
        reached
    }
}
