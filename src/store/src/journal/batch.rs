//! Frames on their way into a segment, and whose they are.

use std::collections::HashMap;
use std::ops::Range;

use tokenroute_domain::id::CallId;

use super::entry::Entry;
use super::frame::Frames;

/// What a frame says of its call. A later one of a kind takes the place of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Intent,
    Mark,
    Ended,
}

/// Whose a frame is, and where it stands in the bytes of its batch.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) call: CallId,
    pub(super) kind: Kind,
    range: Range<usize>,
}

/// Frames that are written with one write, or not at all.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

impl Batch {
    /// An empty one with room for so many bytes and frames.
    pub(super) fn with_capacity(bytes: usize, frames: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), parts: Vec::with_capacity(frames) }
    }

    /// Adds the frame that `write` writes, if it does.
    pub(super) fn add<E>(
        &mut self,
        call: CallId,
        kind: Kind,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        write(&mut self.bytes)?;
        self.parts.push(Part { call, kind, range: start..self.bytes.len() });
        Ok(())
    }

    /// Adds a frame as it is.
    pub(super) fn add_frame(&mut self, call: CallId, kind: Kind, frame: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.parts.push(Part { call, kind, range: start..self.bytes.len() });
    }

    /// The last frame of each kind and call in `bytes`, in the order in which they stand there.
    pub(super) fn last_of(bytes: &[u8]) -> Self {
        let mut frames = Frames::new(bytes);
        let mut parts = Vec::new();
        let mut start = 0_usize;
        // A slice gives no error, and what is damaged ends it.
        while let Ok(Some(frame)) = frames.next() {
            let size = usize::try_from(frame.bytes).unwrap_or(usize::MAX);
            let range = start..start.saturating_add(size);
            start = range.end;
            let (call, kind) = match Entry::read(&frame) {
                Some(Entry::Intent(intent)) => (intent.call, Kind::Intent),
                Some(Entry::Mark(mark)) => (mark.call, Kind::Mark),
                Some(Entry::Ended(ended)) => (ended.record.call, Kind::Ended),
                Some(Entry::Forgotten(_) | Entry::Pad) | None => continue,
            };
            parts.push(Part { call, kind, range });
        }
        let last: HashMap<_, _> =
            parts.iter().map(|part| ((part.call, part.kind), part.range.start)).collect();
        let mut batch = Self::default();
        for part in parts {
            if last.get(&(part.call, part.kind)) == Some(&part.range.start) {
                batch.add_frame(part.call, part.kind, bytes.get(part.range).unwrap_or_default());
            }
        }
        batch
    }

    /// The frames for which it holds; the others are left out.
    pub(super) fn only(self, mut holds: impl FnMut(&Part, &[u8]) -> bool) -> Self {
        let left = |part: &Part| !holds(part, self.frame(part));
        let out: Vec<bool> = self.parts.iter().map(left).collect();
        if !out.contains(&true) {
            return self;
        }
        let mut only = Self::default();
        for (part, _) in self.parts.iter().zip(out).filter(|(_, out)| !out) {
            only.add_frame(part.call, part.kind, self.frame(part));
        }
        only
    }

    /// The same frames in batches of about so many bytes.
    pub(super) fn split(self, bytes: usize) -> Vec<Self> {
        let mut all = Vec::new();
        let mut next = Self::default();
        for part in &self.parts {
            next.add_frame(part.call, part.kind, self.frame(part));
            if next.bytes.len() >= bytes {
                all.push(std::mem::take(&mut next));
            }
        }
        if !next.is_empty() {
            all.push(next);
        }
        all
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Each frame and whose it is.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&Part, &[u8])> {
        self.parts.iter().map(|part| (part, self.frame(part)))
    }

    fn frame(&self, part: &Part) -> &[u8] {
        self.bytes.get(part.range.clone()).unwrap_or_default()
    }
}
