//! `/openapi.json`: what handlers and types say of themselves.

use std::collections::BTreeSet;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use serde_json::{Map, Value};
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
    let mut said = serde_json::to_value(document).unwrap_or_default();
    close(&mut said);
    let answer = ([(header::CONTENT_TYPE, "application/json")], format!("{said:#}"));
    Router::new().route("/openapi.json", get(async move || answer.clone()))
}

/// Says of every body that a request can have that it has no other fields than those named. All endpoints refuse
/// them; types that a file shares do so with every problem at once, which their own attributes cannot say.
fn close(document: &mut Value) {
    let mut open: Vec<String> = Vec::new();
    if let Some(paths) = document.pointer("/paths").and_then(Value::as_object) {
        let operations = paths.values().filter_map(Value::as_object).flat_map(Map::values);
        operations.filter_map(|one| one.get("requestBody")).for_each(|body| names(body, &mut open));
    }
    let mut closed = BTreeSet::new();
    while let Some(name) = open.pop() {
        let place = format!("/components/schemas/{name}");
        let Some(schema) = document.pointer(&place).cloned() else { continue };
        if !closed.insert(name) {
            continue;
        }
        names(&schema, &mut open);
        let mut whole = merged(document, schema);
        if let Some(fields) = whole.as_object_mut().filter(|all| all.contains_key("properties")) {
            fields.insert("additionalProperties".to_owned(), false.into());
        }
        if let Some(schema) = document.pointer_mut(&place) {
            *schema = whole;
        }
    }
}

/// The names of the schemas that `said` refers to.
fn names(said: &Value, found: &mut Vec<String>) {
    match said {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str);
            found.extend(name.and_then(|name| name.rsplit('/').next()).map(str::to_owned));
            fields.values().for_each(|inner| names(inner, found));
        }
        Value::Array(all) => all.iter().for_each(|inner| names(inner, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A schema that is put together of several, as one: closed parts would refuse each other's fields.
fn merged(document: &Value, schema: Value) -> Value {
    let Some(parts) = schema.get("allOf").and_then(Value::as_array) else { return schema };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in parts {
        let name = part.get("$ref").and_then(Value::as_str);
        let part =
            name.and_then(|name| document.pointer(name.trim_start_matches('#'))).unwrap_or(part);
        let of = |field: &str| part.get(field).cloned().unwrap_or_default();
        properties.extend(of("properties").as_object().cloned().unwrap_or_default());
        required.extend(of("required").as_array().cloned().unwrap_or_default());
    }
    let mut whole = Map::new();
    whole.insert("type".to_owned(), "object".into());
    whole.extend(schema.get("description").map(|text| ("description".to_owned(), text.clone())));
    whole.insert("properties".to_owned(), properties.into());
    if !required.is_empty() {
        whole.insert("required".to_owned(), required.into());
    }
    whole.into()
}
