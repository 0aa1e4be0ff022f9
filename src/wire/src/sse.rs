//! Finds whole server-sent events in a stream that arrives in any pieces. Bytes in, ranges out: it
//! does no I/O, reads no JSON and changes nothing; what goes in comes out, in order.
//!
//! Lines end in `\n`, `\r\n` or `\r`, also mixed; a byte order mark at the start is skipped. No byte is
//! looked at twice for a line end, however the stream is split.

use std::borrow::Cow;
use std::mem;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

#[cfg(test)]
mod tests;

/// Longest event that is kept until it is whole, in bytes. A longer one passes raw, in parts.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What can be passed on now.
#[derive(Debug, Default)]
pub struct Block {
    /// The original bytes of all pieces, contiguous and in order.
    pub bytes: Bytes,
    pieces: Vec<Found>,
}

impl Block {
    /// The pieces of `bytes`, in order and without gaps.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.pieces.iter().map(|found| {
            let range = found.start..found.end;
            let bytes = part(&self.bytes, range.clone());
            match found.kind {
                Kind::Event(fields) => Piece::Event(Event { bytes, start: found.start, fields }),
                Kind::Raw => Piece::Raw { range, bytes },
                Kind::Quiet => Piece::Quiet { range },
            }
        })
    }

    /// Whether nothing is ready.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// A part of a [`Block`]. Its range is one of the block's bytes.
#[derive(Clone, Debug)]
pub enum Piece<'a> {
    /// A whole event.
    Event(Event<'a>),
    /// A part of an event over [`EVENT_BYTES_MAX`], to be passed on as it is.
    Raw {
        /// Where it stands in the block.
        range: Range<usize>,
        /// The part itself.
        bytes: &'a [u8],
    },
    /// Comments and blank lines between events: no client sees them, so they may pass at once.
    Quiet {
        /// Where it stands in the block.
        range: Range<usize>,
    },
}

impl Piece<'_> {
    /// Where it stands in the block.
    pub fn range(&self) -> Range<usize> {
        match self {
            Self::Event(event) => event.range(),
            Self::Raw { range, .. } | Self::Quiet { range } => range.clone(),
        }
    }
}

/// A whole event, from its first field to its blank line.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    bytes: &'a [u8],
    start: usize,
    fields: Fields,
}

impl<'a> Event<'a> {
    /// Where it stands in the block.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.bytes.len()
    }

    /// The event as it arrived.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What the event says: its data lines, joined by `\n`. `None` if it has none, so that no client
    /// is told of it.
    pub fn data(&self) -> Option<Cow<'a, [u8]>> {
        match self.fields.data_lines {
            0 => None,
            1 => Some(Cow::Borrowed(part(self.bytes, self.fields.data.range()))),
            _ => {
                let mut joined = Vec::with_capacity(self.bytes.len());
                for (index, line) in self.data_lines().enumerate() {
                    if index > 0 {
                        joined.push(b'\n');
                    }
                    joined.extend_from_slice(part(self.bytes, line));
                }
                Some(Cow::Owned(joined))
            }
        }
    }

    /// The event's name, where it has one.
    pub fn name(&self) -> Option<&'a [u8]> {
        let range = self.fields.name.range();
        (range.end > 0).then(|| part(self.bytes, range))
    }

    /// Whether the stream ended before the event's blank line.
    pub fn unterminated(&self) -> bool {
        self.fields.open
    }

    /// Where the values of the data lines stand in [`Self::bytes`].
    pub fn data_lines(&self) -> impl Iterator<Item = Range<usize>> + use<'a> {
        let bytes = self.bytes;
        let only = (self.fields.data_lines == 1).then(|| self.fields.data.range());
        let mut at = if self.fields.data_lines == 1 { bytes.len() } else { self.fields.first };
        let rest = std::iter::from_fn(move || {
            while at < bytes.len() {
                let start = at;
                let rest = part(bytes, start..bytes.len());
                let length = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                at = start + length + usize::from(rest.get(length..).is_some_and(ends_in_crlf)) + 1;
                if let Some(Field::Data(value)) = field(part(rest, 0..length)) {
                    return Some(value.start + start..value.end + start);
                }
            }
            None
        });
        only.into_iter().chain(rest)
    }
}

fn ends_in_crlf(rest: &[u8]) -> bool {
    rest.starts_with(b"\r\n")
}

