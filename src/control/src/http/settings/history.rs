//! Who has changed which setting, and the way back.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use tokenroute_api::settings::{History, HistoryLine};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Parts;
use crate::app::page::Page;
use crate::app::settings;
use crate::http::answers::{Clash, Flawed, Found, Usual};
use crate::http::error::Refused;
use crate::http::input::{Named, Params};
use crate::identity::caller::Admin;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().routes(routes!(history)).routes(routes!(restore))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Choice {
    /// Changes of one kind alone: `provider`, `route`, `tier`, `policy` or `credential`.
    kind: Option<String>,
    /// Changes of one name alone.
    name: Option<String>,
    /// What the page before said as `next_cursor`; without it, the first page.
    cursor: Option<String>,
    /// How many entries: 1 to 200, and 50 if nothing is said.
    limit: Option<u32>,
}

/// Every change of every setting, the latest first.
#[utoipa::path(
    get,
    path = "/api/v1/admin/settings/history",
    operation_id = "settings_history",
    tag = "settings",
    security(("admin" = [])),
    params(Choice),
    responses((status = 200, body = History), Usual)
)]
async fn history(
    State(parts): State<Parts>,
    _admin: Admin,
    Params(choice): Params<Choice>,
) -> Result<Json<History>, Refused> {
    let page = Page { cursor: choice.cursor.as_deref(), limit: choice.limit };
    let of = (choice.kind.as_deref(), choice.name.as_deref());
    Ok(Json(settings::history(&parts, of, page).await?))
}

/// Lets the setting that a version was about be again what it was then. The history goes on: the way back is
/// a version of its own.
#[utoipa::path(
    post,
    path = "/api/v1/admin/settings/history/{version}/restore",
    operation_id = "restore_setting",
    tag = "settings",
    security(("admin" = [])),
    params(("version" = i64, Path, description = "A version of the history.")),
    responses((status = 200, description = "the new version", body = HistoryLine), Usual, Found, Clash, Flawed)
)]
async fn restore(
    State(parts): State<Parts>,
    admin: Admin,
    Named(version): Named<i64>,
) -> Result<Json<HistoryLine>, Refused> {
    Ok(Json(settings::restore(&parts, version, &admin.0.actor()).await?))
}
