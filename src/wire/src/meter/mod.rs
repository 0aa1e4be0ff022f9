//! Reads what an answer says (usage, text, how it ends) while it passes, and judges what happens to each
//! event. It changes an event only to take out what the edge itself has asked the provider for, and to
//! make an answer that goes on where another broke off a part of that one.

use std::mem;

use bytes::Bytes;
use tokenroute_domain::money::ServiceTier;
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::usage::Usage;

use crate::sse::Event;
use crate::value::Reader;

mod body;
mod closing;
mod counts;
mod edit;
mod identity;
mod openai;
mod plain;
mod prompt;
mod repeat;
mod resume;
#[cfg(test)]
mod tests;
mod text;
mod tracker;

pub use body::DOCUMENT_BYTES_MAX;
pub use counts::TOKENS_MAX;
pub use identity::{IDENTITY_MEMBER_BYTES_MAX, Identity};
pub use prompt::{PROMPT_BODY_BYTES_MAX, prompt_text};
pub use resume::{Resume, Start};

use body::{Body, Gathered};
use counts::Counts;
use openai::{Choices, Seen};
use plain::Plain;
use resume::Resumed;
use text::{Mark, Text};

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
#[derive(Clone, Debug)]
pub struct Options {
    /// What was asked.
    pub endpoint: Endpoint,
    /// `include_usage` was asked for by the edge and not by the client: what it causes is taken out.
    pub strip_usage: bool,
    /// The client has asked for usage.
    pub client_usage: bool,
    /// How the provider counts reasoning tokens.
    pub reasoning: Reasoning,
    /// How much of the delivered text is kept, in bytes.
    pub text_bytes_max: usize,
    /// Where the answer goes on, if it is to be the rest of another one.
    pub resume: Option<Box<Resume>>,
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
    /// It carries an error. Nothing that it says counts as delivered; whether it goes as it is, or another
    /// target is asked, is for others to say.
    Failed,
    /// It does not go, and nothing more may: the answer cannot be the rest of the one that the client has
    /// the beginning of.
    Diverged,
}

/// What of an answer another target can go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered<'a> {
    /// The text of the only choice that the client was given by this target.
    pub content: &'a str,
}

/// An event that starts so ends the stream, whatever follows.
const DONE: &[u8] = b"[DONE]";

