//! What the settings come to: models with their targets and prices, and how the targets stand.

use axum::Json;
use axum::extract::State;
use tokenroute_api::settings::{RoutedModels, Targets};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Parts;
use crate::app::settings;
use crate::http::answers::{Clash, Flawed, Usual};
use crate::http::error::Refused;
use crate::identity::caller::Admin;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().routes(routes!(targets)).routes(routes!(models))
}

/// How each target stands: who is asked, and who is left alone for now.
#[utoipa::path(
    get,
    path = "/api/v1/admin/targets",
    tag = "settings",
    security(("admin" = [])),
    responses((status = 200, body = Targets), Usual)
)]
async fn targets(State(parts): State<Parts>, _admin: Admin) -> Result<Json<Targets>, Refused> {
    Ok(Json(parts.edges.targets()))
}

/// Every model that is listed, with who answers for it at which price, and where that is said.
#[utoipa::path(
    get,
    path = "/api/v1/admin/models",
    operation_id = "routed_models",
    tag = "settings",
    security(("admin" = [])),
    responses((status = 200, body = RoutedModels), Usual, Clash, Flawed)
)]
async fn models(State(parts): State<Parts>, _admin: Admin) -> Result<Json<RoutedModels>, Refused> {
    Ok(Json(settings::models(&parts).await?))
}
