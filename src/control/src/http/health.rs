//! Whether this plane answers.

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Parts;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().routes(routes!(healthz))
}

/// Answers as long as the process does.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, body = str)))]
async fn healthz() -> &'static str {
    "ok\n"
}