/// Splits a stream into pieces. One for each stream.
#[derive(Debug, Default)]
pub struct Scanner {
    /// What has arrived of the open event. Copied, because a reference to it would pin its frame.
    pending: BytesMut,
    /// The open event's fields so far; offsets count from its first byte, as do the next two.
    fields: Fields,
    /// Where the current line starts.
    line: usize,
    /// No line ends before this.
    searched: usize,
    /// How the line before ended.
    ending: Ending,
    mode: Mode,
    /// The first line of the stream has ended.
    started: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ending {
    /// In `\n` or `\r\n`.
    #[default]
    Lf,
    /// In `\r`, and what follows is no `\n`.
    Cr,
    /// In `\r`; a `\n` that comes next still belongs to it.
    CrSoFar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// The open event is kept until it is whole.
    #[default]
    Keep,
    /// The open event is over the bound: its bytes pass as they come.
    Pass,
    /// The same, and a part of the current line has passed.
    PassInLine,
}

/// Places of the fields in one event, counted from its first byte.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    /// Where the first line starts: after a byte order mark.
    first: usize,
    /// Any line that is no comment.
    any: bool,
    /// The stream ended before the blank line.
    open: bool,
    data_lines: usize,
    /// The first data line's value.
    data: Place,
    /// The name's last value; empty at 0 if there is none.
    name: Place,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    start: usize,
    end: usize,
}

impl Place {
    fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Event(Fields),
    Raw,
    Quiet,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    start: usize,
    end: usize,
    kind: Kind,
}

/// What a line says, as far as anybody asks.
enum Field {
    Data(Range<usize>),
    Name(Range<usize>),
    Other,
}

/// Reads one line; `None` for a comment.
fn field(line: &[u8]) -> Option<Field> {
    let colon = line.iter().take(6).position(|byte| *byte == b':');
    let (name, value) = match colon {
        Some(0) => return None,
        Some(colon) => {
            let space = usize::from(line.get(colon + 1) == Some(&b' '));
            (part(line, 0..colon), colon + 1 + space..line.len())
        }
        None => (line, line.len()..line.len()),
    };
    Some(match name {
        b"data" => Field::Data(value),
        b"event" => Field::Name(value),
        _ => Field::Other,
    })
}

impl Scanner {
    /// A scanner at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next frame and gives what is ready: whole events, parts of overlong ones, and what
    /// stands between them. The rest is kept, at most [`EVENT_BYTES_MAX`] bytes of it.
    pub fn feed(&mut self, mut frame: Bytes) -> Block {
        let mut pieces = Vec::new();
        if self.pending.is_empty() {
            let ready = self.scan(&frame, &mut pieces);
            let bytes = frame.split_to(ready);
            self.pending.extend_from_slice(&frame);
            return Block { bytes, pieces };
        }
        let mut pending = mem::take(&mut self.pending);
        pending.extend_from_slice(&frame);
        let ready = self.scan(&pending, &mut pieces);
        if ready == 0 {
            self.pending = pending;
            return Block { bytes: Bytes::new(), pieces };
        }
        // A reference to the rest would keep all of it.
        self.pending.extend_from_slice(part(&pending, ready..pending.len()));
        pending.truncate(ready);
        Block { bytes: pending.freeze(), pieces }
    }

    /// Ends the stream: gives the unterminated rest, if there is one. A client that keeps to the
    /// letter ignores an event without its blank line; what it says is true all the same, and two more
    /// `\n` make it an event like any other.
    pub fn finish(&mut self) -> Option<Block> {
        if self.pending.is_empty() {
            return None;
        }
        let bytes = mem::take(&mut self.pending).freeze();
        let rest = part(&bytes, self.line..bytes.len());
        let keep = self.mode == Mode::Keep;
        if keep && !rest.is_empty() && rest != b"\r" {
            self.read_line(&bytes, 0, bytes.len());
        }
        let fields = Fields { open: true, ..mem::take(&mut self.fields) };
        let kind = match (keep, fields.any) {
            (true, true) => Kind::Event(fields),
            (true, false) => Kind::Quiet,
            (false, _) => Kind::Raw,
        };
        *self = Self::new();
        let pieces = vec![Found { start: 0, end: bytes.len(), kind }];
        Some(Block { bytes, pieces })
    }

    /// Looks for the ends of lines in what was not searched yet, and gives the count of bytes that
    /// are ready. `buffer` begins with the open event.
    fn scan(&mut self, buffer: &[u8], pieces: &mut Vec<Found>) -> usize {
        let mut start = 0;
        let mut at = self.searched;
        loop {
            if self.ending == Ending::CrSoFar && at < buffer.len() {
                self.ending = Ending::Cr;
                if buffer.get(at) == Some(&b'\n') {
                    at += 1;
                    self.line = at;
                    self.ending = Ending::Lf;
                    if !self.in_event() {
                        push_quiet(pieces, start, at);
                        start = at;
                    }
                }
            }
            let Some(length) = memchr2(b'\n', b'\r', part(buffer, at..buffer.len())) else {
                at = buffer.len();
                break;
            };
            let end = at + length;
            if end == self.line && self.mode != Mode::PassInLine && self.in_event() {
                let Some(after) = self.blank_line_end(buffer, end) else {
                    at = end;
                    break;
                };
                self.close_event(pieces, start, after);
                (start, at) = (after, after);
            } else {
                at = end + 1;
                if self.line_end(buffer, start, end) {
                    push_quiet(pieces, start, at);
                    start = at;
                }
            }
        }
        self.searched = at;
        self.keep_or_pass(buffer, pieces, start)
    }

