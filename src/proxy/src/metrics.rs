//! Prometheus metrics with bounded labels: every series exists from the start or belongs to a route
//! of the table, and nothing is looked up by label on the path of a call.

use std::sync::Arc;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use tokenroute_domain::limit::Kind;
use tokenroute_domain::record::{Endpoint, Outcome, Record};
use tokenroute_domain::routing::Failure;

/// Upper bounds of the latency histograms, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// Everything the data plane counts.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Series>);

impl std::ops::Deref for Metrics {
    type Target = Series;

    fn deref(&self) -> &Series {
        &self.0
    }
}

/// The series, each a handle of its own.
#[derive(Debug)]
pub struct Series {
    registry: Registry,
    /// By endpoint, then outcome.
    calls: Vec<Vec<IntCounter>>,
    failures: Vec<IntCounter>,
    targets: TargetCounters,
    limited: IntCounterVec,
    recoveries: IntCounterVec,
    probes: IntCounterVec,
    latency: Histogram,
    first_token: Histogram,
    /// Calls refused because the outbox had no slot. They leave no record, only this count.
    pub calls_without_slot: IntCounter,
    /// Answers whose tokens the edge counted by itself.
    pub usage_estimated: IntCounter,
    /// Answers whose reported usage made no sense and was clamped.
    pub usage_suspect: IntCounter,
    /// Events that were neither JSON nor the end mark.
    pub events_malformed: IntCounter,
    /// Defects that ended a call.
    pub panics: IntCounter,
    /// HTTP/2 connections that were given up for what they asked for beside requests.
    pub floods: IntCounter,
    /// Calls in flight.
    pub in_flight: IntGauge,
    /// Free slots of the outbox.
    pub outbox_free: IntGauge,
    /// The generation in use.
    pub generation: IntGauge,
    /// Tables swapped in.
    pub reloads: IntCounter,
    /// Tables refused.
    pub reload_failures: IntCounter,
    routes: RouteCounters,
}

/// Series by route: as many as the tables have had routes.
#[derive(Debug)]
struct RouteCounters {
    calls: IntCounterVec,
    tokens: IntCounterVec,
    cost: IntCounterVec,
}

impl RouteCounters {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by = |name: &str, help: &str, labels: &[&str]| counters(registry, (name, help), labels);
        Ok(Self {
            calls: by("tokenroute_route_calls_total", "Calls by route.", &["route"])?,
            tokens: by(
                "tokenroute_route_tokens_total",
                "Tokens by route and direction.",
                &["route", "direction"],
            )?,
            cost: by(
                "tokenroute_route_cost_nano_usd_total",
                "Cost by route in nano-USD.",
                &["route"],
            )?,
        })
    }
}

/// The counters of one route of the table.
#[derive(Debug)]
pub struct RouteMetrics {
    calls: IntCounter,
    input: IntCounter,
    output: IntCounter,
    cost: IntCounter,
}

/// Series by target: as many as the tables have targets.
#[derive(Debug)]
struct TargetCounters {
    attempts: IntCounterVec,
    failures: IntCounterVec,
    credential: IntCounterVec,
    state: IntGaugeVec,
}

impl TargetCounters {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by = |name: &str, help: &str| counters(registry, (name, help), &["target"]);
        let state = IntGaugeVec::new(
            Opts::new(
                "tokenroute_target_state",
                "How a target stands: 0 takes calls, 1 on trial, 2 cools down, 3 off.",
            ),
            &["target"],
        )?;
        registry.register(Box::new(state.clone()))?;
        Ok(Self {
            attempts: by("tokenroute_target_attempts_total", "Attempts by target.")?,
            failures: by(
                "tokenroute_target_failures_total",
                "Attempts that did not do, by target.",
            )?,
            credential: by(
                "tokenroute_provider_auth_failures_total",
                "Refusals of our credential by target: somebody has to act.",
            )?,
            state,
        })
    }

    fn of(&self, name: &str) -> TargetMetrics {
        TargetMetrics {
            attempts: self.attempts.with_label_values(&[name]),
            failures: self.failures.with_label_values(&[name]),
            credential: self.credential.with_label_values(&[name]),
            state: self.state.with_label_values(&[name]),
        }
    }

    fn forget(&self, name: &str) {
        // A series that is not there needs no removal.
        let _gone = self.state.remove_label_values(&[name]);
        for counters in [&self.attempts, &self.failures, &self.credential] {
            let _gone = counters.remove_label_values(&[name]);
        }
    }
}

/// The counters of one target of the table.
#[derive(Clone, Debug)]
pub(crate) struct TargetMetrics {
    pub(crate) attempts: IntCounter,
    pub(crate) failures: IntCounter,
    credential: IntCounter,
    pub(crate) state: IntGauge,
}

impl TargetMetrics {
    /// Counts an attempt that did not do.
    pub(crate) fn failed(&self, failure: Failure) {
        self.failures.inc();
        if failure == Failure::Credential {
            self.credential.inc();
        }
    }
}

