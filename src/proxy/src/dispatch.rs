//! Attempts at targets, until one speaks: `domain::routing` decides, this acts.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora_core::protocols::http::ServerSession;
use tokenroute_domain::catalog::Route;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record;
use tokenroute_domain::routing::{
    self, Affinity, Failure, Outlook, Standing, Step, Tried, Walk, Why,
};
use tokenroute_domain::time::Timestamp;
use tokenroute_wire::request::{Splicer, prefix_hash};

use crate::call::Call;
use crate::clock;
use crate::funds::Bounds;
use crate::lifecycle::Ending;
use crate::open::{Answer, Ask, Context, finish, open};
use crate::race::{self, End, Opened};
use crate::reply::Fault;
use crate::request::{Request, client_leaves};
use crate::snapshot::Snapshot;
use crate::targets::{Targets, Ticket};
use crate::upstream::{Connection, Connector, Exchange};

/// Decisions of one call: its attempts, and those that came too late for a target's trial.
const STEPS_MAX: usize = 64;
/// Bytes of a prompt's beginning that calls are kept together by.
const AFFINITY_BYTES_MAX: usize = 2048;

/// What a call is admitted to.
pub(crate) struct Terms<'a> {
    pub(crate) route: &'a Route,
    /// When it began.
    pub(crate) now: Timestamp,
    /// How its output is bounded, if money is held for it.
    pub(crate) bounds: Option<Bounds>,
}

