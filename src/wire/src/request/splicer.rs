//! Sends a body on with the members changed that an attempt needs changed, its length known ahead.
//!
//! It does not decide what an attempt needs, and it changes no other byte.
//!
//! Where it begins before the body has ended, a member that calls for a change may still turn up.
//! The bytes of the longest such change are then reserved in the length, and what is not used of
//! them becomes spaces before the last `}`.

use bytes::Bytes;

use super::facts::{Facts, Flag, Options, Span, StreamOptions};
use super::frames::Frames;
use super::scanner::Scanner;
use super::text;

/// How much of a body is held back from a `stream_options` whose right form is not known before
/// `stream` turns up, in bytes. Beyond it the member goes out as it came.
pub const HELD_BYTES_MAX: u64 = 8 * 1024 * 1024;

const MEMBER: &str = r#","stream_options":{"include_usage":true}"#;
const OBJECT: &str = r#"{"include_usage":true}"#;
const FIRST: &str = r#""include_usage":true"#;
const FIRST_OF_MANY: &str = r#""include_usage":true,"#;
const TRUE: &str = "true";

/// What an attempt changes in the body.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The model's ID at the upstream, as text.
    pub model: &'a str,
    /// Whether a stream must be asked for its usage: `stream_options.include_usage` becomes `true`
    /// if `stream` is `true`. Values of a wrong type stay, for the upstream to refuse.
    pub include_usage: bool,
}

/// Bytes in the place of others, or between them.
#[derive(Clone, Debug)]
struct Edit {
    span: Span,
    text: Bytes,
}

impl Edit {
    fn replace(span: Span, text: &'static str) -> Self {
        Self { span, text: Bytes::from_static(text.as_bytes()) }
    }

    fn insert(at: u64, text: &'static str) -> Self {
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
    /// The change that is made, if any.
    Known(Option<Edit>),
    /// Nothing may pass from this offset on before more is known.
    Held(u64),
    /// Nothing has turned up that calls for a change.
    Open,
}

/// Sends one attempt's body, once and in order.
#[derive(Clone, Debug)]
pub struct Splicer {
    /// Not yet sent.
    model: Option<Edit>,
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
        let model = facts
            .model
            .as_ref()
            .map(|model| Edit { span: model.span, text: Bytes::from(text::quote(change.model)) });
        let blind = model.is_none() && !scanner.finished();
        let usage = if change.include_usage {
            decide(facts, scanner.scanned())
        } else {
            Usage::Known(None)
        };
        let reserve = match &usage {
            Usage::Known(edit) => edit.as_ref().map_or(0, Edit::growth),
            Usage::Held(_) | Usage::Open => i64::try_from(MEMBER.len()).unwrap_or(i64::MAX),
        };
        let growth = model.as_ref().map_or(0, Edit::growth).saturating_add(reserve);
        Self { model, usage, reserve, growth, offset: 0, blind }
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
        }
        let limit = match self.usage {
            Usage::Held(start) => scanner.settled().min(start),
            Usage::Known(_) | Usage::Open => scanner.settled(),
        };
        while let Some(edit) = self.next_edit(limit) {
            if !self.copy(edit.span.start, frames, out) {
                return;
            }
            self.offset = edit.span.end;
            out.push(edit.text.clone());
            self.strike(&edit);
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

    /// The first change that is due and lies before `limit`.
    fn next_edit(&self, limit: u64) -> Option<Edit> {
        let usage = match &self.usage {
            Usage::Known(edit) => edit.as_ref(),
            Usage::Held(_) | Usage::Open => None,
        };
        let due = self.model.iter().chain(usage).filter(|edit| edit.span.end <= limit);
        due.min_by_key(|edit| edit.span.start).cloned()
    }

    /// Takes a change that was made off the list.
    fn strike(&mut self, edit: &Edit) {
        if self.model.as_ref().is_some_and(|model| model.span == edit.span) {
            self.model = None;
        } else {
            self.usage = Usage::Known(None);
            self.reserve = self.reserve.saturating_sub(edit.growth());
        }
    }

    /// Sends on up to `end`. Whether it got there.
    fn copy(&mut self, end: u64, frames: &Frames, out: &mut Vec<Bytes>) -> bool {
        self.offset = frames.slice(self.offset, end, out);
        self.offset == end
    }
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
        (None, Some(close)) => Usage::Known(Some(Edit::insert(close, MEMBER))),
        (None, None) => Usage::Open,
    }
}

/// The change that makes a `stream_options` ask for usage, if it does not and can.
fn ask_for_usage(found: &StreamOptions) -> Option<Edit> {
    let inside = found.span.start.saturating_add(1);
    match found.options {
        Options::Null => Some(Edit::replace(found.span, OBJECT)),
        Options::Object { empty, include_usage: None } => {
            Some(Edit::insert(inside, if empty { FIRST } else { FIRST_OF_MANY }))
        }
        Options::Object { include_usage: Some((flag, span)), .. } => match flag {
            Flag::False | Flag::Null => Some(Edit::replace(span, TRUE)),
            Flag::True | Flag::Other => None,
        },
        Options::Other => None,
    }
}