impl Metrics {
    /// All series, registered.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let calls = counters(
            &registry,
            ("tokenroute_calls_total", "Calls by endpoint and how they ended."),
            &["endpoint", "outcome"],
        )?;
        let failures = counters(
            &registry,
            ("tokenroute_attempt_failures_total", "Attempts that did not do, by reason."),
            &["reason"],
        )?;
        let one = |name: &str, help: &str| counter(&registry, name, help);
        let by_result = |name: &str, help: &str| counters(&registry, (name, help), &["result"]);
        let gauge = |name: &str, help: &str| gauge(&registry, name, help);
        let histogram = |name: &str, help: &str| histogram(&registry, name, help);
        Ok(Self(Arc::new(Series {
            calls: by_endpoint_and_outcome(&calls),
            failures: by_failure(&failures),
            targets: TargetCounters::new(&registry)?,
            limited: by_limit(&registry)?,
            recoveries: by_result(
                "tokenroute_recoveries_total",
                "Answers that broke off after their first byte: continued by another target, or not.",
            )?,
            probes: by_result(
                "tokenroute_probes_total",
                "Probes of targets, by whether they did what they should.",
            )?,
            latency: histogram("tokenroute_call_seconds", "From a call's head to its end.")?,
            first_token: histogram(
                "tokenroute_first_token_seconds",
                "From a call's head to the first semantic token.",
            )?,
            calls_without_slot: one(
                "tokenroute_calls_without_slot_total",
                "Calls refused because the record outbox was full.",
            )?,
            usage_estimated: one(
                "tokenroute_usage_estimated_total",
                "Answers whose tokens the edge counted itself.",
            )?,
            usage_suspect: one(
                "tokenroute_usage_suspect_total",
                "Answers whose reported usage was clamped.",
            )?,
            events_malformed: one(
                "tokenroute_events_malformed_total",
                "Stream events that were not JSON.",
            )?,
            panics: one("tokenroute_panics_total", "Defects that ended a call.")?,
            floods: one("tokenroute_http2_floods_total", "HTTP/2 connections given up.")?,
            in_flight: gauge("tokenroute_calls_in_flight", "Calls in flight.")?,
            outbox_free: gauge("tokenroute_outbox_free_slots", "Free slots of the record outbox.")?,
            generation: gauge("tokenroute_generation", "Generation of the routing table in use.")?,
            reloads: one("tokenroute_config_reloads_total", "Routing tables swapped in.")?,
            reload_failures: one(
                "tokenroute_config_reload_failures_total",
                "Routing tables refused.",
            )?,
            routes: RouteCounters::new(&registry)?,
            registry,
        })))
    }

    /// The counters of one route. Called when a table is made, not on a call.
    pub(crate) fn route(&self, pattern: &str) -> RouteMetrics {
        RouteMetrics {
            calls: self.routes.calls.with_label_values(&[pattern]),
            input: self.routes.tokens.with_label_values(&[pattern, "input"]),
            output: self.routes.tokens.with_label_values(&[pattern, "output"]),
            cost: self.routes.cost.with_label_values(&[pattern]),
        }
    }

    /// The counters of one target. Called when a table is made, not on a call.
    pub(crate) fn target(&self, name: &str) -> TargetMetrics {
        self.targets.of(name)
    }

    /// Drops the series of a target that no table names any more.
    pub(crate) fn forget_target(&self, name: &str) {
        self.targets.forget(name);
    }

    /// Counts a call that a limit of ours did not let pass.
    pub(crate) fn limited(&self, which: Kind) {
        self.limited.with_label_values(&[which.as_str()]).inc();
    }

    /// Counts an answer that broke off, and whether another target went on with it.
    pub(crate) fn recovered(&self, did: bool) {
        let result = if did { "continued" } else { "ended" };
        self.recoveries.with_label_values(&[result]).inc();
    }

    /// Counts a probe of a target, and whether it did what it should.
    pub(crate) fn probed(&self, well: bool) {
        let result = if well { "ok" } else { "failed" };
        self.probes.with_label_values(&[result]).inc();
    }

    /// The registry, for those who add series of their own.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text exposition.
    pub fn encode(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// Counts an attempt that did not do.
    pub(crate) fn failed(&self, failure: Failure) {
        let place = Failure::ALL.iter().position(|one| *one == failure);
        if let Some(counter) = place.and_then(|place| self.failures.get(place)) {
            counter.inc();
        }
    }

    /// Counts a call that has ended.
    pub(crate) fn ended(&self, record: &Record, route: Option<&RouteMetrics>) {
        let endpoint = Endpoint::ALL.iter().position(|one| *one == record.endpoint);
        let outcome = Outcome::ALL.iter().position(|one| *one == record.outcome);
        let row = endpoint.and_then(|place| self.calls.get(place));
        if let Some(counter) = outcome.and_then(|place| row.and_then(|row| row.get(place))) {
            counter.inc();
        }
        self.latency.observe(seconds(record.latency_micros));
        if let Some(micros) = record.first_token_micros {
            self.first_token.observe(seconds(micros));
        }
        if let Some(route) = route {
            route.calls.inc();
            route.input.inc_by(record.usage.input_total());
            route.output.inc_by(record.usage.output_total());
            route.cost.inc_by(u64::try_from(record.cost.0).unwrap_or_default());
        }
    }
}

fn by_endpoint_and_outcome(calls: &IntCounterVec) -> Vec<Vec<IntCounter>> {
    let row = |endpoint: &Endpoint| {
        let cell =
            |outcome: &Outcome| calls.with_label_values(&[endpoint.as_str(), outcome.as_str()]);
        Outcome::ALL.iter().map(cell).collect()
    };
    Endpoint::ALL.iter().map(row).collect()
}

fn by_failure(failures: &IntCounterVec) -> Vec<IntCounter> {
    Failure::ALL.iter().map(|failure| failures.with_label_values(&[failure.as_str()])).collect()
}

/// Refusals by limit: every series from the start.
fn by_limit(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
    let name = ("tokenroute_limited_total", "Calls refused by a limit of their key or account.");
    let limited = counters(registry, name, &["limit"])?;
    for kind in Kind::ALL {
        limited.with_label_values(&[kind.as_str()]);
    }
    Ok(limited)
}

fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn counters(
    registry: &Registry,
    (name, help): (&str, &str),
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(counters.clone()))?;
    Ok(counters)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn histogram(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}
