//! One try at one target: connect, send, read the head, read on until it speaks.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use http::{HeaderValue, header};
use pingora_http::ResponseHeader;
use pingora_timeout::timeout;
use tokenroute_domain::catalog::{Route, Target};
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::routing::{Failure, Why};
use tokenroute_domain::time::Timestamp;
use tokenroute_wire::envelope::{Complaint, complaint};
use tokenroute_wire::meter::{self, Meter, Resume};
use tokenroute_wire::request::{Change, Flag, Options, Prefill, Splicer};

use crate::account::{Part, Start};
use crate::clock;
use crate::funds::Bounds;
use crate::leg::{Form, Leg};
use crate::reply::{Fault, Rejection};
use crate::request::Request;
use crate::snapshot::{Deadlines, Provider, Snapshot};
use crate::targets::{Targets, Ticket};
use crate::upstream::{Connection, Connector, Exchange};

const EVENT_STREAM: &[u8] = b"text/event-stream";
/// Text of an answer that is kept, for another target to go on from and for our own count of tokens.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// What every attempt of a call needs.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) connector: &'a Arc<Connector>,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) targets: &'a Targets,
    pub(crate) route: &'a Route,
    /// When the call began: the prices of that time are the call's.
    pub(crate) now: Timestamp,
    /// How the output is bounded, if money is held for the call.
    pub(crate) bounds: Option<Bounds>,
}

/// What one attempt asks for.
pub(crate) struct Ask {
    /// Which of the route's targets.
    pub(crate) place: usize,
    pub(crate) why: Why,
    /// Whether a pooled connection may be used.
    pub(crate) pooled: bool,
    /// The answer that it is to go on with.
    pub(crate) resumption: Option<Resumption>,
}

/// An answer that broke off and is to be gone on with.
#[derive(Clone)]
pub(crate) struct Resumption {
    pub(crate) start: Start,
    /// What the target is given of it; empty if it starts afresh.
    pub(crate) prefill: String,
    pub(crate) resume: Resume,
    /// What is left of the client's bound on output tokens.
    pub(crate) output_tokens_max: Option<u64>,
}

/// What a target has begun to answer.
pub(crate) struct Answer {
    pub(crate) head: ResponseHeader,
    pub(crate) leg: Box<Leg>,
    pub(crate) part: Part,
}

impl<'a> Context<'a> {
    fn place(&self, ask: &Ask) -> Option<(&'a Target, &'a Arc<Provider>)> {
        let target = self.route.targets.get(ask.place)?;
        Some((target, self.snapshot.provider(target.provider)?))
    }

    /// What an attempt changes in the body.
    pub(crate) fn change<'b>(&self, endpoint: Endpoint, ask: &'b Ask) -> Option<Change<'b>>
    where
        'a: 'b,
    {
        let (target, provider) = self.place(ask)?;
        let resumption = ask.resumption.as_ref();
        let prefill = resumption.filter(|resumption| resumption.start == Start::Prefilled);
        // What the client has of the answer is in the prompt then, and not generated again.
        let delivered = prefill.map_or(0, |one| one.resume.delivered_tokens);
        let held = self.bounds.and_then(|bounds| bounds.output_tokens_max(target));
        let held = held.map(|tokens| tokens.saturating_sub(delivered).max(1));
        let asked = resumption.and_then(|one| one.output_tokens_max);
        Some(Change {
            model: &target.upstream_model,
            include_usage: provider.stream_options && streams(endpoint),
            prefill: prefill.map(|one| Prefill { text: &one.prefill, form: provider.prefill }),
            output_tokens_max: held.into_iter().chain(asked).min(),
            output_cap: held.map(|_| provider.output_cap.member(endpoint)),
        })
    }

    /// Connects within the deadline.
    pub(crate) async fn connect(&self, ask: &Ask) -> Result<Connection, Failure> {
        let (_, provider) = self.place(ask).ok_or(Failure::Resolve)?;
        let within = self.deadlines(provider).connect;
        self.connector.connect(provider, ask.pooled, within).await
    }

    /// The provider's deadlines, and the route's where it has its own.
    fn deadlines(&self, provider: &Provider) -> Deadlines {
        let patience = &self.route.policy.patience;
        let or = provider.deadlines;
        Deadlines {
            connect: patience.connect.unwrap_or(or.connect),
            head: patience.head.unwrap_or(or.head),
            first_token: patience.first_token.unwrap_or(or.first_token),
            stall: patience.stall.unwrap_or(or.stall),
            total: patience.total.unwrap_or(or.total),
            ..or
        }
    }
}

