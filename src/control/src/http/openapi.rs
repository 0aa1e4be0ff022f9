//! `/openapi.json`: what handlers and types say of themselves.

use axum::Router;
use axum::http::header;
use axum::routing::get;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi as _};

use crate::Parts;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "tokenroute management API",
        description = "Accounts, keys, credit, usage and settings of a tokenroute gateway."
    ),
    paths(document),
    modifiers(&Credentials)
)]
struct Base;

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    responses((status = 200, body = serde_json::Value))
)]
#[expect(dead_code, reason = "the document tells of itself; what serves it is below")]
const fn document() {}

/// What a request may present. An endpoint names those that it takes, one of which is enough.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut OpenApi) {
        let bearer = |format, words| {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
            let scheme = scheme.bearer_format(format).description(Some(words));
            SecurityScheme::Http(scheme.build())
        };
        let schemes = &mut document.components.get_or_insert_default().security_schemes;
        for (name, scheme) in [
            ("user", bearer("JWT", "A token of a user, as /api/v1/auth/discovery says.")),
            ("admin", bearer("JWT", "A token of a user who is an administrator.")),
            ("api_key", bearer("sk-tr-…", "An API key, which sees its own part.")),
            (
                "internal_secret",
                SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
                    "X-Internal-Secret",
                    "A partner's secret. Never together with Authorization.",
                ))),
            ),
        ] {
            schemes.insert(name.to_owned(), scheme.into());
        }
    }
}

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
