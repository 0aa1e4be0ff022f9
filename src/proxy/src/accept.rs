//! What a client presents: a path, a key, a body. Nothing of the body is read before the key is known.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HOST};
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, ErrorType};
use pingora_http::RequestHeader;
use tokenroute_domain::admission::{Refusal, check_key};
use tokenroute_domain::key::{Pepper, RawKey, SharedKey};
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::time::Timestamp;
use tokenroute_wire::head::{self, Flaw, Target};

use crate::keys::{Keys, Unavailable};
use crate::patience::Tried;
use crate::reply::Fault;
use crate::request::{Buffered, Request};
use crate::snapshot::Limits;

/// What the path and the method ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A model's answer.
    Answer(Endpoint),
    /// The list of models.
    Models,
    /// One model, by name.
    Model(String),
}

impl Asked {
    pub(crate) const fn endpoint(&self) -> Endpoint {
        match self {
            Self::Answer(endpoint) => *endpoint,
            Self::Models | Self::Model(_) => Endpoint::Models,
        }
    }
}

/// Holds the head against one strict reading of it, then its method and path against the table of
/// endpoints. What comes out is the only thing that later decisions are made on. A connection that
/// brought what can be read in two ways is not used again.
pub(crate) fn endpoint(session: &mut ServerSession, limits: &Limits) -> Result<Asked, Refusal> {
    check_size(session.req_header(), limits)?;
    let asked = match session.as_http1() {
        // What the parser has kept, not what it has made of it.
        Some(http1) => head::read(&http1.get_headers_raw_bytes())
            .map_err(refusal)
            .and_then(|head| route(head.method, head.target)),
        None => http2(session.req_header()),
    };
    if asked.as_ref().is_err_and(|refusal| is_odd(*refusal)) {
        session.set_keepalive(None);
    }
    asked
}

/// Whether somebody may read the head in another way.
const fn is_odd(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::HeadMalformed
            | Refusal::FramingAmbiguous
            | Refusal::HostInvalid
            | Refusal::TargetInvalid
    )
}

/// The same of a head in HTTP/2, whose framing is the protocol's own.
fn http2(head: &RequestHeader) -> Result<Asked, Refusal> {
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = head.headers.get(HOST).map(http::HeaderValue::as_bytes);
    head::read_host(authority.or(host).unwrap_or_default()).map_err(refusal)?;
    route(head.method.as_str(), head::read_target(head.raw_path()).map_err(refusal)?)
}

/// Matches the raw path against the table of endpoints. Anything else is refused, never guessed at.
fn route(method: &str, target: Target<'_>) -> Result<Asked, Refusal> {
    let post = |endpoint| match method {
        "POST" => Ok(Asked::Answer(endpoint)),
        _ => Err(Refusal::MethodNotAllowed),
    };
    let get = |asked| match method {
        "GET" => Ok(asked),
        _ => Err(Refusal::MethodNotAllowed),
    };
    match target.path {
        "/v1/chat/completions" => post(Endpoint::ChatCompletions),
        "/v1/completions" => post(Endpoint::Completions),
        "/v1/embeddings" => post(Endpoint::Embeddings),
        "/v1/models" => get(Asked::Models),
        // Names of models have slashes, and clients encode them.
        _ => match target.decode_after("/v1/models/") {
            Some(name) => get(Asked::Model(name.map_err(refusal)?)),
            None if target.slash_encoded => Err(Refusal::TargetInvalid),
            None => Err(Refusal::PathNotFound),
        },
    }
}

fn refusal(flaw: Flaw) -> Refusal {
    match flaw {
        Flaw::Line => Refusal::HeadMalformed,
        Flaw::Framing => Refusal::FramingAmbiguous,
        Flaw::Host => Refusal::HostInvalid,
        Flaw::Target => Refusal::TargetInvalid,
    }
}

/// Why a head would be refused for the bytes that it is made of.
pub(crate) fn flaw(raw: &[u8]) -> Option<Refusal> {
    head::read(raw).err().map(refusal)
}

