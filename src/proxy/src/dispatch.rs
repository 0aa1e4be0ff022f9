//! Attempts at targets, until one gives an answer: `domain::routing` decides, this acts.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;
use tokenroute_domain::admission::Admission;
use tokenroute_domain::catalog::Target;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::{self, Endpoint};
use tokenroute_domain::routing::{self, Failure, Last, Step};
use tokenroute_wire::request::{Change, Flag, Options, Splicer};

use crate::call::Call;
use crate::lifecycle::Ending;
use crate::reply::Fault;
use crate::request::{Request, client_leaves};
use crate::snapshot::{Provider, Snapshot};
use crate::upstream::{Connection, Connector, Exchange};

/// A provider's answer whose head has been read and is good.
pub(crate) struct Answer {
    pub(crate) head: ResponseHeader,
    pub(crate) exchange: Exchange,
    /// Whether the usage in its stream is there only because we asked for it.
    pub(crate) strip_usage: bool,
}

/// What every attempt of a call needs.
pub(crate) struct Attempts<'a> {
    pub(crate) connector: &'a Connector,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) ending: &'a mut Ending,
}

impl Attempts<'_> {
    /// Tries targets until one answers. Returns its answer or why there is none.
    pub(crate) async fn run(
        mut self,
        session: &mut ServerSession,
        call: &mut Call,
        request: &mut Request,
        admission: &Admission,
    ) -> Result<Answer, Fault> {
        let mut last: Option<Last> = None;
        let mut fault = Fault::Failed(Failure::Connect);
        loop {
            let tried = u32::try_from(call.attempts.len()).unwrap_or(u32::MAX);
            let Step::Try { target, pooled } = routing::next(&admission.route, tried, last) else {
                return Err(fault);
            };
            let since = Instant::now();
            let tried = self.attempt(session, call, request, (target, pooled)).await;
            let (result, status) = match &tried {
                Ok(answer) => ("ok", Some(answer.head.status.as_u16())),
                Err(fault) => outcome(fault),
            };
            let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            let attempt = record::Attempt {
                target: Arc::clone(&target.name),
                why: routing::Why::Chosen,
                result,
                status,
                micros,
                output_tokens: 0,
                cost: NanoUsd::ZERO,
                house_cost: NanoUsd::ZERO,
            };
            call.attempted(target, attempt);
            fault = match tried {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let (Fault::Failed(failure) | Fault::Rejected(failure, _)) = fault else {
                return Err(fault);
            };
            call.failed(failure);
            last = Some(Last { failure, replayable: request.frames.whole() });
        }
    }

    /// One try at one target: connect, send, read the head.
    async fn attempt(
        &mut self,
        session: &mut ServerSession,
        call: &Call,
        request: &mut Request,
        (target, pooled): (&Target, bool),
    ) -> Result<Answer, Fault> {
        let provider =
            self.snapshot.provider(target.provider).ok_or(Fault::Failed(Failure::Resolve))?;
        let connection = self.connect(session, request, (provider, pooled)).await?;
        let asks_usage = asks_for_usage(request);
        let change = Change {
            model: &target.upstream_model,
            include_usage: provider.stream_options && streams(call.endpoint),
            ..Change::default()
        };
        let mut splicer = Splicer::new(&change, &request.scanner);
        let mut exchange = if request.ended {
            let mut pieces = Vec::new();
            splicer.advance(&request.scanner, &request.frames, &mut pieces);
            let sent = connection.send(call.endpoint, pieces).await.map_err(Fault::Failed)?;
            request.forget_sent(splicer.offset());
            sent
        } else {
            upload(session, call, request, (connection, splicer)).await?
        };
        let head = self.head(session, &mut exchange).await?;
        let strip_usage = change.include_usage
            && !asks_usage.unwrap_or_else(|| asks_for_usage(request).unwrap_or(false));
        match failure_of(head.status.as_u16()) {
            None => Ok(Answer { head, exchange, strip_usage }),
            Some(failure) => {
                let rejection = exchange.rejection(&head, self.connector).await;
                Err(Fault::Rejected(failure, Box::new(rejection)))
            }
        }
    }

    /// Connects; the rest of a long body goes on arriving meanwhile, within `stream_after_bytes`.
    async fn connect(
        &self,
        session: &mut ServerSession,
        request: &mut Request,
        (provider, pooled): (&Arc<Provider>, bool),
    ) -> Result<Connection, Fault> {
        let connect = self.connector.connect(provider, pooled);
        tokio::pin!(connect);
        let room = request.frames.end().saturating_mul(2);
        while !request.ended && request.frames.end() < room {
            tokio::select! {
                biased;
                connected = &mut connect => return connected.map_err(Fault::Failed),
                read = request.read_more(session) => read?,
            }
        }
        connect.await.map_err(Fault::Failed)
    }

    /// Reads the head of the answer while watching for a client that leaves.
    async fn head(
        &mut self,
        session: &mut ServerSession,
        exchange: &mut Exchange,
    ) -> Result<ResponseHeader, Fault> {
        let deadline = exchange.provider.deadlines.head;
        tokio::select! {
            biased;
            head = timeout(deadline, exchange.head()) => match head {
                Ok(head) => head.map_err(Fault::Failed),
                Err(_) => Err(Fault::Failed(Failure::HeadTimeout)),
            },
            () = client_leaves(session) => Err(Fault::ClientGone),
            () = self.ending.wait() => Err(Fault::Shutdown),
        }
    }
}

