//! The one record that every call leaves.
//!
//! **Invariant:** a record holds no prompt, no answer, no raw key and no address. A model appears
//! only by a name from the route table, never as the client spelt it.

use std::sync::Arc;

use crate::id::{AccountId, CallId, KeyId};
use crate::money::NanoUsd;
use crate::routing::Why;
use crate::time::Timestamp;
use crate::usage::{Usage, UsageSource};

/// What a client asked of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `GET /v1/models` and `GET /v1/models/{id}`
    Models,
    /// Anything else: answered with 404, 405 or 400.
    Unknown,
}

impl Endpoint {
    /// Every endpoint, in the order of their bounded metric labels.
    pub const ALL: [Self; 5] =
        [Self::ChatCompletions, Self::Completions, Self::Embeddings, Self::Models, Self::Unknown];

    /// The stable word for records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Models => "models",
            Self::Unknown => "unknown",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The client has a whole answer.
    Answered,
    /// We said no before anything was sent upstream.
    Refused,
    /// No target gave a good answer; the client has an honest error.
    Failed,
    /// The client left before the end.
    ClientGone,
    /// The answer broke off after its first byte; the client was told so.
    Cut,
    /// A defect of ours ended the call.
    Panicked,
    /// The edge was shut down before the end.
    Shutdown,
}

impl Outcome {
    /// Every outcome, in the order of their bounded metric labels.
    pub const ALL: [Self; 7] = [
        Self::Answered,
        Self::Refused,
        Self::Failed,
        Self::ClientGone,
        Self::Cut,
        Self::Panicked,
        Self::Shutdown,
    ];

    /// The stable word for records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::ClientGone => "client_gone",
            Self::Cut => "cut",
            Self::Panicked => "panicked",
            Self::Shutdown => "shutdown",
        }
    }
}

/// One try at one target, as the record keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// `provider/upstream-model`.
    pub target: Arc<str>,
    /// Why it was this target's turn.
    pub why: Why,
    /// `ok`, or the stable word of the failure.
    pub result: &'static str,
    /// The provider's HTTP status, where there was one.
    pub status: Option<u16>,
    /// From the start of the try to its result, in microseconds.
    pub micros: u64,
    /// Output tokens of it that reached the client.
    pub output_tokens: u64,
    /// Its part of what the call cost, in nano-USD.
    pub cost: NanoUsd,
    /// What the house bears of it, in nano-USD: a prompt sent once more, output that repeated what the
    /// client had, an answer that nobody waited for any more.
    pub house_cost: NanoUsd,
}

/// What is kept of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which call.
    pub call: CallId,
    /// When its head had been read.
    pub started: Timestamp,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Whose key; `None` if the call was refused before a key was known.
    pub key: Option<KeyId>,
    /// Who pays; `None` as for `key`.
    pub account: Option<AccountId>,
    /// The model's name in the route table; `None` if the client's name led nowhere.
    pub model: Option<Arc<str>>,
    /// The target that answered, `provider/upstream-model`.
    pub target: Option<Arc<str>>,
    /// Every try, in order.
    pub attempts: Vec<Attempt>,
    /// The HTTP status that the client was sent; 0 if it left before any.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// The stable word of what went wrong, the same that the client read in `metadata.reason`.
    pub error: Option<&'static str>,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// Tokens by kind.
    pub usage: Usage,
    /// Who counted them.
    pub usage_source: UsageSource,
    /// What the call cost, in nano-USD.
    pub cost: NanoUsd,
    /// What the account was charged of the cost, in nano-USD: nothing if it is unmetered, and never more
    /// than its hold and what else was free.
    pub charge: NanoUsd,
    /// The version of the price that the first target's part was reckoned by, where it has one.
    pub price_version: Option<Arc<str>>,
    /// What the house bears of it, in nano-USD; not in `cost`.
    pub house_cost: NanoUsd,
    /// From the head of the request to the end of the answer, in microseconds.
    pub latency_micros: u64,
    /// From the head of the request to the first semantic token, in microseconds.
    pub first_token_micros: Option<u64>,
}
