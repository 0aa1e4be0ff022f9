//! How a client gets to be somebody.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/auth/discovery`: where the device flow (RFC 8628) is done, and where models are called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = AuthDiscovery))]
pub struct Discovery {
    /// Who issues tokens.
    pub issuer: String,
    /// The client's ID there; it has no secret.
    pub client_id: String,
    /// Where a device code is asked for.
    pub device_authorization_endpoint: String,
    /// Where the code becomes a token.
    pub token_endpoint: String,
    /// What to ask for, divided by spaces.
    pub scopes: String,
    /// The resource that the token is for (RFC 8707).
    pub resource: String,
    /// What an OpenAI SDK takes for its base URL, such as `https://HOST/v1`.
    pub inference_base_url: String,
}

/// What a device is to do to be let in (RFC 8628, section 3.2): the embedded issuer's answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeviceAuthorization {
    /// What the device presents at the token endpoint.
    pub device_code: String,
    /// What a person types.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: String,
    /// For how many seconds the code is good.
    pub expires_in: u64,
    /// The pause between two questions at the token endpoint, in seconds.
    pub interval: u32,
}

/// What lets a client in (RFC 6749, section 5.1): the embedded issuer's answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct IssuedTokens {
    /// What requests present.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// For how many seconds the access token is good.
    pub expires_in: u64,
    /// What gets the next ones, once; without `offline_access` there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// What was granted, divided by spaces.
    pub scope: String,
}

/// Why a client is not let in (RFC 6749, section 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TokenError {
    /// A word that is registered for it, such as `authorization_pending`.
    pub error: String,
    /// For people.
    pub error_description: String,
}

impl std::fmt::Debug for DeviceAuthorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceAuthorization").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for IssuedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedTokens").field("scope", &self.scope).finish_non_exhaustive()
    }
}
