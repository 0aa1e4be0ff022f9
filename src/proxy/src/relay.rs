//! The answer on its way to the client: one write for all that has arrived, and, when it breaks off, a
//! target that goes on with it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;
use tokenroute_domain::record::Outcome;
use tokenroute_domain::routing::Failure;

use crate::call::Call;
use crate::dispatch::Attempts;
use crate::leg::Leg;
use crate::lifecycle::Ending;
use crate::open::{Answer, asks_for_usage};
use crate::reply::{self, Fault};
use crate::request::client_leaves;
use crate::snapshot::OnDisconnect;
use crate::upstream::Connector;

/// Headers of a provider's answer that reach the client as they are; the rest do not.
const PASSED: [HeaderName; 3] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    HeaderName::from_static("openai-processing-ms"),
];

const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Relays an answer to its end, over as many targets as it takes.
pub(crate) async fn run(
    session: &mut ServerSession,
    call: &mut Call,
    answer: Box<Answer>,
    mut attempts: Attempts<'_>,
) -> Result<(), Fault> {
    let Answer { head, mut leg, part } = *answer;
    call.streamed = leg.is_stream();
    let head = client_head(session, call, &head).map_err(|_| Fault::Failed(Failure::Protocol))?;
    call.commit(part);
    let mut relay = Relay { head: Some(Box::new(head)) };
    loop {
        let failure = match relay.pump(session, call, &mut leg, attempts.ending).await {
            Ok(()) => {
                call.end(Outcome::Answered, None);
                return Box::pin(release(*leg, attempts.context.connector)).await;
            }
            Err(Fault::Cut(failure)) => failure,
            Err(Fault::ClientGone) => return Box::pin(leave(call, leg)).await,
            Err(fault) => return Err(fault),
        };
        call.broke(failure);
        let told = leg.take_error().and_then(|event| fit_to_tell(&leg, &event));
        if let Some(ticket) = &mut leg.ticket {
            ticket.failed(failure, None);
        }
        let overdue = call.elapsed() >= leg.deadlines.total;
        // What the target still does is for nobody.
        drop(leg);
        let next = if overdue { None } else { attempts.resume(session, call, failure).await? };
        call.recovered(next.is_some());
        let Some(next) = next else {
            return Err(told.map_or(Fault::Cut(failure), Fault::Told));
        };
        leg = next.leg;
        call.commit(next.part);
    }
}

/// A provider's own event about its failure, as a client may read it: whole, and without our secret.
fn fit_to_tell(leg: &Leg, event: &[u8]) -> Option<Bytes> {
    let leaks = leg.exchange.provider().leaks_credential(event);
    // The provider may have gone before the blank line, without which nobody reads the event.
    (!leaks).then(|| [event, b"\n\n"].concat().into())
}

struct Relay {
    /// The head for the client, until it is written with the first bytes.
    head: Option<Box<ResponseHeader>>,
}

impl Relay {
    /// Writes what has come and reads on, until the answer is whole.
    async fn pump(
        &mut self,
        session: &mut ServerSession,
        call: &mut Call,
        leg: &mut Leg,
        ending: &mut Ending,
    ) -> Result<(), Fault> {
        loop {
            if leg.has_ended() {
                close(call, leg).await;
            }
            if call.meter().is_some_and(|meter| meter.semantic()) {
                call.first_token();
            }
            // Before the client has it: what a dead process cannot tell any more, nobody pays for.
            let within = call.advance();
            self.write(session, call, leg).await?;
            if !within {
                return Err(Fault::Exhausted);
            }
            if leg.has_ended() {
                return Ok(());
            }
            let left = leg.deadlines.total.saturating_sub(call.elapsed());
            if left.is_zero() {
                return Err(Fault::Cut(Failure::Stall));
            }
            let Some(meter) = call.meter() else { return Err(Fault::Cut(Failure::Cut)) };
            tokio::select! {
                biased;
                advanced = timeout(left, leg.advance(meter)) => match advanced {
                    Ok(Ok(())) => {}
                    Ok(Err(failure)) => {
                        // What came before it is the client's.
                        self.write(session, call, leg).await?;
                        return Err(Fault::Cut(failure));
                    }
                    Err(_) => return Err(Fault::Cut(Failure::Stall)),
                },
                () = client_leaves(session) => return Err(Fault::ClientGone),
                () = ending.wait() => return Err(Fault::Shutdown),
            }
        }
    }

