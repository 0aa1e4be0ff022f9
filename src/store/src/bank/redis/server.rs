//! One connection to Redis, tied to the server's run and to one life of its memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokenroute_domain::time::Timestamp;

use super::script::{Digests, Run, Shard, list, number, text};
use crate::redis_cache::{CONNECT_WAIT, RedisCache, RedisFailure, in_time, refusal};

/// What a shard's epoch key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// The epoch's number.
    pub(crate) epoch: u64,
    /// The run of the server that it was declared for. A server that was started again, or another one
    /// that has taken over, has the key but not the run.
    pub(crate) run_id: String,
    /// Whether what was forgotten is still being told.
    pub(crate) recovering: bool,
    /// When it began.
    pub(crate) started: Timestamp,
}

impl Life {
    /// Reads the answer to `HGETALL`.
    fn read(answer: &Value) -> Option<Self> {
        let mut fields = HashMap::new();
        for pair in list(answer)?.chunks_exact(2) {
            if let [name, value] = pair {
                fields.insert(text(name)?, text(value)?);
            }
        }
        Some(Self {
            epoch: fields.get("number")?.parse().ok()?,
            run_id: (*fields.get("run_id")?).to_owned(),
            recovering: *fields.get("recovering")? == "1",
            started: Timestamp(fields.get("started")?.parse().ok()?),
        })
    }
}

