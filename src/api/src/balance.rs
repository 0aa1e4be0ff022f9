//! What an account has.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/balance`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Balance {
    /// What is there to spend, what is lent to edges for calls under way included: at least two decimals.
    pub balance_usd: String,
    /// `USD`.
    pub currency: String,
}
