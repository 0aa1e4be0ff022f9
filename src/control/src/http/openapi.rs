//! `/openapi.json`: what handlers and types say of themselves.

use axum::Router;
use axum::http::header;
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;

use crate::Parts;

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "tokenroute management API",
    description = "Accounts, keys, credit, usage and settings of a tokenroute gateway."
))]
struct Base;

/// What is said of the whole.
pub(super) fn base() -> OpenApi {
    Base::openapi()
}

/// Serves `document`, which was written once.
pub(super) fn route(document: &OpenApi) -> Router<Parts> {
    // Plain texts and lists: writing them cannot fail.
    let text = document.to_pretty_json().unwrap_or_default();
    let answer = ([(header::CONTENT_TYPE, "application/json")], text);
    Router::new().route("/openapi.json", get(async move || answer.clone()))
}
