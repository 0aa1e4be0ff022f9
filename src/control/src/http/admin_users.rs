//! People, for administrators.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tokenroute_api::users::{Invitation, NewInvitation, User, UserChange, Users};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answers::{Clash, Found, Usual};
use super::error::Refused;
use super::input::{Body, Named, Paging, Params};
use crate::Parts;
use crate::app::users;
use crate::identity::caller::Admin;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(change)).routes(routes!(invite))
}

/// People who have logged in, in the order in which they came.
#[utoipa::path(
    get,
    path = "/api/v1/admin/users",
    tag = "admin",
    params(Paging),
    security(("admin" = [])),
    responses((status = 200, body = Users), Usual)
)]
async fn list(
    State(parts): State<Parts>,
    _caller: Admin,
    Params(paging): Params<Paging>,
) -> Result<Json<Users>, Refused> {
    Ok(Json(users::list(&parts, paging.page()).await?))
}

/// Makes a user an administrator or not, or disables it: a disabled user can do nothing here from its next
/// request on. The keys of its account work on.
#[utoipa::path(
    patch,
    path = "/api/v1/admin/users/{id}",
    tag = "admin",
    params(("id" = String, Path, description = "the user's ID")),
    request_body = UserChange,
    security(("admin" = [])),
    responses((status = 200, body = User), Usual, Found, Clash)
)]
async fn change(
    State(parts): State<Parts>,
    admin: Admin,
    Named(id): Named<String>,
    Body(wanted): Body<UserChange>,
) -> Result<Json<User>, Refused> {
    Ok(Json(users::change(&parts, &admin, &id, &wanted).await?))
}

/// Makes a link with which one person makes itself a user of the embedded issuer. It works once, for a day.
#[utoipa::path(
    post,
    path = "/api/v1/admin/users/invitations",
    tag = "admin",
    request_body = NewInvitation,
    security(("admin" = [])),
    responses((status = 201, body = Invitation), Usual, Clash)
)]
async fn invite(
    State(parts): State<Parts>,
    admin: Admin,
    Body(wanted): Body<NewInvitation>,
) -> Result<(StatusCode, Json<Invitation>), Refused> {
    Ok((StatusCode::CREATED, Json(users::invite(&parts, &admin, &wanted).await?)))
}
