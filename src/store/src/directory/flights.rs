//! Look-ups under way: one for each hash, in a task of its own, so that a caller that leaves ends nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokenroute_domain::key::{ApiKey, KeyHash, SharedKey};
use tokenroute_domain::time::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::changes::Changes;
use super::counts::Event;
use super::local::Memory;
use super::revocations::Revocations;
use super::{Directory, Unavailable};
use crate::redis_cache::{Fetched, RedisFailure};
use crate::{Error, RedisCache};

/// Look-ups under way at the same time; a call that would need one more is told to come back.
pub(super) const FLIGHTS_MAX: usize = 4096;
/// What a call waits beyond all that its look-up may wait: it holds even if the look-up's task is lost.
const GRACE: Duration = Duration::from_secs(1);

/// How a look-up ended.
type Landing = Result<Option<SharedKey>, Unavailable>;

/// What look-ups and revocations must agree on, under one lock that is never held across a wait.
#[derive(Debug, Default)]
pub(super) struct Board {
    flights: HashMap<KeyHash, Flight>,
    last_number: u64,
    pub(super) revoked: Revocations,
    pub(super) changed: Changes,
    /// Revocations read from the database that Redis has not been told again yet.
    pub(super) unburied: Vec<KeyHash>,
}

#[derive(Debug)]
struct Flight {
    number: u64,
    landing: watch::Receiver<Option<Landing>>,
}

impl Board {
    /// Lets a look-up under way answer its callers, but not be remembered or joined any more.
    pub(super) fn detach(&mut self, hash: &KeyHash) {
        self.flights.remove(hash);
    }

    /// [`Self::detach`] for every look-up.
    pub(super) fn detach_all(&mut self) {
        self.flights.clear();
    }

    /// How many look-ups are under way.
    #[cfg(test)]
    pub(super) fn flights(&self) -> usize {
        self.flights.len()
    }

    fn is_current(&self, hash: &KeyHash, number: u64) -> bool {
        self.flights.get(hash).is_some_and(|flight| flight.number == number)
    }
}

/// What a store said, and as of when.
struct Finding {
    key: Option<SharedKey>,
    confirmed: Timestamp,
    from_sql: bool,
}

/// Takes a look-up off the board however its task ends.
struct Boarded {
    directory: Directory,
    hash: KeyHash,
    number: u64,
}

impl Drop for Boarded {
    fn drop(&mut self) {
        let mut board = self.directory.board();
        if board.is_current(&self.hash, self.number) {
            board.detach(&self.hash);
        }
    }
}

impl Directory {
    /// Joins the look-up of this hash or begins it, and falls back on a stale key if it has no result.
    pub(super) async fn look_up_once(&self, hash: &KeyHash, now: Timestamp) -> Landing {
        let stale = match self.0.local.recall(hash, now) {
            Memory::Stale(key) => Some(key),
            Memory::Fresh(_) | Memory::Unknown | Memory::Nothing => None,
        };
        let options = &self.0.options;
        let patience = match stale {
            Some(_) => options.confirmation,
            None => options.redis.saturating_add(options.sql).saturating_add(GRACE),
        };
        let landing = match self.board_flight(hash, now) {
            Some(mut landing) => {
                let landed = timeout(patience, landing.wait_for(Option::is_some)).await;
                landed.ok().and_then(Result::ok).and_then(|landing| landing.clone())
            }
            None => None,
        };
        match (landing.unwrap_or(Err(Unavailable)), stale) {
            (Ok(answer), _) => Ok(answer),
            (Err(Unavailable), Some(key)) if !self.board().revoked.contains(hash) => {
                self.0.counts.count(Event::StaleServed);
                Ok(Some(key))
            }
            (Err(Unavailable), _) => {
                self.0.counts.count(Event::Unavailable);
                Err(Unavailable)
            }
        }
    }

    /// Where the result of this hash's look-up will be; `None` if there are too many look-ups.
    pub(super) fn board_flight(
        &self,
        hash: &KeyHash,
        now: Timestamp,
    ) -> Option<watch::Receiver<Option<Landing>>> {
        let mut board = self.board();
        if let Some(flight) = board.flights.get(hash) {
            self.0.counts.count(Event::Joined);
            return Some(flight.landing.clone());
        }
        // Another look-up may have landed since the caller saw nothing in memory.
        match self.0.local.recall(hash, now) {
            Memory::Fresh(key) => return Some(watch::channel(Some(Ok(Some(key)))).1),
            Memory::Unknown => return Some(watch::channel(Some(Ok(None))).1),
            Memory::Stale(_) | Memory::Nothing => {}
        }
        if board.flights.len() >= FLIGHTS_MAX {
            return None;
        }
        let number = board.last_number.wrapping_add(1);
        let (result, landing) = watch::channel(None);
        board.last_number = number;
        board.flights.insert(*hash, Flight { number, landing: landing.clone() });
        // A runtime that is shutting down drops the task at once, and that takes the lock.
        drop(board);
        let boarded = Boarded { directory: self.clone(), hash: *hash, number };
        tokio::spawn(fly(boarded, now, result));
        Some(landing)
    }

