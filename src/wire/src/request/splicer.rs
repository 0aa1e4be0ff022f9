//! Sends a body on with the members changed that an attempt needs changed, its length known ahead.
//!
//! It does not decide what an attempt needs, and it changes no other byte.
//!
//! Where it begins before the body has ended, a member that calls for a change may still turn up.
//! The bytes of the longest such change are then reserved in the length, and what is not used of
//! them becomes spaces before the last `}`.

use bytes::Bytes;

use super::facts::{Facts, Flag, Number, Options, Span, StreamOptions};
use super::frames::Frames;
use super::prefill::Prefill;
use super::scanner::Scanner;
use crate::envelope::push_json_string;

/// How much of a body is held back from a `stream_options` whose right form is not known before
/// `stream` turns up, in bytes. Beyond it the member goes out as it came.
pub const HELD_BYTES_MAX: u64 = 8 * 1024 * 1024;

const MEMBER: &str = r#","stream_options":{"include_usage":true}"#;
const OBJECT: &str = r#"{"include_usage":true}"#;
const FIRST: &str = r#""include_usage":true"#;
const FIRST_OF_MANY: &str = r#""include_usage":true,"#;
const TRUE: &str = "true";

/// What an attempt changes in the body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// The model's ID at the upstream, as text.
    pub model: &'a str,
    /// Whether a stream must be asked for its usage: `stream_options.include_usage` becomes `true`
    /// if `stream` is `true`. Values of a wrong type stay, for the upstream to refuse.
    pub include_usage: bool,
    /// The beginning of an answer, to be put at the end of `messages`. Only in a body that has ended and
    /// whose `messages` is a list.
    pub prefill: Option<Prefill<'a>>,
    /// Takes the place of each cap on the answer's tokens that is a greater integer. Only in a body that
    /// has ended.
    pub output_tokens_max: Option<u64>,
    /// The member that says `output_tokens_max` where the body has no cap that is an integer: it is put in,
    /// or takes the place of a `null`. Only in a body that has ended and names a model, so has a member.
    pub output_cap: Option<&'static str>,
}

/// Bytes in the place of others, or between them.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    span: Span,
    text: Bytes,
}

impl Edit {
    fn replace(span: Span, text: Bytes) -> Self {
        Self { span, text }
    }

    pub(super) fn insert(at: u64, text: Bytes) -> Self {
        Self::replace(Span { start: at, end: at }, text)
    }

    /// By how many bytes it makes the body longer.
    fn growth(&self) -> i64 {
        let (new, old) = (i64::try_from(self.text.len()), i64::try_from(self.span.len()));
        new.unwrap_or(i64::MAX).saturating_sub(old.unwrap_or(i64::MAX))
    }
}

/// What is to become of `stream_options`.
#[derive(Clone, Debug)]
enum Usage {
    /// The change that is still to be put on the list, if any.
    Known(Option<Edit>),
    /// Nothing may pass from this offset on before more is known.
    Held(u64),
    /// Nothing has turned up that calls for a change.
    Open,
}

/// Sends one attempt's body, once and in order.
#[derive(Clone, Debug)]
pub struct Splicer {
    /// The changes that are known and not yet made, in order: at most one for each of the model,
    /// `stream_options` and the two caps, and two for a prefill.
    edits: Vec<Edit>,
    usage: Usage,
    /// Bytes of the length that nothing has claimed yet.
    reserve: i64,
    growth: i64,
    offset: u64,
    /// Whether it began before anything was known of the model, and so sends nothing.
    blind: bool,
}

impl Splicer {
    /// Begins an attempt. The scanner must know the model or be finished; otherwise nothing is
    /// ever sent.
    pub fn new(change: &Change<'_>, scanner: &Scanner) -> Self {
        let facts = scanner.facts();
        let usage = if change.include_usage {
            decide(facts, scanner.scanned())
        } else {
            Usage::Known(None)
        };
        let reserve = match &usage {
            Usage::Known(_) => 0,
            Usage::Held(_) | Usage::Open => i64::try_from(MEMBER.len()).unwrap_or(i64::MAX),
        };
        let blind = facts.model.is_none() && !scanner.finished();
        let edits = Vec::new();
        let mut splicer = Self { edits, usage, reserve, growth: 0, offset: 0, blind };
        if let Some(model) = &facts.model {
            let mut name = Vec::with_capacity(change.model.len().saturating_add(2));
            push_json_string(&mut name, change.model);
            splicer.schedule(Edit::replace(model.span, name.into()));
        }
        if let Usage::Known(edit) = &mut splicer.usage
            && let Some(edit) = edit.take()
        {
            splicer.schedule(edit);
        }
        if scanner.finished() {
            splicer.schedule_late(change, facts);
        }
        splicer.growth = splicer.edits.iter().map(Edit::growth).fold(reserve, i64::saturating_add);
        splicer
    }

    /// By how many bytes the body that is sent is longer than the one that came. Exact, and the
    /// same from the start.
    pub fn growth(&self) -> i64 {
        self.growth
    }

    /// The offset in the body that came up to which everything was sent.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the whole body was sent.
    pub fn finished(&self, scanner: &Scanner) -> bool {
        scanner.finished() && self.offset == scanner.scanned()
    }

