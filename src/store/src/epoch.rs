//! Who leads: one process at a time posts events, opens epochs, sweeps lapsed loans and brings new credit
//! into the hot store. It leads for as long as SQL says so.
//!
//! An *epoch* is one life of Redis's memory. A server that was started again, was emptied, or took over
//! from another one is not believed: what its streams still hold is posted, and then a new epoch begins, in
//! which pools are opened anew from SQL.

mod audit;
mod credit;
mod recovery;
mod sweep;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokenroute_domain::id::NodeId;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::bank::books::{Books, Lead};
use crate::bank::redis::opening::Shut;
use crate::bank::redis::server::Server;
use crate::posting::{Reading, Worker, WorkerFailure};
use crate::redis_cache::{COMMAND_WAIT, RedisFailure};
use crate::sql::findings::EVICTION;
use crate::{Error, Finding, RedisCache};

pub use audit::audit;

/// How long after its last sign of life an edge counts as gone; a recovery waits no longer for any.
pub(crate) const GONE_AFTER: Duration = Duration::from_secs(10);
/// The pause between two tries to take the lead.
const LEAD_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a failure of Redis or SQL.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the worker waits for events before it looks after other things.
const EVENTS_WAIT: Duration = Duration::from_millis(100);
/// How often the leader makes sure that it leads and that Redis remembers, and brings in new credit.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How often lapsed loans are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often escrow is compared with the pools.
const AUDIT_EVERY: Duration = Duration::from_mins(5);
/// Events that were read and not posted for so long are read again.
const LEFT_IDLE: Duration = Duration::from_secs(1);

/// Why the leader has to begin anew.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    Redis(#[from] RedisFailure),
    #[error("{0}")]
    Sql(#[from] Error),
    #[error("the hot store has lost its memory")]
    Forgotten,
    #[error("another process leads")]
    Deposed,
}

impl From<WorkerFailure> for Stop {
    fn from(failure: WorkerFailure) -> Self {
        match failure {
            WorkerFailure::Redis(failure) => Self::Redis(failure),
            WorkerFailure::Sql(failure) => Self::Sql(failure),
        }
    }
}

impl From<Shut> for Stop {
    fn from(shut: Shut) -> Self {
        match shut {
            Shut::Redis(failure) => Self::Redis(failure),
            Shut::Sql(failure) => Self::Sql(failure),
            Shut::Forgotten => Self::Forgotten,
        }
    }
}

/// What leads, as far as SQL lets it.
pub struct Leader {
    redis: RedisCache,
    books: Arc<dyn Books>,
    node: NodeId,
    clock: fn() -> Timestamp,
}

impl fmt::Debug for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leader").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What a leader works with while it leads and Redis answers.
struct Reign<'a> {
    server: Server,
    worker: Worker,
    books: &'a dyn Books,
    clock: fn() -> Timestamp,
    /// The epoch that was declared last.
    epoch: u64,
    /// Since when memory is being recovered, if it is.
    recovering: Option<Instant>,
    /// What Redis was last seen to be told to forget, if it is told so.
    eviction: Option<String>,
}

impl Leader {
    /// A candidate. `node` names it in the streams' groups.
    pub fn new(
        redis: RedisCache,
        books: Arc<dyn Books>,
        node: NodeId,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self { redis, books, node, clock }
    }

    /// Leads whenever nobody else does, until `shutdown` says so (or its sender is gone). It may be dropped
    /// at any point: nothing is lost, and nothing counts twice.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let work = async {
            loop {
                match self.books.lead().await {
                    Ok(Some(lead)) => self.lead(lead).await,
                    Ok(None) => {}
                    Err(failure) => tracing::warn!(%failure, "the lead cannot be asked for"),
                }
                sleep(LEAD_PAUSE).await;
            }
        };
        tokio::select! {
            () = work => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }

    /// Returns when the lead is lost.
    async fn lead(&self, mut lead: Box<dyn Lead>) {
        tracing::info!("this process posts and sweeps");
        let mut told = false;
        while lead.is_held().await {
            let Err(stop) = self.reign(&mut *lead, &mut told).await;
            match stop {
                Stop::Deposed => break,
                Stop::Forgotten => tracing::warn!("the hot store has lost its memory"),
                Stop::Redis(_) | Stop::Sql(_) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%stop, "nothing is posted");
                    }
                }
            }
            sleep(PAUSE).await;
        }
        tracing::warn!("this process posts and sweeps no more");
    }

    /// Works until something fails.
    async fn reign(
        &self,
        lead: &mut dyn Lead,
        told: &mut bool,
    ) -> Result<std::convert::Infallible, Stop> {
        let server = Server::open(&self.redis).await?;
        let worker = Worker::new(server.clone(), Arc::clone(&self.books), self.node).await?;
        let (books, clock) = (&*self.books, self.clock);
        let (epoch, recovering, eviction) = (0, None, None);
        let mut reign = Reign { server, worker, books, clock, epoch, recovering, eviction };
        reign.ascend().await?;
        let start = Instant::now();
        let (mut watch, mut sweep, mut audit) = (start, start, start + AUDIT_EVERY);
        loop {
            reign.post(Reading::New(EVENTS_WAIT)).await?;
            reign.end_recovery().await?;
            let now = Instant::now();
            if now >= watch {
                watch = now + WATCH_EVERY;
                if !lead.is_held().await {
                    return Err(Stop::Deposed);
                }
                reign.check_memory().await?;
                if reign.worker.has_refused() {
                    reign.post(Reading::Left(LEFT_IDLE)).await?;
                }
                reign.credit().await?;
                if std::mem::take(told) {
                    tracing::info!("events are posted again");
                }
            }
            if now >= sweep {
                sweep = now + SWEEP_EVERY;
                reign.post(Reading::Left(LEFT_IDLE)).await?;
                reign.sweep().await?;
                reign.check_policy().await?;
            }
            if now >= audit {
                audit = now + AUDIT_EVERY;
                reign.audit().await?;
            }
        }
    }
}

impl Reign<'_> {
    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    async fn post(&mut self, reading: Reading) -> Result<(), Stop> {
        let now = self.now();
        self.worker.work(reading, self.epoch, now).await?;
        Ok(())
    }

    /// A full Redis that is told to make room forgets pools or events, one as bad as the other.
    async fn check_policy(&mut self) -> Result<(), Stop> {
        let (now, policy) = (self.now(), self.server.eviction(COMMAND_WAIT).await?);
        if let Some(policy) = &policy {
            let found = Finding {
                kind: EVICTION.to_owned(),
                subject: "redis".to_owned(),
                detail: format!("maxmemory-policy is {policy}: set it to noeviction"),
                amount: NanoUsd::ZERO,
            };
            self.books.find(&found, now).await?;
            if self.eviction != Some(policy.clone()) {
                tracing::error!(%policy, "Redis may forget money: set maxmemory-policy to noeviction");
            }
        } else {
            self.books.found_no_more(EVICTION, now).await?;
        }
        self.eviction = policy;
        Ok(())
    }

    /// Fails if Redis is not the one that the epoch was declared for, or remembers another.
    async fn check_memory(&self) -> Result<(), Stop> {
        let life = self.server.glance(COMMAND_WAIT).await?;
        if life.is_some_and(|life| life.epoch == self.epoch) {
            Ok(())
        } else {
            Err(Stop::Forgotten)
        }
    }
}