/// Why a head that could not be read is refused; `None` if there is nobody left to be told.
pub(crate) fn unreadable(error: &Error, tried: Option<Tried>) -> Option<Refusal> {
    match tried {
        Some(Tried::Late) => return Some(Refusal::HeadTimeout),
        Some(Tried::Long) => return Some(Refusal::HeadTooLarge),
        None => {}
    }
    if *error.etype() != ErrorType::InvalidHTTPHeader {
        return None;
    }
    let parser = error.root_cause().downcast_ref::<httparse::Error>();
    if parser == Some(&httparse::Error::TooManyHeaders) {
        return Some(Refusal::HeadTooLarge);
    }
    // Pingora refuses some heads for what they say. It has a sentence for each, and no word.
    let said = error.context.as_ref().map(pingora_core::ImmutStr::as_str).unwrap_or_default();
    let about = |words: &[&str]| parser.is_none() && words.iter().any(|word| said.contains(word));
    Some(if about(&["Content-Length", "Transfer-Encoding"]) {
        Refusal::FramingAmbiguous
    } else if about(&["Host"]) {
        Refusal::HostInvalid
    } else if about(&["target", "authority"]) {
        Refusal::TargetInvalid
    } else {
        Refusal::HeadMalformed
    })
}

fn check_size(head: &RequestHeader, limits: &Limits) -> Result<(), Refusal> {
    if head.raw_path().len() > limits.target_bytes_max {
        return Err(Refusal::TargetTooLong);
    }
    let bytes = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len().saturating_add(value.len())
    };
    let total = head.headers.iter().map(bytes).fold(0, usize::saturating_add);
    if head.headers.len() > limits.fields_max || total > limits.head_bytes_max {
        return Err(Refusal::HeadTooLarge);
    }
    Ok(())
}

/// The caller's key: form and checksum offline, then the cache, then whoever keeps keys.
pub(crate) async fn key(
    headers: &HeaderMap,
    keys: &dyn Keys,
    peppers: &[Pepper],
    now: Timestamp,
) -> Result<SharedKey, Refusal> {
    let raw = presented(headers)?;
    for pepper in peppers {
        let hash = pepper.hash(&raw);
        let found = match keys.cached(&hash, now) {
            Some(known) => known,
            None => keys.find(&hash, now).await.map_err(|Unavailable| Refusal::KeysUnavailable)?,
        };
        if let Some(key) = found {
            check_key(&key, now)?;
            return Ok(key);
        }
    }
    Err(Refusal::KeyUnknown)
}

fn presented(headers: &HeaderMap) -> Result<RawKey, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::KeyMissing)?;
    if values.any(|other| other != value) {
        return Err(Refusal::KeyAmbiguous);
    }
    let (scheme, token) = value.as_bytes().split_at_checked(7).ok_or(Refusal::KeyUnknown)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return Err(Refusal::KeyUnknown);
    }
    RawKey::parse(token.trim_ascii()).map_err(|_| Refusal::KeyUnknown)
}

