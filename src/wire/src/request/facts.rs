//! What is known of a body so far: the members that decide routing or price, and where they stand.

use tokenroute_domain::money::ServiceTier;

/// A stretch of the body, in absolute offsets in bytes: `start` is in it, `end` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub start: u64,
    /// The byte after its last one.
    pub end: u64,
}

impl Span {
    /// Its length in bytes.
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it has no bytes, and so is a place to insert at.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// The top-level members that matter. `None` is absent, or not seen whole yet.
///
/// Wrong types are no fault here: they are told as they are, for the caller to judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the client asks for.
    pub model: Option<Model>,
    /// Whether the answer is to be streamed.
    pub stream: Option<Flag>,
    /// How it is to be streamed.
    pub stream_options: Option<StreamOptions>,
    /// The older cap on the answer's tokens.
    pub max_tokens: Option<Number>,
    /// Where the older cap stands.
    pub max_tokens_span: Option<Span>,
    /// The newer cap on the answer's tokens.
    pub max_completion_tokens: Option<Number>,
    /// Where the newer cap stands.
    pub max_completion_tokens_span: Option<Span>,
    /// How many answers.
    pub n: Option<Number>,
    /// Of how many answers the best is given.
    pub best_of: Option<Number>,
    /// Which service tier is asked for: `auto` where the value is null, `Other` where it is no name.
    pub service_tier: Option<ServiceTier>,
    /// How many prompts `prompt` lists, if it is a list of texts or of lists of tokens.
    pub prompts: u64,
    /// Images in the conversation, counted by the keys that hold them.
    pub images: u64,
    /// Other parts of the conversation whose tokens its bytes do not bound: files, videos, audio by its
    /// address. Audio in the body itself is bounded by its bytes.
    pub files: u64,
    /// The conversation, where it is a list.
    pub messages: Option<Messages>,
    /// Where the value of `messages`, `prompt` or `input` begins, whichever came first.
    pub prompt_start: Option<u64>,
    /// Whether the answer may call tools: `tools` or `functions` is neither null nor empty.
    pub tools: bool,
    /// Whether log probabilities are asked for.
    pub logprobs: bool,
    /// Whether the answer is to go on from the last message. Only some self-hosted servers know it.
    pub continue_final_message: Option<Flag>,
    /// Whether an answer of its own is to be begun. Only some self-hosted servers know it.
    pub add_generation_prompt: Option<Flag>,
    /// The offset just after the first `{`.
    pub open: Option<u64>,
    /// The offset of the last `}`.
    pub close: Option<u64>,
    /// Whether the object has no member (so far).
    pub empty: bool,
}

/// The value of `model`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// What it says.
    pub name: Name,
    /// Where the value stands, quotes included.
    pub span: Span,
}

impl Model {
    /// The name, if it is one that can be in a table.
    pub fn text(&self) -> Option<&str> {
        match &self.name {
            Name::Text(text) => Some(text),
            Name::Unpaired | Name::NotText => None,
        }
    }
}

/// What `model` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A string, its escapes resolved.
    Text(String),
    /// A string with half a surrogate pair: legal JSON, but no Unicode text and in no table.
    Unpaired,
    /// Not a string.
    NotText,
}

/// The value of a member that should be `true` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// `true`.
    True,
    /// `false`.
    False,
    /// `null`.
    Null,
    /// Any other value.
    Other,
}

/// The value of a member that should be a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Number {
    /// `null`.
    Null,
    /// An integer without sign, fraction or exponent.
    Integer(u64),
    /// Any other value: negative, fractional, `1e3`, above 64 bits, or no number.
    Other,
}

/// The value of `messages`, a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Messages {
    /// Where it stands, brackets included.
    pub span: Span,
    /// Whether it has no items.
    pub empty: bool,
}

/// The value of `stream_options`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// What it is.
    pub options: Options,
    /// Where the value stands.
    pub span: Span,
}

/// What `stream_options` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Options {
    /// `null`.
    Null,
    /// An object.
    Object {
        /// Whether it has no member.
        empty: bool,
        /// The value of `include_usage` and where it stands.
        include_usage: Option<(Flag, Span)>,
    },
    /// Any other value.
    Other,
}
