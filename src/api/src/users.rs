//! People, as an administrator sees them.

use serde::{Deserialize, Serialize};

/// Somebody who has logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct User {
    /// The user's ID here.
    pub id: String,
    /// Who says who it is: the issuer's URL, or `embedded`.
    pub issuer: String,
    /// What the issuer calls the user.
    pub subject: String,
    /// The account whose money it spends.
    pub account_id: String,
    /// What people call it; may be empty.
    pub display_name: String,
    /// Its address, if the issuer vouches for it.
    pub email: Option<String>,
    /// `user` or `admin`.
    pub role: String,
    /// `active` or `disabled`.
    pub status: String,
    /// When it first logged in.
    pub created_at: String,
}

/// A page of users: `GET /api/v1/admin/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Users {
    /// Users in the order in which they came.
    pub data: Vec<User>,
    /// What asks for the next page; `null` if this is the last.
    pub next_cursor: Option<String>,
}

/// What a user may do from now on: `PATCH /api/v1/admin/users/{id}`. What is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// `user` or `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// `active` or `disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// Whom a link is for: `POST /api/v1/admin/users/invitations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewInvitation {
    /// What whoever uses it may do: `user` or `admin`.
    pub role: String,
}

/// A link with which one person makes itself a user. It is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Invitation {
    /// The link, for this person alone.
    pub url: String,
    /// When it stops working.
    pub expires_at: String,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
