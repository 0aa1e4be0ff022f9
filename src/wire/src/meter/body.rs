//! Gathers the documents of a body that does not come as whole events: one JSON document, or the parts
//! of events that are over the scanner's bound. It does not read them.

use std::mem;

use super::tracker::Tracker;

/// Longest document that is kept to be read whole, in bytes. Of a longer one the usage is found as it
/// passes, and its text only so far.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// What the gathering comes to.
pub(super) enum Gathered<'a> {
    /// A document is over the bound: this was kept so far, and no more will be.
    Beginning(&'a [u8]),
    /// The end of a document that was kept, and whether it is the whole answer.
    Whole(&'a [u8], bool),
    /// The end of a document over the bound, and whether it is the whole answer.
    Followed(&'a Tracker, bool),
}

/// What kind of body this is: told by its first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    #[default]
    Unknown,
    /// One JSON document, to the end of the body.
    Document,
    /// Lines of events; each data line is a document.
    Lines(Line),
}

/// Where in a line of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// So many bytes of the field's name have been seen.
    Name(usize),
    /// The value of a data line.
    Data,
    /// Another field, or a comment.
    Other,
}

const DATA: &[u8] = b"data:";

/// Gathers documents from a body.
#[derive(Debug)]
pub(super) struct Body {
    shape: Shape,
    kept: Vec<u8>,
    kept_bytes_max: usize,
    tracker: Option<Box<Tracker>>,
}

impl Default for Body {
    fn default() -> Self {
        Self::new(DOCUMENT_BYTES_MAX)
    }
}

impl Body {
    /// Keeps documents up to `kept_bytes_max` bytes.
    pub(super) fn new(kept_bytes_max: usize) -> Self {
        Self { shape: Shape::Unknown, kept: Vec::new(), kept_bytes_max, tracker: None }
    }

    /// Takes the next part of the body.
    pub(super) fn feed(&mut self, part: &[u8], each: &mut dyn FnMut(Gathered<'_>)) {
        let mut part = part;
        if self.shape == Shape::Unknown {
            let blank = |byte: &u8| byte.is_ascii_whitespace() || b"\xef\xbb\xbf".contains(byte);
            let start = part.iter().position(|byte| !blank(byte)).unwrap_or(part.len());
            part = part.get(start..).unwrap_or_default();
            self.shape = match part.first() {
                None => return,
                // A line of an event begins with the name of its field or with a colon.
                Some(b'd' | b'e' | b'i' | b'r' | b':') => Shape::Lines(Line::Name(0)),
                Some(_) => Shape::Document,
            };
        }
        match self.shape {
            Shape::Unknown => {}
            Shape::Document => self.push(part, each),
            Shape::Lines(line) => self.feed_lines(line, part, each),
        }
    }

    /// Ends the body.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(Gathered<'_>)) {
        self.end_document(each);
        self.shape = Shape::Unknown;
    }

    fn feed_lines(&mut self, mut line: Line, part: &[u8], each: &mut dyn FnMut(Gathered<'_>)) {
        for run in part.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (content, ended) = match run {
                [content @ .., b'\n' | b'\r'] => (content, true),
                content => (content, false),
            };
            line = self.feed_line(line, content, each);
            if ended {
                self.end_document(each);
                line = Line::Name(0);
            }
        }
        self.shape = Shape::Lines(line);
    }

    fn feed_line(
        &mut self,
        line: Line,
        content: &[u8],
        each: &mut dyn FnMut(Gathered<'_>),
    ) -> Line {
        let seen = match line {
            Line::Other => return Line::Other,
            Line::Data => {
                self.push(content, each);
                return Line::Data;
            }
            Line::Name(seen) => seen,
        };
        let missing = DATA.get(seen..).unwrap_or_default();
        let (now, rest) = content.split_at(missing.len().min(content.len()));
        if !missing.starts_with(now) {
            return Line::Other;
        }
        if now.len() < missing.len() {
            return Line::Name(seen + now.len());
        }
        self.push(rest, each);
        Line::Data
    }

    fn push(&mut self, part: &[u8], each: &mut dyn FnMut(Gathered<'_>)) {
        if let Some(tracker) = &mut self.tracker {
            tracker.feed(part);
        } else if part.len() <= self.kept_bytes_max.saturating_sub(self.kept.len()) {
            self.kept.extend_from_slice(part);
        } else {
            let mut kept = mem::take(&mut self.kept);
            let (fits, rest) = part.split_at(self.kept_bytes_max.saturating_sub(kept.len()));
            kept.extend_from_slice(fits);
            let mut tracker = Box::<Tracker>::default();
            tracker.feed(&kept);
            tracker.feed(rest);
            self.tracker = Some(tracker);
            each(Gathered::Beginning(&kept));
        }
    }

    fn end_document(&mut self, each: &mut dyn FnMut(Gathered<'_>)) {
        let answer = self.shape == Shape::Document;
        if let Some(tracker) = self.tracker.take() {
            each(Gathered::Followed(&tracker, answer));
        } else if !self.kept.is_empty() {
            each(Gathered::Whole(&mem::take(&mut self.kept), answer));
        }
    }
}
