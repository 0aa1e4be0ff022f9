//! What an account has, what it used, its calls, and more credit.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tokenroute_api::balance::Balance;
use tokenroute_api::error::ErrorBody;
use tokenroute_api::requests::Requests;
use tokenroute_api::topup::{NewTopup, Topup};
use tokenroute_api::usage::Usage;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::Usual;
use super::error::Refused;
use super::input::{Body, Paging, Params};
use crate::Parts;
use crate::app::{balance, requests, topup, usage};
use crate::identity::caller::{Holder, Person};

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new()
        .routes(routes!(show_balance))
        .routes(routes!(show_usage))
        .routes(routes!(list_requests))
        .routes(routes!(create_topup))
}

/// Over how many days.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Days {
    /// 1 to 365, and 30 if nothing is said.
    pub(super) days: Option<u32>,
}

/// Which records.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Search {
    /// What the page before said as `next_cursor`; without it, the first page.
    cursor: Option<String>,
    /// How many entries: 1 to 200, and 50 if nothing is said.
    limit: Option<u32>,
    /// With which key, by its ID.
    key: Option<String>,
    /// For which model.
    model: Option<String>,
    /// A status such as `429`, or a class such as `5xx`.
    status: Option<String>,
    /// Not before this time (RFC 3339).
    from: Option<String>,
    /// Before this time (RFC 3339).
    to: Option<String>,
}

/// What there is to spend: of a person the account's balance, of an API key what it may still spend of it.
#[utoipa::path(
    get,
    path = "/api/v1/balance",
    tag = "account",
    security(("user" = []), ("api_key" = [])),
    responses((status = 200, body = Balance), Usual)
)]
async fn show_balance(
    State(parts): State<Parts>,
    holder: Holder,
) -> Result<Json<Balance>, Refused> {
    Ok(Json(balance::of_holder(&parts, &holder).await?))
}

/// What was used in the last days by calls that succeeded: of a person by all keys of the account, of an API key
/// by itself.
#[utoipa::path(
    get,
    path = "/api/v1/usage",
    tag = "account",
    params(Days),
    security(("user" = []), ("api_key" = [])),
    responses((status = 200, body = Usage), Usual)
)]
async fn show_usage(
    State(parts): State<Parts>,
    holder: Holder,
    Params(Days { days }): Params<Days>,
) -> Result<Json<Usage>, Refused> {
    Ok(Json(usage::of_holder(&parts, &holder, days).await?))
}

/// Records of the account's calls, the latest first. None holds a prompt or an answer.
#[utoipa::path(
    get,
    path = "/api/v1/requests",
    tag = "account",
    params(Search),
    security(("user" = [])),
    responses((status = 200, body = Requests), Usual)
)]
async fn list_requests(
    State(parts): State<Parts>,
    person: Person,
    Params(search): Params<Search>,
) -> Result<Json<Requests>, Refused> {
    let wish = requests::Wish {
        account: None,
        key: search.key.as_deref(),
        model: search.model.as_deref(),
        status: search.status.as_deref(),
        from: search.from.as_deref(),
        to: search.to.as_deref(),
    };
    let paging = Paging { cursor: search.cursor.clone(), limit: search.limit };
    let found = requests::of_account(&parts, person.account, (wish, paging.page())).await?;
    Ok(Json(found))
}

/// Where a person pays for more credit. An agent hands the page to a person, and never pays.
#[utoipa::path(
    post,
    path = "/api/v1/topup",
    tag = "account",
    request_body = NewTopup,
    security(("user" = [])),
    responses(
        (status = 200, body = Topup),
        Usual,
        (status = 501, description = "no payments are set up here", body = ErrorBody),
    )
)]
async fn create_topup(
    State(_parts): State<Parts>,
    _person: Person,
    Body(wish): Body<NewTopup>,
) -> Result<Json<Topup>, Refused> {
    Ok(Json(topup::create(&wish)?))
}
