//! The answer on its way back: whole events, a verdict each, one write for all that has arrived.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, header};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;
use tokenroute_domain::record::Outcome;
use tokenroute_domain::routing::Failure;
use tokenroute_wire::meter::{Meter, Verdict};
use tokenroute_wire::{meter, sse};

use crate::call::Call;
use crate::dispatch::Answer;
use crate::lifecycle::Ending;
use crate::reply::{self, Fault};
use crate::request::client_leaves;
use crate::snapshot::OnDisconnect;
use crate::upstream::{Connector, Exchange};

/// Reads that are gathered into one write, if they are there already.
const GATHER_READS_MAX: usize = 32;
/// Bytes that are gathered into one write.
const GATHER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of events that are held because they say nothing yet.
const HELD_BYTES_MAX: usize = 64 * 1024;
const EVENT_STREAM: &[u8] = b"text/event-stream";
/// Text of an answer that is kept for our own count of its tokens.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Headers of a provider's answer that reach the client as they are; the rest do not.
const PASSED: [HeaderName; 3] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    HeaderName::from_static("openai-processing-ms"),
];

/// Relays an answer to its end.
pub(crate) async fn run(
    session: &mut ServerSession,
    call: &mut Call,
    answer: Answer,
    (connector, ending): (&Arc<Connector>, &mut Ending),
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
    let scanner = call.streamed.then(sse::Scanner::new);
    let mut relay = Relay {
        exchange,
        scanner,
        head: Some(Box::new(head)),
        held: Vec::new(),
        held_bytes: 0,
        out: Vec::new(),
        speaking: false,
        over: false,
        failed: None,
    };
    match relay.pump(session, call, ending).await {
        Ok(()) => {
            // The client has read of it in the provider's own words; it is no answer all the same.
            let error = call.streamed && call.meter.as_ref().is_some_and(Meter::error);
            let (outcome, error) = if error {
                (Outcome::Cut, Some("upstream_error_event"))
            } else {
                (Outcome::Answered, None)
            };
            call.end(outcome, error);
            relay.release(connector).await;
            Ok(())
        }
        Err(Fault::ClientGone) if relay.exchange.provider.on_disconnect == OnDisconnect::Drain => {
            relay.drain(call).await;
            Err(Fault::ClientGone)
        }
        Err(fault) => Err(fault),
    }
}

struct Relay {
    exchange: Exchange,
    /// Present for event streams.
    scanner: Option<sse::Scanner>,
    /// The head for the client, until it is written with the first bytes.
    head: Option<Box<ResponseHeader>>,
    /// Events that say nothing yet, until one does.
    held: Vec<Bytes>,
    held_bytes: usize,
    /// What goes out with the next write.
    out: Vec<Bytes>,
    /// Whether the first semantic event has passed.
    speaking: bool,
    /// Whether the answer is over, whatever the provider still sends.
    over: bool,
    /// A failure that was met while gathering: the exchange tells it only once.
    failed: Option<Failure>,
}

/// What the relay waits for.
enum Next {
    Part(Bytes),
    End,
}

impl Relay {
    async fn pump(
        &mut self,
        session: &mut ServerSession,
        call: &mut Call,
        ending: &mut Ending,
    ) -> Result<(), Fault> {
        while !self.over {
            let left = self.exchange.provider.deadlines.total.saturating_sub(call.elapsed());
            match self.next(session, ending, left).await? {
                Next::Part(part) => {
                    self.take(call, part);
                    self.gather(call);
                    // A framed body that is all there ends with the same write.
                    let whole = self.failed.is_none() && self.exchange.is_done();
                    if self.scanner.is_none() && whole {
                        self.end(call)?;
                    }
                }
                Next::End => self.end(call)?,
            }
            self.write(session, call).await?;
        }
        Ok(())
    }

    /// Waits for the provider, the client's leaving or the end of all calls.
    async fn next(
        &mut self,
        session: &mut ServerSession,
        ending: &mut Ending,
        left: Duration,
    ) -> Result<Next, Fault> {
        if let Some(failure) = self.failed.take() {
            return Err(self.broken(failure));
        }
        if self.exchange.is_done() {
            return Ok(Next::End);
        }
        let stall = self.exchange.provider.deadlines.stall.min(left);
        tokio::select! {
            biased;
            read = timeout(stall, self.exchange.read()) => match read {
                Ok(Ok(Some(part))) => Ok(Next::Part(part)),
                Ok(Ok(None)) => Ok(Next::End),
                Ok(Err(failure)) => Err(self.broken(failure)),
                Err(_) => Err(self.broken(Failure::HeadTimeout)),
            },
            () = client_leaves(session) => Err(Fault::ClientGone),
            () = ending.wait() => Err(Fault::Shutdown),
        }
    }

    /// What a failure means: before the first byte the client can still get an ordinary error.
    fn broken(&self, failure: Failure) -> Fault {
        if self.head.is_some() { Fault::Failed(failure) } else { Fault::Cut(failure) }
    }

    /// Takes what else has already arrived, so that all of it goes in one write.
    fn gather(&mut self, call: &mut Call) {
        let mut bytes = 0_usize;
        for _ in 0..GATHER_READS_MAX {
            if self.over || bytes > GATHER_BYTES_MAX || self.exchange.is_done() {
                return;
            }
            match self.exchange.read().now_or_never() {
                Some(Ok(Some(part))) => {
                    bytes = bytes.saturating_add(part.len());
                    self.take(call, part);
                }
                // What came before is written first.
                Some(Err(failure)) => {
                    self.failed = Some(failure);
                    return;
                }
                Some(Ok(None)) | None => return,
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
    async fn write(&mut self, session: &mut ServerSession, call: &mut Call) -> Result<(), Fault> {
        if self.out.is_empty() && !self.over {
            return Ok(());
        }
        let body = HttpTask::Body(Some(join(&mut self.out)), self.over);
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

    /// Reads an answer on for its usage although nobody is there to receive it.
    async fn drain(&mut self, call: &mut Call) {
        let wait = self.exchange.provider.deadlines.drain;
        let drained = async {
            while !self.over && !self.exchange.is_done() {
                let Ok(Some(part)) = self.exchange.read().await else { break };
                self.take(call, part);
                self.out.clear();
            }
        };
        // Out of time, what was received until then counts.
        let _in_time = timeout(wait, drained).await;
    }

    /// Gives the connection back; one whose provider lingers is waited for elsewhere.
    async fn release(self, connector: &Arc<Connector>) {
        let Self { mut exchange, .. } = self;
        // The end of the framing has mostly arrived with the last event.
        let _framing = exchange.read().now_or_never();
        if exchange.is_done() {
            connector.release(exchange).await;
        } else {
            let connector = Arc::clone(connector);
            tokio::spawn(async move { connector.release_at_end(exchange).await });
        }
    }
}

/// One buffer of several; a single one is passed on as it is.
fn join(parts: &mut Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts.drain(..) {
        joined.extend_from_slice(&part);
    }
    joined.freeze()
}

fn is_event_stream(head: &ResponseHeader) -> bool {
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let prefix = kind.get(..EVENT_STREAM.len()).unwrap_or_default();
    // A compressed stream cannot be read here; it passes raw.
    prefix.eq_ignore_ascii_case(EVENT_STREAM)
        && head.headers.get(header::CONTENT_ENCODING).is_none_or(plain)
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
