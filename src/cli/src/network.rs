//! The one way out: requests with a time-out, answers with a bound, no redirects, which would carry a key
//! elsewhere.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ureq::config::ConfigBuilder;
use ureq::http::{self, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, AsSendBody, Body, Timeout};

use crate::address::Address;
use crate::brand;
use crate::secret::Secret;

/// For a connection, with TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Reads.
    Get,
    /// Makes or changes.
    Post,
    /// Takes away.
    Delete,
}

/// What is sent along.
#[derive(Clone)]
pub(crate) enum Content {
    /// Nothing.
    Nothing,
    /// A JSON document.
    Json(String),
    /// A form (`application/x-www-form-urlencoded`).
    Form(Vec<(&'static str, String)>),
}

/// A request.
pub(crate) struct Request<'a> {
    /// What is done.
    pub(crate) method: Method,
    /// To what.
    pub(crate) address: &'a Address,
    /// By whom.
    pub(crate) bearer: Option<&'a Secret>,
    /// With what.
    pub(crate) content: Content,
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// What the body is said to be.
    pub(crate) content_type: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// It took too long.
    Timeout,
    /// It was longer than any answer of a gateway.
    TooLong,
    /// There was no connection, or it broke off.
    Failed(String),
}

/// What answers requests.
pub(crate) trait Network {
    /// Sends `request` and reads the answer, whichever its status.
    fn send(&self, request: &Request<'_>) -> Result<Answer, Unreachable>;
}

/// The network itself.
pub(crate) struct Wire(Agent);

impl Wire {
    /// A network on which a request takes no longer than `timeout`.
    pub(crate) fn new(timeout: Duration) -> Self {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT.min(timeout)))
            .timeout_global(Some(timeout))
            .max_response_header_size(HEAD_BYTES_MAX)
            .user_agent(brand::USER_AGENT);
        Self(Agent::new_with_config(config.build()))
    }

    fn run<S: AsSendBody>(
        &self,
        request: http::Request<S>,
        is_here: bool,
    ) -> Result<http::Response<Body>, ureq::Error> {
        let configured = self.0.configure_request(request);
        // A proxy is not on the way to this machine itself.
        let configured = if is_here { ConfigBuilder::proxy(configured, None) } else { configured };
        self.0.run(configured.build())
    }
}

impl Network for Wire {
    fn send(&self, request: &Request<'_>) -> Result<Answer, Unreachable> {
        let method = match request.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Delete => http::Method::DELETE,
        };
        let mut head = http::Request::builder().method(method).uri(request.address.text());
        if let Some(bearer) = request.bearer {
            let mut value = http::HeaderValue::try_from(format!("Bearer {}", bearer.reveal()))
                .map_err(|_| Unreachable::Failed("the key has characters that none has".into()))?;
            value.set_sensitive(true);
            head = head.header(header::AUTHORIZATION, value);
        }
        let failed = |error: http::Error| Unreachable::Failed(error.to_string());
        let is_here = request.address.is_here();
        let mut response = match &request.content {
            Content::Nothing => self.run(head.body(()).map_err(failed)?, is_here),
            Content::Json(text) => {
                let head = head.header(header::CONTENT_TYPE, "application/json");
                self.run(head.body(text.as_str()).map_err(failed)?, is_here)
            }
            Content::Form(fields) => {
                let head = head.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
                self.run(head.body(form(fields)).map_err(failed)?, is_here)
            }
        }
        .map_err(unreachable)?;
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Answer {
            status: response.status().as_u16(),
            content_type: content_type.to_owned(),
            body: response
                .body_mut()
                .with_config()
                .limit(ANSWER_BYTES_MAX)
                .read_to_vec()
                .map_err(unreachable)?,
        })
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all that is left breaks a connection")]
fn unreachable(error: ureq::Error) -> Unreachable {
    match error {
        ureq::Error::Timeout(Timeout::Resolve) => {
            Unreachable::Failed("its name is not found".to_owned())
        }
        ureq::Error::Timeout(_) => Unreachable::Timeout,
        ureq::Error::BodyExceedsLimit(_) => Unreachable::TooLong,
        ureq::Error::HostNotFound => Unreachable::Failed("its name is not found".to_owned()),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Unreachable::Timeout,
        other => Unreachable::Failed(other.to_string()),
    }
}

/// `fields` as a form: what is not a letter, digit or `-._~` is written as its bytes.
fn form(fields: &[(&str, String)]) -> String {
    fields
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect::<Vec<_>>()
        .join("&")
}

/// `text` as it stands in a form or a query.
pub(crate) fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_written_so_that_every_byte_arrives() {
        let fields =
            [("scope", "openid a:b".to_owned()), ("resource", "https://x/ä&=+%".to_owned())];
        assert_eq!(
            form(&fields),
            "scope=openid%20a%3Ab&resource=https%3A%2F%2Fx%2F%C3%A4%26%3D%2B%25"
        );
    }
}
