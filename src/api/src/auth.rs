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