/// A try with a body that has come whole.
pub(crate) async fn open(
    context: Context<'_>,
    (endpoint, request): (Endpoint, &Request),
    (ask, ticket): (Ask, Ticket),
) -> Result<Box<Answer>, Fault> {
    match send(context, (endpoint, request), &ask).await {
        Ok(exchange) => finish(context, (endpoint, request), (ask, ticket), exchange).await,
        Err(failure) => {
            let mut ticket = ticket;
            ticket.failed(failure, None);
            Err(Fault::Failed(failure))
        }
    }
}

async fn send(
    context: Context<'_>,
    (endpoint, request): (Endpoint, &Request),
    ask: &Ask,
) -> Result<Exchange, Failure> {
    let connection = context.connect(ask).await?;
    let change = context.change(endpoint, ask).ok_or(Failure::Resolve)?;
    let mut pieces = Vec::new();
    Splicer::new(&change, &request.scanner).advance(&request.scanner, &request.frames, &mut pieces);
    connection.send(endpoint, pieces).await
}

/// The rest of a try whose request has been sent: reads until the target speaks, and takes note of
/// how the target did.
pub(crate) async fn finish(
    context: Context<'_>,
    (endpoint, request): (Endpoint, &Request),
    (ask, mut ticket): (Ask, Ticket),
    exchange: Exchange,
) -> Result<Box<Answer>, Fault> {
    match read(context, (endpoint, request), ask, exchange).await {
        Ok(mut answer) => {
            ticket.spoke(request.frames.end(), answer.leg.spoke_after());
            answer.leg.ticket = Some(ticket);
            Ok(answer)
        }
        Err(fault) => {
            if let Some(failure) = fault.failure() {
                ticket.failed(failure, fault.retry_after());
            }
            Err(fault)
        }
    }
}

async fn read(
    context: Context<'_>,
    (endpoint, request): (Endpoint, &Request),
    ask: Ask,
    mut exchange: Exchange,
) -> Result<Box<Answer>, Fault> {
    let (target, provider) = context.place(&ask).ok_or(Fault::Failed(Failure::Resolve))?;
    let sent_at = Instant::now();
    let deadlines = context.deadlines(provider);
    let head = read_head(&mut exchange, (request, &deadlines)).await.map_err(Fault::Failed)?;
    if let Some(failure) = failure_of(head.status.as_u16()) {
        let rejection = Box::pin(exchange.rejection(&head, context.connector)).await;
        let failure = refine(failure, &rejection);
        return Err(Fault::Rejected(failure, Box::new(rejection)));
    }
    let asks_usage = asks_for_usage(request);
    let injected = provider.stream_options && streams(endpoint);
    let resumption = ask.resumption;
    let (start, delivered_tokens, prompt_tokens) =
        resumption.as_ref().map_or((Start::First, 0, 0), |one| {
            (one.start, one.resume.delivered_tokens, one.resume.prompt_tokens)
        });
    let mut part = Part {
        attempt: 0,
        price: target.prices.at(context.now).cloned(),
        asked_tier: request.scanner.facts().service_tier,
        meter: Meter::new(meter::Options {
            endpoint,
            strip_usage: injected && !asks_usage,
            client_usage: asks_usage,
            reasoning: provider.reasoning,
            text_bytes_max: TEXT_BYTES_MAX,
            resume: resumption.map(|resumption| Box::new(resumption.resume)),
        }),
        start,
        delivered_tokens,
        prompt_tokens,
    };
    let mut leg = Box::new(Leg::new(exchange, (form_of(&head), sent_at), deadlines));
    until_spoken(&mut leg, &mut part.meter).await.map_err(|failure| {
        // What the provider says of its failure is kept for the client, if no other target answers.
        let said = leg.take_error().filter(|_| failure == Failure::ErrorEvent);
        let status = head.status.as_u16();
        let told = Rejection::told(provider, status, &said.unwrap_or_default());
        Fault::Rejected(failure, Box::new(told))
    })?;
    Ok(Box::new(Answer { head, leg, part }))
}

