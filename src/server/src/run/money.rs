//! Money: the bank and the journal behind the data plane's traits, the teller between them, and the calls
//! that an earlier run did not live to settle.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::journal::{Ended, Intent, Mark};
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::{ACCOUNT_MAX, NanoUsd, Prices};
use tokenroute_domain::pool::{ASKED_LAST, Exchange, PurseId, PurseWant, Settlement, Want};
use tokenroute_domain::record::Record;
use tokenroute_domain::time::{Tick, Timestamp};
use tokenroute_proxy::bank::{self, Bank, Banked, Later, Unavailable, Unwritable};
use tokenroute_proxy::clock;
use tokenroute_store::{Database, Error, Journal, Orphan, RedisBank, RedisCache, SqlBank};
use tokio::sync::watch;

/// How often it is looked for journals whose process has gone.
const ORPHANS: Duration = Duration::from_secs(5);
/// How often lapsed loans are swept.
const SWEEP: Duration = Duration::from_secs(5);
/// How often the books are checked.
const RECONCILE: Duration = Duration::from_mins(5);
/// How often open findings are counted.
const FINDINGS: Duration = Duration::from_secs(5);
/// How long before the last check calls are looked at once more, in microseconds: an hour.
const OVERLAP_MICROS: u64 = 3_600_000_000;
/// Calls that are settled in one exchange.
const BATCH_MAX: usize = 256;

/// SQL alone as the data plane's bank.
#[derive(Debug)]
pub(super) struct SqlBanking {
    pub(super) bank: SqlBank,
    pub(super) lease: Duration,
}

impl Bank for SqlBanking {
    fn exchange<'a>(&'a self, all: &'a [Exchange]) -> Later<'a, Vec<Result<Banked, Unavailable>>> {
        Box::pin(async move {
            let answers = self.bank.exchange(all, clock::now()).await;
            let banked = |reply| Banked { reply, epoch: 1, recovering: false };
            answers.into_iter().map(|answer| answer.map(banked).map_err(away)).collect()
        })
    }

    fn write<'a>(&'a self, records: &'a [Arc<Record>]) -> Later<'a, Result<(), Unavailable>> {
        Box::pin(async move { self.bank.write(records).await.map_err(away) })
    }

    fn posted<'a>(&'a self, calls: &'a [CallId]) -> Later<'a, Result<Vec<CallId>, Unavailable>> {
        Box::pin(async move { self.bank.posted(calls).await.map_err(away) })
    }

    /// The only other edge on one database is a predecessor that goes down, and gives back by itself.
    fn recall(&self, _: AccountId) {}

    fn recalled(&self) -> Later<'_, AccountId> {
        Box::pin(std::future::pending())
    }

    fn posts_at_once(&self) -> bool {
        true
    }

    fn lease(&self) -> Duration {
        self.lease
    }
}

/// Redis as the data plane's bank, with SQL behind it.
#[derive(Debug)]
pub(super) struct RedisBanking(pub(super) RedisBank);

impl Bank for RedisBanking {
    fn exchange<'a>(&'a self, all: &'a [Exchange]) -> Later<'a, Vec<Result<Banked, Unavailable>>> {
        Box::pin(async move {
            let banked = |one: tokenroute_store::Banked| Banked {
                reply: one.reply,
                epoch: one.epoch,
                recovering: one.recovering,
            };
            let answers = self.0.exchange(all).await;
            answers.into_iter().map(|answer| answer.map(banked).map_err(away)).collect()
        })
    }

    fn write<'a>(&'a self, records: &'a [Arc<Record>]) -> Later<'a, Result<(), Unavailable>> {
        Box::pin(async move { self.0.write(records).await.map_err(away) })
    }

    fn posted<'a>(&'a self, calls: &'a [CallId]) -> Later<'a, Result<Vec<CallId>, Unavailable>> {
        Box::pin(async move { self.0.posted(calls).await.map_err(away) })
    }

    fn recall(&self, account: AccountId) {
        self.0.recall(account);
    }

    fn recalled(&self) -> Later<'_, AccountId> {
        Box::pin(self.0.recalled())
    }

    fn posts_at_once(&self) -> bool {
        false
    }

    fn lease(&self) -> Duration {
        self.0.lease()
    }

    fn posting_lag(&self) -> Duration {
        self.0.posting_lag()
    }

    fn is_behind(&self) -> bool {
        self.0.is_behind()
    }
}

