//! The HTTP face: one router, whose OpenAPI document is generated from the handlers that are in it.

mod account;
mod admin_accounts;
mod admin_log;
mod admin_users;
mod answers;
mod auth;
pub(crate) mod error;
mod health;
mod input;
mod internal;
mod keys;
mod llms;
mod me;
mod models;
mod oauth;
mod openapi;
mod pages;
mod settings;

use std::net::SocketAddr;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use tokio::net::TcpListener;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::Parts;
use crate::identity::issuer;

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Everything that is served whoever says who people are, and the document that tells of it.
fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(health::routes())
        .merge(auth::routes())
        .merge(llms::routes())
        .merge(me::routes())
        .merge(settings::routes())
        .merge(account::routes())
        .merge(keys::routes())
        .merge(models::routes())
        .merge(internal::routes())
        .merge(admin_accounts::routes())
        .merge(admin_log::routes())
        .merge(admin_users::routes())
}

/// What is served beside it while the embedded issuer is on.
fn issuer_routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().merge(oauth::routes()).merge(pages::routes())
}

/// The OpenAPI document, of everything that can be served.
pub fn openapi() -> OpenApi {
    routes().merge(issuer_routes()).into_openapi()
}

/// What answers requests.
fn router(parts: Parts) -> Router {
    let served = match parts.settings.oidc {
        Some(_) => routes(),
        None => routes().merge(issuer_routes()),
    };
    let (router, document) = served.split_for_parts();
    router
        .merge(openapi::route(&document))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(parts)
}

/// Answers connections of `listener` until `stop`, and then those requests that are under way.
pub async fn serve(
    listener: TcpListener,
    parts: Parts,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let purging = parts.settings.oidc.is_none().then(|| tokio::spawn(issuer::purge(parts.clone())));
    let service = router(parts).into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, service).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the management plane does not serve any more");
    }
    if let Some(purging) = purging {
        purging.abort();
    }
}