    /// Remembers a finding, unless what it was about changed while it was under way, and makes it an answer.
    fn land(&self, boarded: &Boarded, finding: Result<&Finding, Unavailable>) -> Landing {
        let finding = finding?;
        let hash = boarded.hash;
        let board = self.board();
        if board.revoked.contains(&hash) {
            self.0.local.keep_unknown(hash, finding.confirmed);
            return Ok(None);
        }
        if board.is_current(&hash, boarded.number) {
            match &finding.key {
                Some(key) => self.0.local.keep(hash, Arc::clone(key), finding.confirmed),
                None => self.0.local.keep_unknown(hash, finding.confirmed),
            }
        }
        Ok(finding.key.clone())
    }

    /// Asks Redis, then the database.
    async fn look_up(&self, hash: &KeyHash, now: Timestamp) -> Result<Finding, Unavailable> {
        let nobody = Finding { key: None, confirmed: now, from_sql: false };
        if self.board().revoked.contains(hash) {
            return Ok(nobody);
        }
        if let Some(redis) = &self.0.redis {
            match self.ask_redis(redis, hash, now).await {
                Some(Fetched::Key(key, confirmed)) => {
                    let confirmed = confirmed.min(now);
                    return Ok(Finding { key: Some(key), confirmed, from_sql: false });
                }
                Some(Fetched::Revoked) => {
                    self.note_revoked(*hash, now);
                    return Ok(nobody);
                }
                Some(Fetched::Nothing | Fetched::Foreign) | None => {}
            }
        }
        let key = self.ask_sql(hash, now).await?.map(Arc::new);
        Ok(Finding { key, confirmed: now, from_sql: true })
    }

    /// What Redis says, if it can be believed.
    async fn ask_redis(
        &self,
        redis: &RedisCache,
        hash: &KeyHash,
        now: Timestamp,
    ) -> Option<Fetched> {
        let fetched = redis.fetch(hash, self.0.options.redis).await;
        let event = match &fetched {
            Ok(Fetched::Nothing) => Event::RedisMiss,
            Ok(Fetched::Key(_, confirmed)) => {
                let young = now.since(*confirmed) < self.0.options.fresh;
                let board = self.board();
                let changed = board.changed.doubts(hash, *confirmed);
                let believed = young && !changed && board.revoked.believes(*confirmed);
                if believed { Event::RedisHit } else { Event::RedisDoubted }
            }
            Ok(Fetched::Revoked) => Event::RedisRevoked,
            Ok(Fetched::Foreign) => Event::RedisForeign,
            Err(RedisFailure::Disconnected) => Event::RedisSkipped,
            Err(RedisFailure::Late | RedisFailure::Refused(_)) => Event::RedisFailed,
        };
        self.0.counts.count(event);
        if event == Event::RedisDoubted { None } else { fetched.ok() }
    }

    /// What the database says, when it is this look-up's turn. One that has just failed is left alone.
    async fn ask_sql(&self, hash: &KeyHash, now: Timestamp) -> Result<Option<ApiKey>, Unavailable> {
        if !self.0.sql.try_pass(now) {
            return Err(Unavailable);
        }
        let reading = async {
            let _turn = self.0.sql_reads.acquire().await.ok()?;
            self.0.counts.count(Event::SqlRead);
            Some(self.0.database.find_key(hash).await)
        };
        let failure = match timeout(self.0.options.sql, reading).await {
            Ok(Some(Ok(key))) => {
                self.0.sql.close();
                return Ok(key);
            }
            // One unreadable row says nothing about the others.
            Ok(Some(Err(failure @ Error::Corrupt(_)))) => failure,
            Ok(Some(Err(failure @ Error::Unavailable(_)))) => {
                self.0.sql.open(now);
                failure
            }
            Ok(None) | Err(_) => {
                self.0.sql.open(now);
                Error::Unavailable("no answer in time".to_owned())
            }
        };
        self.0.counts.count(Event::SqlFailed);
        tracing::warn!(%failure, "a key was not looked up");
        Err(Unavailable)
    }

    /// Lets other edges find what the database confirmed. Nobody waits for this.
    async fn fill_redis(&self, hash: &KeyHash, finding: &Finding) {
        let (Some(redis), Some(key), true) = (&self.0.redis, &finding.key, finding.from_sql) else {
            return;
        };
        let Ok(_turn) = self.0.fills.try_acquire() else { return };
        if self.board().revoked.contains(hash) {
            return;
        }
        match redis.fill(hash, key, finding.confirmed).await {
            Ok(()) | Err(RedisFailure::Disconnected) => {}
            Err(RedisFailure::Late | RedisFailure::Refused(_)) => {
                self.0.counts.count(Event::RedisFailed);
            }
        }
    }
}

/// One look-up, from its start to its callers' answer, and after that the fill of Redis.
async fn fly(boarded: Boarded, now: Timestamp, result: watch::Sender<Option<Landing>>) {
    let directory = boarded.directory.clone();
    let hash = boarded.hash;
    let finding = directory.look_up(&hash, now).await;
    let landing = directory.land(&boarded, finding.as_ref().map_err(|unavailable| *unavailable));
    drop(boarded);
    result.send_replace(Some(landing));
    if let Ok(finding) = &finding {
        directory.fill_redis(&hash, finding).await;
    }
}
