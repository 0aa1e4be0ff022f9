//! What a request brings: its body, its query, the identifiers in its path. What is not as it should be is
//! answered in the one shape of all errors.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::{header, request};
use serde::de::DeserializeOwned;

use super::error::Refused;
use crate::Parts;
use crate::app::Problem;

/// Longest text of a reader's complaint that is passed on, in characters.
const COMPLAINT_LEN_MAX: usize = 300;

fn invalid(reason: &'static str, message: &str) -> Refused {
    let message = message.chars().take(COMPLAINT_LEN_MAX).collect();
    Refused(Problem::Invalid { reason, param: None, message })
}

/// A body of JSON.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Parts> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, parts: &Parts) -> Result<Self, Refused> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()?.split(';').next());
        if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            let message = "send JSON, and say so: Content-Type: application/json";
            return Err(invalid("content_type_invalid", message));
        }
        let bytes = Bytes::from_request(request, parts).await;
        let bytes = bytes.map_err(|_| invalid("body_unreadable", "the body is too long"))?;
        // The reader would take a list for the members in their order.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(invalid("body_invalid", "the body: send a JSON object"));
        }
        let read = serde_json::from_slice(&bytes);
        read.map(Self).map_err(|error| invalid("body_invalid", &format!("the body: {error}")))
    }
}

/// What stands behind the question mark.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Parts> for Params<T> {
    type Rejection = Refused;

    async fn from_request_parts(
        request: &mut request::Parts,
        parts: &Parts,
    ) -> Result<Self, Refused> {
        let read = Query::<T>::from_request_parts(request, parts).await;
        read.map(|Query(params)| Self(params))
            .map_err(|error| invalid("query_invalid", &format!("the query: {}", error.body_text())))
    }
}

/// What the path names.
#[derive(Debug)]
pub(crate) struct Named<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Parts> for Named<T> {
    type Rejection = Refused;

    async fn from_request_parts(
        request: &mut request::Parts,
        parts: &Parts,
    ) -> Result<Self, Refused> {
        let read = Path::<T>::from_request_parts(request, parts).await;
        read.map(|Path(named)| Self(named)).map_err(|_| Refused(Problem::NotFound("path")))
    }
}

/// What makes a request this one and no other: it is done once.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(pub(crate) String);

impl FromRequestParts<Parts> for IdempotencyKey {
    type Rejection = Refused;

    async fn from_request_parts(
        request: &mut request::Parts,
        _parts: &Parts,
    ) -> Result<Self, Refused> {
        let mut all = request.headers.get_all("idempotency-key").iter();
        let one = all.next().filter(|_| all.next().is_none());
        let one = one.and_then(|key| key.to_str().ok()).map(|key| Self(key.to_owned()));
        one.ok_or_else(|| {
            Refused(Problem::Invalid {
                reason: "idempotency_key_missing",
                param: Some("Idempotency-Key"),
                message:
                    "send one Idempotency-Key, such as an order's number: the request is done \
                          once, however often it is sent"
                        .to_owned(),
            })
        })
    }
}

/// Which page of a list.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paging {
    /// What the page before said as `next_cursor`; without it, the first page.
    pub(crate) cursor: Option<String>,
    /// How many entries: 1 to 200, and 50 if nothing is said.
    pub(crate) limit: Option<u32>,
}

impl Paging {
    pub(crate) fn page(&self) -> crate::app::page::Page<'_> {
        crate::app::page::Page { cursor: self.cursor.as_deref(), limit: self.limit }
    }
}
