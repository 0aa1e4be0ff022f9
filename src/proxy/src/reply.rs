//! The one place where reasons become HTTP: status, type, words, headers.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;
use tokenroute_domain::admission::Refusal;
use tokenroute_domain::load::Shed;
use tokenroute_domain::record::{Attempt, Outcome};
use tokenroute_domain::routing::Failure;
use tokenroute_wire::envelope::{Envelope, read_error};

use crate::call::Call;
use crate::clock;
use crate::limits;
use crate::snapshot::Provider;
use crate::words::{self, Words};

/// Unread bytes of a refused body that are read and dropped, so that the client gets to read why:
/// a connection closed with unread data is reset, and a reset discards the answer on its way.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// How long that may take.
const LINGER_MAX: Duration = Duration::from_secs(2);
/// How long an HTTP/2 connection has to write the last event of a stream that is then reset.
const LAST_EVENT_WAIT: Duration = Duration::from_millis(100);
/// After which a refusal for want of room may be tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Those who are turned away come back over so long a time, and not together.
const RETRY_SPREAD_MILLIS: u64 = 2_000;
/// How much of the body of a call that is turned away is read, if it has arrived: a longer one costs less
/// with its connection closed.
const SHED_BODY_BYTES_MAX: usize = 64 * 1024;

/// Why a call has no good answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// We said no.
    Refused(Refusal),
    /// There is too much to do: turned away before anything was done.
    Shed(Shed),
    /// No target did.
    Failed(Failure),
    /// No target did, and the last one said why.
    Rejected(Failure, Box<Rejection>),
    /// No target takes calls now; one may after so long.
    Unavailable(Option<Duration>),
    /// The targets' limits are used up; one may take calls after so long.
    Limited(Option<Duration>),
    /// The client left.
    ClientGone,
    /// The upstream broke off after the first byte had gone to the client.
    Cut(Failure),
    /// The same, and the provider has said so in an event of its own.
    Told(Bytes),
    /// The key's ceiling is reached in the middle of the answer.
    Exhausted,
    /// The balance, or a ceiling of the key, does not cover the call.
    Unaffordable(Box<Unaffordable>),
    /// The edge is going down and has ended the call.
    Shutdown,
    /// A defect of ours.
    Panicked,
}

/// A provider's error answer, to be passed on.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) status: u16,
    /// The body, if it is an error envelope that may be shown.
    pub(crate) body: Option<Bytes>,
    /// How long the provider says to wait.
    pub(crate) retry_after: Option<Duration>,
}

/// What a call that cannot be paid for could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unaffordable {
    /// Whether a ceiling of the key is in the way, and not the balance.
    pub(crate) ceiling: bool,
    /// The output cap with which it could be paid for; `None` if its prompt alone cannot.
    pub(crate) tokens: Option<u64>,
}

impl Rejection {
    /// What a provider said of its failure behind a head that promised an answer: an event, or a
    /// whole body.
    pub(crate) fn told(provider: &Provider, status: u16, said: &Bytes) -> Self {
        let event = said.strip_prefix(b"data:").map(|data| said.slice_ref(data.trim_ascii()));
        let body = event.unwrap_or_else(|| said.clone());
        let shown = read_error(&body).is_some() && !provider.leaks_credential(&body);
        Self { status, body: shown.then_some(body), retry_after: None }
    }
}

impl Fault {
    /// Why the attempt did not do, if that is what this is about.
    pub(crate) const fn failure(&self) -> Option<Failure> {
        match self {
            Self::Failed(failure) | Self::Rejected(failure, _) | Self::Cut(failure) => {
                Some(*failure)
            }
            Self::Told(_) => Some(Failure::ErrorEvent),
            Self::Refused(_)
            | Self::Shed(_)
            | Self::Unavailable(_)
            | Self::Limited(_)
            | Self::ClientGone
            | Self::Exhausted
            | Self::Unaffordable(_)
            | Self::Shutdown
            | Self::Panicked => None,
        }
    }

    /// The provider's status, where it gave one.
    pub(crate) fn status(&self) -> Option<u16> {
        if let Self::Rejected(_, rejection) = self { Some(rejection.status) } else { None }
    }

    /// How long the provider says to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Self::Rejected(_, rejection) = self { rejection.retry_after } else { None }
    }

    /// How an attempt's line in the record words it.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Failed(failure) | Self::Rejected(failure, _) | Self::Cut(failure) => {
                failure.as_str()
            }
            Self::Told(_) => Failure::ErrorEvent.as_str(),
            Self::Refused(_) => "refused",
            Self::Shed(_) => "shed",
            Self::Unavailable(_) => "unavailable",
            Self::Limited(_) => "limited",
            Self::ClientGone => "client_gone",
            Self::Exhausted => "exhausted",
            Self::Unaffordable(_) => "unaffordable",
            Self::Shutdown => "shutdown",
            Self::Panicked => "panicked",
        }
    }
}

