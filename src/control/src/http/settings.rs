//! Settings: providers, routes, tiers and policies, one set of endpoints for all kinds.

mod history;
mod providers;
mod request;
mod targets;

use axum::Json;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use serde_json::Value;
use tokenroute_api::settings::{Policy, Route, Setting, Settings, Tier};
use tokenroute_store::SettingKind;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::request::{IfMatch, Tagged};
use super::answers::{Clash, Flawed, Found, Usual};
use super::error::Refused;
use super::input::{Body, Named};
use crate::Parts;
use crate::app::settings::{self, Which};
use crate::identity::caller::Admin;

/// Longest body of a setting, in bytes: as long as a whole file may be.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new()
        .merge(providers::routes())
        .merge(models_to_targets::routes())
        .merge(tiers::routes())
        .merge(policies::routes())
        .merge(history::routes())
        .merge(targets::routes())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// The endpoints of one kind: list, read, put and remove.
macro_rules! endpoints {
    ($module:ident, $kind:ident, $type:ident, $all:literal, $one:literal,
     [$list:literal, $find:literal, $put:literal, $remove:literal]) => {
        mod $module {
            use super::*;

            pub(super) fn routes() -> OpenApiRouter<Parts> {
                OpenApiRouter::new().routes(routes!(list)).routes(routes!(find, put, remove))
            }

            /// All of them, with where each is said.
            #[utoipa::path(
                get,
                path = $all,
                operation_id = $list,
                tag = "settings",
                security(("admin" = [])),
                responses((status = 200, body = Settings<$type>), Usual, Found, Clash, Flawed)
            )]
            async fn list(
                State(parts): State<Parts>,
                _admin: Admin,
            ) -> Result<Json<Settings<$type>>, Refused> {
                Ok(Json(settings::list(&parts, SettingKind::$kind).await?))
            }

            /// One of them.
            #[utoipa::path(
                get,
                path = $one,
                operation_id = $find,
                tag = "settings",
                security(("admin" = [])),
                params(("name" = String, Path, description = "Its name; a / in it is written %2F.")),
                responses((status = 200, body = Setting<$type>), Usual, Found, Clash, Flawed)
            )]
            async fn find(
                State(parts): State<Parts>,
                _admin: Admin,
                Named(name): Named<String>,
            ) -> Result<Tagged<$type>, Refused> {
                Ok(Tagged(settings::find(&parts, SettingKind::$kind, &name).await?))
            }

            /// Makes it, or lets it say something else. Every edge has it within a second; calls that are under
            /// way stay as they are.
            #[utoipa::path(
                put,
                path = $one,
                operation_id = $put,
                tag = "settings",
                security(("admin" = [])),
                params(
                    ("name" = String, Path, description = "Its name; a / in it is written %2F."),
                    ("If-Match" = Option<String>, Header, description = "The version that it has, 0 for none."),
                ),
                request_body = $type,
                responses((status = 200, body = Setting<$type>), Usual, Found, Clash, Flawed)
            )]
            async fn put(
                State(parts): State<Parts>,
                admin: Admin,
                Named(name): Named<String>,
                IfMatch(expected): IfMatch,
                Body(object): Body<Value>,
            ) -> Result<Tagged<$type>, Refused> {
                let actor = admin.0.actor();
                let which = Which { kind: SettingKind::$kind, name: &name, expected, actor: &actor };
                Ok(Tagged(settings::put(&parts, which, (&object.to_string(), None)).await?))
            }

            /// Takes it away.
            #[utoipa::path(
                delete,
                path = $one,
                operation_id = $remove,
                tag = "settings",
                security(("admin" = [])),
                params(
                    ("name" = String, Path, description = "Its name; a / in it is written %2F."),
                    ("If-Match" = Option<String>, Header, description = "The version that it has."),
                ),
                responses((status = 204, description = "it is no more"), Usual, Found, Clash, Flawed)
            )]
            async fn remove(
                State(parts): State<Parts>,
                admin: Admin,
                Named(name): Named<String>,
                IfMatch(expected): IfMatch,
            ) -> Result<StatusCode, Refused> {
                let actor = admin.0.actor();
                let which = Which { kind: SettingKind::$kind, name: &name, expected, actor: &actor };
                settings::remove(&parts, which).await?;
                Ok(StatusCode::NO_CONTENT)
            }
        }
    };
}

endpoints!(
    models_to_targets,
    Route,
    Route,
    "/api/v1/admin/routes",
    "/api/v1/admin/routes/{name}",
    ["list_routes", "find_route", "put_route", "remove_route"]
);
endpoints!(
    tiers,
    Tier,
    Tier,
    "/api/v1/admin/tiers",
    "/api/v1/admin/tiers/{name}",
    ["list_tiers", "find_tier", "put_tier", "remove_tier"]
);
endpoints!(
    policies,
    Policy,
    Policy,
    "/api/v1/admin/policies",
    "/api/v1/admin/policies/{name}",
    ["list_policies", "find_policy", "put_policy", "remove_policy"]
);