/// Reads one answer.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one of the answers that a meter gives")]
pub struct Meter {
    options: Options,
    body: Body,
    text: Text,
    counts: Option<Counts>,
    odd_usage: bool,
    service_tier: Option<ServiceTier>,
    begun: Choices,
    finished: Choices,
    semantic: bool,
    error: bool,
    end: End,
    malformed: u64,
    malformed_run: u32,
    semantic_events: u64,
    /// The client was told of usage.
    usage_passed: bool,
    plain: Plain,
    identity: Option<Box<Identity>>,
    resumed: Option<Box<Resumed>>,
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
    pub fn new(mut options: Options) -> Self {
        let has_text = match options.endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions => true,
            Endpoint::Embeddings | Endpoint::Models | Endpoint::Unknown => false,
        };
        let resume = options.resume.take();
        Self {
            resumed: resume.map(|resume| Box::new(Resumed::new(*resume, &options))),
            body: Body::new(if has_text { DOCUMENT_BYTES_MAX } else { 0 }),
            text: Text::new(options.text_bytes_max),
            counts: None,
            odd_usage: false,
            service_tier: None,
            begun: Choices::default(),
            finished: Choices::default(),
            semantic: false,
            error: false,
            end: End::Open,
            malformed: 0,
            malformed_run: 0,
            semantic_events: 0,
            usage_passed: false,
            plain: Plain::Before,
            identity: None,
            options,
        }
    }

    /// Reads a whole event and says what happens to it. Where an event lacks its blank line, what goes of
    /// it lacks one too.
    pub fn event(&mut self, event: &Event<'_>) -> Verdict {
        let Some(data) = event.data() else {
            return Verdict::Pass;
        };
        if data.starts_with(DONE) {
            return self.end_stream();
        }
        let mark = self.text.mark();
        let Some(seen) = self.read_event(&data, mark) else {
            self.note_malformed(event, &data);
            return Verdict::Drop;
        };
        self.malformed_run = 0;
        self.note_usage(seen.usage.or(seen.usage_elsewhere));
        self.service_tier = seen.service_tier.or(self.service_tier);
        if seen.error {
            self.error = true;
            self.text.back_to(mark);
            return Verdict::Failed;
        }
        self.semantic_events = self.semantic_events.saturating_add(u64::from(seen.semantic));
        if self.resumed.is_some() {
            return self.judge_resumed(event, &data, (&seen, mark));
        }
        if self.begun.is_empty() && !seen.begun.is_empty() {
            self.identity = Identity::read(&data).map(Box::new);
        }
        self.note_said(&seen);
        self.plain.add(&seen.said);
        self.judge(event, &seen)
    }

    /// Reads the next part of a body that is not a stream of events, or the next part of an event that
    /// is too long to be kept whole. It passes, but for a part of an event in an answer that is to be
    /// the rest of another.
    pub fn body(&mut self, part: &[u8]) -> Verdict {
        self.plain = Plain::Not;
        if self.resumed.is_some() {
            return Verdict::Diverged;
        }
        self.semantic_events = self.semantic_events.saturating_add(1);
        let mut body = mem::take(&mut self.body);
        body.feed(part, &mut |gathered| self.gathered(gathered));
        self.body = body;
        Verdict::Pass
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

    /// The service tier that the provider says it was processed in.
    pub fn service_tier(&self) -> Option<ServiceTier> {
        self.service_tier
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

    /// How many documents in a row were not JSON, up to now.
    pub fn malformed_run(&self) -> u32 {
        self.malformed_run
    }

    /// How many events, or parts of a body, have said something, be it news to the client or not.
    pub fn semantic_events(&self) -> u64 {
        self.semantic_events
    }

    /// What another target could go on from: `None` unless the answer is a stream of chat that is one
    /// plain text (after reasoning perhaps), is not finished, and was kept whole. The rest of another
    /// answer may have said nothing yet.
    pub fn resumable(&self) -> Option<Delivered<'_>> {
        let chat = self.options.endpoint == Endpoint::ChatCompletions;
        let open = self.end == End::Open && self.finished.is_empty();
        if !chat || !open || !self.begun.only_first() || !self.text.is_whole() {
            return None;
        }
        let start = match self.plain {
            Plain::Since(start) => start,
            Plain::Before if self.resumed.is_some() => self.text.bytes_total(),
            Plain::Before | Plain::Not => return None,
        };
        Some(Delivered { content: self.text.kept().get(usize::try_from(start).ok()?..)? })
    }

    /// What names the answer that the client has (the first one, if this is the rest of it); `None`
    /// before its first choice, and if that is more than can be kept.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.resumed {
            Some(resumed) => Some(&resumed.identity),
            None => self.identity.as_deref(),
        }
    }

    /// Whether an answer that is to be the rest of another has spoken, but said nothing yet that the
    /// client does not have.
    pub fn repeating(&self) -> bool {
        self.resumed.is_some() && !self.semantic && self.semantic_events > 0
    }

    /// The beginning of what this target said that was not delivered.
    pub fn suppressed(&self) -> &str {
        self.resumed.as_deref().map_or("", |resumed| resumed.suppressed.kept())
    }

    /// How long it is in all, in bytes.
    pub fn suppressed_bytes(&self) -> u64 {
        self.resumed.as_deref().map_or(0, |resumed| resumed.suppressed.bytes_total())
    }

    /// Whether the client was told of usage.
    pub fn usage_passed(&self) -> bool {
        self.usage_passed
    }

    /// The bytes that end a stream which is complete but lacks its `[DONE]`; with a report of `usage` if
    /// the client has asked for it and was told of none.
    pub fn closing(&self, usage: Option<&Usage>) -> Bytes {
        let due = self.options.client_usage && !self.usage_passed;
        closing::write(self.identity(), usage.filter(|_| due))
    }

    fn end_stream(&mut self) -> Verdict {
        if self.resumed.as_deref().is_some_and(Resumed::is_repeating) {
            return Verdict::Diverged;
        }
        self.end = End::Done;
        Verdict::End
    }

    /// Reads the data of an event, and its text unless another reading of it says what is delivered.
    /// `None` if it is malformed: then it counts for nothing else.
    fn read_event(&mut self, data: &[u8], mark: Mark) -> Option<Seen> {
        let mut seen = Seen::default();
        let mut reader = Reader::of_bytes(data).ok()?;
        let read = openai::read(&mut reader, &mut seen, &mut self.text);
        if read.is_err() || self.resumed.is_some() {
            self.text.back_to(mark);
        }
        read.is_ok().then_some(seen)
    }

    /// An event that breaks off where the stream does is no news; one that is blank says nothing.
    fn note_malformed(&mut self, event: &Event<'_>, data: &[u8]) {
        if !event.unterminated() && !data.trim_ascii().is_empty() {
            self.malformed = self.malformed.saturating_add(1);
            self.malformed_run = self.malformed_run.saturating_add(1);
        }
    }

    fn note_said(&mut self, seen: &Seen) {
        self.semantic |= seen.semantic;
        self.begun.add(seen.begun);
        self.finished.add(seen.finished);
    }

    /// Makes an event one of the answer that it is to go on with.
    fn judge_resumed(
        &mut self,
        event: &Event<'_>,
        data: &[u8],
        (seen, mark): (&Seen, Mark),
    ) -> Verdict {
        let Self { resumed: Some(resumed), text, .. } = self else { return Verdict::Pass };
        let Ok(chunk) = resumed.read(data, text) else { return Verdict::Drop };
        if chunk.diverged {
            self.text.back_to(mark);
            return Verdict::Diverged;
        }
        self.begun.add(seen.begun);
        self.finished.add(seen.finished);
        self.semantic |= chunk.new;
        self.plain.add(&chunk.said);
        self.usage_passed |= chunk.usage;
        if !chunk.new && !chunk.usage {
            Verdict::Drop
        } else if chunk.edits.is_empty() {
            Verdict::Pass
        } else {
            Verdict::Replace(edit::rewrite(event, &chunk.edits))
        }
    }

    /// Reads a document that is there in one piece; `None` if it is malformed: then it counts for
    /// nothing else.
    fn read_document(&mut self, document: &[u8]) -> Option<()> {
        let mark = self.text.mark();
        let Some(seen) = self.read_event(document, mark) else {
            self.malformed = self.malformed.saturating_add(1);
            return None;
        };
        self.error |= seen.error;
        self.note_said(&seen);
        self.note_usage(seen.usage.or(seen.usage_elsewhere));
        self.service_tier = seen.service_tier.or(self.service_tier);
        Some(())
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

    fn judge(&mut self, event: &Event<'_>, seen: &Seen) -> Verdict {
        let strip = self.options.strip_usage;
        if strip && seen.choice_count == 0 && seen.usage.is_some() {
            return Verdict::Drop;
        }
        let reported = seen.usage.and_then(|counts| counts.usage(self.options.reasoning).0);
        self.usage_passed |= !strip && reported.is_some();
        let replaced = (strip && !seen.cuts.is_empty()).then(|| edit::rewrite(event, &seen.cuts));
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
                self.service_tier = tracker.service_tier().or(self.service_tier);
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
