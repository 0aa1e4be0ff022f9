//! Why a command did not do what it was asked, and what it exits with.

use serde::Serialize;
use serde_json::Value;

use crate::brand;
use crate::network::{Answer, Unreachable};
use crate::secret::presentable;

/// Whose fault it is, which is what the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked is wrong.
    User,
    /// The server was not reached, or did not answer in time.
    Network,
    /// The server failed, or the device flow did.
    Server,
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::User => 1,
            Self::Network => 2,
            Self::Server => 3,
        }
    }

    fn of_status(status: u16) -> Self {
        if (400..500).contains(&status) { Self::User } else { Self::Server }
    }
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Whose fault it is.
    pub(crate) exit: Exit,
    /// The class, such as `invalid_request_error`.
    pub(crate) kind: String,
    /// A stable word for programs.
    pub(crate) reason: String,
    /// For people: what is wrong and what to do.
    pub(crate) message: String,
    /// The HTTP status, if a server answered.
    pub(crate) status: Option<u16>,
    /// The field that is wrong, if it is one.
    pub(crate) param: Option<String>,
    /// What `smoke` found, which is told also where it failed.
    pub(crate) evidence: Option<Box<str>>,
}

/// What is written to stderr in JSON mode: an API error's shape, whoever failed.
#[derive(Serialize)]
struct Told<'a> {
    error: Error<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<Value>,
}

#[derive(Serialize)]
struct Error<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    code: Option<u16>,
    param: Option<&'a str>,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    reason: &'a str,
}

impl Failure {
    fn new(exit: Exit, kind: &str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            exit,
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            status: None,
            param: None,
            evidence: None,
        }
    }

    /// What was typed is wrong.
    pub(crate) fn input(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::User, "invalid_request_error", reason, message)
    }

    /// Nobody is logged in, and there is no key.
    pub(crate) fn anonymous(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::User, "authentication_error", reason, message)
    }

    /// A file cannot be read or written.
    pub(crate) fn file(message: impl Into<String>) -> Self {
        Self::new(Exit::User, "file_error", "file", message)
    }

    /// The device flow did not come to a token.
    pub(crate) fn login(reason: &str, message: impl Into<String>) -> Self {
        Self::new(Exit::Server, "device_flow_error", reason, message)
    }

    /// A server answered what nobody can read.
    pub(crate) fn unreadable(what: &str) -> Self {
        let message = format!(
            "{what} is not what a gateway answers: is {} a gateway's address?",
            brand::API_URL
        );
        Self::new(Exit::Server, "server_error", "unreadable_answer", message)
    }

    /// A server that was not reached.
    pub(crate) fn network(host: &str, unreachable: &Unreachable) -> Self {
        let host = presentable(host);
        let (reason, message) = match unreachable {
            Unreachable::Timeout => ("timeout", format!("{host} did not answer in time")),
            Unreachable::TooLong => ("unreadable_answer", format!("{host} answered endlessly")),
            Unreachable::Failed(why) => {
                ("unreachable", format!("{host} cannot be reached: {}", presentable(why)))
            }
        };
        Self::new(Exit::Network, "network_error", reason, message)
    }

    /// A server that answered, but not with success.
    pub(crate) fn answered(answer: &Answer) -> Self {
        let status = answer.status;
        let error = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
        let member = |pointer: &str| error.pointer(pointer).and_then(Value::as_str);
        let fallback = match Exit::of_status(status) {
            Exit::User => "invalid_request_error",
            Exit::Network | Exit::Server => "server_error",
        };
        let message = member("/error/message").map_or_else(
            || format!("the server answered with status {status} and does not say why"),
            presentable,
        );
        let mut failure = Self::new(
            Exit::of_status(status),
            &presentable(member("/error/type").unwrap_or(fallback)),
            &presentable(member("/error/metadata/reason").unwrap_or("http_status")),
            message,
        );
        failure.status = Some(status);
        failure.param = member("/error/param").map(presentable);
        failure
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!("error: {}", self.message)
    }

    /// One JSON object for programs.
    pub(crate) fn json(&self) -> String {
        let error = Error {
            message: &self.message,
            kind: &self.kind,
            code: self.status,
            param: self.param.as_deref(),
            metadata: Metadata { reason: &self.reason },
        };
        let evidence = self.evidence.as_deref().and_then(|text| serde_json::from_str(text).ok());
        // Texts and numbers: writing them cannot fail.
        serde_json::to_string(&Told { error, evidence }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, content_type: "application/json".to_owned(), body: body.into() }
    }

    #[test]
    fn the_exit_code_follows_from_the_status() {
        for (status, code) in [(400, 1), (401, 1), (402, 1), (429, 1), (499, 1), (500, 3), (503, 3)]
        {
            assert_eq!(Failure::answered(&answer(status, "{}")).exit.code(), code, "{status}");
        }
        // An answer that is neither yes nor no is no good server's.
        assert_eq!(Failure::answered(&answer(302, "")).exit.code(), 3);
        assert_eq!(Failure::network("x", &Unreachable::Timeout).exit.code(), 2);
        assert_eq!(Failure::login("access_denied", "no").exit.code(), 3);
    }

    #[test]
    fn what_the_server_says_is_passed_on_and_nothing_else_of_it() {
        let body = r#"{"error":{"message":"no \u001b[2J","type":"insufficient_quota","code":402,"param":null,"metadata":{"reason":"balance"},"more":"sk"}}"#;
        let failure = Failure::answered(&answer(402, body));
        assert_eq!(failure.line(), "error: no \u{fffd}[2J");
        let told: Value = serde_json::from_str(&failure.json()).unwrap();
        let wanted = serde_json::json!({"error": {
            "message": "no \u{fffd}[2J", "type": "insufficient_quota", "code": 402, "param": null,
            "metadata": {"reason": "balance"},
        }});
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_page_that_is_no_json_does_not_matter() {
        let failure = Failure::answered(&answer(502, "<html>"));
        assert_eq!((failure.status, failure.exit), (Some(502), Exit::Server));
        assert!(failure.message.contains("502"));
    }
}
