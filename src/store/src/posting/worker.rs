//! Moves events from the streams into SQL, a shard's batch in one transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokenroute_domain::id::{AccountId, NodeId};
use tokenroute_domain::record::Record;
use tokenroute_domain::time::Timestamp;

use super::event::{Event, What};
use crate::bank::books::Books;
use crate::bank::redis::script::{Run, Script, Shard, list, pool, seen};
use crate::bank::redis::server::{Server, garbled};
use crate::redis_cache::{CONNECT_WAIT, RedisFailure};
use crate::sql::findings::POISON;
use crate::{Error, Finding, PostedCall};

/// Who reads the streams.
const GROUP: &str = "ledger";
/// Events that are posted in one transaction.
const BATCH_MAX: usize = 200;
/// How often an event is tried that SQL refuses, before it is put away.
const TRIES_MAX: u32 = 5;
/// Refused events of which the tries are counted.
const REFUSED_MAX: usize = 10_000;
/// Events that were put away and are kept, in a shard.
const DEAD_MAX: u32 = 10_000;
/// How long a pool remembers that it has settled a call, after SQL has it: for longer than edges tell
/// calls without asking SQL first.
pub(crate) const SEEN_KEPT: Duration = Duration::from_mins(5);

/// Why events are not posted now. They stay where they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerFailure {
    #[error("{0}")]
    Redis(#[from] RedisFailure),
    #[error("{0}")]
    Sql(#[from] Error),
}

/// Which events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Those that nobody has read, waiting for some for so long.
    New(Duration),
    /// Those that somebody has read and not posted for so long: by a worker that is gone, or refused.
    Left(Duration),
    /// Every one, whoever has read it.
    All,
}

/// A worker. It is one of a group: what another has read is not read again until that one is late.
#[derive(Debug)]
pub(crate) struct Worker {
    server: Server,
    books: Arc<dyn Books>,
    name: String,
    refused: HashMap<String, u32>,
}

impl Worker {
    /// Makes sure that every stream has its group.
    pub(crate) async fn new(
        server: Server,
        books: Arc<dyn Books>,
        node: NodeId,
    ) -> Result<Self, WorkerFailure> {
        let worker = Self { server, books, name: node.to_string(), refused: HashMap::new() };
        worker.prepare().await?;
        Ok(worker)
    }