/// A connection that stands. Clones share it.
#[derive(Clone)]
pub(crate) struct Server {
    connection: MultiplexedConnection,
    digests: Digests,
    /// Which run of the server it leads to.
    pub(crate) run_id: String,
    /// The shard that is asked next whether it remembers.
    turn: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl Server {
    /// Connects to a server that takes writes, asks which run of it this is, and loads the scripts.
    pub(crate) async fn open(redis: &RedisCache) -> Result<Self, RedisFailure> {
        let mut connection = redis.dial().await?;
        let mut hello = redis::pipe();
        hello.cmd("INFO").arg("server").cmd("INFO").arg("replication");
        Digests::load(&mut hello);
        let answers: Vec<Value> = in_time(hello.query_async(&mut connection), CONNECT_WAIT).await?;
        let [about, replication, scripts @ ..] = answers.as_slice() else { return Err(garbled()) };
        if field(replication, "role") != Some("master") {
            return Err(RedisFailure::Refused("READONLY".to_owned()));
        }
        let run_id = field(about, "run_id").ok_or_else(garbled)?.to_owned();
        let digests = Digests::loaded(scripts).ok_or_else(garbled)?;
        Ok(Self { connection, digests, run_id, turn: Arc::default() })
    }

    /// Runs scripts in one round trip, or in two if the server has forgotten them. The answers are those
    /// of the runs, in order.
    pub(crate) async fn run(
        &self,
        runs: &[Run],
        budget: Duration,
    ) -> Result<Vec<Result<Vec<Value>, RedisFailure>>, RedisFailure> {
        let all: Vec<usize> = (0..runs.len()).collect();
        let mut answers = vec![Err(RedisFailure::Disconnected); runs.len()];
        let forgotten = self.run_some(runs, &all, &mut answers, budget).await?;
        if !forgotten.is_empty() {
            let mut load = redis::pipe();
            Digests::load(&mut load);
            self.pipe::<Vec<Value>>(&load, budget).await?;
            self.run_some(runs, &forgotten, &mut answers, budget).await?;
        }
        Ok(answers)
    }

    /// Runs those at `places`, and returns the places of those whose script is not loaded.
    async fn run_some(
        &self,
        runs: &[Run],
        places: &[usize],
        answers: &mut [Result<Vec<Value>, RedisFailure>],
        budget: Duration,
    ) -> Result<Vec<usize>, RedisFailure> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for run in places.iter().filter_map(|place| runs.get(*place)) {
            pipeline.add_command(run.command(&self.digests));
        }
        let results: Vec<RedisResult<Value>> = self.pipe(&pipeline, budget).await?;
        let mut forgotten = Vec::new();
        for (place, result) in places.iter().zip(results) {
            if result.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT")) {
                forgotten.push(*place);
            }
            if let Some(answer) = answers.get_mut(*place) {
                *answer = match result {
                    Ok(Value::Array(values)) => Ok(values),
                    Ok(single) => Ok(vec![single]),
                    Err(error) => Err(refusal(&error)),
                };
            }
        }
        Ok(forgotten)
    }

    /// Runs one script.
    pub(crate) async fn run_one(
        &self,
        run: Run,
        budget: Duration,
    ) -> Result<Vec<Value>, RedisFailure> {
        let mut answers = self.run(&[run], budget).await?;
        answers.pop().unwrap_or_else(|| Err(garbled()))
    }

    /// What each shard says of the epoch; `None` for one that says nothing.
    pub(crate) async fn lives(&self, budget: Duration) -> Result<Vec<Option<Life>>, RedisFailure> {
        let mut pipeline = redis::pipe();
        for shard in Shard::all() {
            pipeline.cmd("HGETALL").arg(shard.epoch());
        }
        let answers: Vec<Value> = self.pipe(&pipeline, budget).await?;
        Ok(answers.iter().map(Life::read).collect())
    }

    /// The epoch by what one shard says, another one each time, if it belongs to this run of the server. One
    /// that was emptied or started anew shows in any of them, and each script looks at its own.
    pub(crate) async fn glance(&self, budget: Duration) -> Result<Option<Life>, RedisFailure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut command = redis::cmd("HGETALL");
        command.arg(Shard::in_turn(turn).epoch());
        let answer: Value = self.ask(&command, budget).await?;
        Ok(Life::read(&answer).filter(|life| life.run_id == self.run_id))
    }

    /// The epoch that every shard agrees on, if it belongs to this run of the server.
    pub(crate) async fn life(&self, budget: Duration) -> Result<Option<Life>, RedisFailure> {
        let lives = self.lives(budget).await?;
        let Some(mut life) = lives.first().cloned().flatten() else { return Ok(None) };
        let same = |one: &Life| one.epoch == life.epoch && one.run_id == self.run_id;
        if !lives.iter().all(|one| one.as_ref().is_some_and(same)) {
            return Ok(None);
        }
        // The shards were not asked in one instant.
        life.recovering = lives.iter().flatten().any(|one| one.recovering);
        Ok(Some(life))
    }

    /// What the server is told to forget when its memory is full; `None` if nothing, as it must be.
    pub(crate) async fn eviction(&self, budget: Duration) -> Result<Option<String>, RedisFailure> {
        let memory: Value = self.ask(redis::cmd("INFO").arg("memory"), budget).await?;
        let policy = field(&memory, "maxmemory_policy").filter(|policy| *policy != "noeviction");
        Ok(policy.map(str::to_owned))
    }

    /// By one command for all shards: how long the oldest event has been waiting to be posted, by the server's own clock.
    pub(crate) async fn posting_lag(&self, budget: Duration) -> Result<Duration, RedisFailure> {
        let mut pipeline = redis::pipe();
        let read = pipeline.cmd("XREAD").arg("COUNT").arg(1).arg("STREAMS");
        for shard in Shard::all() {
            read.arg(shard.events());
        }
        for _ in Shard::all() {
            read.arg("0");
        }
        pipeline.cmd("TIME");
        let (streams, time): (Value, Value) = self.pipe(&pipeline, budget).await?;
        let [seconds, micros] = list(&time).unwrap_or_default() else { return Err(garbled()) };
        let whole = number(seconds).and_then(|seconds| seconds.checked_mul(1_000));
        let now =
            whole.zip(number(micros)).and_then(|(whole, part)| whole.checked_add(part / 1_000));
        let now = now.and_then(|now| u64::try_from(now).ok()).ok_or_else(garbled)?;
        // An event is named by when it came, in milliseconds.
        let came = |stream: &Value| -> Option<u64> {
            let entry = list(list(stream)?.get(1)?)?.first()?;
            text(list(entry)?.first()?)?.split_once('-')?.0.parse().ok()
        };
        let oldest = list(&streams).unwrap_or_default().iter().filter_map(came).min();
        Ok(Duration::from_millis(oldest.map_or(0, |oldest| now.saturating_sub(oldest))))
    }

    pub(crate) async fn pipe<T: redis::FromRedisValue>(
        &self,
        pipeline: &Pipeline,
        budget: Duration,
    ) -> Result<T, RedisFailure> {
        let mut connection = self.connection.clone();
        in_time(pipeline.query_async(&mut connection), budget).await
    }

    pub(crate) async fn ask<T: redis::FromRedisValue>(
        &self,
        command: &Cmd,
        budget: Duration,
    ) -> Result<T, RedisFailure> {
        let mut connection = self.connection.clone();
        in_time(command.query_async(&mut connection), budget).await
    }
}

/// An answer that no Redis gives.
pub(crate) fn garbled() -> RedisFailure {
    RedisFailure::Refused("garbled".to_owned())
}

/// A field of what `INFO` answers: lines of `name:value`.
fn field<'a>(info: &'a Value, name: &str) -> Option<&'a str> {
    let lines = text(info)?;
    lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
