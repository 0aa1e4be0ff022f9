//! Keeps a directory true while it is used: what changed in the database, what Redis says was revoked,
//! and the connection to Redis itself.

use tokenroute_domain::key::KeyHash;
use tokenroute_domain::time::Timestamp;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Directory;
use super::counts::Event;
use super::revocations::{REMEMBERED, REVOKED_MAX};
use crate::redis_cache::{PAUSE, PING_EVERY, REVOKED, RedisFailure, read_hash};
use crate::{Error, RedisCache};

/// Changes read at once.
const CHANGES_MAX: u32 = 500;
/// Times that this is repeated in one poll; what is left comes with the next.
const PAGES_MAX: u32 = 20;
/// Revocations that a new connection to Redis is told again.
const RETOLD_MAX: usize = 1024;

impl Directory {
    /// Runs until `shutdown` says so (or its sender is gone): polls the database for changes, listens to
    /// Redis for revocations, and keeps Redis connected. Outages are waited out.
    pub async fn watch(
        &self,
        clock: impl Fn() -> Timestamp + Send + Sync,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let redis = async {
            if let Some(redis) = &self.0.redis {
                tokio::join!(self.keep_connected(redis), self.listen(redis, &clock));
            }
        };
        let work = async { tokio::join!(self.poll(&clock), redis) };
        tokio::select! {
            _ = work => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }

    async fn poll(&self, clock: &(impl Fn() -> Timestamp + Sync)) {
        let mut seen = None;
        let mut failing = false;
        let mut ticks = interval(self.0.options.poll);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let polled = self.poll_once(&mut seen, clock()).await;
            self.0.counts.count(if polled.is_ok() { Event::Polled } else { Event::PollFailed });
            match (&polled, failing) {
                (Err(failure), false) => {
                    tracing::error!(%failure, "the database cannot be asked for revoked keys");
                }
                (Ok(()), true) => tracing::info!("the database can be asked again"),
                (Ok(()), false) | (Err(_), true) => {}
            }
            failing = polled.is_err();
        }
    }

    /// What is remembered of a key here and in Redis may be of before its change.
    fn note_changed(&self, hash: KeyHash, now: Timestamp) {
        let mut board = self.board();
        board.detach(&hash);
        if !board.changed.insert(hash, now) {
            board.revoked.doubt_before(now);
        }
        self.0.local.forget(&hash);
    }

    /// Applies what changed after `seen`; the first time, what was revoked in the last minutes.
    async fn poll_once(&self, seen: &mut Option<i64>, now: Timestamp) -> Result<(), Error> {
        let mut epoch = match *seen {
            Some(epoch) => epoch,
            None => self.catch_up(now).await?,
        };
        *seen = Some(epoch);
        for _page in 0..PAGES_MAX {
            let changes = self.0.database.key_changes(epoch, CHANGES_MAX).await?;
            for change in &changes {
                if change.revoked {
                    self.0.counts.count(Event::RevocationRead);
                    self.note_revoked(change.hash, now);
                    self.let_bury(change.hash);
                } else {
                    self.note_changed(change.hash, now);
                }
                epoch = epoch.max(change.epoch);
            }
            *seen = Some(epoch);
            if changes.len() < usize::try_from(CHANGES_MAX).unwrap_or(usize::MAX) {
                break;
            }
        }
        self.0.sql.close();
        Ok(())
    }

    /// Reads the recent revocations, so that older values in Redis can be believed or doubted rightly,
    /// and returns the epoch from which on polls see every change.
    async fn catch_up(&self, now: Timestamp) -> Result<i64, Error> {
        let epoch = self.0.database.key_epoch().await?;
        let micros = u64::try_from(REMEMBERED.as_micros()).unwrap_or(u64::MAX);
        let since = Timestamp(now.micros().saturating_sub(micros));
        let limit = u32::try_from(REVOKED_MAX).unwrap_or(u32::MAX);
        let revoked = self.0.database.revoked_since(since, limit).await?;
        let all = revoked.len() < REVOKED_MAX;
        let mut board = self.board();
        // A key may have been created after it was tried here and before `epoch` was read.
        board.detach_all();
        self.0.local.forget_unknown(|hash| board.revoked.contains(hash));
        for hash in revoked.into_iter().rev() {
            board.revoked.insert(hash, now);
            self.0.local.keep_unknown(hash, now);
        }
        if all {
            board.revoked.complete();
        } else {
            board.revoked.doubt_before(now);
        }
        Ok(epoch)
    }

    async fn keep_connected(&self, redis: &RedisCache) {
        let mut told = false;
        loop {
            let connected = redis.connect().await;
            if let Err(failure) = &connected
                && !told
            {
                tracing::warn!(%failure, "no Redis: keys are read from the database alone");
                told = true;
            }
            let stands = connected.is_ok();
            self.count_failure(connected);
            if stands {
                told = false;
                tracing::info!("connected to Redis");
                // What was revoked while Redis was away must not come back with it.
                let retold = {
                    let mut board = self.board();
                    board.unburied.clear();
                    board.revoked.latest(RETOLD_MAX)
                };
                self.count_failure(redis.bury(&retold).await);
                self.use_until_broken(redis).await;
                tracing::warn!("the connection to Redis was given up");
            }
            sleep(PAUSE).await;
        }
    }

    /// Leaves it to the connection's keeper to mark a key as revoked in Redis, so that a slow Redis
    /// does not keep the next poll waiting.
    fn let_bury(&self, hash: KeyHash) {
        let mut board = self.board();
        if self.0.redis.is_some() && board.unburied.len() < RETOLD_MAX {
            board.unburied.push(hash);
            self.0.unburied.notify_one();
        }
    }

    async fn use_until_broken(&self, redis: &RedisCache) {
        loop {
            tokio::select! {
                () = redis.broken() => return,
                () = self.0.unburied.notified() => {
                    let unburied = std::mem::take(&mut self.board().unburied);
                    self.count_failure(redis.bury(&unburied).await);
                }
                () = sleep(PING_EVERY) => self.count_failure(redis.ping().await),
            }
        }
    }

    async fn listen(&self, redis: &RedisCache, clock: &(impl Fn() -> Timestamp + Sync)) {
        loop {
            if let Err(failure) = self.hear(redis, clock).await {
                self.count_failure(Err(failure));
            }
            sleep(PAUSE).await;
        }
    }

    /// Hears revocations until the connection ends.
    async fn hear(
        &self,
        redis: &RedisCache,
        clock: &(impl Fn() -> Timestamp + Sync),
    ) -> Result<(), RedisFailure> {
        let mut ears = redis.listen(REVOKED).await?;
        loop {
            match read_hash(ears.next().await?.get_payload_bytes()) {
                Some(hash) => {
                    self.0.counts.count(Event::RevocationHeard);
                    self.note_revoked(hash, clock());
                }
                None => self.0.counts.count(Event::RedisForeign),
            }
        }
    }

    fn count_failure(&self, result: Result<(), RedisFailure>) {
        match result {
            Ok(()) | Err(RedisFailure::Disconnected) => {}
            Err(RedisFailure::Late | RedisFailure::Refused(_)) => {
                self.0.counts.count(Event::RedisFailed);
            }
        }
    }
}
