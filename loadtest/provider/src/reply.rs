//! Short replies: errors in `OpenAI`'s envelope and the JSON of the small endpoints.

use serde_json::{Value, json};

use crate::frame::{self, Framing};
use crate::script::{self, Status, StatusKind};

/// A whole reply: its bytes, and the status in them.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    /// The reply with the word that the connection closes after it.
    pub(crate) fn closing(mut self) -> Self {
        if let Some(at) = memchr::memmem::find(&self.bytes, b"\r\n") {
            let at = at.saturating_add(2);
            self.bytes.splice(at..at, *b"connection: close\r\n");
        }
        self
    }
}

/// A JSON reply with these further header lines.
pub(crate) fn json(status: u16, body: &Value, more: &str) -> Reply {
    whole(status, "application/json", body.to_string().as_bytes(), more)
}

fn whole(status: u16, content_type: &str, body: &[u8], more: &str) -> Reply {
    let mut bytes = frame::head(status, content_type, Framing::Length(body.len()), more);
    bytes.extend_from_slice(body);
    Reply { status, bytes }
}

/// An error in `OpenAI`'s envelope.
pub(crate) fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Reply {
    let param = (code == Some("model_not_found")).then_some("model");
    let error = json!({ "message": message, "type": kind, "param": param, "code": code });
    json(status, &json!({ "error": error }), &error_fields(status))
}

/// The fields that `OpenAI` sends with errors; those with a secret look are for leak tests.
fn error_fields(status: u16) -> String {
    format!("x-request-id: req_error_{status}\r\nserver: box\r\nset-cookie: box=1; Path=/\r\n")
}

/// A body that could not be understood.
pub(crate) fn bad_request(message: &str) -> Reply {
    error(400, "invalid_request_error", None, message)
}

/// The credential is not the expected one.
pub(crate) fn wrong_key() -> Reply {
    error(401, "invalid_request_error", Some("invalid_api_key"), "Incorrect API key provided.")
}

/// There is no such model.
pub(crate) fn no_model(name: &str) -> Reply {
    let message = format!("The model `{name}` does not exist or you do not have access to it.");
    error(404, "invalid_request_error", Some("model_not_found"), &message)
}

/// The reply of a `status-…` model.
pub(crate) fn status(status: &Status) -> Reply {
    match status.kind {
        StatusKind::Plain => {}
        StatusKind::Context => {
            let message = "This model's maximum context length is 8192 tokens.";
            let code = Some("context_length_exceeded");
            return error(status.code, "invalid_request_error", code, message);
        }
        StatusKind::Quota => {
            let message = "You exceeded your current quota, please check your plan.";
            return error(status.code, "insufficient_quota", Some("insufficient_quota"), message);
        }
        StatusKind::Policy => {
            let message = "Your request was rejected as a result of our safety system.";
            let code = Some("content_policy_violation");
            return error(status.code, "invalid_request_error", code, message);
        }
        StatusKind::Html => {
            let page = b"<html><body><h1>Upstream trouble</h1></body></html>";
            return whole(status.code, "text/html", page, "");
        }
        StatusKind::Empty => return whole(status.code, "text/plain", b"", ""),
    }
    let (kind, code, message) = match status.code {
        401 => ("invalid_request_error", Some("invalid_api_key"), "Incorrect API key provided."),
        403 => ("invalid_request_error", Some("model_not_found"), "No access to this model."),
        404 => ("invalid_request_error", Some("model_not_found"), "The model does not exist."),
        429 => ("requests", Some("rate_limit_exceeded"), "Rate limit reached for requests."),
        500..=599 => ("server_error", None, "The server had an error."),
        _ => ("invalid_request_error", None, "The request was refused."),
    };
    let mut fields = error_fields(status.code);
    if let Some(seconds) = status.retry_after_seconds {
        fields = format!("{fields}retry-after: {seconds}\r\n");
    }
    if let Some(millis) = status.retry_after_ms {
        fields = format!("{fields}retry-after-ms: {millis}\r\n");
    }
    if (300..400).contains(&status.code) {
        fields.push_str("location: /v1/chat/completions?followed\r\n");
    }
    let error = json!({ "message": message, "type": kind, "param": null, "code": code });
    json(status.code, &json!({ "error": error }), &fields)
}

fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 1_750_000_000, "owned_by": "box" })
}

/// The list of models: an example of each kind of name.
pub(crate) fn models() -> Reply {
    let data = script::names().iter().map(|name| model(name)).collect::<Vec<_>>();
    json(200, &json!({ "object": "list", "data": data }), "")
}

/// One model.
pub(crate) fn one_model(name: &str) -> Reply {
    let known = name.starts_with("load-") || script::Script::parse(name).is_some();
    if known { json(200, &model(name), "") } else { no_model(name) }
}
