//! The version of a setting, as requests name it and answers tell it.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts as Head;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokenroute_api::settings::Setting;

use crate::Parts;
use crate::app::text::invalid;
use crate::http::error::Refused;

/// `If-Match`: the version that the asker has read.
pub(super) struct IfMatch(pub(super) Option<i64>);

impl FromRequestParts<Parts> for IfMatch {
    type Rejection = Refused;

    async fn from_request_parts(head: &mut Head, _: &Parts) -> Result<Self, Refused> {
        let mut fields = head.headers.get_all(header::IF_MATCH).iter();
        let (first, second) = (fields.next(), fields.next());
        let Some(field) = first else { return Ok(Self(None)) };
        let text = field.to_str().unwrap_or_default().trim();
        let tag = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        let plain = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(version) = tag.parse().ok().filter(|_| plain && second.is_none()) {
            return Ok(Self(Some(version)));
        }
        let message = "If-Match is no version: send it as \"7\"";
        Err(invalid("if_match_invalid", "If-Match", message))?
    }
}

/// A setting, with its version as the entity tag that `If-Match` takes.
pub(super) struct Tagged<T>(pub(super) Setting<T>);

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let tag = self.0.version.map(|version| [(header::ETAG, format!("\"{version}\""))]);
        (StatusCode::OK, tag, Json(self.0)).into_response()
    }
}
