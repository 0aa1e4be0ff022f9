//! Picks the routed members out of what the grammar meets. It does not know the grammar itself.

use tokenroute_domain::money::ServiceTier;

use super::Malformed;
use super::facts::{Facts, Flag, Messages, Model, Name, Number, Options, Span, StreamOptions};
use super::grammar::{Kind, Listener};
use super::key::{Key, SPELLING_BYTES_MAX};
use super::text::Characters;

/// Longest value of `model` as it stands in the body, quotes and escapes included, in bytes.
pub const MODEL_BYTES_MAX: u64 = 4096;

/// Longest value of `stream_options` as it stands in the body, in bytes.
pub const STREAM_OPTIONS_BYTES_MAX: u64 = 4096;

/// Depth of the top-level object's members.
const TOP: u32 = 1;

/// Depth of the members of its members.
const INNER: u32 = 2;

/// The members found so far and the one that is being read.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    facts: Facts,
    /// The keys seen that must be unique, one bit each.
    seen: u16,
    /// The routed member at the top that is being read, from its key to its value's end.
    current: Option<Key>,
    /// Where its value begins.
    began: Option<u64>,
    /// Whether that value has anything in it, if it is a list or an object.
    filled: bool,
    /// What is known of the `stream_options` that is being read.
    options: Inside,
    /// The text that is being kept: a key's spelling or the model's.
    kept: Vec<u8>,
    /// How much of the current string is to be kept.
    kept_max: usize,
}

/// The inside of `stream_options`.
#[derive(Clone, Copy, Debug, Default)]
struct Inside {
    /// Whether `include_usage` is the member that is being read.
    current: bool,
    began: u64,
    include_usage: Option<(Flag, Span)>,
}

