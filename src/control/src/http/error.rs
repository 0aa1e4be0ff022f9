//! The one place where a [`Problem`] becomes HTTP.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokenroute_api::error::{Error, ErrorBody, Metadata};

use crate::app::Problem;

/// An answer that says why not.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Problem);

impl<P: Into<Problem>> From<P> for Refused {
    fn from(problem: P) -> Self {
        Self(problem.into())
    }
}

/// Status, class and word of a problem.
fn terms(problem: &Problem) -> (StatusCode, &'static str, &'static str) {
    match problem {
        Problem::Invalid { reason, .. } => {
            (StatusCode::BAD_REQUEST, "invalid_request_error", reason)
        }
        Problem::Unauthenticated { reason, .. } => {
            (StatusCode::UNAUTHORIZED, "authentication_error", reason)
        }
        Problem::Forbidden { reason, .. } => (StatusCode::FORBIDDEN, "permission_error", reason),
        Problem::NotFound(_) => (StatusCode::NOT_FOUND, "not_found_error", "not_found"),
        Problem::Conflict { reason, .. } => (StatusCode::CONFLICT, "conflict_error", reason),
        Problem::Flawed { reason, .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", reason)
        }
        Problem::TooMany { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "too_many_requests")
        }
        Problem::NotConfigured { reason, .. } => {
            (StatusCode::NOT_IMPLEMENTED, "not_configured_error", reason)
        }
        Problem::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "service_unavailable", "unavailable")
        }
        Problem::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "internal"),
    }
}

fn param(problem: &Problem) -> Option<&'static str> {
    if let Problem::Invalid { param, .. } = problem { *param } else { None }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let (status, kind, reason) = terms(&problem);
        let flaws =
            if let Problem::Flawed { flaws, .. } = &problem { flaws.as_slice() } else { &[] };
        let problems = flaws.to_vec();
        let error = Error {
            message: problem.to_string(),
            kind: kind.to_owned(),
            code: status.as_u16(),
            param: param(&problem).map(str::to_owned),
            metadata: Metadata { reason: reason.to_owned(), problems },
        };
        let mut response = (status, Json(ErrorBody { error })).into_response();
        let fields = response.headers_mut();
        if let Problem::TooMany { retry_after } = problem {
            fields.insert(header::RETRY_AFTER, retry_after.as_secs().max(1).into());
        }
        if status == StatusCode::UNAUTHORIZED {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Nothing is at this path.
pub(super) async fn no_such_path() -> Refused {
    Refused(Problem::NotFound("path"))
}

/// Something is, for other methods; axum adds `Allow`.
pub(super) async fn no_such_method() -> Response {
    let error = Error {
        message: "this path does not take this method: see Allow".to_owned(),
        kind: "invalid_request_error".to_owned(),
        code: StatusCode::METHOD_NOT_ALLOWED.as_u16(),
        param: None,
        metadata: Metadata { reason: "method_not_allowed".to_owned(), problems: Vec::new() },
    };
    (StatusCode::METHOD_NOT_ALLOWED, Json(ErrorBody { error })).into_response()
}
