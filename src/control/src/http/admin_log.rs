//! What was done: all calls, and all changes. For administrators.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tokenroute_api::audit::Audit;
use tokenroute_api::requests::Requests;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::Usual;
use super::error::Refused;
use super::input::{Paging, Params};
use crate::Parts;
use crate::app::{audit, requests};
use crate::identity::caller::Admin;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().routes(routes!(list_requests)).routes(routes!(list_audit))
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
    /// Whose, by the account's ID.
    account: Option<String>,
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

/// Records of all calls, the latest first. None holds a prompt or an answer.
#[utoipa::path(
    get,
    path = "/api/v1/admin/requests",
    tag = "admin",
    params(Search),
    security(("admin" = [])),
    responses((status = 200, body = Requests), Usual)
)]
async fn list_requests(
    State(parts): State<Parts>,
    _caller: Admin,
    Params(search): Params<Search>,
) -> Result<Json<Requests>, Refused> {
    let wish = requests::Wish {
        account: search.account.as_deref(),
        key: search.key.as_deref(),
        model: search.model.as_deref(),
        status: search.status.as_deref(),
        from: search.from.as_deref(),
        to: search.to.as_deref(),
    };
    let paging = Paging { cursor: search.cursor.clone(), limit: search.limit };
    Ok(Json(requests::of_all(&parts, (wish, paging.page())).await?))
}

/// Who has changed what, the latest first. `tokenrouted audit --verify` checks that nothing was taken out.
#[utoipa::path(
    get,
    path = "/api/v1/admin/audit",
    tag = "admin",
    params(Paging),
    security(("admin" = [])),
    responses((status = 200, body = Audit), Usual)
)]
async fn list_audit(
    State(parts): State<Parts>,
    _caller: Admin,
    Params(paging): Params<Paging>,
) -> Result<Json<Audit>, Refused> {
    Ok(Json(audit::list(&parts, paging.page()).await?))
}