impl Members {
    pub(super) fn new() -> Self {
        Self { facts: Facts { empty: true, ..Facts::default() }, ..Self::default() }
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Where a value begins that may have to be changed and has not been seen whole.
    pub(super) fn held_from(&self) -> Option<u64> {
        self.began.filter(|_| self.length_max().is_some())
    }

    /// Fails if the value that is being read is too long already, `offset` being reached.
    pub(super) fn check_length(&self, offset: u64) -> Result<(), Malformed> {
        match (self.began, self.length_max()) {
            (Some(start), Some(max)) if offset.saturating_sub(start) > max => {
                Err(Malformed::MemberTooLong)
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// The bound of the member that is being read, if it is one that is held back.
    fn length_max(&self) -> Option<u64> {
        match self.current? {
            Key::Model => Some(MODEL_BYTES_MAX),
            Key::StreamOptions => Some(STREAM_OPTIONS_BYTES_MAX),
            Key::Stream
            | Key::MaxTokens
            | Key::MaxCompletionTokens
            | Key::N
            | Key::BestOf
            | Key::Messages
            | Key::Prompt
            | Key::Input
            | Key::Tools
            | Key::Functions
            | Key::Logprobs
            | Key::ContinueFinalMessage
            | Key::AddGenerationPrompt
            | Key::ServiceTier
            | Key::IncludeUsage
            | Key::Image
            | Key::File => None,
        }
    }

    /// Whether members at `depth` can be ones that matter, as things stand.
    fn matters(&self, depth: u32) -> bool {
        match depth {
            TOP => true,
            INNER => self.current == Some(Key::StreamOptions),
            _ => matches!(self.current, Some(Key::Messages | Key::Prompt | Key::Input)),
        }
    }

    fn record(&mut self, key: Key, kind: Kind, span: Span) {
        let facts = &mut self.facts;
        match key {
            Key::Model => facts.model = Some(Model { name: name(kind, &self.kept), span }),
            Key::Stream => facts.stream = Some(flag(kind)),
            Key::StreamOptions => {
                let options = self.options.seen_as(kind, self.filled);
                facts.stream_options = Some(StreamOptions { options, span });
            }
            Key::MaxTokens => {
                facts.max_tokens = Some(number(kind));
                facts.max_tokens_span = Some(span);
            }
            Key::MaxCompletionTokens => {
                facts.max_completion_tokens = Some(number(kind));
                facts.max_completion_tokens_span = Some(span);
            }
            Key::N => facts.n = Some(number(kind)),
            Key::BestOf => facts.best_of = Some(number(kind)),
            Key::Messages if kind == Kind::Array => {
                facts.messages = Some(Messages { span, empty: !self.filled });
            }
            // Where one of these keys occurs twice, either may be the one that counts.
            Key::Tools | Key::Functions => facts.tools |= gives(kind, self.filled),
            Key::Logprobs => facts.logprobs |= kind == Kind::True,
            Key::ContinueFinalMessage => facts.continue_final_message = Some(flag(kind)),
            Key::AddGenerationPrompt => facts.add_generation_prompt = Some(flag(kind)),
            Key::ServiceTier => facts.service_tier = Some(service_tier(kind, &self.kept)),
            Key::Messages
            | Key::Prompt
            | Key::Input
            | Key::IncludeUsage
            | Key::Image
            | Key::File => {}
        }
    }
}

impl Inside {
    fn seen_as(self, kind: Kind, filled: bool) -> Options {
        match kind {
            Kind::Null => Options::Null,
            Kind::Object => Options::Object { empty: !filled, include_usage: self.include_usage },
            Kind::Array | Kind::Text | Kind::True | Kind::False | Kind::Number(_) => Options::Other,
        }
    }
}

impl Listener for Members {
    fn opened(&mut self, at: u64) {
        self.facts.open = Some(at);
    }

    fn closed(&mut self, at: u64) {
        self.facts.close = Some(at);
    }

    fn key_began(&mut self, depth: u32) {
        self.kept.clear();
        // One byte more than matters, so that a longer key is known to be longer.
        self.kept_max = if self.matters(depth) { SPELLING_BYTES_MAX.saturating_add(1) } else { 0 };
    }

    fn key_ended(&mut self, depth: u32) -> Result<(), Malformed> {
        if !self.matters(depth) {
            return Ok(());
        }
        let found = Key::spelled(&self.kept, depth);
        if depth > INNER {
            if let Some(found) = found {
                let image = found.key == Key::Image;
                let Facts { images, files, .. } = &mut self.facts;
                let count = if image { images } else { files };
                *count = count.saturating_add(1);
            }
            return Ok(());
        }
        if let Some(found) = found {
            let bit = found.key.bit();
            if bit != 0 && (!found.exact || self.seen & bit != 0) {
                return Err(Malformed::DuplicateKey);
            }
            self.seen |= bit;
        }
        if depth == TOP {
            self.facts.empty = false;
            self.current = found.map(|found| found.key);
        } else {
            self.options.current = found.is_some();
        }
        Ok(())
    }

    fn value_began(&mut self, depth: u32, at: u64, text: bool) {
        self.kept_max = 0;
        if depth == TOP {
            let Some(key) = self.current else { return };
            self.began = Some(at);
            self.filled = false;
            if text && matches!(key, Key::Model | Key::ServiceTier) {
                self.kept.clear();
                self.kept_max = usize::try_from(MODEL_BYTES_MAX).unwrap_or(usize::MAX);
            } else if matches!(key, Key::Messages | Key::Prompt | Key::Input) {
                self.facts.prompt_start.get_or_insert(at);
            }
        } else if depth == INNER {
            self.filled = true;
            self.options.began = at;
        }
    }

    fn value_ended(&mut self, depth: u32, kind: Kind, end: u64) -> Result<(), Malformed> {
        if depth == INNER && self.options.current {
            self.options.current = false;
            self.options.include_usage =
                Some((flag(kind), Span { start: self.options.began, end }));
        }
        // A list of tokens is one prompt.
        let prompt = depth == INNER && self.current == Some(Key::Prompt);
        if prompt && matches!(kind, Kind::Text | Kind::Array) {
            self.facts.prompts = self.facts.prompts.saturating_add(1);
        }
        if depth != TOP {
            return Ok(());
        }
        self.check_length(end)?;
        let (current, began) = (self.current.take(), self.began.take());
        if let (Some(key), Some(start)) = (current, began) {
            self.record(key, kind, Span { start, end });
        }
        Ok(())
    }

    #[inline]
    fn text(&mut self, raw: &[u8]) {
        if self.kept_max > 0 {
            let room = self.kept_max.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(raw.get(..room).unwrap_or(raw));
        }
    }
}

impl Key {
    /// Its place in the set of keys seen; 0 if it need not be unique, because it decides nothing that a
    /// second reading of it could turn.
    fn bit(self) -> u16 {
        match self {
            Self::Model => 1,
            Self::Stream => 1 << 1,
            Self::StreamOptions => 1 << 2,
            Self::MaxTokens => 1 << 3,
            Self::MaxCompletionTokens => 1 << 4,
            Self::N => 1 << 5,
            Self::BestOf => 1 << 6,
            Self::IncludeUsage => 1 << 7,
            Self::Messages => 1 << 8,
            Self::ServiceTier => 1 << 9,
            Self::Prompt
            | Self::Input
            | Self::Tools
            | Self::Functions
            | Self::Logprobs
            | Self::ContinueFinalMessage
            | Self::AddGenerationPrompt
            | Self::Image
            | Self::File => 0,
        }
    }
}

fn service_tier(kind: Kind, kept: &[u8]) -> ServiceTier {
    match name(kind, kept) {
        Name::NotText if kind == Kind::Null => ServiceTier::Auto,
        Name::Text(name) => ServiceTier::named(&name),
        Name::Unpaired | Name::NotText => ServiceTier::Other,
    }
}

fn name(kind: Kind, kept: &[u8]) -> Name {
    match kind {
        Kind::Text => {
            let raw = std::str::from_utf8(kept).unwrap_or_default();
            match Characters::new(raw).collect() {
                Ok(text) => Name::Text(text),
                Err(_unpaired) => Name::Unpaired,
            }
        }
        Kind::Object | Kind::Array | Kind::True | Kind::False | Kind::Null | Kind::Number(_) => {
            Name::NotText
        }
    }
}

fn flag(kind: Kind) -> Flag {
    match kind {
        Kind::True => Flag::True,
        Kind::False => Flag::False,
        Kind::Null => Flag::Null,
        Kind::Object | Kind::Array | Kind::Text | Kind::Number(_) => Flag::Other,
    }
}

/// Whether a value gives anything.
fn gives(kind: Kind, filled: bool) -> bool {
    match kind {
        Kind::Null => false,
        Kind::Object | Kind::Array => filled,
        Kind::Text | Kind::True | Kind::False | Kind::Number(_) => true,
    }
}

fn number(kind: Kind) -> Number {
    match kind {
        Kind::Number(number) => number,
        Kind::Null => Number::Null,
        Kind::Object | Kind::Array | Kind::Text | Kind::True | Kind::False => Number::Other,
    }
}
