//! What edges tell each other of targets that are off: by Redis, as hints, never as the truth.
//!
//! A hint is sent once and may be lost; one that is late or wrong costs a detour and no call. Nothing here
//! waits on a call's behalf, and nothing fails: while Redis is away there are no hints. The connections are
//! its own, so that a Redis that refuses hints still gives keys.

mod hint;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use self::hint::{EDGE_BYTES, Hint, NAME_BYTES_MAX};
use crate::RedisCache;
use crate::redis_cache::{COMMAND_WAIT, PAUSE, RedisFailure, in_time};

/// Targets whose hints wait to be sent; a hint of one more is left out.
const WAITING_MAX: usize = 1024;
/// Targets that an edge asks about when it begins to listen.
const LEARNT_MAX: usize = 1000;
/// Targets that are asked about in one exchange.
const LEARNT_AT_ONCE: usize = 250;
/// Seconds that the names of targets that were ever off are kept: longer than any hint.
const NAMES_SECONDS: u64 = 7_200;
/// The set of these names.
const NAMES: &str = "tr:targets";
/// Where hints are published.
const CHANNEL: &str = "tr:targets:off";

/// The hints of the edges that share a Redis. Clones share everything.
#[derive(Clone)]
pub struct TargetHints(Arc<Inner>);

struct Inner {
    redis: RedisCache,
    /// Tells this edge's hints from those of others.
    edge: u64,
    /// The latest word on each target that was not sent yet.
    waiting: Mutex<HashMap<String, Duration>>,
    wake: Notify,
}

impl fmt::Debug for TargetHints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetHints").field("edge", &self.0.edge).finish_non_exhaustive()
    }
}

impl TargetHints {
    /// Hints by `redis`, under the name `edge`: a number that no other edge has, drawn by chance.
    /// Nothing is sent or heard until [`Self::watch`] runs.
    pub fn new(redis: RedisCache, edge: u64) -> Self {
        let (waiting, wake) = (Mutex::default(), Notify::new());
        Self(Arc::new(Inner { redis, edge, waiting, wake }))
    }

    /// Lets the other edges know that a target will be left alone for `off_for`, or, with zero, that it
    /// is well again. Returns at once; a hint that was not sent yet is replaced.
    pub fn publish(&self, target: &str, off_for: Duration) {
        {
            let mut waiting = self.waiting();
            if let Some(last) = waiting.get_mut(target) {
                *last = off_for;
            } else if waiting.len() < WAITING_MAX && target.len() <= NAME_BYTES_MAX {
                waiting.insert(target.to_owned(), off_for);
            }
        }
        self.0.wake.notify_one();
    }

