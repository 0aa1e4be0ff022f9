//! What was used.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/usage`: calls that succeeded in the last days, today included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Usage {
    /// How many days.
    pub range_days: u32,
    /// How many calls.
    pub total_requests: u64,
    /// Input tokens.
    pub total_tokens_in: u64,
    /// Output tokens.
    pub total_tokens_out: u64,
    /// What they cost, in USD.
    pub total_cost_usd: String,
    /// The same by key, for who may see all keys of the account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyUsage>,
}

/// What was used with one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct KeyUsage {
    /// The key's ID.
    pub key_id: String,
    /// How many calls.
    pub requests: u64,
    /// Input tokens.
    pub tokens_in: u64,
    /// Output tokens.
    pub tokens_out: u64,
    /// What they cost, in USD.
    pub cost_usd: String,
}
