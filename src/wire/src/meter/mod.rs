//! Reads what an answer says (usage, text, how it ends) while it passes, and judges what happens to each
//! event. It changes an event only to take out what the edge itself has asked the provider for.

use std::mem;
use std::ops::Range;

use bytes::Bytes;
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::usage::Usage;

use crate::sse::Event;
use crate::value::Reader;

mod body;
mod counts;
mod openai;
mod prompt;
#[cfg(test)]
mod tests;
mod text;
mod tracker;

pub use body::DOCUMENT_BYTES_MAX;
pub use counts::TOKENS_MAX;
pub use prompt::{PROMPT_BODY_BYTES_MAX, prompt_text};

use body::{Body, Gathered};
use counts::Counts;
use openai::{Choices, Seen};
use text::Text;

/// How a provider counts reasoning tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reasoning {
    /// `completion_tokens` contains them.
    #[default]
    Inside,
    /// They come on top of `completion_tokens`.
    Added,
    /// What `total_tokens` has over prompt and completion are reasoning tokens on top of
    /// `completion_tokens`; the others are inside.
    ByTotal,
}

/// What to know of an answer before it comes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What was asked.
    pub endpoint: Endpoint,
    /// `include_usage` was asked for by the edge and not by the client: what it causes is taken out.
    pub strip_usage: bool,
    /// How the provider counts reasoning tokens.
    pub reasoning: Reasoning,
    /// How much of the delivered text is kept, in bytes.
    pub text_bytes_max: usize,
}

/// What happens to an event. Anything but `Hold` and `Drop` lets the held events go first, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes as it is.
    Pass,
    /// It says nothing yet: it waits for one that does. These bytes take its place when it goes, if
    /// there are any.
    Hold(Option<Bytes>),
    /// These bytes go in its place.
    Replace(Bytes),
    /// It does not go.
    Drop,
    /// It goes as it is, and the stream is over.
    End,
}

/// What happens to an event that is not JSON: the client may make more of it than the edge.
const ON_MALFORMED: Verdict = Verdict::Pass;

/// An event that starts so ends the stream, whatever follows.
const DONE: &[u8] = b"[DONE]";

/// Reads one answer.
#[derive(Debug)]
pub struct Meter {
    options: Options,
    body: Body,
    text: Text,
    counts: Option<Counts>,
    odd_usage: bool,
    begun: Choices,
    finished: Choices,
    semantic: bool,
    error: bool,
    end: End,
    malformed: u64,
}

/// How far the answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Its JSON document has ended.
    Document,
    /// `[DONE]` was seen.
    Done,
}

