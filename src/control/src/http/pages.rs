//! The embedded issuer's two pages: a person lets a device in, or makes itself a user with a link.
//!
//! Plain forms: no script, no cookie. Who it is and what it decides come in one post, so no other site can
//! send a decision in its name, and a page in another's frame shows nothing.

use std::net::SocketAddr;

use askama::Template;
use axum::Form;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;
use serde::Deserialize;
use tokenroute_api::error::ErrorBody;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Refused;
use crate::Parts;
use crate::app::Problem;
use crate::app::invitations::{self, Joined, Newcomer};
use crate::app::logins::{self, Decided, Decision};

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new()
        .routes(routes!(style))
        .routes(routes!(approval, decide))
        .routes(routes!(setup, join))
}

/// What a browser may do with these pages: show them, and send their forms back here.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";
const STYLE: &str = include_str!("../../templates/style.css");

#[derive(Template)]
#[template(path = "device.html")]
struct DevicePage<'a> {
    user_code: &'a str,
    login: &'a str,
    wrong: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage<'a> {
    login: &'a str,
    wrong: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "end.html")]
struct EndPage<'a> {
    title: &'a str,
    words: &'a str,
}

fn page(status: StatusCode, page: &impl Template) -> Response {
    let fields = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    match page.render() {
        Ok(text) => (status, fields, text).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be written");
            Refused(Problem::Internal).into_response()
        }
    }
}

fn end(status: StatusCode, title: &str, words: &str) -> Response {
    page(status, &EndPage { title, words })
}

/// A problem as a person reads it who may try again later; all others as programs do.
fn problem(problem: Problem) -> Response {
    if !matches!(problem, Problem::TooMany { .. }) {
        return Refused(problem).into_response();
    }
    let words = problem.to_string();
    let mut response = end(StatusCode::TOO_MANY_REQUESTS, "Too often", &words);
    let refused = Refused(problem).into_response();
    if let Some(seconds) = refused.headers().get(header::RETRY_AFTER) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.clone());
    }
    response
}

fn unreadable() -> Response {
    end(StatusCode::BAD_REQUEST, "Not a form", "Send the page's form, each field once.")
}

/// How these pages look.
#[utoipa::path(
    get, path = "/login/style.css", tag = "embedded issuer",
    responses((status = 200, body = str, content_type = "text/css"))
)]
async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

#[derive(Deserialize)]
struct Code {
    user_code: Option<String>,
}

/// Where a person lets a device in.
#[utoipa::path(
    get, path = "/login/device", tag = "embedded issuer",
    params(("user_code" = Option<String>, Query, description = "the code, to be checked by the person")),
    responses((status = 200, body = str, content_type = "text/html"))
)]
async fn approval(code: Result<Query<Code>, QueryRejection>) -> Response {
    let code = code.ok().and_then(|Query(code)| code.user_code).unwrap_or_default();
    page(StatusCode::OK, &DevicePage { user_code: &code, login: "", wrong: None })
}

/// A person's decision.
#[derive(Deserialize, ToSchema)]
struct DecisionForm {
    /// The code that the device shows.
    user_code: String,
    /// Who decides.
    login: String,
    /// Its password.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// `approve` or `decline`.
    decision: String,
}

