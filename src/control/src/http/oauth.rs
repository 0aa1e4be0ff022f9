//! The embedded issuer's protocol: OpenID metadata, keys, the device flow (RFC 8628), refreshing and giving
//! back (RFC 6749, 7009). Served only while no other issuer is configured.

use std::net::SocketAddr;

use axum::extract::rejection::FormRejection;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use tokenroute_api::auth::{DeviceAuthorization, IssuedTokens, TokenError};
use tokenroute_api::error::ErrorBody;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Refused;
use crate::app::logins::{self, Asking, DEVICE_GRANT, Denied, REFRESH_GRANT};
use crate::identity::issuer::{DEVICE_PATH, KEYS_PATH, REVOKE_PATH, TOKEN_PATH, signing};
use crate::{Parts, identity};

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new()
        .routes(routes!(metadata))
        .routes(routes!(server_metadata))
        .routes(routes!(keys))
        .routes(routes!(device))
        .routes(routes!(token))
        .routes(routes!(revoke))
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            Self::Word(error, words) => {
                let body =
                    TokenError { error: error.to_owned(), error_description: words.to_owned() };
                (StatusCode::BAD_REQUEST, NOT_KEPT, Json(body)).into_response()
            }
            Self::Problem(problem) => Refused(problem).into_response(),
        }
    }
}

/// What no cache keeps (RFC 6749, section 5.1).
const NOT_KEPT: [(header::HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

/// A form, or what is wrong with it in the protocol's words.
fn read<T>(form: Result<Form<T>, FormRejection>) -> Result<T, Denied> {
    form.map(|Form(form)| form).map_err(|_unsaid| {
        Denied::Word(
            "invalid_request",
            "send a form (application/x-www-form-urlencoded), each field at most once",
        )
    })
}

/// Where everything is (OpenID Connect Discovery 1.0).
#[utoipa::path(
    get, path = "/.well-known/openid-configuration", tag = "embedded issuer",
    responses((status = 200, body = Value))
)]
async fn metadata(State(parts): State<Parts>) -> Json<Value> {
    Json(told(&parts))
}

/// Where everything is (RFC 8414).
#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "embedded issuer",
    responses((status = 200, body = Value))
)]
async fn server_metadata(State(parts): State<Parts>) -> Json<Value> {
    Json(told(&parts))
}

fn told(parts: &Parts) -> Value {
    let here = &parts.settings.public_url;
    let client = identity::client(&parts.settings);
    json!({
        "issuer": here,
        "jwks_uri": format!("{here}{KEYS_PATH}"),
        "token_endpoint": format!("{here}{TOKEN_PATH}"),
        "device_authorization_endpoint": format!("{here}{DEVICE_PATH}"),
        "revocation_endpoint": format!("{here}{REVOKE_PATH}"),
        "grant_types_supported": [DEVICE_GRANT, REFRESH_GRANT],
        "response_types_supported": [],
        "scopes_supported": [client.scopes],
        "token_endpoint_auth_methods_supported": ["none"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

/// The keys that tokens are signed with (RFC 7517).
#[utoipa::path(
    get, path = "/oauth/jwks", tag = "embedded issuer",
    responses(
        (status = 200, body = Value),
        (status = 500, description = "a defect", body = ErrorBody),
        (status = 503, description = "the database is out of reach", body = ErrorBody),
    )
)]
async fn keys(State(parts): State<Parts>) -> Result<Json<Value>, Refused> {
    Ok(Json(signing::published(&parts).await?))
}

/// What a device sends to be let in.
#[derive(Deserialize, ToSchema)]
struct DeviceForm {
    /// `tokenroute`
    client_id: Option<String>,
    /// `offline_access` for a refresh token; nothing else is granted.
    scope: Option<String>,
    /// What the token is to be for: this plane's URL.
    resource: Option<String>,
}

/// A device asks to be let in (RFC 8628, section 3.1).
#[utoipa::path(
    post, path = "/oauth/device_authorization", tag = "embedded issuer",
    request_body(content = DeviceForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, body = DeviceAuthorization),
        (status = 400, body = TokenError),
        (status = 429, description = "too many devices ask", body = ErrorBody),
        (status = 500, description = "a defect", body = ErrorBody),
        (status = 503, description = "the database is out of reach", body = ErrorBody),
    )
)]
async fn device(
    State(parts): State<Parts>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    form: Result<Form<DeviceForm>, FormRejection>,
) -> Result<Response, Denied> {
    let DeviceForm { client_id: client, scope, resource } = read(form)?;
    let asking = Asking { client, resource };
    let device = logins::begin(&parts, address.ip(), &asking, scope.as_deref()).await?;
    Ok((NOT_KEPT, Json(device)).into_response())
}

/// What a client sends for tokens.
#[derive(Deserialize, ToSchema)]
struct TokenForm {
    /// `urn:ietf:params:oauth:grant-type:device_code` or `refresh_token`.
    grant_type: Option<String>,
    /// `tokenroute`
    client_id: Option<String>,
    /// What was answered to the device.
    device_code: Option<String>,
    /// The last refresh token.
    refresh_token: Option<String>,
    /// What the token is to be for: this plane's URL.
    resource: Option<String>,
}

/// A device asks whether it is let in, or a client changes its refresh token for new tokens.
#[utoipa::path(
    post, path = "/oauth/token", tag = "embedded issuer",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, body = IssuedTokens),
        (status = 400, description = "such as `authorization_pending`", body = TokenError),
        (status = 500, description = "a defect", body = ErrorBody),
        (status = 503, description = "the database is out of reach", body = ErrorBody),
    )
)]
async fn token(
    State(parts): State<Parts>,
    form: Result<Form<TokenForm>, FormRejection>,
) -> Result<Response, Denied> {
    let form = read(form)?;
    let asking = Asking { client: form.client_id, resource: form.resource };
    let tokens = match form.grant_type.as_deref() {
        Some(DEVICE_GRANT) => logins::poll(&parts, &asking, form.device_code.as_deref()).await?,
        Some(REFRESH_GRANT) => {
            logins::refresh(&parts, &asking, form.refresh_token.as_deref()).await?
        }
        Some(_) => {
            let words = "only device codes and refresh tokens are taken";
            return Err(Denied::Word("unsupported_grant_type", words));
        }
        None => return Err(Denied::Word("invalid_request", "grant_type is missing")),
    };
    Ok((NOT_KEPT, Json(tokens)).into_response())
}

/// What a client gives back.
#[derive(Deserialize, ToSchema)]
struct RevokeForm {
    /// A refresh token. An access token ends by itself.
    token: Option<String>,
    /// `tokenroute`
    client_id: Option<String>,
}

/// A client gives its refresh token back: its login is ended (RFC 7009).
#[utoipa::path(
    post, path = "/oauth/revoke", tag = "embedded issuer",
    request_body(content = RevokeForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "it opens nothing now, whatever it was"),
        (status = 400, body = TokenError),
        (status = 500, description = "a defect", body = ErrorBody),
        (status = 503, description = "the database is out of reach", body = ErrorBody),
    )
)]
async fn revoke(
    State(parts): State<Parts>,
    form: Result<Form<RevokeForm>, FormRejection>,
) -> Result<StatusCode, Denied> {
    let RevokeForm { token, client_id: client } = read(form)?;
    logins::revoke(&parts, &Asking { client, resource: None }, token.as_deref()).await?;
    Ok(StatusCode::OK)
}
