//! Turns calls away when there is too much to do, before anything is done for them. Who decides about
//! a call reads a few numbers; what they are made of is looked at elsewhere.
//!
//! - *Memory*, by [`Governor::set_memory`]: near the limit no call is taken, nearer no connection.
//! - *Lag*: a task on the calls' own threads ([`Governor::beat`]) tells how late these are, and one on
//!   other threads ([`Governor::watch`]) draws the conclusion, also when nothing is told for too long.
//! - *Calls*: as many as may be, and of each key no more than its share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokenroute_domain::id::KeyId;
use tokenroute_domain::load::Shed;
use tokenroute_domain::load::lag::{self, Lag};
use tokenroute_domain::load::memory::Pressure;
use tokenroute_domain::load::share::{self, ALL};
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::time::Tick;

use crate::clock;
use crate::holders::{Held, Holders};

/// Time between two beats, and between two looks at them, as long as all is well. The lag has to stand for
/// several of them before it counts.
const PAUSE: Duration = Duration::from_millis(20);
/// The same while calls are shed, when the lag of the moment matters.
const PAUSE_SHEDDING: Duration = Duration::from_millis(2);

/// Decides whether there is room for a call. Clones share everything.
#[derive(Clone, Debug)]
pub struct Governor(Arc<State>);

#[derive(Debug)]
struct State {
    /// A [`Pressure`], as a number.
    pressure: AtomicU8,
    /// How many of a thousand new calls are turned away because of the lag.
    share: AtomicU32,
    /// How long a connection rests on which a call was turned away, microseconds.
    rest: AtomicU64,
    /// What is left over of a thousand, of keys that hold much and of others.
    turns: [AtomicU32; 2],
    /// How late the threads last were, when they are to tell again, and how often; microseconds.
    late: AtomicU64,
    due: AtomicU64,
    pause: AtomicU64,
    holders: Arc<Holders>,
    /// Calls that there are file descriptors for.
    calls_max: usize,
    series: Series,
}

#[derive(Debug)]
struct Series {
    shed: Vec<IntCounter>,
    memory: IntGauge,
    memory_limit: IntGauge,
    lag: Gauge,
    share: Gauge,
}

impl Series {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let shed = IntCounterVec::new(
            Opts::new(
                "tokenroute_shed_total",
                "Calls turned away for want of room, by what there was not enough of.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(shed.clone()))?;
        let series = Self {
            shed: Shed::ALL.iter().map(|why| shed.with_label_values(&[why.as_str()])).collect(),
            memory: IntGauge::new("tokenroute_memory_bytes", "Memory that counts for the limit.")?,
            memory_limit: IntGauge::new("tokenroute_memory_limit_bytes", "The limit on memory.")?,
            lag: Gauge::new(
                "tokenroute_lag_seconds",
                "How late the threads of the data plane are.",
            )?,
            share: Gauge::new(
                "tokenroute_shed_share",
                "The part of new calls that is turned away because of the lag.",
            )?,
        };
        for gauge in [&series.memory, &series.memory_limit] {
            registry.register(Box::new(gauge.clone()))?;
        }
        for gauge in [&series.lag, &series.share] {
            registry.register(Box::new(gauge.clone()))?;
        }
        Ok(series)
    }
}

impl Governor {
    /// A governor that tells `registry` what it does. `calls_max` bounds calls whatever the configuration
    /// of the moment says.
    pub fn new(registry: &Registry, calls_max: usize) -> Result<Self, prometheus::Error> {
        Ok(Self(Arc::new(State {
            pressure: AtomicU8::new(0),
            share: AtomicU32::new(0),
            rest: AtomicU64::new(0),
            turns: Default::default(),
            late: AtomicU64::new(0),
            // Nothing is late that has not begun.
            due: AtomicU64::new(u64::MAX),
            pause: AtomicU64::new(micros(PAUSE)),
            holders: Arc::default(),
            calls_max,
            series: Series::new(registry)?,
        })))
    }

    /// Takes note of the memory in use and its limit, in bytes. Returns what they permit if that has changed.
    pub fn set_memory(&self, used: u64, limit: u64) -> Option<Pressure> {
        let gauge = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.series.memory.set(gauge(used));
        self.0.series.memory_limit.set(gauge(limit));
        let before = self.pressure();
        let now = before.next(used, limit);
        self.0.pressure.store(number(now), Ordering::Relaxed);
        (now != before).then_some(now)
    }

    fn pressure(&self) -> Pressure {
        match self.0.pressure.load(Ordering::Relaxed) {
            0 => Pressure::Normal,
            1 => Pressure::Shedding,
            _ => Pressure::Refusing,
        }
    }

