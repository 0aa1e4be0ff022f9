//! What a model name asks for: the name's parts, joined by `+`, become a [`Script`].

mod parse;

use std::time::Duration;

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The last user message again; tools and `response_format` are honoured.
    Echo,
    /// So many tokens of fixed words.
    Words(usize),
    /// Text of many scripts, escapes and emoji.
    Unicode,
    /// A JSON answer of exactly so many bytes; as a stream, a few words.
    JsonBytes(usize),
    /// A refusal with this status.
    Status(Status),
    /// 200 with `MiniMax`'s error member.
    BaseResp,
    /// The recorded answer of this name, event for event.
    Replay(String),
    /// What is said in the recorded answer of this name, in chunks of our own.
    Said(String),
}

/// An HTTP refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) retry_after_seconds: Option<u64>,
    pub(crate) retry_after_ms: Option<u64>,
    pub(crate) kind: StatusKind,
}

/// Which refusal of that status it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusKind {
    /// The usual one.
    Plain,
    /// `context_length_exceeded`.
    Context,
    /// `insufficient_quota`.
    Quota,
    /// `content_policy_violation`.
    Policy,
    /// A page of HTML.
    Html,
    /// No body.
    Empty,
}

/// Where a stream tells its usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageWhen {
    /// As the form's provider does.
    Usual,
    /// Never, JSON answers included.
    Never,
    /// Cumulative, on every chunk.
    Every,
    /// On the chunk with the finish reason, asked or not.
    LastContent,
    /// In an extra chunk, asked or not.
    Always,
}

/// Whose members the usage has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageForm {
    /// `OpenAI`'s, without cached or reasoning tokens.
    Simple,
    /// `OpenAI`'s with details; the others are named by their providers.
    OpenAi,
    Anthropic,
    DeepSeek,
    Gemini,
    Groq,
    MiniMax,
    Mistral,
    Moonshot,
    Ollama,
    OpenRouter,
    Qwen,
    Vllm,
    Xai,
    Zai,
}

/// A wrong number in the usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageOdd {
    Zero,
    Negative,
    Float,
    Huge,
    Text,
}

/// How lines of SSE end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnd {
    Lf,
    CrLf,
    Cr,
}

/// What is made of a last message that is the assistant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefill {
    /// Nothing: the answer begins at its beginning.
    Ignored,
    /// The answer goes on from its text.
    Taken,
    /// The same where the message has `"prefix": true`; else it is refused.
    Prefix,
    /// The same where the message has `"partial": true`; else it is refused.
    Partial,
    /// The same where the request has `"continue_final_message": true`; else it is refused.
    ContinueFinalMessage,
    /// It is refused.
    Rejected,
}

/// How an exchange ends that does not end well. Counts are SSE events, the role chunk being the first; or
/// bytes of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As it should.
    Whole,
    /// A reset.
    ResetAfter(usize),
    /// A FIN without the last chunk of the framing.
    FinAfter(usize),
    /// Silence with the connection open.
    StallAfter(usize),
    /// The same three, but after so many bytes of the body.
    ResetAtByte(usize),
    FinAtByte(usize),
    StallAtByte(usize),
}

/// Something put into the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    /// `data:` with something that is not JSON.
    Garbage,
    /// The same in place of each event from there on, `[DONE]` included.
    GarbageOn,
    /// An error event, after which the stream ends without `[DONE]`.
    Error,
    /// A content chunk whose event is this long, bytes.
    Big(usize),
}

/// A fault before or instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request is read, nothing is ever said.
    Silence,
    /// A reset instead of an answer.
    ResetBeforeHead,
    /// A FIN instead of an answer.
    FinBeforeHead,
    /// Half of a head, then a reset.
    HalfHead,
    /// A reset instead of an answer on the second and later exchanges of a connection.
    ResetOnReuse,
    /// A chunk whose size is no number.
    BadChunk,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndChunked,
    /// Two `Content-Length` that differ.
    TwoLengths,
    /// Two whole answers to one request.
    TwoAnswers,
    /// A body shorter than its `Content-Length`, then a FIN.
    ShortBody,
    /// A head that is no HTTP.
    NotHttp,
    /// 100 and 103 before the real head.
    Informational,
}

