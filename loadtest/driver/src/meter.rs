//! What a run has measured so far.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::client::Failure;
use crate::histogram::Histogram;

/// Counts and times of one run. Only what happens while `recording` counts, but for failures.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) recording: bool,
    pub(crate) requests: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) failures: BTreeMap<Failure, u64>,
    /// Connections that the other side closed after an answer, as it may.
    pub(crate) reconnects: u64,
    /// Calls that were turned away with 503, and how long that took from when they were sent.
    pub(crate) sheds: u64,
    shed: Histogram,
    pub(crate) streams_open: u64,
    pub(crate) streams_open_max: u64,
    latency: Histogram,
    first: Histogram,
    /// The same from when the call was sent.
    sent_first: Histogram,
    delay: Histogram,
}

impl Meter {
    /// An answer is complete.
    pub(crate) fn answered(&mut self, nanos: u64) {
        if self.recording {
            self.requests = self.requests.saturating_add(1);
            self.latency.add(nanos);
        }
    }

    /// A call was turned away.
    pub(crate) fn shed(&mut self, nanos: u64) {
        if self.recording {
            self.sheds = self.sheds.saturating_add(1);
            self.shed.add(nanos);
        }
    }

    /// The first part of a body is there.
    pub(crate) fn first(&mut self, nanos: u64, sent_nanos: u64) {
        self.streams_open = self.streams_open.saturating_add(1);
        self.streams_open_max = self.streams_open_max.max(self.streams_open);
        if self.recording {
            self.first.add(nanos);
            self.sent_first.add(sent_nanos);
        }
    }

    /// An event is there; `delay` is the time since it was stamped.
    pub(crate) fn event(&mut self, delay: Option<u64>) {
        if self.recording {
            self.events = self.events.saturating_add(1);
            if let Some(delay) = delay {
                self.delay.add(delay);
            }
        }
    }

    pub(crate) fn failed(&mut self, failure: Failure) {
        let count = self.failures.entry(failure).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(crate) fn to_json(&self) -> Value {
        let kinds = self.failures.iter().map(|(kind, count)| (format!("{kind:?}"), *count));
        json!({
            "requests": self.requests,
            "errors": self.failures(),
            "errors_by_kind": kinds.collect::<BTreeMap<_, _>>(),
            "sheds": self.sheds,
            "shed_us": summary(&self.shed),
            "reconnects": self.reconnects,
            "events": self.events,
            "body_bytes": self.bytes,
            "streams_open_max": self.streams_open_max,
            "latency_us": summary(&self.latency),
            "first_us": summary(&self.first),
            "sent_first_us": summary(&self.sent_first),
            "event_delay_us": summary(&self.delay),
        })
    }
}

/// Quantiles in microseconds, to a tenth.
fn summary(histogram: &Histogram) -> Value {
    if histogram.total() == 0 {
        return Value::Null;
    }
    let micros = |nanos: u64| tenths(nanos / 100);
    let quantile = |per_mille| histogram.quantile(per_mille).map(micros);
    json!({
        "p50": quantile(500), "p90": quantile(900), "p99": quantile(990), "max": micros(histogram.max()),
    })
}

/// `count` tenths as a number.
fn tenths(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 10.0
}
