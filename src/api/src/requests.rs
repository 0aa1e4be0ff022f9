//! Records of calls. None holds a prompt, an answer, a key or an address.

use serde::{Deserialize, Serialize};

/// A page of records: `GET /api/v1/requests`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Requests {
    /// Records, the latest first.
    pub data: Vec<Request>,
    /// What asks for the next page; `null` if this is the last.
    pub next_cursor: Option<String>,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = RequestRecord))]
pub struct Request {
    /// The call's ID, as the answer's `x-request-id` said.
    pub id: String,
    /// When it came.
    pub started_at: String,
    /// What was asked, such as `chat_completions`.
    pub endpoint: String,
    /// Who pays; for administrators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// With which key.
    pub key_id: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The status that was answered.
    pub status: u16,
    /// How it ended, such as `completed`.
    pub outcome: String,
    /// Why it did not do, if it did not.
    pub error: Option<String>,
    /// Whether the answer was a stream.
    pub streamed: bool,
    /// Input tokens, cached ones included.
    pub tokens_in: u64,
    /// Output tokens, reasoning included.
    pub tokens_out: u64,
    /// What it cost the account.
    pub cost_usd: String,
    /// From its head to the end of its answer, in milliseconds.
    pub latency_ms: u64,
    /// Until the first token, in milliseconds.
    pub first_token_ms: Option<u64>,
}