    /// Writes what goes out, the head with the first of it, in one go.
    async fn write(
        &mut self,
        session: &mut ServerSession,
        call: &mut Call,
        leg: &mut Leg,
    ) -> Result<(), Fault> {
        let over = leg.has_ended();
        if !leg.has_out() && !over {
            return Ok(());
        }
        let body = HttpTask::Body(Some(leg.take_out()), over);
        let tasks = match self.head.take() {
            Some(head) => {
                call.status = head.status.as_u16();
                vec![HttpTask::Header(head, false), body]
            }
            None => vec![body],
        };
        session.response_duplex_vec(tasks).await.map_err(|_| Fault::ClientGone)?;
        Ok(())
    }
}

/// Puts the end that the provider left out behind a stream that lacks nothing else.
async fn close(call: &mut Call, leg: &mut Leg) {
    let Some(meter) = call.meter() else { return };
    if !leg.is_stream() || meter.done() {
        return;
    }
    let (reported, passed) = (meter.usage(), meter.usage_passed());
    let wanted = !passed && call.request.as_ref().is_some_and(asks_for_usage);
    let usage = if wanted && reported.is_none() { call.estimate().await } else { reported };
    let Some(meter) = call.meter() else { return };
    leg.append(meter.closing(usage.as_ref()));
}

/// The client has left: the rest is read for its usage where the provider bills it anyway.
async fn leave(call: &mut Call, mut leg: Box<Leg>) -> Result<(), Fault> {
    if leg.exchange.provider().on_disconnect == OnDisconnect::Drain
        && let Some(meter) = call.meter()
    {
        leg.drain(meter).await;
    }
    Err(Fault::ClientGone)
}

/// Gives the connection back; one whose provider lingers is waited for elsewhere.
async fn release(mut leg: Leg, connector: &Arc<Connector>) -> Result<(), Fault> {
    use futures_util::FutureExt;
    if let Some(ticket) = &mut leg.ticket {
        ticket.succeeded();
    }
    let Leg { mut exchange, .. } = leg;
    // The end of the framing has mostly arrived with the last event.
    let _framing = exchange.read().now_or_never();
    if exchange.is_done() {
        connector.release(exchange).await;
    } else {
        let connector = Arc::clone(connector);
        tokio::spawn(async move { connector.release_at_end(exchange).await });
    }
    Ok(())
}

/// The head for the client: ours, and what is allowed of the provider's.
fn client_head(
    session: &mut ServerSession,
    call: &Call,
    upstream: &ResponseHeader,
) -> pingora_core::Result<ResponseHeader> {
    let mut head = reply::head(upstream.status.as_u16(), call)?;
    for name in PASSED {
        if let Some(value) = upstream.headers.get(&name) {
            head.insert_header(name, value)?;
        }
    }
    for (name, value) in &upstream.headers {
        if let Some(rest) = name.as_str().strip_prefix("x-ratelimit-") {
            head.insert_header(format!("x-upstream-ratelimit-{rest}"), value)?;
        }
    }
    match upstream.headers.get(header::CONTENT_LENGTH) {
        Some(length) if !call.streamed => head.insert_header(header::CONTENT_LENGTH, length)?,
        Some(_) | None => reply::frame_open_ended(session, &mut head)?,
    }
    if call.streamed {
        // Keeps an nginx in front from collecting events.
        head.insert_header(ACCEL_BUFFERING, HeaderValue::from_static("no"))?;
    }
    Ok(head)
}
