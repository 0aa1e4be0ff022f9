//! More credit. It only ever comes to a URL for a person: an agent does not pay.

use serde::{Deserialize, Serialize};

/// `POST /api/v1/topup`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewTopup {
    /// How much, in USD, as a decimal.
    #[cfg_attr(
        feature = "schema",
        schema(pattern = r"^[0-9]{1,7}(\.[0-9]{1,9})?$", example = "1.50")
    )]
    pub amount_usd: String,
}

/// Where a person pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Topup {
    /// The page to hand to a person.
    pub checkout_url: String,
    /// What the page is called.
    pub session_id: String,
    /// How much, in USD.
    pub amount_usd: String,
    /// When the page is gone, in seconds since the Unix epoch.
    pub expires_at: i64,
}
