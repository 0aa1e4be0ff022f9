//! What answers there are beside the good ones, for the OpenAPI document.

use tokenroute_api::error::ErrorBody;
use utoipa::IntoResponses;

/// What everybody who has to say who they are can be answered.
#[expect(dead_code, reason = "it is for the document alone")]
#[derive(IntoResponses)]
pub(crate) enum Usual {
    /// What was asked is not well formed.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// No credential, one that is not good, or more than one.
    #[response(status = 401)]
    Unauthenticated(ErrorBody),
    /// A credential of somebody who may not do this.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// A defect.
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The database or the issuer is out of reach.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// What is answered where something is named.
#[expect(dead_code, reason = "it is for the document alone")]
#[derive(IntoResponses)]
pub(crate) enum Found {
    /// It is not there, or is another's: the two are told alike.
    #[response(status = 404)]
    NotFound(ErrorBody),
}

/// What is answered where something may stand in the way.
#[expect(dead_code, reason = "it is for the document alone")]
#[derive(IntoResponses)]
pub(crate) enum Clash {
    /// It cannot be done as things are.
    #[response(status = 409)]
    Conflict(ErrorBody),
}

/// What is answered where settings have to fit together.
#[expect(dead_code, reason = "it is for the document alone")]
#[derive(IntoResponses)]
pub(crate) enum Flawed {
    /// They do not fit together with each other and the file: every problem is told.
    #[response(status = 422)]
    Flawed(ErrorBody),
}
