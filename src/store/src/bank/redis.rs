//! The hot store: pools in Redis, exchanged with by scripts, with SQL behind it as the truth.
//!
//! Money is in Redis only after SQL has put it in escrow, and leaves escrow only as the events that the
//! scripts append in the same step are posted. **Invariant:** nothing is asked of a server, a run of it or
//! a life of its memory other than the one that the last epoch was declared for; so what Redis forgets, or
//! a stale copy of it remembers, never makes money.
//!
//! Nobody waits for a Redis that is away: a failed or late command costs the connection, and until another
//! one stands, everything is answered with `Unavailable` at once. No lock is held meanwhile.

mod keeper;
mod message;
pub(crate) mod opening;
pub(crate) mod script;
pub(crate) mod server;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Value;
use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::pool::{Exchange, Reply};
use tokenroute_domain::record::Record;
use tokenroute_domain::time::Timestamp;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use self::message::{Answer, Message};
use self::opening::Need;
use self::script::Shard;
use self::server::{Life, Server};
use super::books::Books;
use crate::posting::event;
use crate::redis_cache::{COMMAND_WAIT, RedisFailure};
use crate::{Error, RedisCache};

pub use self::opening::Withdrawn;

/// Rounds of one exchange: told, pools or purses opened, told again; once more if both were missing.
const ROUNDS_MAX: usize = 3;
/// Exchanges that go in one round trip.
const PIPELINE_MAX: usize = 256;
/// Recalls that wait to be published, and to be heard; more are dropped.
const RECALLS_MAX: usize = 1024;
/// Accounts of which is known that something was lent to this edge; beyond these, nobody waits for them.
const LENT_MAX: usize = 100_000;
/// A call that ended this long ago may have been told by another process, and posted and forgotten by the
/// pool since: SQL is asked first. Pools remember for longer (`SEEN_KEPT`).
const FRESH: Duration = Duration::from_mins(2);

/// A pool's answer, and what the bank has to say of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Banked {
    /// The pool's answer.
    pub reply: Reply,
    /// Which life of the hot store answered. In another one than before, everything that is not known to
    /// be posted has to be told again.
    pub epoch: u64,
    /// The store has lost its memory and is being told anew: only what is in use is lent for now.
    pub recovering: bool,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BankOptions {
    /// How long a loan lasts without being renewed.
    pub lease: Duration,
    /// What a round trip to Redis may take.
    pub budget: Duration,
    /// What SQL may take when a pool has to be opened or a call to be looked up.
    pub sql: Duration,
    /// How long an event may wait to be posted before nothing more is to be spent: what is not in SQL is
    /// only as safe as Redis.
    pub posting_lag_max: Duration,
}

impl Default for BankOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_mins(1),
            budget: Duration::from_millis(250),
            sql: Duration::from_secs(2),
            posting_lag_max: Duration::from_mins(15),
        }
    }
}

/// Pools in Redis, as one run of an edge sees them. Clones share its connection.
#[derive(Clone)]
pub struct RedisBank(Arc<Inner>);

struct Inner {
    redis: RedisCache,
    books: Arc<dyn Books>,
    node: NodeId,
    clock: fn() -> Timestamp,
    options: BankOptions,
    link: Mutex<Link>,
    broken: Notify,
    /// The last epoch that SQL has told of.
    declared: AtomicU64,
    /// The epoch that Redis was last seen in, and since when by our own clock.
    seen: Mutex<(u64, Timestamp)>,
    /// How long the oldest event was waiting to be posted when it was last looked at, in microseconds.
    posting_lag: AtomicU64,
    /// What is lent to whom here.
    lent: Mutex<HashMap<(AccountId, NodeId), Lent>>,
    recalls: (mpsc::Sender<AccountId>, tokio::sync::Mutex<mpsc::Receiver<AccountId>>),
    recalled: (mpsc::Sender<AccountId>, tokio::sync::Mutex<mpsc::Receiver<AccountId>>),
}

/// When a pool said last that something is lent.
#[derive(Clone, Copy, Debug)]
struct Lent {
    epoch: u64,
    at: Instant,
}

/// What stands, if anything, and its number, so that only its own failures end it.
#[derive(Default)]
struct Link {
    number: u64,
    standing: Option<Standing>,
}

/// A connection to a server whose memory is of the epoch that was declared last.
#[derive(Clone, Debug)]
struct Standing {
    number: u64,
    server: Server,
    life: Life,
    /// When this process first saw the epoch, by its own clock: calls that ended here before may have been
    /// told to an earlier one.
    since: Timestamp,
}

impl fmt::Debug for RedisBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBank").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}

/// Exchanges with their places, in parts that go at once. Two with one account are in different parts, so
/// that the second one does not overtake the first while that waits for a pool to be opened.
fn waves(all: &[Exchange]) -> Vec<Vec<(usize, &Exchange)>> {
    let mut before: HashMap<AccountId, usize> = HashMap::new();
    let mut waves: Vec<Vec<(usize, &Exchange)>> = Vec::new();
    for (place, exchange) in all.iter().enumerate() {
        let next = before.entry(exchange.account).or_default();
        while waves.get(*next).is_some_and(|wave| wave.len() >= PIPELINE_MAX) {
            *next = next.saturating_add(1);
        }
        match waves.get_mut(*next) {
            Some(wave) => wave.push((place, exchange)),
            None => waves.push(vec![(place, exchange)]),
        }
        *next = next.saturating_add(1);
    }
    waves
}