    /// Sends what is published here, and passes on what other edges say: first what holds now, then what
    /// they publish, the name of a target and for how long it is off (zero: it is well again). Names may
    /// be of targets that this edge does not have. Runs until `stop` says so, or its sender is gone.
    pub async fn watch(
        &self,
        tell: impl Fn(&str, Duration) + Send + Sync,
        mut stop: watch::Receiver<bool>,
    ) {
        let work = async { tokio::join!(self.send(), self.listen(&tell)) };
        tokio::select! {
            _ = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn send(&self) {
        let mut connection = None;
        loop {
            self.0.wake.notified().await;
            let waiting = std::mem::take(&mut *self.waiting());
            let mut all = redis::pipe();
            for (target, off_for) in &waiting {
                announce(&mut all, &Hint { edge: self.0.edge, target, off_for: *off_for });
            }
            // A connection that was closed while it was idle is no reason to lose a hint.
            let stood = connection.is_some();
            let mut sent = self.exchange(&mut connection, &all).await;
            if sent.is_err() && stood {
                sent = self.exchange(&mut connection, &all).await;
            }
            if sent.is_err() {
                sleep(PAUSE).await;
            }
        }
    }

    async fn exchange(
        &self,
        connection: &mut Option<MultiplexedConnection>,
        pipeline: &Pipeline,
    ) -> Result<(), RedisFailure> {
        let mut standing = match connection.take() {
            Some(standing) => standing,
            None => self.0.redis.dial().await?,
        };
        in_time(pipeline.query_async::<()>(&mut standing), COMMAND_WAIT).await?;
        *connection = Some(standing);
        Ok(())
    }

    async fn listen(&self, tell: &impl Fn(&str, Duration)) {
        let mut told = false;
        loop {
            let Err(failure) = self.hear(tell, &mut told).await;
            if !told {
                tracing::warn!(%failure, "no hints of other edges about targets");
                told = true;
            }
            sleep(PAUSE).await;
        }
    }

    /// Hears hints until the connection ends.
    async fn hear(
        &self,
        tell: &impl Fn(&str, Duration),
        told: &mut bool,
    ) -> Result<std::convert::Infallible, RedisFailure> {
        let mut ears = self.0.redis.listen(CHANNEL).await?;
        // Listening already, so that nothing is missed in between.
        self.learn(tell).await?;
        if std::mem::take(told) {
            tracing::info!("hints of other edges about targets are heard again");
        }
        loop {
            let message = ears.next().await?;
            if let Some(hint) = Hint::read(message.get_payload_bytes())
                && hint.edge != self.0.edge
            {
                tell(hint.target, hint.off_for);
            }
        }
    }

    /// Passes on what holds now.
    async fn learn(&self, tell: &impl Fn(&str, Duration)) -> Result<(), RedisFailure> {
        let mut connection = self.0.redis.dial().await?;
        let mut names = redis::cmd("SRANDMEMBER");
        names.arg(NAMES).arg(LEARNT_MAX);
        let names: Vec<String> = in_time(names.query_async(&mut connection), COMMAND_WAIT).await?;
        for some in names.chunks(LEARNT_AT_ONCE) {
            let mut each = redis::pipe();
            for name in some {
                each.cmd("GETRANGE").arg(key(name)).arg(0).arg(EDGE_BYTES);
                each.cmd("PTTL").arg(key(name));
            }
            let held: Vec<(Vec<u8>, i64)> =
                in_time(each.query_async(&mut connection), COMMAND_WAIT).await?;
            for (name, (edge, left)) in some.iter().zip(held) {
                if let Some(hint) = Hint::held(&edge, name, left)
                    && hint.edge != self.0.edge
                {
                    tell(hint.target, hint.off_for);
                }
            }
        }
        Ok(())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, Duration>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the present state of a target is, for edges that begin to listen.
fn key(target: &str) -> String {
    format!("tr:target:{target}")
}

fn announce(pipeline: &mut Pipeline, hint: &Hint<'_>) {
    let key = key(hint.target);
    match hint.milliseconds() {
        0 => {
            pipeline.cmd("DEL").arg(key).ignore();
        }
        off_for => {
            pipeline.cmd("SET").arg(key).arg(hint.edge_text()).arg("PX").arg(off_for).ignore();
            pipeline.cmd("SADD").arg(NAMES).arg(hint.target).ignore();
            pipeline.cmd("EXPIRE").arg(NAMES).arg(NAMES_SECONDS).ignore();
        }
    }
    pipeline.cmd("PUBLISH").arg(CHANNEL).arg(hint.write()).ignore();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_the_latest_word_counts() {
        let hints = TargetHints::new(RedisCache::new("redis://127.0.0.1:1").unwrap(), 1);
        for number in 0..2 * WAITING_MAX {
            hints.publish(&format!("p/{number}"), Duration::from_secs(5));
        }
        hints.publish("p/0", Duration::ZERO);
        assert_eq!(hints.waiting().len(), WAITING_MAX);
        assert_eq!(hints.waiting()["p/0"], Duration::ZERO);
        assert_eq!(hints.waiting()["p/1"], Duration::from_secs(5));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        hints.waiting().clear();
        hints.publish(&long, Duration::ZERO);
        assert!(hints.waiting().is_empty());
    }
}