/// Tells the client why there is no good answer, and the record too. `Err` means that the
/// connection must not be used again; nothing more is to be written to it.
pub(crate) async fn fault(
    session: &mut ServerSession,
    call: &mut Call,
    fault: Fault,
) -> Result<()> {
    let (outcome, words) = match &fault {
        Fault::Refused(refusal) => (Outcome::Refused, words::of_refusal(*refusal)),
        Fault::Shed(_) => return turn_away(session, call).await,
        Fault::Failed(failure) | Fault::Rejected(failure, _) => {
            (Outcome::Failed, words::of_failure(*failure))
        }
        Fault::Unavailable(_) => (Outcome::Failed, words::TARGETS_UNAVAILABLE),
        Fault::Limited(_) => (Outcome::Failed, words::of_failure(Failure::RateLimited)),
        Fault::Cut(failure) => (Outcome::Cut, words::of_cut(*failure)),
        Fault::Told(_) => (Outcome::Cut, words::ERROR_EVENT),
        Fault::Exhausted => (Outcome::Cut, words::KEY_CEILING_REACHED),
        Fault::Unaffordable(short) if short.ceiling => (Outcome::Refused, words::KEY_CEILING),
        Fault::Unaffordable(_) => (Outcome::Refused, words::INSUFFICIENT_QUOTA),
        Fault::Shutdown => (Outcome::Shutdown, words::SHUTDOWN),
        Fault::Panicked => (Outcome::Panicked, words::PANICKED),
        Fault::ClientGone => {
            call.end(Outcome::ClientGone, Some("client_gone"));
            return Err(closed("the client left"));
        }
    };
    call.end(outcome, Some(words.reason));
    if session.response_written().is_some() {
        let event = if let Fault::Told(event) = fault { event } else { words.envelope().event() };
        return Err(break_off(session, call, event).await);
    }
    let (status, body, retry_after) = match fault {
        Fault::Rejected(failure, rejection) => passed_on(failure, *rejection, &words),
        Fault::Unavailable(left) | Fault::Limited(left) => {
            (words.status, words.envelope().body(), left)
        }
        Fault::Unaffordable(short) => {
            let envelope = Envelope { can_afford_tokens: short.tokens, ..words.envelope() };
            (words.status, envelope.body(), None)
        }
        Fault::Refused(_)
        | Fault::Shed(_)
        | Fault::Failed(_)
        | Fault::Exhausted
        | Fault::ClientGone
        | Fault::Cut(_)
        | Fault::Told(_)
        | Fault::Shutdown
        | Fault::Panicked => (words.status, words.envelope().body(), None),
    };
    let retry_after = retry_after.or(call.retry_after).or_else(|| (status == 503).then_some(RETRY));
    answer(session, call, Answer { status, body, retry_after }).await
}

/// Tells the client to come back later. What has arrived of its body is read, so that the connection
/// serves on: a new one would cost more than the answer.
pub(crate) async fn turn_away(session: &mut ServerSession, call: &mut Call) -> Result<()> {
    let mut left = SHED_BODY_BYTES_MAX;
    while let Some(Ok(Some(part))) = session.read_request_body().now_or_never() {
        left = left.saturating_sub(part.len());
        if left == 0 {
            break;
        }
    }
    let body = words::of_refusal(Refusal::Overloaded).envelope().body();
    // Not all at once: they would be turned away again together.
    let spread = clock::chance_bits() % RETRY_SPREAD_MILLIS;
    let retry_after = Some(RETRY.saturating_add(Duration::from_millis(spread)));
    answer(session, call, Answer { status: 503, body, retry_after }).await
}

/// What a client sees of a provider's error answer: its status and words where they are about the
/// call, ours where they are about our account or not in a form that can be shown.
fn passed_on(
    failure: Failure,
    rejection: Rejection,
    words: &Words,
) -> (u16, Bytes, Option<Duration>) {
    match failure {
        Failure::Request
        | Failure::ContextLength
        | Failure::ContentPolicy
        | Failure::RateLimited
        | Failure::Server => {
            let body = rejection
                .body
                .unwrap_or_else(|| words.with_status(rejection.status).envelope().body());
            (rejection.status, body, rejection.retry_after)
        }
        // Its status promised an answer.
        Failure::ErrorEvent => {
            let body = rejection.body.unwrap_or_else(|| words.envelope().body());
            (words.status, body, None)
        }
        Failure::Resolve
        | Failure::Connect
        | Failure::Stale
        | Failure::Reset
        | Failure::HeadTimeout
        | Failure::FirstTokenTimeout
        | Failure::Protocol
        | Failure::Credential
        | Failure::Redirect
        | Failure::Cut
        | Failure::Stall
        | Failure::Garbage
        | Failure::Diverged => (words.status, words.envelope().body(), None),
    }
}

