//! What is answered when a request is not done.

use serde::{Deserialize, Serialize};

/// The body of every answer from 400 on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The error.
    pub error: Error,
}

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ApiError))]
pub struct Error {
    /// For people: what is wrong, and what to do.
    pub message: String,
    /// The class, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status.
    pub code: u16,
    /// The field that is wrong, if it is one.
    pub param: Option<String>,
    /// For programs.
    pub metadata: Metadata,
}

/// What programs go by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = ErrorMetadata))]
pub struct Metadata {
    /// A stable word, such as `key_unknown`.
    pub reason: String,
    /// Everything that is wrong, where it is more than one thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Flaw>,
}

/// One thing that is wrong with settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = SettingProblem))]
pub struct Flaw {
    /// Where: `providers.acme.base_url`, `routes.fast.targets[1].weight`.
    pub path: String,
    /// What to do about it.
    pub message: String,
}
