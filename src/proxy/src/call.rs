//! A call in flight, and the guard that leaves its one record however it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenroute_domain::admission::Refusal;
use tokenroute_domain::catalog::Route;
use tokenroute_domain::id::CallId;
use tokenroute_domain::journal::{Ended, Intent, Mark};
use tokenroute_domain::key::{ApiKey, Funding, SharedKey};
use tokenroute_domain::limit::allowance::Levels;
use tokenroute_domain::load::Shed;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::{Attempt, Endpoint, Outcome, Record};
use tokenroute_domain::routing::Failure;
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};
use tokenroute_wire::meter::{Meter, prompt_text};

use crate::account::{Account, Count, Part};
use crate::books::{Books, Denied, Hold, Progress};
use crate::clock;
use crate::estimate::{Estimator, PROMPT_BYTES_MAX, in_proportion};
use crate::governor::Governor;
use crate::holders::Held;
use crate::lifecycle::{InFlight, Lifecycle};
use crate::limits::{Limited, Permit};
use crate::metrics::{Metrics, RouteMetrics};
use crate::outbox::{Outbox, Slot};
use crate::request::Request;

/// What a call needs to leave its record.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) outbox: Outbox,
    pub(crate) metrics: Metrics,
    pub(crate) estimator: Estimator,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) books: Books,
}

/// The money of a call that has some in it.
#[derive(Debug)]
struct Funds {
    hold: Hold,
    progress: Arc<Progress>,
    /// The hold is less than the call can come to: the answer ends where the hold does.
    limited: bool,
    /// Input tokens, until a provider has told of them.
    prompt_tokens: u64,
}

/// One client request. Dropping it writes its record: on a return, a panic or a shutdown alike.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) started: Timestamp,
    pub(crate) endpoint: Endpoint,
    pub(crate) key: Option<SharedKey>,
    pub(crate) attempts: Vec<Attempt>,
    /// The HTTP status sent to the client; 0 before.
    pub(crate) status: u16,
    pub(crate) streamed: bool,
    /// What targets have done for it.
    pub(crate) account: Account,
    /// The request, for going on elsewhere and for counting its tokens if nobody else does.
    pub(crate) request: Option<Request>,
    /// How our limits stand, for the answer's head.
    pub(crate) levels: Levels,
    /// After how long a limit of ours may let the call pass, if it did not.
    pub(crate) retry_after: Option<Duration>,
    permit: Option<Permit>,
    /// Its place among the calls of its key.
    held: Option<Held>,
    /// It was turned away: there is nothing to tell but that.
    turned_away: bool,
    route: Option<(Arc<Route>, Option<Arc<RouteMetrics>>)>,
    ending: Option<(Outcome, Option<&'static str>)>,
    first_token_micros: Option<u64>,
    clock: Instant,
    slot: Option<Slot>,
    funds: Option<Box<Funds>>,
    ledger: Arc<Ledger>,
    _in_flight: InFlight,
}

