//! Who is asking.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/me`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Me {
    /// The user's ID here.
    pub id: String,
    /// What people call the user; empty if the issuer does not say.
    pub display_name: String,
    /// The user's address, if the issuer vouches for it.
    pub email: Option<String>,
    /// What the issuer calls the user, whichever issuer it is.
    pub logto_sub: String,
    /// What the account has, in USD.
    pub balance_usd: String,
    /// `active` or `disabled`.
    pub status: String,
    /// `user` or `admin`.
    pub role: String,
}