    /// Appends what may be sent now: slices of the frames and small pieces of our own. To be called
    /// after each frame was fed and pushed, and after `finish`. Sends nothing of a body that is
    /// malformed.
    pub fn advance(&mut self, scanner: &Scanner, frames: &Frames, out: &mut Vec<Bytes>) {
        if self.blind || scanner.failure().is_some() {
            return;
        }
        let facts = scanner.facts();
        if !matches!(self.usage, Usage::Known(_)) {
            self.usage = decide(facts, scanner.scanned());
            if let Usage::Known(edit) = &mut self.usage
                && let Some(edit) = edit.take()
            {
                self.reserve = self.reserve.saturating_sub(edit.growth());
                self.schedule(edit);
            }
        }
        let limit = match self.usage {
            Usage::Held(start) => scanner.settled().min(start),
            Usage::Known(_) | Usage::Open => scanner.settled(),
        };
        while let Some(edit) = self.edits.first().filter(|edit| edit.span.end <= limit).cloned() {
            if !self.copy(edit.span.start, frames, out) {
                return;
            }
            self.offset = edit.span.end;
            out.push(edit.text);
            self.edits.remove(0);
        }
        if facts.close.is_some_and(|close| close <= limit) && self.reserve > 0 {
            if !self.copy(facts.close.unwrap_or(limit), frames, out) {
                return;
            }
            let spaces = usize::try_from(self.reserve).unwrap_or(0);
            out.push(Bytes::from(vec![b' '; spaces]));
            self.reserve = 0;
        }
        self.copy(limit, frames, out);
    }

    /// Puts a change on the list, behind those at the same place. Changes do not overlap.
    fn schedule(&mut self, edit: Edit) {
        let at = self.edits.partition_point(|other| other.span.start <= edit.span.start);
        self.edits.insert(at, edit);
    }

    /// The changes that take a whole body.
    fn schedule_late(&mut self, change: &Change<'_>, facts: &Facts) {
        if let Some(tokens) = change.output_tokens_max {
            let caps = [
                (facts.max_tokens, facts.max_tokens_span),
                (facts.max_completion_tokens, facts.max_completion_tokens_span),
            ];
            for cap in caps {
                if let (Some(Number::Integer(given)), Some(span)) = cap
                    && given > tokens
                {
                    self.schedule(Edit::replace(span, tokens.to_string().into()));
                }
            }
        }
        if let (Some(member), Some(close)) = (change.cap_member(), facts.close)
            && facts.model.is_some()
            && !has_cap(facts)
        {
            self.schedule(cap_edit(change, facts, (member, close)));
        }
        if let (Some(prefill), Some(messages), Some(close)) =
            (change.prefill, facts.messages, facts.close)
        {
            self.schedule(prefill.message(messages));
            if let Some(edit) = prefill.members(facts, close) {
                self.schedule(edit);
            }
        }
    }

    /// Sends on up to `end`. Whether it got there.
    fn copy(&mut self, end: u64, frames: &Frames, out: &mut Vec<Bytes>) -> bool {
        self.offset = frames.slice(self.offset, end, out);
        self.offset == end
    }
}

impl Change<'_> {
    /// The member that caps the answer, with the comma before it.
    fn cap_member(&self) -> Option<String> {
        Some(format!(",\"{}\":{}", self.output_cap?, self.output_tokens_max?))
    }
}

/// Puts a cap where there is none, or where the member says `null`.
fn cap_edit(change: &Change<'_>, facts: &Facts, (member, close): (String, u64)) -> Edit {
    let span = match change.output_cap {
        Some("max_tokens") => facts.max_tokens.and(facts.max_tokens_span),
        Some(_) => facts.max_completion_tokens.and(facts.max_completion_tokens_span),
        None => None,
    };
    match (span, change.output_tokens_max) {
        (Some(span), Some(tokens)) => Edit::replace(span, tokens.to_string().into()),
        (Some(_) | None, _) => Edit::insert(close, member.into()),
    }
}

/// Whether a cap on the answer's tokens is given as an integer.
fn has_cap(facts: &Facts) -> bool {
    [facts.max_tokens, facts.max_completion_tokens]
        .iter()
        .any(|cap| matches!(cap, Some(Number::Integer(_))))
}

/// What is to become of `stream_options` by what is known so far.
///
/// Providers refuse `stream_options` where `stream` is not `true`, so nothing is changed before
/// `stream` is known: a `stream_options` that came first is held back, up to a bound.
fn decide(facts: &Facts, scanned: u64) -> Usage {
    let streams = match facts.stream {
        Some(Flag::True) => true,
        Some(Flag::False | Flag::Null | Flag::Other) => return Usage::Known(None),
        None if facts.close.is_some() => return Usage::Known(None),
        None => false,
    };
    match (&facts.stream_options, facts.close) {
        (Some(options), _) => {
            let edit = ask_for_usage(options);
            let held = scanned.saturating_sub(options.span.start) <= HELD_BYTES_MAX;
            match edit {
                Some(_) if !streams && held => Usage::Held(options.span.start),
                Some(_) if !streams => Usage::Known(None),
                Some(_) | None => Usage::Known(edit),
            }
        }
        (None, Some(close)) => {
            Usage::Known(Some(Edit::insert(close, Bytes::from_static(MEMBER.as_bytes()))))
        }
        (None, None) => Usage::Open,
    }
}

/// The change that makes a `stream_options` ask for usage, if it does not and can.
fn ask_for_usage(found: &StreamOptions) -> Option<Edit> {
    let inside = found.span.start.saturating_add(1);
    let (span, text) = match found.options {
        Options::Null => (found.span, OBJECT),
        Options::Object { empty, include_usage: None } => {
            let text = if empty { FIRST } else { FIRST_OF_MANY };
            (Span { start: inside, end: inside }, text)
        }
        Options::Object { include_usage: Some((flag, span)), .. } => match flag {
            Flag::False | Flag::Null => (span, TRUE),
            Flag::True | Flag::Other => return None,
        },
        Options::Other => return None,
    };
    Some(Edit::replace(span, Bytes::from_static(text.as_bytes())))
}
