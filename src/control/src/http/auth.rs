//! How a client gets to be somebody.

use axum::Json;
use axum::extract::State;
use tokenroute_api::auth::Discovery;
use tokenroute_api::error::ErrorBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Refused;
use crate::Parts;
use crate::app;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().routes(routes!(discovery))
}

/// Where the device flow (RFC 8628) is done, and where models are called.
#[utoipa::path(
    get,
    path = "/api/v1/auth/discovery",
    tag = "login",
    responses(
        (status = 200, body = Discovery),
        (status = 500, description = "a defect", body = ErrorBody),
        (status = 501, description = "the issuer offers no device flow", body = ErrorBody),
        (status = 503, description = "the issuer was never reached", body = ErrorBody),
    )
)]
async fn discovery(State(parts): State<Parts>) -> Result<Json<Discovery>, Refused> {
    Ok(Json(app::discovery::discovery(&parts).await?))
}
