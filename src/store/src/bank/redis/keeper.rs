//! Keeps a bank connected to the right memory, says that its edge lives, and carries recalls.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;
use tokenroute_domain::id::{AccountId, NodeId};
use tokenroute_domain::time::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::script::checked_in;
use super::server::{Life, Server};
use super::{Lent, RECALLS_MAX, RedisBank, Standing};
use crate::redis_cache::{COMMAND_WAIT, PING_EVERY, RedisFailure};

/// The pause after a failed try to connect.
const PAUSE: Duration = Duration::from_millis(250);
/// How often Redis is asked for its epoch while there is none, or memory is being recovered.
const WATCH_CLOSELY: Duration = Duration::from_millis(100);
/// How often the edge says in SQL that it lives; it counts as gone after [`crate::epoch::GONE_AFTER`].
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// How often Redis is asked for the oldest event that waits to be posted.
const LAG_EVERY: Duration = Duration::from_secs(2);
/// Seconds that it is remembered which edges have told everything.
const CHECKED_SECONDS: u64 = 600;
/// Where recalls are published, as the asking node and the account.
const RECALLS: &str = "tr:recall";

impl RedisBank {
    /// Runs until `shutdown` says so (or its sender is gone). Outages are waited out.
    pub async fn watch(&self, mut shutdown: watch::Receiver<bool>) {
        let work = async {
            tokio::join!(self.keep_connected(), self.beat(), self.publish(), self.listen())
        };
        tokio::select! {
            _ = work => {}
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
    }

    async fn keep_connected(&self) {
        let mut told = false;
        loop {
            match Server::open(&self.0.redis).await {
                Ok(server) => {
                    if std::mem::take(&mut told) {
                        tracing::info!("the hot store can be reached again");
                    }
                    self.keep(&server).await;
                    self.put_down();
                }
                Err(failure) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%failure, "the hot store cannot be reached");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Since when Redis is seen in this epoch.
    fn seen_since(&self, epoch: u64) -> Timestamp {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != epoch {
            *seen = (epoch, (self.0.clock)());
        }
        seen.1
    }

    /// Uses a connection for as long as it answers and leads to the memory of the last epoch.
    async fn keep(&self, server: &Server) {
        let number = self.link().number.wrapping_add(1);
        let (mut settled, mut lag_looked): (Option<Life>, Option<Instant>) = (None, None);
        loop {
            let Ok(life) = look(server, settled.take()).await else { return };
            if self.look_for_lag(server, &mut lag_looked).await.is_err() {
                return;
            }
            let declared = self.0.declared.load(Ordering::Relaxed);
            let mut wait = WATCH_CLOSELY;
            if let Some(life) = life.filter(|life| life.epoch >= declared) {
                if !life.recovering {
                    wait = PING_EVERY;
                    settled = Some(life.clone());
                }
                if self.check_in(server, &life).await.is_err() {
                    return;
                }
                let since = self.seen_since(life.epoch);
                let mut link = self.link();
                link.number = number;
                link.standing = Some(Standing { number, server: server.clone(), life, since });
            } else {
                // It remembers nothing, or what is not to be believed; a leader will see to it.
                self.put_down();
            }
            tokio::select! {
                () = self.0.broken.notified() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// Looks how far SQL is behind, when it is time to.
    async fn look_for_lag(
        &self,
        server: &Server,
        looked: &mut Option<Instant>,
    ) -> Result<(), RedisFailure> {
        if looked.is_none_or(|looked| looked.elapsed() >= LAG_EVERY) {
            *looked = Some(Instant::now());
            self.note_lag(server.posting_lag(COMMAND_WAIT).await?);
        }
        Ok(())
    }

    fn note_lag(&self, lag: Duration) {
        let was_behind = self.is_behind();
        let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        self.0.posting_lag.store(micros, Ordering::Relaxed);
        match (was_behind, self.is_behind()) {
            (false, true) => tracing::error!(
                seconds = lag.as_secs(),
                "events wait too long to be posted: paid calls are refused"
            ),
            (true, false) => tracing::info!("events are posted again: paid calls go on"),
            (true, true) | (false, false) => {}
        }
    }

    fn put_down(&self) {
        self.link().standing = None;
    }

    /// While memory is being recovered: says that everything is told once it is. After that, whatever was
    /// known from before is over.
    async fn check_in(&self, server: &Server, life: &Life) -> Result<(), RedisFailure> {
        let told = {
            let mut lent = self.lent();
            if !life.recovering {
                lent.retain(|_, one| one.epoch >= life.epoch);
                return Ok(());
            }
            // What has lapsed is spent no more, and who has it may never speak of it again.
            let lease = self.0.options.lease;
            let untold = |one: &Lent| one.epoch < life.epoch && one.at.elapsed() < lease;
            let untold = lent.iter().filter(|(_, one)| untold(one)).map(|(holder, _)| *holder);
            let untold: Vec<(AccountId, NodeId)> = untold.collect();
            // Who rests would speak of it only when the loan is to be renewed, and all wait meanwhile.
            for (account, _) in untold.iter().filter(|(_, node)| *node == self.0.node) {
                let _full_of_others = self.0.recalled.0.try_send(*account);
            }
            untold.is_empty()
        };
        if !told {
            return Ok(());
        }
        let key = checked_in(life.epoch);
        let mut both = redis::pipe();
        both.cmd("SADD").arg(&key).arg(self.0.node.to_string());
        both.cmd("EXPIRE").arg(&key).arg(CHECKED_SECONDS);
        server.pipe::<Value>(&both, COMMAND_WAIT).await.map(drop)
    }

    async fn beat(&self) {
        loop {
            let beat = self.0.books.beat(self.0.node, (self.0.clock)());
            if let Ok(Ok(epoch)) = timeout(self.0.options.sql, beat).await {
                self.0.declared.fetch_max(epoch, Ordering::Relaxed);
            }
            sleep(BEAT_EVERY).await;
        }
    }

    async fn publish(&self) {
        let mut recalls = self.0.recalls.1.lock().await;
        let mut accounts = Vec::new();
        while recalls.recv_many(&mut accounts, RECALLS_MAX).await > 0 {
            accounts.sort_unstable();
            accounts.dedup();
            let mut pipeline = redis::pipe();
            for account in accounts.drain(..) {
                let message = format!("{} {account}", self.0.node);
                pipeline.cmd("PUBLISH").arg(RECALLS).arg(message).ignore();
            }
            if let Some(standing) = self.standing() {
                let published = standing.server.pipe::<Value>(&pipeline, COMMAND_WAIT).await;
                if published.is_err() {
                    self.cut(standing.number);
                }
            }
        }
    }

    async fn listen(&self) {
        loop {
            if let Ok(mut ears) = self.0.redis.listen(RECALLS).await {
                while let Ok(message) = ears.next().await {
                    let Some(account) = read(message.get_payload_bytes(), self.0.node) else {
                        continue;
                    };
                    if self.0.recalled.0.try_send(account).is_err() {
                        tracing::debug!("an edge that does not listen gives nothing back");
                    }
                }
            }
            sleep(PAUSE).await;
        }
    }
}

/// What the memory says of its epoch. As long as it is the settled one, one shard is asked and not all.
async fn look(server: &Server, settled: Option<Life>) -> Result<Option<Life>, RedisFailure> {
    if let Some(life) = settled
        && server.glance(COMMAND_WAIT).await?.as_ref() == Some(&life)
    {
        return Ok(Some(life));
    }
    server.life(COMMAND_WAIT).await
}

/// Whose account another edge recalls; nothing if it was ourselves.
fn read(message: &[u8], own: NodeId) -> Option<AccountId> {
    let (node, account) = std::str::from_utf8(message).ok()?.split_once(' ')?;
    if NodeId::parse(node)? == own {
        return None;
    }
    AccountId::parse(account)
}