/// The body, read as far as the call needs to be decided on.
pub(crate) async fn request(
    session: &mut ServerSession,
    limits: Limits,
    buffered: &Arc<Buffered>,
) -> Result<Request, Fault> {
    let refuse = |refusal| Err(Fault::Refused(refusal));
    let head = session.req_header();
    let coding = head.headers.get(CONTENT_ENCODING).map(http::HeaderValue::as_bytes);
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return refuse(Refusal::UnsupportedMedia);
    }
    let length = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|n| n > limits.body_bytes_max) {
        return refuse(Refusal::BodyTooLarge);
    }
    if let Some(expected) = head.headers.get(EXPECT) {
        if !expected.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return refuse(Refusal::ExpectationFailed);
        }
        // Pingora takes an answer before the end of the body for the connection's last.
        let kept = session.get_keepalive();
        session.write_continue_response().await.map_err(|_| Fault::ClientGone)?;
        session.set_keepalive(kept);
    }
    let mut request = Request::new(limits, buffered);
    request.read_head(session).await?;
    Ok(request)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    pub(crate) fn limits() -> Limits {
        Limits {
            body_bytes_max: 1 << 20,
            stream_after_bytes: 1 << 10,
            replay_bytes_max: 1 << 20,
            buffered_bytes_max: 1 << 30,
            first_byte: Duration::from_secs(1),
            head_total: Duration::from_secs(1),
            body_idle: Duration::from_secs(1),
            body_total: Duration::from_secs(1),
            body_grace: Duration::from_secs(1),
            body_bytes_per_second_min: 1,
            write_stall: Duration::from_secs(1),
            calls_max: 8,
            head_bytes_max: 1 << 16,
            fields_max: 100,
            target_bytes_max: 1 << 13,
            keepalive: Duration::from_secs(1),
        }
    }

    fn asked(method: &str, target: &str) -> Result<Asked, Refusal> {
        head::read_target(target.as_bytes())
            .map_err(refusal)
            .and_then(|target| route(method, target))
    }

    #[test]
    fn only_the_table_is_served() {
        assert_eq!(
            asked("POST", "/v1/chat/completions"),
            Ok(Asked::Answer(Endpoint::ChatCompletions))
        );
        assert_eq!(asked("GET", "/v1/models"), Ok(Asked::Models));
        for path in ["/", "/v1", "/v1/", "/V1/models", "/v1/chat/completions/", "/v1/%6dodels"] {
            assert_eq!(asked("GET", path), Err(Refusal::PathNotFound), "{path}");
        }
        for method in ["GET", "PUT", "TRACE", "OPTIONS", "post"] {
            assert_eq!(asked(method, "/v1/embeddings"), Err(Refusal::MethodNotAllowed));
        }
        assert_eq!(asked("POST", "/v1/models"), Err(Refusal::MethodNotAllowed));
    }

    #[test]
    fn model_names_may_be_raw_or_encoded() {
        for path in ["/v1/models/a/b:c", "/v1/models/a%2Fb%3Ac", "/v1/models/a%2fb:c"] {
            assert_eq!(asked("GET", path), Ok(Asked::Model("a/b:c".into())), "{path}");
        }
        for path in
            ["/v1/models/", "/v1/models/../x", "/v1/models/a//b", "/v1/models/%2", "/v1/models/%ff"]
        {
            assert_eq!(asked("GET", path), Err(Refusal::TargetInvalid), "{path}");
        }
        assert_eq!(asked("GET", "/v1%2Fmodels"), Err(Refusal::TargetInvalid), "of no model");
    }

    #[test]
    fn long_heads_are_refused() {
        let long = format!("/v1/models/{}", "x".repeat(limits().target_bytes_max));
        let head = RequestHeader::build("GET", long.as_bytes(), None).unwrap();
        assert_eq!(check_size(&head, &limits()), Err(Refusal::TargetTooLong));
        let mut head = RequestHeader::build("GET", b"/v1/models", None).unwrap();
        for number in 0..=limits().fields_max {
            head.append_header(format!("x-{number}"), "y").unwrap();
        }
        assert_eq!(check_size(&head, &limits()), Err(Refusal::HeadTooLarge));
    }

    #[test]
    fn a_key_is_taken_from_one_place_only() {
        let key = RawKey::new([9; 32]);
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().unwrap());
            }
            presented(&headers).map(|key| key.expose().to_owned())
        };
        let bearer = format!("Bearer {}", key.expose());
        assert_eq!(with(&[&bearer]), Ok(key.expose().to_owned()));
        assert_eq!(with(&[&bearer.replace("Bearer", "bearer")]), Ok(key.expose().to_owned()));
        assert_eq!(with(&[]), Err(Refusal::KeyMissing));
        assert_eq!(with(&[&bearer, "Bearer other"]), Err(Refusal::KeyAmbiguous));
        for bad in ["Bearer ", "Basic eDp5", "Bearer sk-tr-", "x", bearer.get(..40).unwrap()] {
            assert_eq!(with(&[bad]), Err(Refusal::KeyUnknown), "{bad}");
        }
    }
}