/// Says why, once here, and passes on that it is so.
pub(super) fn away(error: impl fmt::Display) -> Unavailable {
    tracing::warn!(%error, "the bank cannot be asked");
    Unavailable
}

/// `store`'s journal as the data plane asks for it.
#[derive(Debug)]
pub(super) struct Journalled(pub(super) Journal);

impl bank::Journal for Journalled {
    fn intend(&self, intent: &Intent) -> Result<(), Unwritable> {
        self.0.intend(intent).map_err(|_| Unwritable)
    }

    fn mark(&self, marks: &[Mark]) {
        self.0.mark(marks);
    }

    fn ended(&self, ended: &[Arc<Ended>]) -> Result<(), Unwritable> {
        self.0.ended(ended).map_err(|_| Unwritable)
    }

    fn forget(&self, calls: &[CallId]) {
        self.0.forget(calls);
    }

    fn is_writable(&self) -> bool {
        self.0.is_writable()
    }
}

/// Takes back loans of edges that were not heard of, now and then.
pub(super) async fn sweep(bank: SqlBank, mut stopped: watch::Receiver<bool>) {
    while wait(SWEEP, &mut stopped).await {
        if let Err(error) = bank.sweep(clock::now()).await {
            tracing::warn!(%error, "lapsed loans cannot be swept");
        }
    }
}

/// Checks every invariant of the books, now and then, and writes down what it finds.
pub(super) async fn reconcile(
    database: Database,
    redis: Option<RedisCache>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut since = None;
    while wait(RECONCILE, &mut stopped).await {
        let now = clock::now();
        let mut found = match database.reconcile(since, now).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the books cannot be checked");
                continue;
            }
        };
        if let Some(redis) = &redis {
            match tokenroute_store::audit(redis, &database, now).await {
                Ok(more) => found.extend(more),
                Err(error) => tracing::warn!(%error, "the hot store cannot be checked"),
            }
        }
        for finding in &found {
            tracing::error!(
                kind = %finding.kind, subject = %finding.subject, detail = %finding.detail,
                "the books do not agree"
            );
        }
        // A call is looked for by its start, and may be posted long after.
        since = Some(Timestamp(now.0.saturating_sub(OVERLAP_MICROS)));
    }
}

/// How many findings of each kind are open, as it was last seen.
pub(super) type FindingCounts = Arc<Mutex<Vec<(String, u64)>>>;

/// Looks at how many findings are open, now and then.
pub(super) async fn count_findings(
    database: Database,
    counts: FindingCounts,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        match database.count_findings().await {
            Ok(found) => *counts.lock().unwrap_or_else(PoisonError::into_inner) = found,
            Err(error) => tracing::debug!(%error, "findings cannot be counted"),
        }
        if !wait(FINDINGS, &mut stopped).await {
            return;
        }
    }
}

/// Waits; `false` if it is time to stop.
async fn wait(pause: Duration, stopped: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => true,
        _ = stopped.wait_for(|stop| *stop) => false,
    }
}

/// Settles what runs that are gone have left in the journals of this node, now and whenever another run
/// goes: an upgrade's predecessor may be killed after its successor has started.
pub(super) async fn settle_orphans(
    folder: PathBuf,
    (bank, database): (Arc<dyn Bank>, Database),
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let read = {
            let folder = folder.clone();
            move || Journal::orphans(&folder)
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(orphans)) => {
                for orphan in orphans {
                    settle(orphan, &*bank, &database).await;
                }
            }
            Ok(Err(error)) => tracing::error!(%error, "the journal folder cannot be read"),
            Err(_) => tracing::error!("reading the journals failed"),
        }
        if !wait(ORPHANS, &mut stopped).await {
            return;
        }
    }
}

