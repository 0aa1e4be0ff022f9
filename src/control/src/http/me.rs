//! Who is asking, told to itself.

use axum::Json;
use axum::extract::State;
use tokenroute_api::error::ErrorBody;
use tokenroute_api::me::Me;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Refused;
use crate::Parts;
use crate::app::users;
use crate::identity::caller::Person;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().routes(routes!(me))
}

/// Who is asking: the user that the token is of, made at its first request with an account of its own.
#[utoipa::path(
    get,
    path = "/api/v1/me",
    tag = "account",
    security(("user" = [])),
    responses(
        (status = 200, body = Me),
        (status = 401, description = "no token, or one that is not accepted", body = ErrorBody),
        (status = 403, description = "the user is disabled, or it is an API key", body = ErrorBody),
        (status = 500, description = "a defect", body = ErrorBody),
        (status = 503, description = "the issuer or the database is out of reach", body = ErrorBody),
    )
)]
async fn me(State(parts): State<Parts>, person: Person) -> Result<Json<Me>, Refused> {
    Ok(Json(users::me(&parts, &person).await?))
}
