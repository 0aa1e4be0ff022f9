//! What the stores count, as Prometheus series: read when somebody asks.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};
use tokenroute_store::{Directory, Event, WriterGauges};

/// The series of the key directory and of the record writer.
pub(crate) struct StoreMetrics {
    directory: Directory,
    writer: Arc<WriterGauges>,
    keys: IntCounterVec,
    redis_connected: IntGauge,
    backlog: IntGauge,
    written: IntCounter,
    retries: IntCounter,
}

impl StoreMetrics {
    pub(crate) fn new(
        directory: Directory,
        writer: Arc<WriterGauges>,
    ) -> Result<Self, prometheus::Error> {
        let keys =
            Opts::new("tokenroute_key_lookups_total", "What the directory of keys did, by event.");
        Ok(Self {
            directory,
            writer,
            keys: IntCounterVec::new(keys, &["event"])?,
            redis_connected: IntGauge::new(
                "tokenroute_redis_connected",
                "1 while Redis is connected, 0 while it is not or none is configured.",
            )?,
            backlog: IntGauge::new(
                "tokenroute_records_backlog",
                "Records that are not in the database yet.",
            )?,
            written: IntCounter::new(
                "tokenroute_records_written_total",
                "Records that are in the database.",
            )?,
            retries: IntCounter::new(
                "tokenroute_record_write_retries_total",
                "Tries to write records that failed and were repeated.",
            )?,
        })
    }
}

impl Collector for StoreMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let (keys, redis) = (self.keys.desc(), self.redis_connected.desc());
        let writer = [self.backlog.desc(), self.written.desc(), self.retries.desc()];
        [keys, redis].into_iter().chain(writer).flatten().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for event in Event::ALL {
            let counter = self.keys.with_label_values(&[event.as_str()]);
            raise(&counter, self.directory.counts().of(*event));
        }
        self.redis_connected.set(i64::from(self.directory.redis_connected() == Some(true)));
        self.backlog.set(i64::try_from(self.writer.backlog()).unwrap_or(i64::MAX));
        raise(&self.written, self.writer.written());
        raise(&self.retries, self.writer.retries());
        let (keys, redis) = (self.keys.collect(), self.redis_connected.collect());
        let writer = [self.backlog.collect(), self.written.collect(), self.retries.collect()];
        [keys, redis].into_iter().chain(writer).flatten().collect()
    }
}

/// Brings a counter up to a total that is counted elsewhere.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}