impl Meter {
    /// A meter at the start of an answer.
    pub fn new(options: Options) -> Self {
        let has_text = match options.endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions => true,
            Endpoint::Embeddings | Endpoint::Models | Endpoint::Unknown => false,
        };
        Self {
            options,
            body: Body::new(if has_text { DOCUMENT_BYTES_MAX } else { 0 }),
            text: Text::new(options.text_bytes_max),
            counts: None,
            odd_usage: false,
            begun: Choices::default(),
            finished: Choices::default(),
            semantic: false,
            error: false,
            end: End::Open,
            malformed: 0,
        }
    }

    /// Reads a whole event and says what happens to it.
    pub fn event(&mut self, event: &Event<'_>) -> Verdict {
        let Some(data) = event.data() else {
            return Verdict::Pass;
        };
        if data.starts_with(DONE) {
            self.end = End::Done;
            return Verdict::End;
        }
        let Some(seen) = self.read_document(&data) else {
            return ON_MALFORMED;
        };
        self.judge(event, &seen)
    }

    /// Reads the next part of a body that is not a stream of events, or the next part of an event that
    /// is too long to be kept whole.
    pub fn body(&mut self, part: &[u8]) {
        let mut body = mem::take(&mut self.body);
        body.feed(part, &mut |gathered| self.gathered(gathered));
        self.body = body;
    }

    /// Ends the answer.
    pub fn finish(&mut self) {
        let mut body = mem::take(&mut self.body);
        body.finish(&mut |gathered| self.gathered(gathered));
        self.body = body;
    }

    /// Whether the answer has said anything yet: text, reasoning, a refusal, a call of a tool, or that
    /// it is finished. Comments, roles and empty texts say nothing.
    pub fn semantic(&self) -> bool {
        self.semantic
    }

    /// The usage that the provider reported last, in disjoint counts; `None` if it reported none.
    pub fn usage(&self) -> Option<Usage> {
        self.counts.and_then(|counts| counts.usage(self.options.reasoning).0)
    }

    /// Whether the reported usage is not to be trusted: a count was no whole number from 0 to
    /// [`TOKENS_MAX`], or larger than what it is a part of. It was clamped.
    pub fn suspect(&self) -> bool {
        self.odd_usage || self.counts.is_some_and(|counts| counts.usage(self.options.reasoning).1)
    }

    /// The beginning of the delivered text: all that is billed as output, tool calls and reasoning
    /// included.
    pub fn text(&self) -> &str {
        self.text.kept()
    }

    /// How long the delivered text is in all, in bytes.
    pub fn text_bytes_total(&self) -> u64 {
        self.text.bytes_total()
    }

    /// Whether the answer is whole: `[DONE]` was seen, or each choice that began has finished, or the
    /// JSON document has ended.
    pub fn complete(&self) -> bool {
        let finished = !self.begun.is_empty() && self.finished.contains_all(self.begun);
        self.end != End::Open || finished
    }

    /// Whether `[DONE]` was seen.
    pub fn done(&self) -> bool {
        self.end == End::Done
    }

    /// Whether the answer carried an error.
    pub fn error(&self) -> bool {
        self.error
    }

    /// How many documents were not JSON.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Reads a document that is there in one piece; `None` if it is malformed: then it counts for
    /// nothing else.
    fn read_document(&mut self, document: &[u8]) -> Option<Seen> {
        let mark = self.text.mark();
        let mut seen = Seen::default();
        let read = Reader::of_bytes(document)
            .and_then(|mut reader| openai::read(&mut reader, &mut seen, &mut self.text));
        if read.is_err() {
            self.text.back_to(mark);
            self.malformed = self.malformed.saturating_add(1);
            return None;
        }
        self.error |= seen.error;
        self.semantic |= seen.semantic;
        self.begun.add(seen.begun);
        self.finished.add(seen.finished);
        self.note_usage(seen.usage.or(seen.usage_elsewhere));
        Some(seen)
    }

    fn note_usage(&mut self, counts: Option<Counts>) {
        match counts {
            Some(counts) if counts.usage(self.options.reasoning).0.is_some() => {
                self.counts = Some(counts);
            }
            Some(_) => self.odd_usage = true,
            None => {}
        }
    }

    fn judge(&self, event: &Event<'_>, seen: &Seen) -> Verdict {
        let strip = self.options.strip_usage;
        let says_nothing = seen.choice_count == 0 && !seen.error;
        if strip && says_nothing && seen.usage.is_some() {
            return Verdict::Drop;
        }
        let replaced = (strip && !seen.cuts.is_empty()).then(|| cut(event, &seen.cuts));
        if !self.semantic && !self.error && seen.choices {
            return Verdict::Hold(replaced);
        }
        replaced.map_or(Verdict::Pass, Verdict::Replace)
    }

    fn gathered(&mut self, gathered: Gathered<'_>) {
        match gathered {
            Gathered::Beginning(bytes) => {
                self.read_text_so_far(bytes);
                self.semantic = true;
            }
            Gathered::Whole(bytes, answer) => {
                let whole = self.read_document(bytes).is_some();
                if answer && !whole {
                    self.read_text_so_far(bytes);
                }
                self.note_document(whole, answer);
            }
            Gathered::Followed(tracker, answer) => {
                self.error |= tracker.error();
                self.malformed = self.malformed.saturating_add(u64::from(!tracker.ended()));
                self.note_usage(tracker.usage());
                self.note_document(tracker.ended(), answer);
            }
        }
    }

    /// Reads no more than the text of a document that breaks off: that it does is no news.
    fn read_text_so_far(&mut self, bytes: &[u8]) {
        let mut reader = Reader::of_prefix(bytes);
        openai::read(&mut reader, &mut Seen::default(), &mut self.text).unwrap_or_default();
    }

    fn note_document(&mut self, whole: bool, answer: bool) {
        if whole && answer {
            self.end = End::Document;
        }
    }
}

/// The event without some parts of its data. Ends of lines stay, as white space.
fn cut(event: &Event<'_>, cuts: &[Range<usize>]) -> Bytes {
    let bytes = event.bytes();
    let part = |range: Range<usize>| bytes.get(range).unwrap_or_default();
    let mut out = Vec::with_capacity(bytes.len());
    let (mut copied, mut joined) = (0, 0);
    for line in event.data_lines() {
        let length = line.len();
        for cut in cuts {
            let start = cut.start.clamp(joined, joined + length) - joined + line.start;
            let end = cut.end.clamp(joined, joined + length) - joined + line.start;
            out.extend_from_slice(part(copied..start.max(copied)));
            copied = copied.max(end);
        }
        joined += length + 1;
    }
    out.extend_from_slice(part(copied..bytes.len()));
    Bytes::from(out)
}
