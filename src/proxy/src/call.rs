//! A call in flight, and the guard that leaves its one record however it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenroute_domain::catalog::{Route, Target};
use tokenroute_domain::id::CallId;
use tokenroute_domain::key::SharedKey;
use tokenroute_domain::money::{NanoUsd, Price};
use tokenroute_domain::record::{Attempt, Endpoint, Outcome, Record};
use tokenroute_domain::routing::Failure;
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};
use tokenroute_wire::meter::Meter;

use crate::clock;
use crate::estimate::{Estimator, Job};
use crate::lifecycle::{InFlight, Lifecycle};
use crate::metrics::{Metrics, RouteMetrics};
use crate::outbox::{Outbox, Slot};
use crate::request::Prompt;

/// What a call needs to leave its record.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) outbox: Outbox,
    pub(crate) metrics: Metrics,
    pub(crate) estimator: Estimator,
    pub(crate) lifecycle: Lifecycle,
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
    /// Counts what the provider answers; present once it has begun to.
    pub(crate) meter: Option<Meter>,
    /// The request, for counting its tokens if nobody else does.
    pub(crate) prompt: Option<Prompt>,
    route: Option<(Arc<Route>, Option<Arc<RouteMetrics>>)>,
    target: Option<(Arc<str>, Option<Price>)>,
    ending: Option<(Outcome, Option<&'static str>)>,
    first_token_micros: Option<u64>,
    clock: Instant,
    slot: Option<Slot>,
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
            meter: None,
            prompt: None,
            route: None,
            target: None,
            ending: None,
            first_token_micros: None,
            clock: Instant::now(),
            slot: None,
            _in_flight: ledger.lifecycle.enter(),
            ledger: Arc::clone(ledger),
        }
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

    /// Takes note of the admitted route.
    pub(crate) fn admitted(&mut self, route: Arc<Route>, metrics: Option<Arc<RouteMetrics>>) {
        self.route = Some((route, metrics));
    }

    /// Takes note of an attempt; one that did is the target of the record.
    pub(crate) fn attempted(&mut self, target: &Target, attempt: Attempt) {
        self.target = Some((Arc::clone(&target.name), target.price));
        self.attempts.push(attempt);
    }

    /// Counts an attempt that did not do.
    pub(crate) fn failed(&self, failure: Failure) {
        self.ledger.metrics.failed(failure);
    }

    /// The name of the last target tried.
    pub(crate) fn target(&self) -> Option<&Arc<str>> {
        self.target.as_ref().map(|(name, _)| name)
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
            house_cost: NanoUsd::ZERO,
            latency_micros: micros(self.clock),
            first_token_micros: self.first_token_micros,
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.ledger.metrics.in_flight.dec();
        let Some(slot) = self.slot.take() else {
            self.ledger.metrics.calls_without_slot.inc();
            return;
        };
        let settlement = Settlement {
            record: self.record(),
            slot,
            price: self.target.as_ref().and_then(|(_, price)| *price),
            route: self.route.take().and_then(|(_, metrics)| metrics),
            metrics: self.ledger.metrics.clone(),
        };
        let Some(mut meter) = self.meter.take() else { return settlement.settle(None) };
        meter.finish();
        if meter.suspect() {
            self.ledger.metrics.usage_suspect.inc();
        }
        self.ledger.metrics.events_malformed.inc_by(meter.malformed());
        match meter.usage() {
            Some(usage) => settlement.settle(Some((usage, UsageSource::Provider))),
            None => self.ledger.estimator.count(Job::new(settlement, &meter, self.prompt.take())),
        }
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A record that lacks only its usage and its cost.
#[derive(Debug)]
pub(crate) struct Settlement {
    record: Record,
    slot: Slot,
    price: Option<Price>,
    route: Option<Arc<RouteMetrics>>,
    metrics: Metrics,
}

impl Settlement {
    /// Puts a price on the usage and sends the record.
    pub(crate) fn settle(self, usage: Option<(Usage, UsageSource)>) {
        let Self { mut record, slot, price, route, metrics } = self;
        if let Some((usage, source)) = usage {
            record.usage = usage;
            record.usage_source = source;
            // A charge beyond what an account can hold is kept at that bound, not lost.
            record.cost = price
                .map_or(NanoUsd::ZERO, |price| price.charge(&usage).unwrap_or(NanoUsd(i64::MAX)));
            if source == UsageSource::Estimated {
                metrics.usage_estimated.inc();
            }
        }
        metrics.ended(&record, route.as_deref());
        log(&record);
        slot.send(record);
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