/// The attempts of one call.
pub(crate) struct Attempts<'a> {
    pub(crate) context: Context<'a>,
    pub(crate) ending: &'a mut Ending,
    pub(crate) tried: Vec<Tried>,
    /// How long the call has waited for targets.
    waited: Duration,
    /// What has reached the client of an answer that broke off.
    pub(crate) delivered: String,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        connector: &'a Arc<Connector>,
        (snapshot, targets): (&'a Snapshot, &'a Targets),
        terms: Terms<'a>,
        ending: &'a mut Ending,
    ) -> Self {
        let Terms { route, now, bounds } = terms;
        let context = Context { connector, snapshot, targets, route, now, bounds };
        let (tried, waited, delivered) = (Vec::new(), Duration::ZERO, String::new());
        Self { context, ending, tried, waited, delivered }
    }

    /// Tries targets until one speaks. Returns its answer or why there is none.
    pub(crate) async fn run(
        &mut self,
        session: &mut ServerSession,
        call: &mut Call,
        request: &mut Request,
    ) -> Result<Box<Answer>, Fault> {
        let key = self.affinity(request);
        let mut fault = None;
        for _ in 0..STEPS_MAX {
            let step = {
                let walk = self.walk(call, request, (call.elapsed(), key));
                routing::next(self.context.route, &walk, &|place| self.context.outlook(place))
            };
            let Step::Try { place, pooled, wait, why } = step else {
                return Err(self.give_up(fault, step));
            };
            let _repeat = (why == Why::Retry).then(|| self.context.targets.repeat());
            self.pause(session, wait).await?;
            self.waited = self.waited.saturating_add(wait);
            // None: another call has taken the target's trial; it is the next decision's business.
            let Some(ticket) = self.context.admit(place) else { continue };
            let ask = Ask { place, why, pooled, resumption: None };
            match self.attempt(session, call, request, (ask, ticket)).await {
                Ok(answer) => return Ok(answer),
                Err(missed @ (Fault::Failed(_) | Fault::Rejected(..))) => fault = Some(missed),
                Err(other) => return Err(other),
            }
        }
        Err(fault.unwrap_or(Fault::Unavailable(None)))
    }

    /// How far the call has come, as the rules see it.
    pub(crate) fn walk(
        &self,
        call: &Call,
        request: &Request,
        (elapsed, key): (Duration, Option<u64>),
    ) -> Walk<'_> {
        Walk {
            tried: &self.tried,
            replayable: request.is_replayable(),
            elapsed,
            waited: self.waited,
            may_retry: self.context.targets.may_repeat(call.calls()),
            key,
            chance: clock::chance_bits(),
        }
    }

    /// What calls with the same beginning have in common, if that matters here.
    fn affinity(&self, request: &Request) -> Option<u64> {
        let wanted = self.context.route.policy.affinity == Affinity::Prefix;
        let start = request.scanner.facts().prompt_start.filter(|_| wanted)?;
        Some(prefix_hash(&request.frames, start, AFFINITY_BYTES_MAX))
    }

    /// No target is left: the last failure is the answer, or that none takes calls.
    fn give_up(&self, fault: Option<Fault>, step: Step) -> Fault {
        let soonest = match step {
            Step::GiveUp { retry_after } => retry_after,
            Step::Try { .. } => None,
        };
        match fault {
            Some(Fault::Rejected(failure, mut rejection)) => {
                rejection.retry_after = soonest.or(rejection.retry_after);
                Fault::Rejected(failure, rejection)
            }
            Some(fault) => fault,
            None if self.context.all_cool() => Fault::Limited(soonest),
            None => Fault::Unavailable(soonest),
        }
    }

    /// Waits, unless the client leaves meanwhile.
    async fn pause(&mut self, session: &mut ServerSession, wait: Duration) -> Result<(), Fault> {
        if wait.is_zero() {
            return Ok(());
        }
        self.watched(session, pin!(tokio::time::sleep(wait))).await
    }

    /// One try at one target, or at two if the first is late; leaves its line in the record.
    pub(crate) async fn attempt(
        &mut self,
        session: &mut ServerSession,
        call: &mut Call,
        request: &mut Request,
        (ask, ticket): (Ask, Ticket),
    ) -> Result<Box<Answer>, Fault> {
        let since = Instant::now();
        let (place, why) = (ask.place, ask.why);
        // Rare ways have their room on the heap, so that the others need not move it about.
        let opened = if !request.ended {
            Box::pin(self.stream(session, call, request, (ask, ticket))).await
        } else if let Some(late) = race::lateness(self.context, call, &ask, request) {
            let tries = race::run(self.context, (call.endpoint, request), (ask, ticket), late);
            self.watched(session, Box::pin(tries)).await
        } else {
            let one = pin!(open(self.context, (call.endpoint, request), (ask, ticket)));
            self.watched(session, one).await.map(|result| {
                vec![Opened { place, why, took: since.elapsed(), end: result.into() }]
            })
        };
        request.forget_sent(request.frames.end());
        match opened {
            Ok(opened) => self.note_all(call, opened),
            Err(fault) => {
                let since = micros(since.elapsed());
                self.note(call, (place, why), (fault.as_str(), None, since));
                Err(fault)
            }
        }
    }

    /// Waits for tries unless the client leaves, or all calls are to end.
    async fn watched<T>(
        &mut self,
        session: &mut ServerSession,
        tries: impl Future<Output = T> + Unpin,
    ) -> Result<T, Fault> {
        tokio::select! {
            biased;
            done = tries => Ok(done),
            () = client_leaves(session) => Err(Fault::ClientGone),
            () = self.ending.wait() => Err(Fault::Shutdown),
        }
    }

    /// Leaves a line for each target that was tried at the same time.
    fn note_all(&mut self, call: &mut Call, opened: Vec<Opened>) -> Result<Box<Answer>, Fault> {
        let mut result = Err(Fault::Unavailable(None));
        for Opened { place, why, took, end } in opened {
            let micros = micros(took);
            match end {
                End::Spoke(mut answer) => {
                    let status = Some(answer.head.status.as_u16());
                    answer.part.attempt = self.note(call, (place, why), ("ok", status, micros));
                    result = Ok(answer);
                }
                End::Missed(fault) => {
                    let status = fault.status();
                    self.note(call, (place, why), (fault.as_str(), status, micros));
                    if let Some(failure) = fault.failure() {
                        call.failed(failure);
                        let retry_after = fault.retry_after();
                        self.tried.push(Tried { place, failure, retry_after });
                    }
                    result = result.or(Err(fault));
                }
                End::Lost(mut part) => {
                    part.attempt = self.note(call, (place, why), ("hedge_lost", None, micros));
                    call.account.lost.push(*part);
                }
            }
        }
        result
    }

    fn note(
        &self,
        call: &mut Call,
        (place, why): (usize, Why),
        (result, status, micros): (&'static str, Option<u16>, u64),
    ) -> usize {
        let target = self.context.route.targets.get(place);
        call.attempted(record::Attempt {
            target: target.map_or_else(|| Arc::from(""), |target| Arc::clone(&target.name)),
            why,
            result,
            status,
            micros,
            output_tokens: 0,
            cost: NanoUsd::ZERO,
            house_cost: NanoUsd::ZERO,
        })
    }

    /// A try with a body that is still arriving.
    async fn stream(
        &mut self,
        session: &mut ServerSession,
        call: &Call,
        request: &mut Request,
        (ask, ticket): (Ask, Ticket),
    ) -> Result<Vec<Opened>, Fault> {
        let since = Instant::now();
        let (place, why) = (ask.place, ask.why);
        let uploaded = self.upload(session, call, request, &ask).await;
        let missed = |fault: Fault, mut ticket: Ticket| match fault.failure() {
            Some(failure) => {
                ticket.failed(failure, None);
                Ok(vec![Opened { place, why, took: since.elapsed(), end: End::Missed(fault) }])
            }
            None => Err(fault),
        };
        let exchange = match uploaded {
            Ok(exchange) => exchange,
            Err(fault) => return missed(fault, ticket),
        };
        let rest = finish(self.context, (call.endpoint, request), (ask, ticket), exchange);
        let result = self.watched(session, pin!(rest)).await?;
        Ok(vec![Opened { place, why, took: since.elapsed(), end: result.into() }])
    }

    /// Sends a body that is still arriving. The last bytes of a body are sent only when all of it has
    /// been found sound, so a fault found late leaves the provider without a whole request.
    async fn upload(
        &self,
        session: &mut ServerSession,
        call: &Call,
        request: &mut Request,
        ask: &Ask,
    ) -> Result<Exchange, Fault> {
        let connection = self.connect(session, request, ask).await?;
        let mut splicer = {
            let change =
                self.context.change(call.endpoint, ask).ok_or(Fault::Failed(Failure::Resolve))?;
            Splicer::new(&change, &request.scanner)
        };
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

    /// Connects; the rest of a long body goes on arriving meanwhile, within twice what there was.
    async fn connect(
        &self,
        session: &mut ServerSession,
        request: &mut Request,
        ask: &Ask,
    ) -> Result<Connection, Fault> {
        let connect = self.context.connect(ask);
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
}

impl Context<'_> {
    /// What is known of a target now.
    pub(crate) fn outlook(&self, place: usize) -> Outlook {
        let target = self.route.targets.get(place);
        let state = target.and_then(|target| self.snapshot.standing(target));
        // A target that is nowhere takes no calls.
        let standing = Standing::Open { left: Duration::MAX };
        let nowhere = Outlook {
            standing,
            hinted: false,
            outstanding: 0,
            latency_micros: 0,
            failing_permille: 1_000,
        };
        state.map_or(nowhere, |state| state.outlook())
    }

    /// Leave for one attempt at a target.
    pub(crate) fn admit(&self, place: usize) -> Option<Ticket> {
        self.snapshot.standing(self.route.targets.get(place)?)?.admit()
    }

    /// Whether the targets' limits alone keep this call from them.
    fn all_cool(&self) -> bool {
        let cools = |place| matches!(self.outlook(place).standing, Standing::Cooling { .. });
        (0..self.route.targets.len()).all(cools)
    }
}

fn content_length(session: &ServerSession) -> Option<u64> {
    let value = session.req_header().headers.get(http::header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
