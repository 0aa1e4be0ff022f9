//! Models and their prices, for everybody.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::{header, request};
use tokenroute_api::models::Models;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::Usual;
use super::error::Refused;
use crate::Parts;
use crate::app::models;
use crate::identity::caller::{Holder, SECRET_HEADER};

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Somebody, or nobody. Who presents a credential presents a good one.
struct Anybody(Option<Holder>);

impl FromRequestParts<Parts> for Anybody {
    type Rejection = Refused;

    async fn from_request_parts(
        request: &mut request::Parts,
        parts: &Parts,
    ) -> Result<Self, Refused> {
        let presents = |name| request.headers.contains_key(name);
        if !presents(header::AUTHORIZATION.as_str()) && !presents(SECRET_HEADER) {
            return Ok(Self(None));
        }
        Holder::from_request_parts(request, parts).await.map(|holder| Self(Some(holder)))
    }
}

/// What can be called, and what it costs now. With an API key: what that key may call.
#[utoipa::path(
    get,
    path = "/api/v1/models",
    tag = "models",
    security((), ("user" = []), ("api_key" = [])),
    responses((status = 200, body = Models), Usual)
)]
async fn list(
    State(parts): State<Parts>,
    Anybody(holder): Anybody,
) -> Result<Json<Models>, Refused> {
    let key = match holder {
        Some(Holder::Key { key, .. }) => Some(models::of_key(&parts, key).await?),
        Some(Holder::Person(_)) | None => None,
    };
    Ok(Json(models::list(&parts, key.as_ref())))
}
