//! What a partner needs, such as a storefront: accounts, their credit, keys and usage.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokenroute_api::accounts::{Account, Credit, NewAccount, NewCredit};
use tokenroute_api::keys::{CreatedKey, Keys, NewKey};
use tokenroute_api::usage::Usage;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::account::Days;
use super::answers::{Clash, Found, Usual};
use super::error::Refused;
use super::input::{Body, IdempotencyKey, Named, Paging, Params};
use crate::Parts;
use crate::app::credit::{self, Way};
use crate::app::idempotency::Once;
use crate::app::keys::{self, Ring};
use crate::app::{accounts, usage, users};
use crate::identity::caller::Partner;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new()
        .routes(routes!(create_account))
        .routes(routes!(show_account))
        .routes(routes!(add_credit))
        .routes(routes!(list_keys, create_key))
        .routes(routes!(revoke_key))
        .routes(routes!(show_usage))
}

/// Makes an account that pays from a balance, which begins at nothing.
#[utoipa::path(
    post,
    path = "/api/v1/internal/accounts",
    tag = "internal",
    params(("Idempotency-Key" = String, Header, description = "what makes this request one: repeated with the same it is done once")),
    request_body = NewAccount,
    security(("internal_secret" = [])),
    responses((status = 201, body = Account), Usual, Clash)
)]
async fn create_account(
    State(parts): State<Parts>,
    partner: Partner,
    IdempotencyKey(key): IdempotencyKey,
    Body(wish): Body<NewAccount>,
) -> Result<(StatusCode, Json<Account>), Refused> {
    let actor = partner.actor();
    let once = Once::new((&actor, &key), ("account.create", ""), &wish)?;
    let (here, chance) = (parts.clone(), users::chance(&parts)?);
    let work = async move { accounts::create(&here, &actor, (&wish, chance)).await };
    Ok((StatusCode::CREATED, Json(once.perform(&parts, work).await?)))
}

/// An account, and what it has.
#[utoipa::path(
    get,
    path = "/api/v1/internal/accounts/{id}",
    tag = "internal",
    params(("id" = String, Path, description = "the account's ID")),
    security(("internal_secret" = [])),
    responses((status = 200, body = Account), Usual, Found)
)]
async fn show_account(
    State(parts): State<Parts>,
    _caller: Partner,
    Named(id): Named<String>,
) -> Result<Json<Account>, Refused> {
    Ok(Json(accounts::show(&parts, &id).await?))
}

/// Adds to what an account has.
#[utoipa::path(
    post,
    path = "/api/v1/internal/accounts/{id}/credit",
    tag = "internal",
    params(("id" = String, Path, description = "the account's ID"), ("Idempotency-Key" = String, Header, description = "what makes this request one: repeated with the same it is done once")),
    request_body = NewCredit,
    security(("internal_secret" = [])),
    responses((status = 200, body = Credit), Usual, Found, Clash)
)]
async fn add_credit(
    State(parts): State<Parts>,
    partner: Partner,
    Named(id): Named<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(wish): Body<NewCredit>,
) -> Result<Json<Credit>, Refused> {
    let actor = partner.actor();
    let once = Once::new((&actor, &key), ("credit.credit", &id), &wish)?;
    let here = parts.clone();
    let work = async move {
        let wish = credit::Wish { way: Way::In, actor: &actor, key: &key, said: &wish };
        credit::of_account(&here, &id, wish).await
    };
    Ok(Json(once.perform(&parts, work).await?))
}

/// An account's keys, revoked ones among them, the oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/internal/accounts/{id}/keys",
    tag = "internal",
    params(("id" = String, Path, description = "the account's ID"), Paging),
    security(("internal_secret" = [])),
    responses((status = 200, body = Keys), Usual, Found)
)]
async fn list_keys(
    State(parts): State<Parts>,
    _caller: Partner,
    Named(id): Named<String>,
    Params(paging): Params<Paging>,
) -> Result<Json<Keys>, Refused> {
    let account = accounts::find(&parts, &id).await?.id;
    Ok(Json(keys::list(&parts, account, paging.page()).await?))
}

/// Makes a key for an account. The key itself is in this answer alone, and in those to the same request.
#[utoipa::path(
    post,
    path = "/api/v1/internal/accounts/{id}/keys",
    tag = "internal",
    params(("id" = String, Path, description = "the account's ID"), ("Idempotency-Key" = String, Header, description = "what makes this request one: repeated with the same it is done once")),
    request_body = NewKey,
    security(("internal_secret" = [])),
    responses((status = 201, body = CreatedKey), Usual, Found, Clash)
)]
async fn create_key(
    State(parts): State<Parts>,
    partner: Partner,
    Named(id): Named<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(wish): Body<NewKey>,
) -> Result<(StatusCode, Json<CreatedKey>), Refused> {
    let actor = partner.actor();
    let account = accounts::find(&parts, &id).await?.id;
    let once = Once::new((&actor, &key), ("key.create", &id), &wish)?;
    let here = parts.clone();
    let work = async move {
        let ring = Ring { account, actor: &actor, may_widen: true };
        keys::create(&here, ring, &wish).await
    };
    Ok((StatusCode::CREATED, Json(once.perform(&parts, work).await?)))
}

/// Revokes a key for good: within a second no edge takes it any more.
#[utoipa::path(
    delete,
    path = "/api/v1/internal/accounts/{id}/keys/{key}",
    tag = "internal",
    params(("id" = String, Path, description = "the account's ID"), ("key" = String, Path, description = "the key's ID")),
    security(("internal_secret" = [])),
    responses((status = 204), Usual, Found)
)]
async fn revoke_key(
    State(parts): State<Parts>,
    partner: Partner,
    Named((id, key)): Named<(String, String)>,
) -> Result<StatusCode, Refused> {
    let actor = partner.actor();
    let account = accounts::find(&parts, &id).await?.id;
    keys::revoke(&parts, Ring { account, actor: &actor, may_widen: true }, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What an account used in the last days by calls that succeeded, by key.
#[utoipa::path(
    get,
    path = "/api/v1/internal/accounts/{id}/usage",
    tag = "internal",
    params(("id" = String, Path, description = "the account's ID"), Days),
    security(("internal_secret" = [])),
    responses((status = 200, body = Usage), Usual, Found)
)]
async fn show_usage(
    State(parts): State<Parts>,
    _caller: Partner,
    Named(id): Named<String>,
    Params(Days { days }): Params<Days>,
) -> Result<Json<Usage>, Refused> {
    let account = accounts::find(&parts, &id).await?.id;
    Ok(Json(usage::of(&parts, account, None, days).await?))
}