fn away() -> Error {
    Error::Unavailable("the hot store is not connected".to_owned())
}

impl From<RedisFailure> for Error {
    fn from(failure: RedisFailure) -> Self {
        Self::Unavailable(failure.to_string())
    }
}

impl RedisBank {
    /// The bank of one run of an edge. Nothing is connected yet: [`Self::watch`] does that, keeps it so,
    /// and says in SQL that the edge lives.
    pub fn new(
        redis: RedisCache,
        books: Arc<dyn Books>,
        node: NodeId,
        clock: fn() -> Timestamp,
        options: BankOptions,
    ) -> Self {
        let (send_recall, recalls) = mpsc::channel(RECALLS_MAX);
        let (hear_recall, recalled) = mpsc::channel(RECALLS_MAX);
        Self(Arc::new(Inner {
            redis,
            books,
            node,
            clock,
            options,
            link: Mutex::default(),
            broken: Notify::new(),
            declared: AtomicU64::new(0),
            seen: Mutex::new((0, Timestamp(0))),
            posting_lag: AtomicU64::new(0),
            lent: Mutex::default(),
            recalls: (send_recall, tokio::sync::Mutex::new(recalls)),
            recalled: (hear_recall, tokio::sync::Mutex::new(recalled)),
        }))
    }

    /// Whether a connection stands to a hot store that remembers.
    pub fn is_connected(&self) -> bool {
        self.standing().is_some()
    }

    /// How long a loan lasts without being renewed.
    pub fn lease(&self) -> Duration {
        self.0.options.lease
    }

    /// How long the oldest event was waiting to be posted when it was last looked at: a second ago, if
    /// Redis is connected.
    pub fn posting_lag(&self) -> Duration {
        Duration::from_micros(self.0.posting_lag.load(Ordering::Relaxed))
    }

    /// Whether SQL is too far behind for anything more to be spent.
    pub fn is_behind(&self) -> bool {
        self.posting_lag() > self.0.options.posting_lag_max
    }

    /// Exchanges with several pools in one round trip, one answer each in the same order. Pools and purses
    /// that are not open yet are opened from SQL. Repeating an exchange of which the answer was lost is safe.
    pub async fn exchange(&self, all: &[Exchange]) -> Vec<Result<Banked, Error>> {
        let mut answers: Vec<Option<Result<Banked, Error>>> = all.iter().map(|_| None).collect();
        if let Some(standing) = self.standing() {
            for wave in waves(all) {
                if self.exchange_some(&standing, &wave, &mut answers).await.is_err() {
                    self.cut(standing.number);
                    break;
                }
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(away()))).collect()
    }

