//! The stores behind the data plane's traits, on a runtime of their own that outlives the edge's.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use secrecy::ExposeSecret;
use tokenroute_domain::id::NodeId;
use tokenroute_domain::journal::Ended;
use tokenroute_domain::key::{KeyHash, SharedKey};
use tokenroute_domain::limit::allowance::{Ask, Told};
use tokenroute_domain::time::Timestamp;
use tokenroute_proxy::bank::{self, Bank, Later};
use tokenroute_proxy::books::{Books, Teller, TellerOptions};
use tokenroute_proxy::clock;
use tokenroute_proxy::keys::{Find, Keys, Unavailable};
use tokenroute_proxy::limits::{Limiter, Shared};
use tokenroute_proxy::targets::{Changed, Targets};
use tokenroute_store::{
    BankOptions, Cached, Database, Directory, DirectoryOptions, Journal, JournalOptions, Leader,
    LimitStore, RedisBank, RedisCache, SqlBank, StoredSettings, TargetHints,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Role;
use super::money::{self, FindingCounts, Journalled, RedisBanking, SqlBanking};
use super::settings;
use crate::config::{DatabasePlan, MoneyPlan, Plan};
use crate::state::State;

/// How long a start waits for a database that is away, as it is while it is restarted.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// The pause between two tries.
const OPEN_PAUSE: Duration = Duration::from_millis(500);
/// How long it may take to say that this node goes.
const FAREWELL: Duration = Duration::from_secs(1);
/// Folder of the journals in the state folder.
const JOURNALS: &str = "journal";

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
    /// Where calls get their holds.
    pub(crate) books: Books,
    teller: JoinHandle<usize>,
    node: NodeId,
    /// What edges tell each other about targets; none without Redis.
    hints: Option<TargetHints>,
    /// Open findings; `None` where others keep the books.
    pub(crate) findings: Option<FindingCounts>,
    /// Where edges share limits; none without Redis.
    limits: Option<LimitStore>,
    /// Ends the background work of the stores.
    stop: watch::Sender<bool>,
}

