//! Limits in Redis, where edges share them: buckets and slots, moved by a script at the server's own time.
//!
//! Redis is not asked on a call's behalf but for many calls at once, and nothing waits for it longer than
//! a budget. What it forgets is a limit that begins anew.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisResult};
use tokenroute_domain::limit::Subject;
use tokenroute_domain::limit::allowance::{Ask, Told};
use tokenroute_domain::limit::slots::LEASE;
use tokenroute_domain::limit::{slice, slots};
use tokio::sync::Mutex;

use crate::RedisCache;
use crate::redis_cache::{RedisFailure, in_time};

/// What an exchange may take; after that edges go on alone.
const EXCHANGE_WAIT: Duration = Duration::from_millis(250);
/// How long an edge counts as present without being heard of.
const PRESENT: Duration = Duration::from_secs(6);
/// Who is there.
const EDGES: &str = "tr:limits:edges";
/// Numbers that are told of a subject.
const NUMBERS: usize = 8;

const EXCHANGE: &str = include_str!("limit_store/exchange.lua");
const PRESENCE: &str = include_str!("limit_store/presence.lua");

/// The limits of the edges that share a Redis. Clones share everything.
#[derive(Clone)]
pub struct LimitStore(Arc<Inner>);

struct Inner {
    redis: RedisCache,
    /// Tells this edge's slots from those of others.
    edge: u64,
    /// The connection that stands; its own, so that a slow script keeps no key waiting.
    link: Mutex<Option<Link>>,
}

/// A connection whose server has the scripts, and what it calls them.
struct Link {
    connection: MultiplexedConnection,
    exchange: String,
    presence: String,
}

impl Link {
    async fn open(redis: &RedisCache) -> Result<Self, RedisFailure> {
        let mut connection = redis.dial().await?;
        let (exchange, presence) = in_time(load(&mut connection), EXCHANGE_WAIT).await?;
        Ok(Self { connection, exchange, presence })
    }

    /// Sends commands, and the scripts again if the server has forgotten them.
    async fn query<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> RedisResult<T> {
        match pipeline.query_async(&mut self.connection).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                load(&mut self.connection).await?;
                pipeline.query_async(&mut self.connection).await
            }
            answered => answered,
        }
    }
}

async fn load(connection: &mut MultiplexedConnection) -> RedisResult<(String, String)> {
    let mut both = redis::pipe();
    both.cmd("SCRIPT").arg("LOAD").arg(EXCHANGE).cmd("SCRIPT").arg("LOAD").arg(PRESENCE);
    both.query_async(connection).await
}

impl fmt::Debug for LimitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitStore").field("edge", &self.0.edge).finish_non_exhaustive()
    }
}

impl LimitStore {
    /// Limits in `redis`, asked under the name `edge`: a number that no other edge has, drawn by chance.
    pub fn new(redis: RedisCache, edge: u64) -> Self {
        Self(Arc::new(Inner { redis, edge, link: Mutex::default() }))
    }

    /// Asks about several subjects at once, an answer each in the same order. An exchange whose answer was
    /// lost may have been done: what was taken then is lost too, and is not taken again.
    pub async fn exchange(&self, asks: &[Ask]) -> Result<Vec<Told>, RedisFailure> {
        let answers: Vec<Vec<i64>> = self
            .ask(|link| {
                let mut pipeline = Pipeline::with_capacity(asks.len());
                for some in
                    asks.chunk_by(|one, next| one.subject.account() == next.subject.account())
                {
                    self.add(&mut pipeline, &link.exchange, some);
                }
                pipeline
            })
            .await?;
        let told: Vec<Told> =
            answers.iter().flat_map(|all| all.chunks(NUMBERS)).filter_map(read).collect();
        // Whoever answers something else is not the script.
        if told.len() == asks.len() { Ok(told) } else { Err(refused("answer")) }
    }

    /// Says that this edge is there, and asks how many are.
    pub async fn count_edges(&self) -> Result<u32, RedisFailure> {
        let counts: Vec<u32> = self
            .ask(|link| {
                let mut pipeline = Pipeline::new();
                pipeline.cmd("EVALSHA").arg(&link.presence).arg(1).arg(EDGES);
                pipeline.arg(format!("{:016x}", self.0.edge)).arg(millis(PRESENT));
                pipeline
            })
            .await?;
        counts.first().copied().ok_or_else(|| refused("answer"))
    }

    /// One command for the subjects of one account, whose keys are in one place.
    fn add(&self, pipeline: &mut Pipeline, script: &str, asks: &[Ask]) {
        pipeline.cmd("EVALSHA").arg(script).arg(asks.len().saturating_mul(2));
        for ask in asks {
            let (buckets, slots) = names(ask.subject);
            pipeline.arg(buckets).arg(slots);
        }
        pipeline.arg(format!("{:016x}", self.0.edge)).arg(millis(LEASE));
        for ask in asks {
            for rate in ask.rates {
                for number in rate.map_or([-1, 0, 0, 0, 0, 0], |rate| rate_numbers(&rate)) {
                    pipeline.arg(number);
                }
            }
            for number in ask.slots.map_or([-1, 0, 0, 0], slot_numbers) {
                pipeline.arg(number);
            }
        }
    }

    async fn ask<T: FromRedisValue>(
        &self,
        commands: impl FnOnce(&Link) -> Pipeline + Send,
    ) -> Result<T, RedisFailure> {
        let mut standing = self.0.link.lock().await;
        let mut link = match standing.take() {
            Some(link) => link,
            None => Link::open(&self.0.redis).await?,
        };
        let pipeline = commands(&link);
        // A connection that failed is not used again.
        let answers = in_time(link.query(&pipeline), EXCHANGE_WAIT).await?;
        *standing = Some(link);
        Ok(answers)
    }
}

fn refused(word: &str) -> RedisFailure {
    RedisFailure::Refused(word.to_owned())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where the buckets and the slots of a subject are: those of an account and its keys on one shard.
fn names(subject: Subject) -> (String, String) {
    let account = subject.account();
    (format!("tr:limit:{{{account}}}:{subject}"), format!("tr:slots:{{{account}}}:{subject}"))
}

fn rate_numbers(ask: &slice::Ask) -> [i64; 6] {
    let slice::Ask { rate, correction, need, least, ahead } = *ask;
    let (limit, period) = (signed(rate.limit()), signed(rate.period_micros()));
    [limit, period, correction, signed(need), signed(least), signed(ahead)]
}

fn slot_numbers(ask: slots::Ask) -> [i64; 4] {
    [ask.limit.into(), ask.in_use.into(), ask.need.into(), ask.ahead.into()]
}

fn read(numbers: &[i64]) -> Option<Told> {
    let &[a, a_taken, b, b_taken, c, c_taken, held, left] = numbers else { return None };
    let rate = |granted: i64, taken: i64| {
        let (granted, taken_milli) = (u64::try_from(granted).ok()?, u64::try_from(taken).ok()?);
        Some(slice::Told { granted, taken_milli })
    };
    let rates = [rate(a, a_taken)?, rate(b, b_taken)?, rate(c, c_taken)?];
    let slots = slots::Told { held: u32::try_from(held).ok()?, left: u32::try_from(left).ok()? };
    Some(Told { rates, slots })
}