/// A whole JSON answer of the gateway's own.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    pub(crate) retry_after: Option<Duration>,
}

/// Writes a whole JSON answer in one go.
pub(crate) async fn answer(
    session: &mut ServerSession,
    call: &mut Call,
    answer: Answer,
) -> Result<()> {
    let Answer { status, body, retry_after } = answer;
    let mut head = head(status, call)?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    if status == 402 {
        // SDKs repeat a 402 never, but proxies and frameworks on top of them may.
        head.insert_header("x-should-retry", HeaderValue::from_static("false"))?;
    }
    if let Some(wait) = retry_after {
        // Rounded up: who comes back early is turned away again.
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        head.insert_header(header::RETRY_AFTER, seconds)?;
        head.insert_header("retry-after-ms", wait.as_millis().to_string())?;
    }
    let unread = !session.is_body_done();
    if unread && !session.is_http2() {
        session.set_keepalive(None);
    }
    call.status = status;
    let tasks = vec![HttpTask::Header(Box::new(head), false), HttpTask::Body(Some(body), true)];
    session.response_duplex_vec(tasks).await?;
    // A client that waits for leave to send its body is not sending it.
    let waits = session.req_header().headers.contains_key(header::EXPECT);
    if unread && !waits { linger(session).await } else { Ok(()) }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TARGET: HeaderName = HeaderName::from_static("x-tokenroute-target");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-tokenroute-attempts");

/// Answers a request whose head could not be read; nothing may be asked of the session about it.
pub(crate) async fn unreadable(
    session: &mut ServerSession,
    call: &mut Call,
    refusal: Refusal,
) -> Result<()> {
    let words = words::of_refusal(refusal);
    call.end(Outcome::Refused, Some(words.reason));
    call.status = words.status;
    let body = words.envelope().body();
    let mut head = head(words.status, call)?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    session.write_error_response(head, body).await
}

/// The head that all answers begin with.
pub(crate) fn head(status: u16, call: &Call) -> Result<ResponseHeader> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut head = ResponseHeader::build_no_case(status, Some(10))?;
    head.insert_header(REQUEST_ID, call.id.to_string())?;
    head.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    limits::insert(&mut head, &call.levels)?;
    if let Some(target) = call.target() {
        head.insert_header(TARGET, &**target)?;
    }
    if let Some(attempts) = attempts(call) {
        head.insert_header(ATTEMPTS, attempts)?;
    }
    Ok(head)
}

/// Every try so far as `target;result;status`, in order, where there is more to tell than one that did.
/// A stale connection, which no target has noticed, is not told of.
fn attempts(call: &Call) -> Option<String> {
    let noticed = |attempt: &&Attempt| attempt.result != Failure::Stale.as_str();
    let tries = || call.attempts.iter().filter(noticed);
    if tries().count() <= 1 && tries().all(|attempt| attempt.result == "ok") {
        return None;
    }
    let mut list = String::with_capacity(64);
    for attempt in tries() {
        let comma = if list.is_empty() { "" } else { ", " };
        // Writing to a text does not fail.
        let _written = write!(list, "{comma}{};{}", attempt.target, attempt.result);
        let _written = attempt.status.map(|status| write!(list, ";{status}"));
    }
    (!list.is_empty()).then_some(list)
}

/// Frames a body of unknown length as the client's HTTP version wants it.
pub(crate) fn frame_open_ended(
    session: &mut ServerSession,
    head: &mut ResponseHeader,
) -> Result<()> {
    if session.req_header().version == Version::HTTP_11 {
        head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    } else if !session.is_http2() {
        session.set_keepalive(None);
    }
    Ok(())
}

/// Reads what is left of a refused body, within bounds, so that the client reads the answer.
async fn linger(session: &mut ServerSession) -> Result<()> {
    let drain = async {
        let mut left = LINGER_BYTES_MAX;
        while let Ok(Some(part)) = session.read_request_body().await {
            left = left.saturating_sub(part.len());
            if left == 0 {
                break;
            }
        }
    };
    // Whether all of it came does not matter: the answer has been sent.
    let _drained = timeout(LINGER_MAX, drain).await;
    Ok(())
}

/// Ends an answer that has begun so that nobody takes it for a whole one: an error event on a
/// stream, then the connection breaks without a final chunk.
async fn break_off(session: &mut ServerSession, call: &Call, event: Bytes) -> Box<Error> {
    if call.streamed {
        if let Err(error) =
            session.response_duplex_vec(vec![HttpTask::Body(Some(event), false)]).await
        {
            return error;
        }
        if session.is_http2() {
            // A reset discards what the connection has not written yet, and nothing tells when it has.
            tokio::time::sleep(LAST_EVENT_WAIT).await;
        }
    }
    closed("the answer was broken off")
}

#[expect(clippy::unnecessary_box_returns, reason = "the form in which Pingora takes errors")]
fn closed(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, why)
}
