//! Providers, and our secrets for them, which nobody can read again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use secrecy::SecretString;
use serde_json::Value;
use tokenroute_api::settings::{
    Credential, NewCredential, NewProvider, Provider, Setting, Settings,
};
use tokenroute_store::SettingKind;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::request::{IfMatch, Tagged};
use crate::Parts;
use crate::app::Problem;
use crate::app::settings::{self, Which};
use crate::app::text::invalid;
use crate::http::answers::{Clash, Flawed, Found, Usual};
use crate::http::error::Refused;
use crate::http::input::{Body, Named};
use crate::identity::caller::Admin;

/// Providers are settings of this kind.
const KIND: SettingKind = SettingKind::Provider;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(find, put, remove))
        .routes(routes!(give_credential, take_credential))
}

/// All providers, with where each is said.
#[utoipa::path(
    get,
    path = "/api/v1/admin/providers",
    operation_id = "list_providers",
    tag = "settings",
    security(("admin" = [])),
    responses((status = 200, body = Settings<Provider>), Usual, Found, Clash, Flawed)
)]
async fn list(
    State(parts): State<Parts>,
    _admin: Admin,
) -> Result<Json<Settings<Provider>>, Refused> {
    Ok(Json(settings::list(&parts, KIND).await?))
}

/// One provider.
#[utoipa::path(
    get,
    path = "/api/v1/admin/providers/{name}",
    operation_id = "find_provider",
    tag = "settings",
    security(("admin" = [])),
    params(("name" = String, Path, description = "Its name.")),
    responses((status = 200, body = Setting<Provider>), Usual, Found, Clash, Flawed)
)]
async fn find(
    State(parts): State<Parts>,
    _admin: Admin,
    Named(name): Named<String>,
) -> Result<Tagged<Provider>, Refused> {
    Ok(Tagged(settings::find(&parts, KIND, &name).await?))
}

/// Makes a provider, or lets it say something else: an address, models, their prices. Every edge has it within
/// a second; calls that are under way stay as they are.
#[utoipa::path(
    put,
    path = "/api/v1/admin/providers/{name}",
    operation_id = "put_provider",
    tag = "settings",
    security(("admin" = [])),
    params(
        ("name" = String, Path, description = "Its name."),
        ("If-Match" = Option<String>, Header, description = "The version that it has, 0 for none."),
    ),
    request_body = NewProvider,
    responses((status = 200, body = Setting<Provider>), Usual, Found, Clash, Flawed)
)]
async fn put(
    State(parts): State<Parts>,
    admin: Admin,
    Named(name): Named<String>,
    IfMatch(expected): IfMatch,
    Body(mut object): Body<Value>,
) -> Result<Tagged<Provider>, Refused> {
    let secret = object.as_object_mut().and_then(|members| members.remove("credential"));
    let secret = match secret {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(SecretString::from(text)),
        Some(_) => return Err(not_a_text().into()),
    };
    let actor = admin.0.actor();
    let which = Which { kind: KIND, name: &name, expected, actor: &actor };
    let content = object.to_string();
    Ok(Tagged(settings::put(&parts, which, (&content, secret.as_ref())).await?))
}

fn not_a_text() -> Problem {
    invalid("credential_invalid", "credential", "credential: send it as a text")
}

/// Takes a provider away, and our secret for it.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/providers/{name}",
    operation_id = "remove_provider",
    tag = "settings",
    security(("admin" = [])),
    params(
        ("name" = String, Path, description = "Its name."),
        ("If-Match" = Option<String>, Header, description = "The version that it has."),
    ),
    responses((status = 204, description = "it is no more"), Usual, Found, Clash, Flawed)
)]
async fn remove(
    State(parts): State<Parts>,
    admin: Admin,
    Named(name): Named<String>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Refused> {
    let actor = admin.0.actor();
    let which = Which { kind: KIND, name: &name, expected, actor: &actor };
    settings::remove(&parts, which).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives our secret for a stored provider. It is encrypted, sent to the provider's present address alone, and
/// never told again.
#[utoipa::path(
    put,
    path = "/api/v1/admin/providers/{name}/credential",
    operation_id = "give_credential",
    tag = "settings",
    security(("admin" = [])),
    params(("name" = String, Path, description = "The provider's name.")),
    request_body = NewCredential,
    responses((status = 200, body = Credential), Usual, Found, Clash, Flawed)
)]
async fn give_credential(
    State(parts): State<Parts>,
    admin: Admin,
    Named(name): Named<String>,
    Body(object): Body<Value>,
) -> Result<Json<Credential>, Refused> {
    let given: Result<NewCredential, _> = serde_json::from_value(object);
    // The reader's own words could repeat what was sent.
    let given = given.map_err(|_| not_a_text())?;
    let secret = SecretString::from(given.credential);
    let actor = admin.0.actor();
    let which = Which { kind: KIND, name: &name, expected: None, actor: &actor };
    Ok(Json(settings::give_credential(&parts, which, &secret).await?))
}

/// Takes our secret for a provider away: it is called without one.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/providers/{name}/credential",
    operation_id = "take_credential",
    tag = "settings",
    security(("admin" = [])),
    params(("name" = String, Path, description = "The provider's name.")),
    responses((status = 204, description = "there is none any more"), Usual, Found, Clash, Flawed)
)]
async fn take_credential(
    State(parts): State<Parts>,
    admin: Admin,
    Named(name): Named<String>,
) -> Result<StatusCode, Refused> {
    let actor = admin.0.actor();
    let which = Which { kind: KIND, name: &name, expected: None, actor: &actor };
    settings::take_credential(&parts, which).await?;
    Ok(StatusCode::NO_CONTENT)
}