    /// Whether memory permits no further connection.
    pub(crate) fn refuses_connections(&self) -> bool {
        self.pressure() == Pressure::Refusing
    }

    /// Whether there is room for a call, as far as can be told before it is known whose it is. What models
    /// there are is always told.
    pub(crate) fn look(&self, endpoint: Endpoint) -> Result<(), Shed> {
        match (self.pressure(), endpoint) {
            (Pressure::Normal, _) | (_, Endpoint::Models) => Ok(()),
            (Pressure::Shedding | Pressure::Refusing, _) => Err(Shed::Memory),
        }
    }

    /// Whether there may be a call when there are `calls` with it.
    pub(crate) fn check_calls(&self, calls: usize, calls_max: usize) -> Result<(), Shed> {
        if calls > calls_max.min(self.0.calls_max) { Err(Shed::Calls) } else { Ok(()) }
    }

    /// A place for a call of `key`, the last of `calls`; or why there is none.
    pub(crate) fn place(
        &self,
        key: KeyId,
        (calls, calls_max): (usize, usize),
    ) -> Result<Held, Shed> {
        let held = Holders::enter(&self.0.holders, key);
        let before = held.count().saturating_sub(1);
        let calls_max = calls_max.min(self.0.calls_max);
        if !share::may_begin(before, calls.saturating_sub(1), calls_max) {
            return Err(Shed::KeyShare);
        }
        match self.0.share.load(Ordering::Relaxed) {
            0 => Ok(held),
            share if self.is_turned_away(share, before) => Err(Shed::Lag),
            _ => Ok(held),
        }
    }

    /// Picks evenly as many of a thousand as there have to be.
    fn is_turned_away(&self, share: u32, held: usize) -> bool {
        let holders = &self.0.holders;
        let others = holders.calls().saturating_sub(1);
        let heavy = share::is_heavy(held, holders.keys(), others);
        let share = share::of_key(share, heavy);
        let [of_heavy, of_light] = &self.0.turns;
        let turn = if heavy { of_heavy } else { of_light };
        let before = turn.fetch_add(share, Ordering::Relaxed);
        before.checked_rem(ALL).unwrap_or(0).saturating_add(share) >= ALL
    }

    /// Counts a call that was turned away.
    pub(crate) fn count(&self, why: Shed) {
        let place = Shed::ALL.iter().position(|one| *one == why);
        if let Some(counter) = place.and_then(|place| self.0.series.shed.get(place)) {
            counter.inc();
        }
    }

    /// Returns when a connection may be read again on which a call was turned away.
    pub(crate) async fn rest(&self) {
        let rest = self.0.rest.load(Ordering::Relaxed);
        if rest > 0 {
            tokio::time::sleep(Duration::from_micros(rest)).await;
        }
    }

    /// Tells again and again how late the runtime is that this runs on: that of the calls. Never returns.
    pub async fn beat(self) {
        loop {
            let pause = Duration::from_micros(self.0.pause.load(Ordering::Relaxed));
            let due = clock::tick().plus(pause);
            self.0.due.store(due.0, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            self.0.late.store(micros(clock::tick().since(due)), Ordering::Relaxed);
        }
    }

    /// Draws conclusions from the beats: new calls are to find the runtime at most `target` late. To be run
    /// on another runtime than the beats. Never returns.
    pub async fn watch(self, target: Duration) {
        let mut lag = Lag::new(target);
        loop {
            let pause = if lag.is_shedding() { PAUSE_SHEDDING } else { PAUSE };
            self.0.pause.store(micros(pause), Ordering::Relaxed);
            tokio::time::sleep(pause).await;
            let was = lag.is_shedding();
            let (seen, now) = (self.lag(), clock::tick());
            let share = lag.observe(seen, now);
            self.0.share.store(share, Ordering::Relaxed);
            self.0.rest.store(micros(lag::rest(seen, target)), Ordering::Relaxed);
            self.0.series.lag.set(seen.as_secs_f64());
            self.0.series.share.set(f64::from(share) / f64::from(ALL));
            if lag.is_shedding() && !was {
                tracing::warn!("the threads do not keep up: calls are turned away");
            } else if was && !lag.is_shedding() {
                tracing::info!("the threads keep up again");
            }
        }
    }

    fn lag(&self) -> Duration {
        let late = Duration::from_micros(self.0.late.load(Ordering::Relaxed));
        lag::estimate(late, Tick(self.0.due.load(Ordering::Relaxed)), clock::tick())
    }
}

const fn number(pressure: Pressure) -> u8 {
    match pressure {
        Pressure::Normal => 0,
        Pressure::Shedding => 1,
        Pressure::Refusing => 2,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