/// Settles one run's calls in its name, gives back its loans, and removes its journal. What cannot be told
/// stays for the next time.
async fn settle(orphan: Orphan, bank: &dyn Bank, database: &Database) {
    let calls: Vec<CallId> = orphan.calls().iter().map(|ended| ended.record.call).collect();
    tracing::warn!(node = %orphan.node(), calls = calls.len(), "settling a run that is gone");
    let Ok(posted) = bank.posted(&calls).await else { return };
    let mut accounts: BTreeMap<AccountId, Vec<Settlement>> = BTreeMap::new();
    let mut plain = Vec::new();
    for ended in orphan.calls() {
        if posted.contains(&ended.record.call) {
            continue;
        }
        match (&ended.due, ended.record.account) {
            (Some(due), Some(account)) => accounts.entry(account).or_default().push(Settlement {
                record: Arc::clone(&ended.record),
                charge: due.charge,
                purses: due.purses.clone(),
            }),
            (_, _) => plain.push(Arc::clone(&ended.record)),
        }
    }
    for batch in plain.chunks(BATCH_MAX) {
        if bank.write(batch).await.is_err() {
            return;
        }
    }
    for (account, settlements) in accounts {
        if !tell(orphan.node(), account, settlements, (bank, database)).await {
            return;
        }
    }
    if database.is_shared() {
        // It has told everything now: a store that has lost its memory need not wait for it.
        if let Err(error) = database.forget_node(orphan.node()).await {
            tracing::debug!(%error, "the database does not know that a run has gone");
        }
    }
    if bank.posts_at_once() || all_posted(&calls, bank).await {
        orphan
            .finish()
            .unwrap_or_else(|error| tracing::warn!(%error, "a journal cannot be removed"));
    }
}

/// Tells the bank of one account's calls, in the name of the run that had them.
async fn tell(
    node: NodeId,
    account: AccountId,
    settlements: Vec<Settlement>,
    (bank, database): (&dyn Bank, &Database),
) -> bool {
    let mut batches = settlements.chunks(BATCH_MAX).peekable();
    while let Some(batch) = batches.next() {
        // Asked before anything that the run itself has asked, it settles and leaves the loan for the next;
        // with the last the rest goes back.
        let asked = if batches.peek().is_some() { Tick(0) } else { ASKED_LAST };
        // An unmetered account's calls are charged nothing, and draw on no pool.
        let Ok(purses) = purses(batch, database).await else { return false };
        let paid = batch.iter().any(|one| one.record.charge > NanoUsd::ZERO);
        let exchange = Exchange {
            account,
            funding: if paid { Funding::Prepaid } else { Funding::Unmetered },
            node,
            asked,
            settlements: batch.to_vec(),
            want: Want::default(),
            purses,
        };
        let answers = bank.exchange(&[exchange]).await;
        if !answers.iter().all(Result::is_ok) {
            return false;
        }
    }
    true
}

/// The ceilings that calls count under, as their keys have them now: without them no more could be charged
/// than what the run still has on loan.
async fn purses(batch: &[Settlement], database: &Database) -> Result<Vec<PurseWant>, Error> {
    let mut wanted: BTreeMap<PurseId, NanoUsd> = BTreeMap::new();
    for purse in batch.iter().flat_map(|one| &one.purses) {
        if wanted.contains_key(purse) {
            continue;
        }
        let terms = database.key_terms(purse.key).await?.unwrap_or_default();
        let limit = terms.ceilings.iter().find(|one| one.period == purse.period);
        // A ceiling that the key has no more holds nothing back.
        wanted.insert(*purse, limit.map_or(ACCOUNT_MAX, |one| one.limit));
    }
    let want = |(purse, limit)| PurseWant { purse, limit, want: Want::default() };
    Ok(wanted.into_iter().map(want).collect())
}

/// Writes down what each price version says, so that any charge can be reckoned again.
pub(super) async fn note_prices(database: Database, prices: Vec<(Arc<str>, Prices)>) {
    for (target, prices) in &prices {
        for dated in prices.all() {
            let (version, content) = (&*dated.price.version, dated.price.content());
            if let Err(error) = database.note_price(version, target, &content, clock::now()).await {
                tracing::warn!(%error, "the versions of prices cannot be written down");
                return;
            }
        }
    }
}

/// Whether all of these are in SQL. Whoever asks too early asks again: what has been told before is not
/// told twice.
async fn all_posted(calls: &[CallId], bank: &dyn Bank) -> bool {
    for _ in 0..50 {
        if bank.posted(calls).await.is_ok_and(|posted| posted.len() == calls.len()) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    false
}