    /// Whether there are events that SQL has refused and that are to be tried again.
    pub(crate) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Makes the groups that are missing, at the beginning of their streams.
    pub(crate) async fn prepare(&self) -> Result<(), RedisFailure> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for shard in Shard::all() {
            let group = pipeline.cmd("XGROUP").arg("CREATE").arg(shard.events());
            group.arg(GROUP).arg("0").arg("MKSTREAM");
        }
        let made: Vec<redis::RedisResult<Value>> =
            self.server.pipe(&pipeline, CONNECT_WAIT).await?;
        for failure in made.into_iter().filter_map(Result::err) {
            if failure.code() != Some("BUSYGROUP") {
                return Err(crate::redis_cache::refusal(&failure));
            }
        }
        Ok(())
    }

    /// Reads once and posts what it has read; tells how many events have left the streams. `epoch` is the
    /// last that was declared.
    pub(crate) async fn work(
        &mut self,
        reading: Reading,
        epoch: u64,
        now: Timestamp,
    ) -> Result<usize, WorkerFailure> {
        let mut gone = 0_usize;
        for (shard, events) in self.read(reading).await? {
            for batch in events.chunks(BATCH_MAX) {
                gone = gone.saturating_add(self.post(shard, batch, epoch, now).await?);
            }
        }
        Ok(gone)
    }

    /// Posts everything that is in the streams.
    pub(crate) async fn drain(&mut self, epoch: u64, now: Timestamp) -> Result<(), WorkerFailure> {
        // What SQL refuses is put away after a few rounds, so that each round leaves less or is counted.
        loop {
            let all = self.read(Reading::All).await?;
            if all.is_empty() {
                return Ok(());
            }
            for (shard, events) in all {
                self.post(shard, &events, epoch, now).await?;
            }
        }
    }

    async fn read(&self, reading: Reading) -> Result<Vec<(Shard, Vec<Event>)>, RedisFailure> {
        let answers = match reading {
            Reading::New(wait) => return self.read_new(wait).await,
            Reading::Left(idle) => {
                let mut pipeline = redis::pipe();
                for shard in Shard::all() {
                    let claim = pipeline.cmd("XAUTOCLAIM").arg(shard.events()).arg(GROUP);
                    let claim = claim.arg(&self.name).arg(idle.as_millis().to_string()).arg("0");
                    claim.arg("COUNT").arg(BATCH_MAX);
                }
                let answers: Vec<Value> = self.server.pipe(&pipeline, CONNECT_WAIT).await?;
                let entries = |answer: &Value| list(answer)?.get(1).cloned();
                answers
                    .iter()
                    .map(|answer| entries(answer).ok_or_else(garbled))
                    .collect::<Result<_, _>>()?
            }
            Reading::All => {
                let mut pipeline = redis::pipe();
                for shard in Shard::all() {
                    let range = pipeline.cmd("XRANGE").arg(shard.events()).arg("-").arg("+");
                    range.arg("COUNT").arg(BATCH_MAX);
                }
                self.server.pipe::<Vec<Value>>(&pipeline, CONNECT_WAIT).await?
            }
        };
        let shards = Shard::all().zip(answers.iter().map(events));
        Ok(shards.filter(|(_, events)| !events.is_empty()).collect())
    }

    async fn read_new(&self, wait: Duration) -> Result<Vec<(Shard, Vec<Event>)>, RedisFailure> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.name).arg("COUNT").arg(BATCH_MAX);
        command.arg("BLOCK").arg(wait.as_millis().to_string()).arg("STREAMS");
        for shard in Shard::all() {
            command.arg(shard.events());
        }
        for _ in Shard::all() {
            command.arg(">");
        }
        let answer: Value = self.server.ask(&command, wait.saturating_add(CONNECT_WAIT)).await?;
        let streams = list(&answer).ok_or_else(garbled)?;
        let mut all = Vec::new();
        for stream in streams {
            let Some([name, entries]) = list(stream) else { return Err(garbled()) };
            let name = crate::bank::redis::script::text(name).unwrap_or_default();
            let shard = Shard::all().find(|shard| shard.events() == name).ok_or_else(garbled)?;
            all.push((shard, events(entries)));
        }
        Ok(all)
    }

    /// Posts a batch of one shard, and takes out of the stream what SQL has.
    async fn post(
        &mut self,
        shard: Shard,
        events: &[Event],
        epoch: u64,
        now: Timestamp,
    ) -> Result<usize, WorkerFailure> {
        let (mut calls, mut records) = (Vec::new(), Vec::new());
        for event in events {
            match &event.what {
                What::Call(call) => calls.push(call.clone()),
                What::Record(record) => records.push(Arc::clone(record)),
                What::Withdrawal(_) | What::Lapsed(_) | What::Unreadable => {}
            }
        }
        let together = match self.post_together(&records, &calls, epoch, now).await {
            Ok(()) => true,
            Err(failure @ Error::Unavailable(_)) => return Err(failure.into()),
            Err(Error::Corrupt(_)) => false,
        };
        let mut done = Vec::with_capacity(events.len());
        let mut hopeless = Vec::new();
        for event in events {
            let written = match &event.what {
                What::Call(_) | What::Record(_) if together => Ok(()),
                What::Record(record) => self.books.write(std::slice::from_ref(record)).await,
                What::Call(call) => {
                    self.books.post(epoch, std::slice::from_ref(call), now).await.map(drop)
                }
                What::Withdrawal(one) => self.books.withdrawn(one, now).await,
                What::Lapsed(found) => self.books.find(found, now).await.map(drop),
                What::Unreadable => Err(Error::unreadable("an event of the hot store")),
            };
            match written {
                Ok(()) => done.push(event),
                Err(failure @ Error::Unavailable(_)) => return Err(failure.into()),
                Err(Error::Corrupt(reason)) => hopeless.push((event, reason)),
            }
        }
        let gone = self.remove(shard, &done).await?;
        for (event, reason) in hopeless {
            self.refuse(shard, event, &reason, now).await?;
        }
        Ok(gone)
    }

    async fn post_together(
        &self,
        records: &[Arc<Record>],
        calls: &[PostedCall],
        epoch: u64,
        now: Timestamp,
    ) -> Result<(), Error> {
        if !records.is_empty() {
            self.books.write(records).await?;
        }
        if !calls.is_empty() {
            self.books.post(epoch, calls, now).await?;
        }
        Ok(())
    }

    /// Takes events out of their stream, whose effects SQL has.
    async fn remove(&self, shard: Shard, events: &[&Event]) -> Result<usize, RedisFailure> {
        if events.is_empty() {
            return Ok(0);
        }
        let mut accounts: Vec<AccountId> = events.iter().filter_map(|one| one.account).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let mut keys = vec![shard.events()];
        for account in &accounts {
            keys.extend([pool(*account), seen(*account)]);
        }
        let mut run = Run::new(Script::Posted, keys).arg(GROUP).arg(SEEN_KEPT.as_micros());
        for event in events {
            let place = event.account.and_then(|one| accounts.binary_search(&one).ok());
            run.push(&event.id);
            run.push(place.map_or(0, |place| place.saturating_add(1)));
            run.push(&event.epoch);
            run.push(event.charge.0);
            run.push(&event.call);
        }
        self.server.run_one(run, CONNECT_WAIT).await?;
        Ok(events.len())
    }

    /// Counts a try in vain; after the last one the event is put away and an operator is told.
    async fn refuse(
        &mut self,
        shard: Shard,
        event: &Event,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), WorkerFailure> {
        let name = format!("{} {}", shard.events(), event.id);
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        let tries = self.refused.entry(name.clone()).or_default();
        *tries = tries.saturating_add(1);
        if *tries < TRIES_MAX && event.what != What::Unreadable {
            return Ok(());
        }
        tracing::error!(event = name, reason, "an event cannot be posted and was put away");
        let detail = format!("call {:?}, charge {} USD: {reason}", event.call, event.charge);
        let found = Finding {
            kind: POISON.to_owned(),
            subject: name.clone(),
            detail,
            amount: event.charge.at_least_zero(),
        };
        self.books.find(&found, now).await?;
        let bury = Run::new(Script::Bury, vec![shard.events(), shard.dead()]);
        self.server.run_one(bury.arg(GROUP).arg(&event.id).arg(DEAD_MAX), CONNECT_WAIT).await?;
        self.refused.remove(&name);
        Ok(())
    }
}

fn events(entries: &Value) -> Vec<Event> {
    list(entries).unwrap_or_default().iter().filter_map(Event::read).collect()
}
