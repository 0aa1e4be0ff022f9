//! The stores behind the data plane's traits, on a runtime of their own that outlives the edge's.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use secrecy::ExposeSecret;
use tokenroute_domain::key::{KeyHash, SharedKey};
use tokenroute_domain::limit::allowance::{Ask, Told};
use tokenroute_domain::record::Record;
use tokenroute_domain::time::Timestamp;
use tokenroute_proxy::bank::{self, Later};
use tokenroute_proxy::clock;
use tokenroute_proxy::keys::{Find, Keys, Unavailable};
use tokenroute_proxy::limits::{Limiter, Shared};
use tokenroute_proxy::targets::{Changed, Targets};
use tokenroute_store::{
    Cached, Database, Directory, DirectoryOptions, LimitStore, RecordWriter, RedisCache,
    TargetHints, WriterGauges,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::config::Plan;
use crate::state::State;

/// `store`'s directory as the data plane asks for it.
#[derive(Debug)]
pub(crate) struct KeyDirectory(pub(crate) Directory);

impl Keys for KeyDirectory {
    fn cached(&self, hash: &KeyHash, now: Timestamp) -> Option<Option<SharedKey>> {
        match self.0.cached(hash, now) {
            Cached::Known(key) => Some(Some(key)),
            Cached::Unknown => Some(None),
            Cached::Missing => None,
        }
    }

    fn find<'a>(&'a self, hash: &'a KeyHash, now: Timestamp) -> Find<'a> {
        Box::pin(async move {
            self.0.find(hash, now).await.map_err(|tokenroute_store::Unavailable| Unavailable)
        })
    }
}

/// `store`'s limits as the data plane asks for them.
#[derive(Debug)]
struct SharedLimits(LimitStore);

impl Shared for SharedLimits {
    fn exchange<'a>(&'a self, asks: &'a [Ask]) -> Later<'a, Result<Vec<Told>, bank::Unavailable>> {
        Box::pin(async move { self.0.exchange(asks).await.map_err(|_failure| bank::Unavailable) })
    }

    fn count_edges(&self) -> Later<'_, Result<u32, bank::Unavailable>> {
        Box::pin(async move { self.0.count_edges().await.map_err(|_failure| bank::Unavailable) })
    }
}

/// What outlives the process, opened.
pub(crate) struct Stores {
    pub(crate) database: Database,
    pub(crate) directory: Directory,
    writer: JoinHandle<usize>,
    pub(crate) gauges: Arc<WriterGauges>,
    /// What edges tell each other about targets; none without Redis.
    hints: Option<TargetHints>,
    /// Where edges share limits; none without Redis.
    limits: Option<LimitStore>,
    /// Ends the background work of the stores.
    stop: watch::Sender<bool>,
}

impl Stores {
    /// Opens the database and starts what runs behind it: the watch for revocations and the writer
    /// of records.
    pub(crate) async fn open(
        plan: &Plan,
        state: &State,
        records: mpsc::Receiver<Record>,
    ) -> anyhow::Result<Self> {
        let database =
            Database::open(&state.database).await.context("the database cannot be opened")?;
        let redis = plan.state.redis_url.as_ref().map(|url| RedisCache::new(url.expose_secret()));
        let redis = redis.transpose().context("redis: the URL is not one of a Redis server")?;
        let hints = redis.clone().map(|redis| TargetHints::new(redis, clock::chance_bits()));
        let limits = redis.clone().map(|redis| LimitStore::new(redis, clock::chance_bits()));
        let directory = Directory::new(database.clone(), redis, DirectoryOptions::default());
        let (stop, stopped) = watch::channel(false);
        let watched = directory.clone();
        tokio::spawn(async move { watched.watch(clock::now, stopped).await });
        let gauges = Arc::new(WriterGauges::default());
        let writer = RecordWriter::spawn(database.clone(), records, Arc::clone(&gauges))?;
        Ok(Self { database, directory, writer, gauges, hints, limits, stop })
    }

    /// Tells other edges what this one finds out about targets, and the other way round.
    pub(crate) fn share_targets(
        &self,
        runtime: &Handle,
        targets: &Targets,
        mut changes: mpsc::Receiver<Changed>,
    ) {
        let Some(hints) = self.hints.clone() else { return };
        let (ours, stopped) = (hints.clone(), self.stop.subscribe());
        let targets = targets.clone();
        runtime.spawn(async move {
            hints.watch(|target, off| targets.hint(target, off), stopped).await;
        });
        runtime.spawn(async move {
            while let Some(changed) = changes.recv().await {
                ours.publish(&changed.target, changed.off);
            }
        });
    }

    /// Keeps limits, with the other edges if there can be any.
    pub(crate) fn share_limits(&self, runtime: &Handle, limiter: &Limiter) {
        let shared = self.limits.clone();
        let shared = shared.map(|limits| -> Arc<dyn Shared> { Arc::new(SharedLimits(limits)) });
        runtime.spawn(limiter.clone().run(shared, self.stop.subscribe()));
    }

    /// Waits until every record is written. The outbox must have been closed. Tells how many were
    /// lost: none, unless the database was away to the last.
    pub(crate) fn finish(self) -> usize {
        self.stop.send_replace(true);
        self.writer.join().unwrap_or_default()
    }
}