impl Stores {
    /// Opens the database and starts what runs behind it: the watch for revocations, the bank, and the
    /// teller, which takes the calls that are over.
    pub(crate) async fn open(
        plan: &Plan,
        (state, role): (&State, Role),
        ended: mpsc::Receiver<Ended>,
    ) -> anyhow::Result<Self> {
        let database = open_database(plan, state).await?;
        let redis = plan.state.redis().context("redis: the URL is not one of a Redis server")?;
        let hints = redis.clone().map(|redis| TargetHints::new(redis, clock::chance_bits()));
        let limits = redis.clone().map(|redis| LimitStore::new(redis, clock::chance_bits()));
        let directory =
            Directory::new(database.clone(), redis.clone(), DirectoryOptions::default());
        let (stop, stopped) = watch::channel(false);
        let watched = directory.clone();
        tokio::spawn(async move { watched.watch(clock::now, stopped).await });
        let chance = u128::from(clock::chance_bits());
        let node = NodeId::new(clock::now(), chance);
        let folder = plan.state.dir.join(JOURNALS);
        let journal = Journal::open(&folder, node, JournalOptions::default())
            .context("the journal cannot be opened")?;
        let bank = keep(plan, (&database, redis.as_ref()), (role, node), &stop);
        let books = Books::new(node, Arc::clone(&bank), Arc::new(Journalled(journal)));
        let teller = Teller::spawn(books.clone(), ended, TellerOptions::default())?;
        if plan.money.replay {
            tokio::spawn(money::settle_orphans(folder, (bank, database.clone()), stop.subscribe()));
        }
        let findings = (role != Role::Edge).then(FindingCounts::default);
        if let Some(counts) = findings.clone() {
            tokio::spawn(money::count_findings(database.clone(), counts, stop.subscribe()));
        }
        Ok(Self { database, directory, books, teller, node, hints, findings, limits, stop })
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

    /// Tells from now on when settings are no longer as `first`.
    pub(crate) fn watch_settings(
        &self,
        runtime: &Handle,
        first: &Arc<StoredSettings>,
    ) -> watch::Receiver<Arc<StoredSettings>> {
        let (known, changes) = watch::channel(Arc::clone(first));
        runtime.spawn(settings::watch(self.database.clone(), known, self.stop.subscribe()));
        changes
    }

    /// Whether edges tell each other about targets.
    pub(crate) const fn hears_hints(&self) -> bool {
        self.hints.is_some()
    }

    /// Keeps limits, with the other edges if there can be any.
    pub(crate) fn share_limits(&self, runtime: &Handle, limiter: &Limiter) {
        let shared = self.limits.clone();
        let shared = shared.map(|limits| -> Arc<dyn Shared> { Arc::new(SharedLimits(limits)) });
        runtime.spawn(limiter.clone().run(shared, self.stop.subscribe()));
    }

    /// Waits until the bank has been told of every call. The outbox must have been closed. Tells how many
    /// are left, in the journal if money is in them: none, unless the bank was away to the last.
    pub(crate) fn finish(self, runtime: &Handle) -> usize {
        let left = self.teller.join().unwrap_or_default();
        self.stop.send_replace(true);
        if left == 0 && self.database.is_shared() {
            // It has told everything: nobody need wait for it.
            let farewell = async { timeout(FAREWELL, self.database.forget_node(self.node)).await };
            if let Ok(Err(error)) = runtime.block_on(farewell) {
                tracing::debug!(%error, "the database does not know that this node has gone");
            }
        }
        left
    }
}

/// The database of the plan, with its schema up to date. One that is shared may be away for a while.
async fn open_database(plan: &Plan, state: &State) -> anyhow::Result<Database> {
    let (url, ca_file) = match &plan.state.database {
        DatabasePlan::Sqlite => {
            return Database::open(&state.database).await.context("the database cannot be opened");
        }
        DatabasePlan::Postgres(url, ca_file) => (url.expose_secret(), ca_file.as_deref()),
    };
    let give_up = Instant::now() + OPEN_WITHIN;
    loop {
        match Database::connect(url, ca_file).await {
            Err(tokenroute_store::Error::Unavailable(why)) if Instant::now() < give_up => {
                tracing::warn!(why, "the database is not there yet");
                sleep(OPEN_PAUSE).await;
            }
            opened => return opened.context("the database cannot be opened"),
        }
    }
}

/// Who lends: SQL alone, or Redis with a shared database behind it. Starts what keeps the books in order:
/// on one node that is this process, on many whoever leads of those that do control.
fn keep(
    plan: &Plan,
    (database, redis): (&Database, Option<&RedisCache>),
    (role, node): (Role, NodeId),
    stop: &watch::Sender<bool>,
) -> Arc<dyn Bank> {
    let MoneyPlan { lease, posting_lag_max, .. } = plan.money;
    let control = role != Role::Edge;
    if let Some(redis) = redis.filter(|_| database.is_shared()) {
        let truth = || Arc::new(database.clone());
        let options = BankOptions { lease, posting_lag_max, ..BankOptions::default() };
        let bank = RedisBank::new(redis.clone(), truth(), node, clock::now, options);
        let (watched, stopped) = (bank.clone(), stop.subscribe());
        tokio::spawn(async move { watched.watch(stopped).await });
        if control {
            let leader = Leader::new(redis.clone(), truth(), node, clock::now);
            let stopped = stop.subscribe();
            tokio::spawn(async move { leader.run(stopped).await });
            let audited = Some(redis.clone());
            tokio::spawn(money::reconcile(database.clone(), audited, stop.subscribe()));
        }
        return Arc::new(RedisBanking(bank));
    }
    let bank = SqlBank::new(database.clone(), lease);
    if control {
        tokio::spawn(money::sweep(bank.clone(), stop.subscribe()));
        tokio::spawn(money::reconcile(database.clone(), None, stop.subscribe()));
    }
    Arc::new(SqlBanking { bank, lease })
}
