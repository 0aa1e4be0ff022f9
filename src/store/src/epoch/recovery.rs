//! How an epoch begins, and how its recovery ends.

use std::collections::HashSet;

use redis::Value;
use tokenroute_domain::time::Timestamp;
use tokio::time::Instant;

use super::{GONE_AFTER, Reign, Stop};
use crate::Error;
use crate::bank::redis::script::{Shard, checked_in, list, node};
use crate::posting::Reading;
use crate::redis_cache::{COMMAND_WAIT, CONNECT_WAIT};

impl Reign<'_> {
    /// Takes up the epoch that was declared last if Redis still lives in it, else begins another.
    pub(super) async fn ascend(&mut self) -> Result<(), Stop> {
        let declared = self.books.hot_epoch().await?;
        let life = self.server.life(COMMAND_WAIT).await?;
        let last = declared.as_ref().map_or(0, |declared| declared.epoch);
        match (declared, life) {
            (Some(declared), Some(life))
                if declared.epoch == life.epoch && declared.run_id == life.run_id =>
            {
                self.epoch = life.epoch;
                self.recovering = life.recovering.then(Instant::now);
                // Whoever led before has read them and is gone, or is not believed by SQL any more.
                self.post(Reading::Left(std::time::Duration::ZERO)).await
            }
            _ => self.begin(last).await,
        }
    }

    /// Closes what is open, posts whatever the streams still hold, and begins the epoch after `last`.
    async fn begin(&mut self, last: u64) -> Result<(), Stop> {
        let mut close = redis::pipe();
        close.atomic();
        for shard in Shard::all() {
            close.cmd("DEL").arg(shard.epoch());
        }
        self.server.pipe::<Value>(&close, COMMAND_WAIT).await?;
        self.epoch = last;
        let now = self.now();
        self.worker.drain(last, now).await?;
        let run_id = self.server.run_id.clone();
        let Some(next) = self.books.declare_epoch(last, &run_id, now).await? else {
            return Err(Error::Unavailable("another epoch was declared".to_owned()).into());
        };
        let mut open = redis::pipe();
        open.atomic();
        for shard in Shard::all() {
            open.cmd("DEL").arg(shard.epoch()).arg(shard.opened());
            let fields = open.cmd("HSET").arg(shard.epoch());
            fields.arg("number").arg(next.epoch).arg("run_id").arg(&next.run_id);
            fields.arg("recovering").arg("1").arg("started").arg(next.started.micros());
        }
        self.server.pipe::<Value>(&open, CONNECT_WAIT).await?;
        tracing::warn!(epoch = next.epoch, "a new epoch of the hot store has begun");
        self.epoch = next.epoch;
        self.recovering = Some(Instant::now());
        Ok(())
    }

    /// Ends the recovery once every edge that lives has told what it knows, or has had its time.
    pub(super) async fn end_recovery(&mut self) -> Result<(), Stop> {
        let Some(since) = self.recovering else { return Ok(()) };
        if since.elapsed() < GONE_AFTER && !self.all_checked_in().await? {
            return Ok(());
        }
        let mut open = redis::pipe();
        open.atomic();
        for shard in Shard::all() {
            open.cmd("HSET").arg(shard.epoch()).arg("recovering").arg("0");
        }
        self.server.pipe::<Value>(&open, COMMAND_WAIT).await?;
        tracing::info!(epoch = self.epoch, "the hot store has recovered");
        self.recovering = None;
        Ok(())
    }

    async fn all_checked_in(&self) -> Result<bool, Stop> {
        let ago = u64::try_from(GONE_AFTER.as_micros()).unwrap_or(u64::MAX);
        let since = Timestamp(self.now().micros().saturating_sub(ago));
        let live = self.books.live_nodes(since).await?;
        let mut members = redis::cmd("SMEMBERS");
        members.arg(checked_in(self.epoch));
        let answer: Value = self.server.ask(&members, COMMAND_WAIT).await?;
        let checked: HashSet<_> =
            list(&answer).unwrap_or_default().iter().filter_map(node).collect();
        Ok(live.iter().all(|node| checked.contains(node)))
    }
}