/// Sends a body that is still arriving. The last bytes of a body are sent only when all of it has
/// been found sound, so a fault found late leaves the provider without a whole request.
async fn upload(
    session: &mut ServerSession,
    call: &Call,
    request: &mut Request,
    (connection, mut splicer): (Connection, Splicer),
) -> Result<Exchange, Fault> {
    let announced = content_length(session);
    let length = announced.map(|length| length.saturating_add_signed(splicer.growth()));
    let mut exchange = connection.begin(call.endpoint, length).await.map_err(Fault::Failed)?;
    let mut pieces: Vec<Bytes> = Vec::new();
    while exchange.is_writable() {
        splicer.advance(&request.scanner, &request.frames, &mut pieces);
        for piece in pieces.drain(..) {
            exchange.write(&piece).await;
        }
        request.forget_sent(splicer.offset());
        if request.ended {
            exchange.finish().await;
            break;
        }
        request.read_more(session).await?;
    }
    Ok(exchange)
}

fn content_length(session: &ServerSession) -> Option<u64> {
    let value = session.req_header().headers.get(http::header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// Whether the client itself wants usage in its stream; `None` if the body does not say yet.
fn asks_for_usage(request: &Request) -> Option<bool> {
    let options = request.scanner.facts().stream_options.map(|member| member.options);
    match options {
        Some(Options::Object { include_usage: Some((value, _)), .. }) => Some(value == Flag::True),
        Some(Options::Object { include_usage: None, .. } | Options::Null | Options::Other) => {
            Some(false)
        }
        None => request.ended.then_some(false),
    }
}

/// Whether answers of an endpoint can be streams at all.
const fn streams(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions)
}

/// What a status means for the attempt; `None` is a good answer.
const fn failure_of(status: u16) -> Option<Failure> {
    match status {
        200..=299 => None,
        300..=399 => Some(Failure::Redirect),
        // 402: our account at the provider is empty, which is no fault of the caller's.
        401..=403 => Some(Failure::Credential),
        429 => Some(Failure::RateLimited),
        400..=499 => Some(Failure::Request),
        _ => Some(Failure::Server),
    }
}

/// How the record words a fault of an attempt.
fn outcome(fault: &Fault) -> (&'static str, Option<u16>) {
    match fault {
        Fault::Failed(failure) => (failure.as_str(), None),
        Fault::Rejected(failure, rejection) => (failure.as_str(), Some(rejection.status)),
        Fault::Cut(_) => ("cut", None),
        Fault::ClientGone => ("client_gone", None),
        Fault::Refused(_) => ("refused", None),
        Fault::Shutdown => ("shutdown", None),
        Fault::Panicked => ("panicked", None),
    }
}
