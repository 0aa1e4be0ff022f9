//! What the stores and the books count, as Prometheus series: read when somebody asks.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use tokenroute_proxy::books::{Books, Counts};
use tokenroute_store::{Directory, Event, finding_kinds};

use super::money::FindingCounts;
use super::stores::Stores;

/// Where a count is.
type Of = fn(&Counts) -> &AtomicU64;

/// The series of the key directory and of the books.
pub(crate) struct StoreMetrics {
    directory: Directory,
    books: Books,
    findings: Option<FindingCounts>,
    findings_open: IntGaugeVec,
    keys: IntCounterVec,
    redis_connected: IntGauge,
    bank_served: IntGauge,
    backlog: IntGauge,
    posting_lag: Gauge,
    counters: Vec<(IntCounter, Of)>,
}

/// Every counter of the books: its name, what it counts, and where.
const COUNTERS: &[(&str, &str, Of)] = &[
    ("tokenroute_records_written_total", "Records that the bank has taken.", |counts| &counts.told),
    ("tokenroute_bank_exchanges_total", "Exchanges with the bank.", |counts| &counts.exchanges),
    (
        "tokenroute_bank_exchanges_failed_total",
        "Exchanges that the bank did not answer.",
        |counts| &counts.exchanges_failed,
    ),
    (
        "tokenroute_holds_waited_total",
        "Calls that had to wait for the bank before they went upstream.",
        |counts| &counts.waited,
    ),
    (
        "tokenroute_recalls_total",
        "Accounts of which other edges were asked to give back what they do not use.",
        |counts| &counts.recalls,
    ),
    ("tokenroute_charged_nano_usd_total", "What accounts were charged, in nano-USD.", |counts| {
        &counts.charged
    }),
    (
        "tokenroute_excess_nano_usd_total",
        "Cost that could not be charged: the house's loss, in nano-USD.",
        |counts| &counts.excess,
    ),
];

impl StoreMetrics {
    pub(crate) fn new(stores: &Stores) -> Result<Self, prometheus::Error> {
        let findings = Opts::new(
            "tokenroute_findings_open",
            "Findings about the books that nobody has seen to, by kind, where the books are kept.",
        );
        let keys =
            Opts::new("tokenroute_key_lookups_total", "What the directory of keys did, by event.");
        let counter =
            |(name, help, of): &(&str, &str, Of)| Ok((IntCounter::new(*name, *help)?, *of));
        Ok(Self {
            directory: stores.directory.clone(),
            books: stores.books.clone(),
            findings: stores.findings.clone(),
            findings_open: IntGaugeVec::new(findings, &["kind"])?,
            keys: IntCounterVec::new(keys, &["event"])?,
            redis_connected: IntGauge::new(
                "tokenroute_redis_connected",
                "1 while Redis is connected, 0 while it is not or none is configured.",
            )?,
            bank_served: IntGauge::new(
                "tokenroute_bank_served",
                "1 while the bank answers, 0 while it does not.",
            )?,
            backlog: IntGauge::new(
                "tokenroute_records_backlog",
                "Calls that are over and not known to be in the database.",
            )?,
            posting_lag: Gauge::new(
                "tokenroute_posting_lag_seconds",
                "How long the oldest event in Redis has been waiting to be in the ledger.",
            )?,
            counters: COUNTERS.iter().map(counter).collect::<Result<_, prometheus::Error>>()?,
        })
    }
}

impl Collector for StoreMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let (keys, redis) = (self.keys.desc(), self.redis_connected.desc());
        let bank = [self.bank_served.desc(), self.backlog.desc(), self.posting_lag.desc()];
        let counters = self.counters.iter().map(|(counter, _)| counter.desc());
        let findings = self.findings_open.desc();
        [keys, redis, findings].into_iter().chain(bank).chain(counters).flatten().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for event in Event::ALL {
            let counter = self.keys.with_label_values(&[event.as_str()]);
            raise(&counter, self.directory.counts().of(*event));
        }
        let counts = self.books.counts();
        self.redis_connected.set(i64::from(self.directory.redis_connected() == Some(true)));
        self.bank_served.set(i64::from(self.books.is_served()));
        let backlog = counts.backlog.load(Ordering::Relaxed);
        self.backlog.set(i64::try_from(backlog).unwrap_or(i64::MAX));
        for (counter, of) in &self.counters {
            raise(counter, of(counts).load(Ordering::Relaxed));
        }
        let (keys, redis) = (self.keys.collect(), self.redis_connected.collect());
        self.posting_lag.set(self.books.posting_lag().as_secs_f64());
        let bank = [self.bank_served.collect(), self.backlog.collect(), self.posting_lag.collect()];
        let counters = self.counters.iter().map(|(counter, _)| counter.collect());
        let findings = self.findings();
        [keys, redis, findings].into_iter().chain(bank).chain(counters).flatten().collect()
    }
}

impl StoreMetrics {
    fn findings(&self) -> Vec<MetricFamily> {
        let Some(counts) = &self.findings else { return Vec::new() };
        self.findings_open.reset();
        for kind in finding_kinds() {
            self.findings_open.with_label_values(&[kind]).set(0);
        }
        for (kind, count) in &*counts.lock().unwrap_or_else(PoisonError::into_inner) {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.findings_open.with_label_values(&[kind]).set(count);
        }
        self.findings_open.collect()
    }
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
