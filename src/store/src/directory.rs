//! Whose key is it: this process's cache, then Redis, then the database.
//!
//! A hash is looked up once, however many calls wait for it, and a call waits once, however much is
//! broken. Only a store that was read can say that a key is unknown; while none can be read, a key that
//! was confirmed within [`DirectoryOptions::stale`] still works, and any other is [`Unavailable`].

mod changes;
mod circuit;
pub(crate) mod counts;
mod flights;
mod local;
mod revocations;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokenroute_domain::id::KeyId;
use tokenroute_domain::key::{KeyHash, SharedKey};
use tokenroute_domain::time::Timestamp;
use tokio::sync::{Notify, Semaphore};

use self::circuit::Circuit;
use self::counts::{Counts, Event};
use self::flights::Board;
use self::local::{Local, Memory};
use crate::{Database, Error, RedisCache};

/// Database look-ups at the same time.
const SQL_READS_MAX: usize = 16;
/// Fills of Redis at the same time; more are left out, for a later look-up to make up for.
const FILLS_MAX: usize = 64;

/// How long and how many keys are remembered, and how patiently they are looked up. The defaults are the documented behaviour.
#[derive(Clone, Debug)]
pub struct DirectoryOptions {
    /// How long a key is used after the database confirmed it.
    pub fresh: Duration,
    /// How long it is used while the stores cannot be read.
    pub stale: Duration,
    /// How long a hash is taken to be nobody's.
    pub unknown: Duration,
    /// How many keys are remembered.
    pub known_max: usize,
    /// How many hashes of no key are remembered.
    pub unknown_max: usize,
    /// How often the database is asked what changed.
    pub poll: Duration,
    /// What a look-up may wait for Redis, in all.
    pub redis: Duration,
    /// What a look-up may wait for its turn at the database and for the answer.
    pub sql: Duration,
    /// What a call waits for its key to be confirmed again, before it goes on with the stale one.
    pub confirmation: Duration,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(30),
            stale: Duration::from_mins(5),
            unknown: Duration::from_secs(30),
            known_max: 100_000,
            unknown_max: 10_000,
            poll: Duration::from_millis(500),
            redis: Duration::from_millis(50),
            sql: Duration::from_secs(2),
            confirmation: Duration::from_millis(100),
        }
    }
}

/// The stores cannot say whose key it is. It may be a good one: try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("keys cannot be looked up now")]
pub struct Unavailable;

/// What can be said of a hash without waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// It is this key's.
    Known(SharedKey),
    /// It is nobody's, or that of a revoked key.
    Unknown,
    /// It must be looked up: call [`Directory::find`].
    Missing,
}

/// The directory of keys. Clones share everything.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    redis: Option<RedisCache>,
    options: DirectoryOptions,
    local: Local,
    board: Mutex<Board>,
    unburied: Notify,
    sql: Circuit,
    sql_reads: Semaphore,
    fills: Semaphore,
    counts: Counts,
}

impl Directory {
    /// A directory over `database`, with `redis` before it where one is configured.
    /// Redis is used, and revocations elsewhere are noticed, while [`Self::watch`] runs.
    pub fn new(database: Database, redis: Option<RedisCache>, options: DirectoryOptions) -> Self {
        Self(Arc::new(Inner {
            database,
            redis,
            local: Local::new(&options),
            options,
            board: Mutex::default(),
            unburied: Notify::new(),
            sql: Circuit::default(),
            sql_reads: Semaphore::new(SQL_READS_MAX),
            fills: Semaphore::new(FILLS_MAX),
            counts: Counts::default(),
        }))
    }

    /// The answer from memory, at once: for most calls the only look-up.
    pub fn cached(&self, hash: &KeyHash, now: Timestamp) -> Cached {
        match self.0.local.recall(hash, now) {
            Memory::Fresh(key) => {
                self.0.counts.count(Event::LocalHit);
                Cached::Known(key)
            }
            Memory::Stale(key) if self.0.sql.is_open(now) => {
                self.0.counts.count(Event::StaleServed);
                Cached::Known(key)
            }
            Memory::Unknown => {
                self.0.counts.count(Event::LocalUnknown);
                Cached::Unknown
            }
            Memory::Stale(_) | Memory::Nothing => Cached::Missing,
        }
    }

    /// Whose key it is, from wherever it is known; `None` if it is nobody's or was revoked.
    /// Expired keys are found: whether a key's time is over is the caller's to say.
    pub async fn find(
        &self,
        hash: &KeyHash,
        now: Timestamp,
    ) -> Result<Option<SharedKey>, Unavailable> {
        match self.cached(hash, now) {
            Cached::Known(key) => Ok(Some(key)),
            Cached::Unknown => Ok(None),
            Cached::Missing => self.look_up_once(hash, now).await,
        }
    }

    /// Drops what is remembered of a hash; the next call looks it up anew.
    pub fn forget(&self, hash: &KeyHash) {
        let mut board = self.board();
        board.detach(hash);
        self.0.local.forget(hash);
    }

    /// Revokes a key for good: in the database, here, and by Redis everywhere else. `false` if there is
    /// no such key. If Redis cannot be told, the other edges read it from the database.
    pub async fn revoke(&self, id: KeyId, actor: &str, now: Timestamp) -> Result<bool, Error> {
        let revoked = self.0.database.acting(actor).revoke_key(id, now).await?;
        let Some(hash) = revoked else { return Ok(false) };
        self.note_revoked(hash, now);
        if let Some(redis) = &self.0.redis
            && let Err(failure) = redis.announce_revocation(&hash).await
        {
            self.0.counts.count(Event::RedisFailed);
            tracing::warn!(%failure, "a revocation was not announced; edges poll for it");
        }
        Ok(true)
    }

    /// What the directory did so far.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Whether Redis is connected; `None` if none is configured.
    pub fn redis_connected(&self) -> Option<bool> {
        self.0.redis.as_ref().map(RedisCache::is_connected)
    }

    /// From now on the hash is nobody's here, whatever a look-up under way brings.
    fn note_revoked(&self, hash: KeyHash, now: Timestamp) {
        let mut board = self.board();
        board.revoked.insert(hash, now);
        self.0.local.keep_unknown(hash, now);
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
