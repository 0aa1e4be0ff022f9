//! The answer on its way to the client: one write for all that has arrived, and, when it breaks off, a
//! target that goes on with it.

use std::sync::Arc;

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

/// Relays an answer to its end, over as many targets as it takes.
pub(crate) async fn run(
    session: &mut ServerSession,
    call: &mut Call,
    answer: Answer,
    mut attempts: Attempts<'_>,
) -> Result<(), Fault> {
    let Answer { head, exchange, strip_usage } = answer;
    call.streamed = is_event_stream(&head);
    call.meter = Some(Meter::new(meter::Options {
        endpoint: call.endpoint,
        strip_usage,
        client_usage: false,
        reasoning: exchange.provider.reasoning,
        text_bytes_max: TEXT_BYTES_MAX,
        resume: None,
    }));
    let head = client_head(session, call, &head).map_err(|_| Fault::Failed(Failure::Protocol))?;
    call.commit(part);
    let mut relay = Relay { head: Some(Box::new(head)) };
    loop {
        let failure = match relay.pump(session, call, &mut leg, attempts.ending).await {
            Ok(()) => {
                call.end(Outcome::Answered, None);
                return release(leg, attempts.context.connector).await;
            }
            Err(Fault::Cut(failure)) => failure,
            Err(Fault::ClientGone) => return leave(call, leg).await,
            Err(fault) => return Err(fault),
        };
        call.broke(failure);
        let told = leg.take_error();
        if let Some(ticket) = &mut leg.ticket {
            ticket.failed(failure, None);
        }
        // What the target still does is for nobody.
        drop(leg);
        let Some(next) = Box::pin(attempts.resume(session, call, failure)).await? else {
            return Err(told.map_or(Fault::Cut(failure), Fault::Told));
        };
        leg = next.leg;
        call.commit(next.part);
    }
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
            self.write(session, call, leg).await?;
            if leg.has_ended() {
                return Ok(());
            }
            let left = leg.deadlines.total.saturating_sub(call.elapsed());
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

    /// Meters a part of the answer and decides what of it goes out.
    fn take(&mut self, call: &mut Call, part: Bytes) {
        if let Some(scanner) = self.scanner.as_mut() {
            let block = scanner.feed(part);
            self.judge(call, &block);
        } else {
            if let Some(meter) = call.meter.as_mut() {
                meter.body(&part);
            }
            self.out.push(part);
        }
    }

    /// Asks for a verdict on each event. Neighbours that pass go out as one slice, uncopied.
    fn judge(&mut self, call: &mut Call, block: &sse::Block) {
        let Some(meter) = call.meter.as_mut() else { return };
        let mut run = 0..0;
        for piece in block.pieces() {
            let range = piece.range();
            let verdict = match &piece {
                sse::Piece::Event(event) => meter.event(event),
                sse::Piece::Raw { bytes, .. } => meter.body(bytes),
                sse::Piece::Quiet { .. } => Verdict::Pass,
            };
            self.over = matches!(verdict, Verdict::End);
            if meter.semantic() || self.over || matches!(piece, sse::Piece::Raw { .. }) {
                self.speak();
            }
            let original = matches!(verdict, Verdict::Pass | Verdict::End | Verdict::Failed);
            if self.speaking && original && run.end == range.start {
                run.end = range.end;
            } else {
                self.push(block.bytes.slice(std::mem::replace(&mut run, range.end..range.end)));
                match verdict {
                    Verdict::Pass | Verdict::End | Verdict::Failed | Verdict::Hold(None) => {
                        self.push(block.bytes.slice(range));
                    }
                    Verdict::Replace(bytes) | Verdict::Hold(Some(bytes)) => self.push(bytes),
                    Verdict::Drop | Verdict::Diverged => {}
                }
            }
            if self.over {
                break;
            }
        }
        self.push(block.bytes.slice(run));
        if meter.semantic() {
            call.first_token();
        }
    }

    /// Lets out what was held: from here on everything goes out as it comes.
    fn speak(&mut self) {
        if !self.speaking {
            self.speaking = true;
            self.out.append(&mut self.held);
        }
    }

    fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
        } else if self.speaking {
            self.out.push(bytes);
        } else {
            self.held_bytes = self.held_bytes.saturating_add(bytes.len());
            self.held.push(bytes);
            if self.held_bytes > HELD_BYTES_MAX {
                self.speak();
            }
        }
    }

    /// The provider has ended. An event stream that is not complete was cut, however politely.
    fn end(&mut self, call: &mut Call) -> Result<(), Fault> {
        if let Some(rest) = self.scanner.as_mut().and_then(sse::Scanner::finish) {
            self.judge(call, &rest);
        }
        let complete = call.meter.as_mut().is_some_and(|meter| {
            meter.finish();
            self.scanner.is_none() || meter.complete() || meter.done() || meter.error()
        });
        if !complete {
            self.out.clear();
            return Err(self.broken(Failure::Reset));
        }
        self.speak();
        self.over = true;
        Ok(())
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
async fn leave(call: &mut Call, mut leg: Leg) -> Result<(), Fault> {
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
        head.insert_header("x-accel-buffering", HeaderValue::from_static("no"))?;
    }
    Ok(head)
}
