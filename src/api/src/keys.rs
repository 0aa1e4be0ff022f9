//! API keys. A key itself is in one answer only: the one to its creation.

use serde::{Deserialize, Serialize};

/// What a key is to be: `POST /api/v1/me/keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// What its owner calls it.
    #[cfg_attr(feature = "schema", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// The most that it may ever spend, in USD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "schema",
        schema(pattern = r"^[0-9]{1,7}(\.[0-9]{1,9})?$", example = "1.50")
    )]
    pub ceiling_usd: Option<String>,
    /// When it stops working (RFC 3339); without it, never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(format = DateTime))]
    pub expires_at: Option<String>,
    /// The models that it may call, `*` at the end for all that begin so; without it, all of the account's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(max_items = 100))]
    pub models: Option<Vec<String>>,
    /// The providers that may answer it; without it, all of the account's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(max_items = 100))]
    pub providers: Option<Vec<String>>,
    /// Its own limits; what they leave open its tier says.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

/// How much may be asked at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests a second, as a burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 1_000_000))]
    pub requests_per_second: Option<u32>,
    /// Requests a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 1_000_000))]
    pub requests_per_minute: Option<u32>,
    /// Tokens of input and output a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 1_000_000_000_000_u64))]
    pub tokens_per_minute: Option<u64>,
    /// Calls at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(minimum = 1, maximum = 1_000_000))]
    pub concurrency: Option<u32>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A key as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Key {
    /// Its ID, which revoking takes.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// Its first characters.
    pub key_prefix: String,
    /// `active`, `expired` or `revoked`.
    pub status: String,
    /// What it may still spend: the least of its ceiling's rest and what the account has.
    pub balance_usd: String,
    /// The most that it may ever spend.
    pub ceiling_usd: Option<String>,
    /// When it was created.
    pub created_at: String,
    /// When it stops working.
    pub expires_at: Option<String>,
    /// The models that it may call; `null`: all of the account's.
    pub models: Option<Vec<String>>,
    /// The providers that may answer it; `null`: all of the account's.
    pub providers: Option<Vec<String>>,
    /// Its own limits.
    pub limits: Limits,
}

/// A key that was created, with the key itself. It is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CreatedKey {
    /// What listings show of it.
    #[serde(flatten)]
    pub key: Key,
    /// The key itself.
    pub raw: String,
}

/// A page of keys: `GET /api/v1/me/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Keys {
    /// Keys in the order of their creation.
    pub data: Vec<Key>,
    /// What asks for the next page; `null` if this is the last.
    pub next_cursor: Option<String>,
}

/// How a key is taken over: `POST /api/v1/me/keys/{id}/rotate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// How long the old key goes on working, in seconds.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schema(maximum = 604_800))]
    pub grace_seconds: u32,
}

impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedKey").field("key", &self.key).finish_non_exhaustive()
    }
}