    /// Fills in the answers; an error ends the connection, and what has no answer then has none.
    async fn exchange_some(
        &self,
        standing: &Standing,
        wave: &[(usize, &Exchange)],
        answers: &mut [Option<Result<Banked, Error>>],
    ) -> Result<(), RedisFailure> {
        let (doubtful, posted) = self.look_up(standing, wave).await;
        let mut open: Vec<(usize, Message<'_>)> = Vec::with_capacity(wave.len());
        for (place, exchange) in wave.iter().copied() {
            let unsure = exchange.settlements.iter().any(|one| doubtful.contains(&one.record.call));
            match (&posted, unsure, answers.get_mut(place)) {
                (Err(failure), true, Some(answer)) => *answer = Some(Err(failure.clone())),
                (Ok(posted), ..) => {
                    open.push((place, Message::new(exchange, |call| posted.contains(&call))));
                }
                (Err(_), ..) => open.push((place, Message::new(exchange, |_| false))),
            }
        }
        for _round in 0..ROUNDS_MAX {
            let mut needs = Vec::new();
            let told = self.tell(standing, &open).await?;
            for ((place, message), answer) in open.iter().zip(told) {
                match answer {
                    Answer::Stale => return Err(RedisFailure::Disconnected),
                    Answer::Miss => needs.push((*place, Need::Pool(message.account()))),
                    Answer::Purse(purses) => {
                        needs.push((*place, Need::Purses(message.account(), purses)));
                    }
                    Answer::Done { reply, now: _, recovering } => {
                        self.note_lent(message, &reply, standing.life.epoch);
                        if let Some(answer) = answers.get_mut(*place) {
                            let epoch = standing.life.epoch;
                            *answer = Some(Ok(Banked { reply, epoch, recovering }));
                        }
                    }
                }
            }
            if needs.is_empty() {
                return Ok(());
            }
            open.retain(|(place, _)| needs.iter().any(|(needy, _)| needy == place));
            for (place, failure) in self.open_all(standing, needs).await? {
                open.retain(|(one, _)| *one != place);
                if let Some(answer) = answers.get_mut(place) {
                    *answer = Some(Err(failure));
                }
            }
        }
        Ok(())
    }

    /// One round trip: the answers to all messages, in order.
    async fn tell(
        &self,
        standing: &Standing,
        messages: &[(usize, Message<'_>)],
    ) -> Result<Vec<Answer>, RedisFailure> {
        let Inner { options, .. } = &*self.0;
        let (epoch, lease) = (standing.life.epoch, options.lease.as_micros());
        let of_each: Vec<_> =
            messages.iter().map(|(_, message)| message.runs(epoch, lease)).collect();
        let counts: Vec<usize> = of_each.iter().map(Vec::len).collect();
        let runs: Vec<_> = of_each.into_iter().flatten().collect();
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let answers = standing.server.run(&runs, options.budget).await?;
        let answers: Vec<Vec<Value>> = answers.into_iter().collect::<Result<_, _>>()?;
        let mut left = answers.as_slice();
        let mut read = Vec::with_capacity(messages.len());
        for ((_, message), count) in messages.iter().zip(counts) {
            let (mine, others) = left.split_at_checked(count).ok_or_else(server::garbled)?;
            left = others;
            let answer = message.answer(mine);
            read.push(answer.ok_or_else(server::garbled)?);
        }
        Ok(read)
    }

    /// The calls that may have been posted before this epoch or long ago, and which of them have been.
    async fn look_up(
        &self,
        standing: &Standing,
        wave: &[(usize, &Exchange)],
    ) -> (HashSet<CallId>, Result<HashSet<CallId>, Error>) {
        let now = (self.0.clock)();
        let doubt = |record: &Record| {
            let ended = record.started.plus(Duration::from_micros(record.latency_micros));
            let is_fresh = now.since(ended) <= FRESH && ended.since(now) <= FRESH;
            !is_fresh || ended < standing.since
        };
        let settlements = wave.iter().flat_map(|(_, exchange)| &exchange.settlements);
        let doubtful: HashSet<CallId> =
            settlements.filter(|one| doubt(&one.record)).map(|one| one.record.call).collect();
        let calls: Vec<CallId> = doubtful.iter().copied().collect();
        let posted = if calls.is_empty() { Ok(Vec::new()) } else { self.posted(&calls).await };
        (doubtful, posted.map(|calls| calls.into_iter().collect()))
    }

    /// Writes records in which no money is: all of them, or none. Repeating it is safe.
    pub async fn write(&self, records: &[Arc<Record>]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let standing = self.standing().ok_or_else(away)?;
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for record in records {
            let add = pipeline.cmd("XADD").arg(Shard::of_call(record.call).events()).arg("*");
            for (name, value) in event::of_record(record, standing.life.epoch) {
                add.arg(name).arg(value);
            }
        }
        let written: Result<Value, _> = standing.server.pipe(&pipeline, COMMAND_WAIT).await;
        Ok(written.map(drop).inspect_err(|_failure| self.cut(standing.number))?)
    }

    /// Which of these calls are in SQL for good.
    pub async fn posted(&self, calls: &[CallId]) -> Result<Vec<CallId>, Error> {
        let late = |_elapsed| Error::Unavailable("the database did not answer in time".to_owned());
        timeout(self.0.options.sql, self.0.books.posted(calls)).await.map_err(late)?
    }

    /// Asks the other edges to give back what they do not use of an account. Never waits; what cannot be
    /// asked now is not asked at all.
    pub fn recall(&self, account: AccountId) {
        if self.0.recalls.0.try_send(account).is_err() {
            tracing::debug!("a recall was dropped");
        }
    }

    /// Waits for an account that another edge recalls.
    pub async fn recalled(&self) -> AccountId {
        match self.0.recalled.1.lock().await.recv().await {
            Some(account) => account,
            // The other end is ours as well.
            None => std::future::pending().await,
        }
    }

    /// Takes note of who has something of which account, for the recovery of a forgetful store.
    fn note_lent(&self, message: &Message<'_>, reply: &Reply, epoch: u64) {
        let mut lent = self.lent();
        let holder = (message.account(), message.node());
        let loans = reply.purses.iter().chain(std::iter::once(&reply.granted));
        if loans.map(|granted| granted.loan.0).any(|loan| loan > 0) {
            if lent.len() < LENT_MAX || lent.contains_key(&holder) {
                lent.insert(holder, Lent { epoch, at: Instant::now() });
            }
        } else {
            lent.remove(&holder);
        }
    }

    fn lent(&self) -> MutexGuard<'_, HashMap<(AccountId, NodeId), Lent>> {
        self.0.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.0.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> Option<Standing> {
        let declared = self.0.declared.load(Ordering::Relaxed);
        // A server that SQL has left behind may have come back with all that it remembers.
        self.link().standing.clone().filter(|standing| standing.life.epoch >= declared)
    }

    /// Gives up connection `number`, if it still stands.
    fn cut(&self, number: u64) {
        let mut link = self.link();
        if link.number == number && link.standing.take().is_some() {
            self.0.broken.notify_one();
        }
    }
}
