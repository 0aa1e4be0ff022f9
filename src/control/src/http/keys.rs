//! A person's keys.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokenroute_api::keys::{CreatedKey, Keys, NewKey, Rotation};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{Clash, Found, Usual};
use super::error::Refused;
use super::input::{Body, Named, Paging, Params};
use crate::Parts;
use crate::app::keys::{self, Ring};
use crate::identity::caller::Person;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
        .routes(routes!(rotate))
}

/// A person's own keys, in its own hands.
fn ring<'a>(person: &Person, actor: &'a str) -> Ring<'a> {
    Ring { account: person.account, actor, may_widen: false }
}

/// The account's keys, revoked ones among them, the oldest first. Keys themselves are not kept.
#[utoipa::path(
    get,
    path = "/api/v1/me/keys",
    tag = "keys",
    params(Paging),
    security(("user" = [])),
    responses((status = 200, body = Keys), Usual)
)]
async fn list(
    State(parts): State<Parts>,
    person: Person,
    Params(paging): Params<Paging>,
) -> Result<Json<Keys>, Refused> {
    Ok(Json(keys::list(&parts, person.account, paging.page()).await?))
}

/// Makes a key. The key itself is in this answer alone.
#[utoipa::path(
    post,
    path = "/api/v1/me/keys",
    tag = "keys",
    request_body = NewKey,
    security(("user" = [])),
    responses((status = 201, body = CreatedKey), Usual, Clash)
)]
async fn create(
    State(parts): State<Parts>,
    person: Person,
    Body(wish): Body<NewKey>,
) -> Result<(StatusCode, Json<CreatedKey>), Refused> {
    let actor = person.actor();
    let created = keys::create(&parts, ring(&person, &actor), &wish).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Revokes a key for good: within a second no edge takes it any more.
#[utoipa::path(
    delete,
    path = "/api/v1/me/keys/{id}",
    tag = "keys",
    params(("id" = String, Path, description = "the key's ID")),
    security(("user" = [])),
    responses((status = 204), Usual, Found)
)]
async fn revoke(
    State(parts): State<Parts>,
    person: Person,
    Named(id): Named<String>,
) -> Result<StatusCode, Refused> {
    let actor = person.actor();
    keys::revoke(&parts, ring(&person, &actor), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a key in the place of another: with its name and all that bounds it, what it has spent included. The old
/// one goes on working for as long as is said.
#[utoipa::path(
    post,
    path = "/api/v1/me/keys/{id}/rotate",
    tag = "keys",
    params(("id" = String, Path, description = "the key's ID")),
    request_body = Rotation,
    security(("user" = [])),
    responses((status = 201, body = CreatedKey), Usual, Found, Clash)
)]
async fn rotate(
    State(parts): State<Parts>,
    person: Person,
    Named(id): Named<String>,
    Body(wish): Body<Rotation>,
) -> Result<(StatusCode, Json<CreatedKey>), Refused> {
    let actor = person.actor();
    let created = keys::rotate(&parts, ring(&person, &actor), (&id, wish)).await?;
    Ok((StatusCode::CREATED, Json(created)))
}
