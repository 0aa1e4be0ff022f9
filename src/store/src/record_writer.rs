//! Writes request records in batches, on a thread of its own, so that no call waits for the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokenroute_domain::record::Record;
use tokio::runtime;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep};

use crate::Database;

/// Records written in one transaction.
const BATCH_MAX: usize = 512;
/// How long a batch waits for more records after its first.
const BATCH_WAIT: Duration = Duration::from_millis(20);
/// The pause after the first failed try; it doubles with every further one.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause between two tries.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long records are still tried after the channel was closed.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// How the writer is doing, for metrics.
#[derive(Debug, Default)]
pub struct WriterGauges {
    backlog: AtomicU64,
    written: AtomicU64,
    retries: AtomicU64,
}

impl WriterGauges {
    /// Records taken or waiting that are not durable yet, as of the last try to write.
    pub fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Records that are durable.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Tries that failed and were repeated.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }
}

/// Takes records from a channel and makes them durable.
#[derive(Debug)]
pub struct RecordWriter {
    database: Database,
    records: Receiver<Record>,
    gauges: Arc<WriterGauges>,
}

impl RecordWriter {
    /// Starts the writer. While the database cannot be written the batch is tried again and the channel
    /// fills up: nothing is dropped. When every sender is gone the rest is written and the thread
    /// ends, with the number of records that could not be written within 30 seconds: 0 unless the
    /// database was away to the last.
    pub fn spawn(
        database: Database,
        records: Receiver<Record>,
        gauges: Arc<WriterGauges>,
    ) -> std::io::Result<JoinHandle<usize>> {
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        let writer = Self { database, records, gauges };
        thread::Builder::new()
            .name("record-writer".to_owned())
            .spawn(move || runtime.block_on(writer.run()))
    }

    async fn run(mut self) -> usize {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.collect(&mut batch).await {
            if !self.write(&batch).await {
                return batch.len().saturating_add(self.records.len());
            }
            batch.clear();
        }
        0
    }

    /// Fills the batch; `false` once the channel is closed and empty.
    async fn collect(&mut self, batch: &mut Vec<Record>) -> bool {
        if self.records.recv_many(batch, BATCH_MAX).await == 0 {
            return false;
        }
        if batch.len() < BATCH_MAX {
            // Not listening meanwhile: to be woken for each record would cost more than to write it.
            sleep(BATCH_WAIT).await;
        }
        while batch.len() < BATCH_MAX {
            let Ok(record) = self.records.try_recv() else { break };
            batch.push(record);
        }
        true
    }

    /// Writes the batch, however often that takes; `false` if the time to drain is over.
    async fn write(&self, batch: &[Record]) -> bool {
        let mut pause = RETRY_PAUSE_MIN;
        let mut give_up = None;
        loop {
            self.gauge(batch.len());
            match self.database.insert_records(batch).await {
                Ok(()) => break,
                Err(failure) => {
                    self.gauges.retries.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%failure, records = batch.len(), "records wait to be written");
                }
            }
            if self.records.is_closed() {
                let end = *give_up.get_or_insert_with(|| Instant::now() + DRAIN_MAX);
                if Instant::now() >= end {
                    tracing::error!(records = batch.len(), "records were lost at shutdown");
                    return false;
                }
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(RETRY_PAUSE_MAX);
        }
        self.gauges.written.fetch_add(u64::try_from(batch.len()).unwrap_or(0), Ordering::Relaxed);
        self.gauge(0);
        true
    }

    fn gauge(&self, in_hand: usize) {
        let backlog = in_hand.saturating_add(self.records.len());
        self.gauges.backlog.store(u64::try_from(backlog).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
