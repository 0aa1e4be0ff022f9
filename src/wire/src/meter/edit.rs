//! Changes to an event's data, made in the bytes that came. It decides none of them.

use std::ops::Range;

use bytes::Bytes;

use crate::sse::Event;
use crate::value::Key;

/// Bytes in the place of others.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// Where the others stand in the event's data.
    pub(super) range: Range<usize>,
    pub(super) text: Bytes,
}

impl Edit {
    pub(super) fn cut(range: Range<usize>) -> Self {
        Self { range, text: Bytes::new() }
    }
}

/// Leaves members out of one object while it is read, each with one comma.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    kept: usize,
    /// A cut of the first members, which is to reach as far as the comma behind them.
    open: Option<usize>,
}

impl Cutter {
    /// To be told of each member's key first of all.
    pub(super) fn meet(&mut self, key: &Key<'_>, edits: &mut [Edit]) {
        if let (Some(index), Some(comma)) = (self.open.take(), key.comma)
            && let Some(cut) = edits.get_mut(index)
        {
            cut.range.end = comma + 1;
        }
    }

    /// The member that was met stays.
    pub(super) fn keep(&mut self) {
        self.kept += 1;
    }

    /// The member that was met goes; its value ends before `end`.
    pub(super) fn cut(&mut self, key: &Key<'_>, end: usize, edits: &mut Vec<Edit>) {
        // The first members have their comma behind them, the others before.
        let first = self.kept == 0;
        let start = if first { key.start } else { key.comma.unwrap_or(key.start) };
        self.open = first.then_some(edits.len());
        edits.push(Edit::cut(start..end));
    }
}

/// The event with its data changed. Edits are in order and do not overlap. Ends of lines stay, as white
/// space.
pub(super) fn rewrite(event: &Event<'_>, edits: &[Edit]) -> Bytes {
    let bytes = event.bytes();
    let part = |range: Range<usize>| bytes.get(range).unwrap_or_default();
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut out = Vec::with_capacity(bytes.len() + added);
    let (mut copied, mut joined) = (0, 0);
    let mut edits = edits.iter().peekable();
    for line in event.data_lines() {
        let line_end = joined + line.len();
        while let Some(Edit { range, text }) =
            edits.peek().filter(|edit| edit.range.start <= line_end)
        {
            let start = range.start.max(joined) - joined + line.start;
            let end = range.end.clamp(joined, line_end) - joined + line.start;
            out.extend_from_slice(part(copied..start.max(copied)));
            if range.start >= joined {
                out.extend_from_slice(text);
            }
            copied = copied.max(end);
            if range.end > line_end {
                // The rest of it stands in the lines that follow.
                break;
            }
            edits.next();
        }
        joined = line_end + 1;
    }
    out.extend_from_slice(part(copied..bytes.len()));
    Bytes::from(out)
}