/// A refusal before the body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Early {
    /// The body is read first.
    No,
    /// This status at once, then the connection closes.
    Status(u16),
}

/// All that a model name says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, each a part of a name")]
pub(crate) struct Script {
    /// The name's parts but for those that say *when*.
    parts: Vec<String>,
    /// What the first so many requests with this name get instead.
    first: Vec<(u64, Self)>,
    /// Names of the outages that this name is subject to.
    pub(crate) outages: Vec<String>,
    pub(crate) answer: Answer,
    pub(crate) prefill: Prefill,
    /// The first token that is another than it should be, from 1.
    pub(crate) diverges_at: Option<usize>,
    /// The text is said in pieces of so many characters.
    pub(crate) piece_characters: Option<usize>,
    /// So many reasoning deltas come before the text.
    pub(crate) reasoning: usize,
    pub(crate) early: Early,
    pub(crate) fault: Option<Fault>,
    pub(crate) slow_read: bool,
    pub(crate) late_head: Duration,
    pub(crate) late_first: Duration,
    pub(crate) after_role: Duration,
    pub(crate) pace: Duration,
    pub(crate) usage_when: UsageWhen,
    pub(crate) usage_form: UsageForm,
    pub(crate) usage_odd: Option<UsageOdd>,
    pub(crate) line_end: LineEnd,
    pub(crate) bom: bool,
    pub(crate) no_space: bool,
    pub(crate) comments: bool,
    pub(crate) done: bool,
    pub(crate) after_done: AfterDone,
    pub(crate) ending: Ending,
    /// A comment so often while the stream stalls.
    pub(crate) stall_pings: Option<Duration>,
    pub(crate) extra: Option<(usize, Extra)>,
    pub(crate) split_bytes: Option<usize>,
    pub(crate) one_write: bool,
    pub(crate) gzip: bool,
    pub(crate) no_length: bool,
    pub(crate) chunked_json: bool,
    pub(crate) slow_json: bool,
    pub(crate) blank_lines: bool,
    pub(crate) strict_fields: bool,
    pub(crate) closes: bool,
    pub(crate) idle_close: Option<Duration>,
}

/// What happens after `[DONE]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterDone {
    /// The end of the body.
    End,
    /// Silence; the body does not end.
    Linger,
    /// Another content chunk, then the end.
    More,
}

impl Script {
    fn plain(answer: Answer) -> Self {
        Self {
            parts: vec![],
            first: vec![],
            outages: vec![],
            answer,
            prefill: Prefill::Ignored,
            diverges_at: None,
            piece_characters: None,
            reasoning: 0,
            early: Early::No,
            fault: None,
            slow_read: false,
            late_head: Duration::ZERO,
            late_first: Duration::ZERO,
            after_role: Duration::ZERO,
            pace: Duration::ZERO,
            usage_when: UsageWhen::Usual,
            usage_form: UsageForm::Simple,
            usage_odd: None,
            line_end: LineEnd::Lf,
            bom: false,
            no_space: false,
            comments: false,
            done: true,
            after_done: AfterDone::End,
            ending: Ending::Whole,
            stall_pings: None,
            extra: None,
            split_bytes: None,
            one_write: false,
            gzip: false,
            no_length: false,
            chunked_json: false,
            slow_json: false,
            blank_lines: false,
            strict_fields: false,
            closes: false,
            idle_close: None,
        }
    }

    /// Whether requests with this name are counted.
    pub(crate) fn counts(&self) -> bool {
        !self.first.is_empty()
    }

    /// What request number `before` (from 0) with this name gets.
    pub(crate) fn at_count(&self, before: u64) -> &Self {
        let due = self.first.iter().filter(|(count, _)| before < *count);
        due.min_by_key(|(count, _)| *count).map_or(self, |(_, script)| script)
    }
}

/// An example of each kind of name, as `GET /v1/models` lists them.
pub fn names() -> &'static [&'static str] {
    &[
        "echo",
        "words-16",
        "sse-100x50ms",
        "unicode",
        "json-bytes-100000",
        "load-json-600",
        "load-sse-100-0",
        "status-429-retry-2",
        "status-400-context",
        "echo+usage-forms-deepseek",
        "sse-20x5ms+crlf+comments+cut-after-9",
        "words-60+prefill",
        "words-60+first-2-reset-before-head",
    ]
}