impl Call {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        let started = clock::now();
        ledger.metrics.in_flight.inc();
        Self {
            id: CallId::new(started, clock::chance()),
            started,
            endpoint: Endpoint::Unknown,
            key: None,
            attempts: Vec::new(),
            status: 0,
            streamed: false,
            account: Account::default(),
            request: None,
            levels: Levels::default(),
            retry_after: None,
            permit: None,
            held: None,
            turned_away: false,
            route: None,
            ending: None,
            first_token_micros: None,
            clock: Instant::now(),
            slot: None,
            funds: None,
            _in_flight: ledger.lifecycle.enter(),
            ledger: Arc::clone(ledger),
        }
    }

    /// Takes a place among the calls that there may be.
    pub(crate) fn enter(
        &mut self,
        governor: &Governor,
        key: &ApiKey,
        calls_max: usize,
    ) -> Result<(), Shed> {
        let calls = self.calls();
        governor.check_calls(calls, calls_max)?;
        // Lists of models cost little.
        if self.endpoint != Endpoint::Models {
            self.held = Some(governor.place(key.id, (calls, calls_max))?);
        }
        Ok(())
    }

    /// Takes note that it was turned away.
    pub(crate) fn turn_away(&mut self) {
        self.turned_away = true;
    }

    /// Names the caller and reserves room for the record; `false` if there is none.
    pub(crate) fn identify(&mut self, key: SharedKey) -> bool {
        self.key = Some(key);
        self.slot = self.ledger.outbox.reserve();
        self.slot.is_some()
    }

    /// Reserves room for the record of a caller that was not identified, unless there is a slot.
    pub(crate) fn reserve_unknown(&mut self) -> bool {
        if self.slot.is_none() {
            self.slot = self.ledger.outbox.reserve_unknown();
        }
        self.slot.is_some()
    }

    /// Takes note of what limits say: leave, which is settled with the call, or for how long not.
    pub(crate) fn limit(&mut self, leave: Result<Permit, Limited>) -> Result<(), Refusal> {
        match leave {
            Ok(permit) => {
                self.levels = permit.levels();
                self.permit = Some(permit);
                Ok(())
            }
            Err(limited) => {
                self.levels = limited.levels;
                self.retry_after = Some(limited.retry_after);
                self.ledger.metrics.limited(limited.which);
                Err(limited.which.into())
            }
        }
    }

    /// Takes note of the admitted route.
    pub(crate) fn admitted(&mut self, route: Arc<Route>, metrics: Option<Arc<RouteMetrics>>) {
        self.route = Some((route, metrics));
    }

    /// Takes over what is held for the call and writes down that it goes upstream. Nothing is sent of a
    /// call that cannot be written down.
    pub(crate) fn fund(
        &mut self,
        hold: Hold,
        (limited, prompt_tokens): (bool, u64),
    ) -> Result<(), Denied> {
        let (Some(key), Some((route, _))) = (&self.key, &self.route) else { return Ok(()) };
        let intent = Intent {
            call: self.id,
            started: self.started,
            endpoint: self.endpoint,
            key: key.id,
            account: key.account,
            prepaid: key.funding == Funding::Prepaid,
            model: Arc::clone(&route.model),
            hold: hold.amount(),
            purses: hold.purses().to_vec(),
        };
        let progress = self.ledger.books.begin(&intent)?;
        self.funds = Some(Box::new(Funds { hold, progress, limited, prompt_tokens }));
        Ok(())
    }

    /// Takes note of how far the answer has come, for a call with money in it. `false` if it has used up
    /// what could be held for it.
    pub(crate) fn advance(&self) -> bool {
        let Some(funds) = &self.funds else { return true };
        let (usage, cost) = self.account.so_far(funds.prompt_tokens);
        let reported = self.account.is_reported();
        let held = funds.hold.amount();
        // A provider that minds no cap must not take a key beyond its ceiling either.
        let capped = !funds.hold.purses().is_empty() && cost > held;
        let exhausted = !reported && (capped || (funds.limited && cost >= held));
        let target = self.target().cloned().unwrap_or_else(|| Arc::from(""));
        let (call, streamed) = (self.id, self.streamed);
        funds.progress.advance(Mark { call, usage, cost, target, streamed, reported });
        !exhausted
    }

    /// Takes note of an attempt and tells its place among all.
    pub(crate) fn attempted(&mut self, attempt: Attempt) -> usize {
        self.attempts.push(attempt);
        self.attempts.len().saturating_sub(1)
    }

    /// Takes note that an attempt whose answer had begun did not do after all.
    pub(crate) fn broke(&mut self, failure: Failure) {
        self.failed(failure);
        let attempt = self.account.spoken.last().map(|part| part.attempt);
        if let Some(attempt) = attempt.and_then(|place| self.attempts.get_mut(place)) {
            attempt.result = failure.as_str();
        }
    }

    /// Counts an attempt that did not do.
    pub(crate) fn failed(&self, failure: Failure) {
        self.ledger.metrics.failed(failure);
    }

    /// Commits the call to an answer: what its meter reads is delivered from here on.
    pub(crate) fn commit(&mut self, part: Part) {
        self.account.spoken.push(part);
    }

    /// The meter of the answer that is delivered now.
    pub(crate) fn meter(&mut self) -> Option<&mut Meter> {
        self.account.spoken.last_mut().map(|part| &mut part.meter)
    }

    /// The name of the target that answers; if none does, of the last one tried.
    pub(crate) fn target(&self) -> Option<&Arc<str>> {
        let answers = self.attempts.iter().rev().find(|attempt| attempt.result == "ok");
        answers.or(self.attempts.last()).map(|attempt| &attempt.target)
    }

    /// Calls in flight on this edge.
    pub(crate) fn calls(&self) -> usize {
        self.ledger.lifecycle.calls()
    }

    /// The edge's own count of a text's tokens; `None` if it takes too long.
    pub(crate) async fn count_tokens(&self, text: String) -> Option<u64> {
        self.ledger.estimator.count_text(text).await
    }

    /// Counts an answer that broke off, and whether another target went on with it.
    pub(crate) fn recovered(&self, did: bool) {
        self.ledger.metrics.recovered(did);
    }

    /// The edge's own count of a request's prompt; `None` if it takes too long.
    pub(crate) async fn count_prompt(&self, request: &Request) -> Option<u64> {
        let mut prompt = String::new();
        let bytes_total = prompt_text(request.frames.parts(), &mut prompt, PROMPT_BYTES_MAX);
        let kept = prompt.len();
        let tokens = self.count_tokens(prompt).await?;
        Some(in_proportion(tokens, kept, bytes_total))
    }

    /// The edge's own count of what was asked and delivered, for a client that wants to know.
    pub(crate) async fn estimate(&self) -> Option<Usage> {
        let mut prompt = String::new();
        let request = self.request.as_ref()?;
        prompt_text(request.frames.parts(), &mut prompt, PROMPT_BYTES_MAX);
        let said: String = self.account.spoken.iter().map(|part| part.meter.text()).collect();
        let input = self.count_tokens(prompt).await?;
        let output = self.count_tokens(said).await?;
        Some(Usage { input, output, ..Usage::default() })
    }

    /// Takes note that the first semantic token has arrived.
    pub(crate) fn first_token(&mut self) {
        self.first_token_micros.get_or_insert(micros(self.clock));
    }

    /// How long the call has taken so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Decides how the call ended. The first word stands.
    pub(crate) fn end(&mut self, outcome: Outcome, error: Option<&'static str>) {
        self.ending.get_or_insert((outcome, error));
    }

    fn record(&self) -> Record {
        // A future that is dropped before its end was dropped by a runtime that is going down.
        let unsaid = if std::thread::panicking() { Outcome::Panicked } else { Outcome::Shutdown };
        let (outcome, error) = self.ending.unwrap_or((unsaid, Some(unsaid.as_str())));
        Record {
            call: self.id,
            started: self.started,
            endpoint: self.endpoint,
            key: self.key.as_ref().map(|key| key.id),
            account: self.key.as_ref().map(|key| key.account),
            model: self.route.as_ref().map(|(route, _)| Arc::clone(&route.model)),
            target: self.target().cloned(),
            attempts: self.attempts.clone(),
            status: self.status,
            outcome,
            error,
            streamed: self.streamed,
            usage: Usage::default(),
            usage_source: UsageSource::None,
            cost: NanoUsd::ZERO,
            charge: NanoUsd::ZERO,
            price_version: None,
            house_cost: NanoUsd::ZERO,
            latency_micros: micros(self.clock),
            first_token_micros: self.first_token_micros,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.ledger.metrics.in_flight.dec();
        if self.turned_away {
            return;
        }
        let Some(slot) = self.slot.take() else {
            self.ledger.metrics.calls_without_slot.inc();
            return;
        };
        let mut account = std::mem::take(&mut self.account);
        for part in account.spoken.iter_mut().chain(&mut account.lost) {
            part.meter.finish();
            if part.meter.suspect() {
                self.ledger.metrics.usage_suspect.inc();
            }
            self.ledger.metrics.events_malformed.inc_by(part.meter.malformed());
        }
        let settlement = Settlement {
            record: self.record(),
            slot,
            account,
            funds: self.funds.take(),
            prepaid: self.key.as_ref().is_some_and(|key| key.funding == Funding::Prepaid),
            permit: self.permit.take(),
            route: self.route.take().and_then(|(_, metrics)| metrics),
            metrics: self.ledger.metrics.clone(),
        };
        if settlement.account.is_reported() {
            settlement.settle(&Nothing);
        } else {
            self.ledger.estimator.settle(settlement, self.request.take());
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A record that lacks only its usage and its costs.
#[derive(Debug)]
pub(crate) struct Settlement {
    record: Record,
    slot: Slot,
    account: Account,
    funds: Option<Box<Funds>>,
    prepaid: bool,
    permit: Option<Permit>,
    route: Option<Arc<RouteMetrics>>,
    metrics: Metrics,
}

impl Settlement {
    /// Puts a price on what was done and sends the record.
    pub(crate) fn settle(self, count: &dyn Count) {
        let Self { mut record, slot, account, funds, prepaid, permit, route, metrics } = self;
        if !account.is_empty() {
            account.settle(&mut record, count);
        }
        if record.usage_source == UsageSource::Estimated {
            metrics.usage_estimated.inc();
        }
        let due = funds.map(|funds| funds.hold.settle(record.cost));
        if let Some(due) = due.as_ref().filter(|_| prepaid) {
            record.charge = due.charge;
        }
        if let Some(permit) = permit {
            permit.settle(record.usage.input_total().saturating_add(record.usage.output_total()));
        }
        metrics.ended(&record, route.as_deref());
        log(&record);
        slot.send(Ended { record: Arc::new(record), due });
    }
}

/// For what providers have told: there is nothing to count.
struct Nothing;

impl Count for Nothing {
    fn text(&self, _: &str, _: u64) -> u64 {
        0
    }

    fn prompt(&self) -> u64 {
        0
    }
}

/// One line for a call that did not go well; the others are in the records.
fn log(record: &Record) {
    match record.outcome {
        Outcome::Answered | Outcome::ClientGone | Outcome::Refused => tracing::debug!(
            call = %record.call, outcome = record.outcome.as_str(), status = record.status, "call"
        ),
        Outcome::Failed | Outcome::Cut | Outcome::Panicked | Outcome::Shutdown => tracing::warn!(
            call = %record.call,
            outcome = record.outcome.as_str(),
            error = record.error.unwrap_or_default(),
            status = record.status,
            target = record.target.as_deref().unwrap_or_default(),
            attempts = record.attempts.len(),
            latency_micros = record.latency_micros,
            "call"
        ),
    }
}