    /// Notes the end of a line (its terminator stands at `end`) that closes no event; whether what
    /// was read since `start` is quiet.
    fn line_end(&mut self, buffer: &[u8], start: usize, end: usize) -> bool {
        let after = end + 1;
        if self.mode == Mode::Keep && end > self.line {
            self.read_line(buffer, start, end);
        }
        if self.mode == Mode::PassInLine || after - start > EVENT_BYTES_MAX {
            self.mode = Mode::Pass;
        }
        self.started = true;
        self.line = after;
        let cr = buffer.get(end) == Some(&b'\r');
        self.ending = if cr { Ending::CrSoFar } else { Ending::Lf };
        !self.in_event()
    }

    /// Whether a field was read since the last blank line, or an overlong line passed.
    fn in_event(&self) -> bool {
        self.fields.any || self.mode != Mode::Keep
    }

    /// Where the terminator of the blank line at `at` ends. `None` if that takes another byte to say:
    /// only when the lines before ended in `\n`, so no stream of bare `\r` is ever late.
    fn blank_line_end(&self, buffer: &[u8], at: usize) -> Option<usize> {
        if buffer.get(at) == Some(&b'\n') || self.ending == Ending::Cr {
            return Some(at + 1);
        }
        buffer.get(at + 1).map(|next| at + 1 + usize::from(*next == b'\n'))
    }

    fn close_event(&mut self, pieces: &mut Vec<Found>, start: usize, end: usize) {
        let fields = mem::take(&mut self.fields);
        let keep = mem::take(&mut self.mode) == Mode::Keep && end - start <= EVENT_BYTES_MAX;
        let kind = if keep { Kind::Event(fields) } else { Kind::Raw };
        pieces.push(Found { start, end, kind });
        self.line = end;
        self.ending = Ending::Lf;
        self.started = true;
    }

    /// What is left after `start` is kept for the next frame, unless it is over the bound.
    fn keep_or_pass(&mut self, buffer: &[u8], pieces: &mut Vec<Found>, start: usize) -> usize {
        if self.mode == Mode::Keep && buffer.len() - start <= EVENT_BYTES_MAX {
            self.line -= start;
            self.searched -= start;
            return start;
        }
        let ready = self.searched;
        if ready > start {
            pieces.push(Found { start, end: ready, kind: Kind::Raw });
        }
        let in_line = self.mode == Mode::PassInLine || self.line < ready;
        self.mode = if in_line { Mode::PassInLine } else { Mode::Pass };
        self.started = true;
        self.fields = Fields::default();
        self.line = 0;
        self.searched = 0;
        ready
    }

    /// Reads the current line of the event that began at `start`.
    fn read_line(&mut self, buffer: &[u8], start: usize, end: usize) {
        let marked = !self.started && part(buffer, self.line..end).starts_with(BYTE_ORDER_MARK);
        let line = self.line + if marked { BYTE_ORDER_MARK.len() } else { 0 };
        let offset = line - start;
        match field(part(buffer, line..end)) {
            // No part of an event, if it stands before one.
            None => return,
            Some(Field::Data(value)) => {
                if self.fields.data_lines == 0 {
                    self.fields.data = place(value, offset);
                }
                self.fields.data_lines += 1;
            }
            Some(Field::Name(value)) => self.fields.name = place(value, offset),
            Some(Field::Other) => {}
        }
        if marked {
            self.fields.first = offset;
        }
        self.fields.any = true;
    }
}

fn place(range: Range<usize>, offset: usize) -> Place {
    Place { start: range.start + offset, end: range.end + offset }
}

/// Neighbours become one piece, so that a run of comments is one piece however long it is.
fn push_quiet(pieces: &mut Vec<Found>, start: usize, end: usize) {
    match pieces.last_mut() {
        Some(last) if matches!(last.kind, Kind::Quiet) && last.end == start => last.end = end,
        _ => pieces.push(Found { start, end, kind: Kind::Quiet }),
    }
}

fn part(bytes: &[u8], range: Range<usize>) -> &[u8] {
    bytes.get(range).unwrap_or_default()
}