/// Reads until there is something that the client can use, or that proves a resumed answer alive.
async fn until_spoken(leg: &mut Leg, meter: &mut Meter) -> Result<(), Failure> {
    while !leg.has_spoken() && !meter.repeating() {
        leg.advance(meter).await?;
    }
    Ok(())
}

async fn read_head(
    exchange: &mut Exchange,
    (request, deadlines): (&Request, &Deadlines),
) -> Result<ResponseHeader, Failure> {
    let streamed = request.scanner.facts().stream == Some(Flag::True);
    let early = streamed && deadlines.first_token < deadlines.head;
    let (within, late) = if early {
        (deadlines.first_token, Failure::FirstTokenTimeout)
    } else {
        (deadlines.head, Failure::HeadTimeout)
    };
    timeout(within, exchange.head()).await.map_err(|_| late)?
}

/// Whether the client itself wants usage in its stream.
pub(crate) fn asks_for_usage(request: &Request) -> bool {
    let options = request.scanner.facts().stream_options.map(|member| member.options);
    match options {
        Some(Options::Object { include_usage: Some((value, _)), .. }) => value == Flag::True,
        Some(Options::Object { include_usage: None, .. } | Options::Null | Options::Other)
        | None => false,
    }
}

/// Whether answers of an endpoint can be streams at all.
const fn streams(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions)
}

fn form_of(head: &ResponseHeader) -> Form {
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let prefix = kind.get(..EVENT_STREAM.len()).unwrap_or_default();
    if !prefix.eq_ignore_ascii_case(EVENT_STREAM) {
        Form::Whole
    } else if head.headers.get(header::CONTENT_ENCODING).is_none_or(plain) {
        Form::Events
    } else {
        Form::Raw
    }
}

/// What a status means for the attempt; `None` is a good answer.
pub(crate) const fn failure_of(status: u16) -> Option<Failure> {
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

/// What the provider's words add to its status.
fn refine(failure: Failure, rejection: &Rejection) -> Failure {
    let complaint = rejection.body.as_deref().map_or(Complaint::Other, complaint);
    match (failure, complaint) {
        (Failure::Request | Failure::Credential, Complaint::ContentPolicy) => {
            Failure::ContentPolicy
        }
        (Failure::Request, Complaint::ContextLength) => Failure::ContextLength,
        (failure, Complaint::ContextLength | Complaint::ContentPolicy | Complaint::Other) => {
            failure
        }
    }
}

/// How long a provider says to wait: `retry-after-ms`, or `retry-after` in seconds or as a date (RFC
/// 9110, 10.2.3).
pub(crate) fn retry_after(head: &ResponseHeader) -> Option<Duration> {
    let text = |name: &str| Some(head.headers.get(name)?.to_str().ok()?.trim());
    let number = |name: &str| text(name)?.parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|millis| millis / 1_000.0);
    if let Some(seconds) = seconds.or_else(|| number("retry-after")) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(text("retry-after")?).ok()?;
    let since = date.duration_since(UNIX_EPOCH).ok()?;
    Some(since.saturating_sub(Duration::from_micros(clock::now().micros())))
}