/// A person lets a device in, or does not.
#[utoipa::path(
    post, path = "/login/device", tag = "embedded issuer",
    request_body(content = DecisionForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "it is decided", body = str, content_type = "text/html"),
        (status = 400, description = "it is no decision", body = str, content_type = "text/html"),
        (status = 403, description = "wrong login or password", body = str, content_type = "text/html"),
        (status = 404, description = "no such code", body = str, content_type = "text/html"),
        (status = 429, description = "tried too often", body = str, content_type = "text/html"),
        (status = 500, description = "a defect", body = ErrorBody),
        (status = 503, description = "the database is out of reach", body = ErrorBody),
    )
)]
async fn decide(
    State(parts): State<Parts>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    form: Result<Form<DecisionForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else { return unreadable() };
    let approves = match form.decision.as_str() {
        "approve" => true,
        "decline" => false,
        _ => return unreadable(),
    };
    let DecisionForm { user_code, login, password, .. } = form;
    let decision =
        Decision { user_code: user_code.clone(), login: login.clone(), password, approves };
    let again = |status, wrong| {
        page(status, &DevicePage { user_code: &user_code, login: &login, wrong: Some(wrong) })
    };
    match logins::decide(&parts, address.ip(), decision).await {
        Ok(Decided::Done) if approves => {
            end(StatusCode::OK, "You are logged in", "Go back to where you asked for it.")
        }
        Ok(Decided::Done) => {
            end(StatusCode::OK, "Declined", "Nobody was logged in. You can close this page.")
        }
        Ok(Decided::WrongLogin) => {
            again(StatusCode::FORBIDDEN, "The login or the password is not right.")
        }
        Ok(Decided::NoCode) => again(
            StatusCode::NOT_FOUND,
            "There is no such code, or its time is over. Ask for a new one where you began.",
        ),
        Err(one) => problem(one),
    }
}

#[derive(Deserialize)]
struct Link {
    token: String,
}

fn no_link() -> Response {
    let words = "It works once, for a short time. Ask an administrator for a new one; on the server, \
                 tokenrouted setup-link prints one.";
    end(StatusCode::NOT_FOUND, "This link does not work any more", words)
}

/// Where a person makes itself a user.
#[utoipa::path(
    get, path = "/login/setup", tag = "embedded issuer",
    params(("token" = String, Query, description = "the link's secret")),
    responses(
        (status = 200, body = str, content_type = "text/html"),
        (status = 404, description = "the link does not work", body = str, content_type = "text/html"),
        (status = 500, description = "a defect", body = ErrorBody),
        (status = 503, description = "the database is out of reach", body = ErrorBody),
    )
)]
async fn setup(State(parts): State<Parts>, link: Result<Query<Link>, QueryRejection>) -> Response {
    let Ok(Query(Link { token })) = link else { return no_link() };
    match invitations::is_open(&parts, &token).await {
        Ok(true) => page(StatusCode::OK, &SetupPage { login: "", wrong: None }),
        Ok(false) => no_link(),
        Err(one) => problem(one),
    }
}

/// A new user as it describes itself.
#[derive(Deserialize, ToSchema)]
struct SetupForm {
    /// What it will log in with.
    login: String,
    /// Its password: 10 characters or more.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// The same again; it may be left out.
    #[schema(value_type = Option<String>, format = Password)]
    password_again: Option<SecretString>,
}

/// A person makes itself a user.
#[utoipa::path(
    post, path = "/login/setup", tag = "embedded issuer",
    params(("token" = String, Query, description = "the link's secret")),
    request_body(content = SetupForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "the user is made", body = str, content_type = "text/html"),
        (status = 400, description = "something is to be put right", body = str, content_type = "text/html"),
        (status = 404, description = "the link does not work", body = str, content_type = "text/html"),
        (status = 429, description = "tried too often", body = str, content_type = "text/html"),
        (status = 500, description = "a defect", body = ErrorBody),
        (status = 503, description = "the database is out of reach", body = ErrorBody),
    )
)]
async fn join(
    State(parts): State<Parts>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    link: Result<Query<Link>, QueryRejection>,
    form: Result<Form<SetupForm>, FormRejection>,
) -> Response {
    let Ok(Query(Link { token })) = link else { return no_link() };
    let Ok(Form(SetupForm { login, password, password_again: again })) = form else {
        return unreadable();
    };
    let newcomer = Newcomer { login: login.clone(), password, again };
    match invitations::join(&parts, address.ip(), &token, newcomer).await {
        Ok(Joined::Done) => end(
            StatusCode::OK,
            "You are set up",
            "Log in with the command line now: tokenroute login",
        ),
        Ok(Joined::NoLink) => no_link(),
        Ok(Joined::Wrong(words)) => {
            page(StatusCode::BAD_REQUEST, &SetupPage { login: &login, wrong: Some(words) })
        }
        Err(one) => problem(one),
    }
}
