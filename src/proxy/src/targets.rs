//! How each target stands on this edge: its breaker, what is under way there, how fast it speaks.
//! Outlives snapshots, so a reload forgets nothing of a target that has stayed the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokenroute_domain::breaker::{Breaker, Change, Permit};
use tokenroute_domain::hedge::Latencies;
use tokenroute_domain::routing::{Blame, Failure, Outlook, Standing};
use tokenroute_domain::time::Tick;
use tokio::sync::mpsc;

use crate::clock;
use crate::metrics::{Metrics, TargetMetrics};

/// Changes that wait to be told to other edges; more are dropped, as they are only hints.
const CHANGES_MAX: usize = 256;
/// Names that a wildcard has been filled in with and that stand for themselves; further ones share the
/// wildcard's own standing.
const FILLED_MAX: usize = 512;
/// Repeats on the same target that are always allowed, however few calls are in flight.
const REPEATS_MIN: usize = 3;
/// Of the calls in flight, one in so many may be repeating on the same target.
const REPEATS_SHARE: usize = 5;

/// Every target's standing, by its configured name.
#[derive(Clone, Debug)]
pub struct Targets(Arc<All>);

#[derive(Debug)]
struct All {
    known: Mutex<HashMap<Arc<str>, Arc<Target>>>,
    repeats: AtomicUsize,
    metrics: Metrics,
    changes: mpsc::Sender<Changed>,
}

/// A target went off, or is well again; for the other edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which one.
    pub target: Arc<str>,
    /// For how long it is off; zero: it is well.
    pub off: Duration,
}

/// One target's standing.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: Arc<str>,
    /// Tells whether it still is the same place with the same credential.
    identity: u64,
    breaker: Mutex<Breaker>,
    latencies: Mutex<Latencies>,
    outstanding: AtomicU32,
    /// Until when another edge says that it is off.
    hinted: AtomicU64,
    /// Until when its trial is kept for a probe.
    reserved: AtomicU64,
    last_failure: Mutex<Option<Failure>>,
    /// What its wildcard was filled in with: models of one provider have limits and faults of their
    /// own. They share its series.
    filled: Mutex<HashMap<Arc<str>, Arc<Self>>>,
    metrics: TargetMetrics,
    changes: mpsc::Sender<Changed>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Targets {
    /// No target yet, and where their changes are told.
    pub fn new(metrics: &Metrics) -> (Self, mpsc::Receiver<Changed>) {
        let (changes, told) = mpsc::channel(CHANGES_MAX);
        let all = All {
            known: Mutex::default(),
            repeats: AtomicUsize::new(0),
            metrics: metrics.clone(),
            changes,
        };
        (Self(Arc::new(all)), told)
    }

    /// The targets of a snapshot. One that is known keeps its standing, unless its place or its
    /// credential has changed; one that is named no more is forgotten.
    pub(crate) fn assign(&self, names: &[(Arc<str>, u64)]) -> Vec<Arc<Target>> {
        let mut known = lock(&self.0.known);
        let before = std::mem::take(&mut *known);
        let mut assigned = Vec::with_capacity(names.len());
        for (name, identity) in names {
            let same = before.get(name).filter(|target| target.identity == *identity);
            let target = same.map_or_else(|| self.fresh(name, *identity), Arc::clone);
            known.insert(Arc::clone(name), Arc::clone(&target));
            assigned.push(target);
        }
        for gone in before.keys().filter(|name| !known.contains_key(*name)) {
            self.0.metrics.forget_target(gone);
        }
        assigned
    }

    fn fresh(&self, name: &Arc<str>, identity: u64) -> Arc<Target> {
        let metrics = self.0.metrics.target(name);
        Arc::new(Target::new(name, identity, metrics, self.0.changes.clone()))
    }

    /// What another edge says of a target: a hint, never a veto.
    pub fn hint(&self, name: &str, off: Duration) {
        let known = lock(&self.0.known);
        let provider = name.split('/').next().unwrap_or_default();
        let wildcard = format!("{provider}/*");
        let filled = || Some(known.get(wildcard.as_str())?.named(&Arc::from(name)));
        if let Some(target) = known.get(name).map(Arc::clone).or_else(filled) {
            target.hinted.store(clock::tick().plus(off).0, Ordering::Relaxed);
        }
    }

    /// Whether one more call may repeat on the target that has just failed it, with `calls` in
    /// flight on this edge. Trying another target needs no leave.
    pub(crate) fn may_repeat(&self, calls: usize) -> bool {
        self.0.repeats.load(Ordering::Relaxed) < (calls / REPEATS_SHARE).max(REPEATS_MIN)
    }

    /// Counts a repeat until it is dropped.
    pub(crate) fn repeat(&self) -> Repeat {
        self.0.repeats.fetch_add(1, Ordering::Relaxed);
        Repeat(Arc::clone(&self.0))
    }
}

/// One call that repeats on the same target.
#[derive(Debug)]
pub(crate) struct Repeat(Arc<All>);

impl Drop for Repeat {
    fn drop(&mut self) {
        self.0.repeats.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Target {
    fn new(
        name: &Arc<str>,
        identity: u64,
        metrics: TargetMetrics,
        changes: mpsc::Sender<Changed>,
    ) -> Self {
        Self {
            name: Arc::clone(name),
            identity,
            breaker: Mutex::default(),
            latencies: Mutex::default(),
            outstanding: AtomicU32::new(0),
            hinted: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            last_failure: Mutex::default(),
            filled: Mutex::default(),
            metrics,
            changes,
        }
    }

    /// The standing of a name that this target's wildcard is filled in with.
    pub(crate) fn named(self: &Arc<Self>, name: &Arc<str>) -> Arc<Self> {
        if *name == self.name {
            return Arc::clone(self);
        }
        let mut filled = lock(&self.filled);
        if let Some(known) = filled.get(name) {
            return Arc::clone(known);
        }
        if filled.len() >= FILLED_MAX {
            let now = clock::tick();
            filled.retain(|_, target| target.is_remarkable(now));
        }
        if filled.len() >= FILLED_MAX {
            return Arc::clone(self);
        }
        let (metrics, changes) = (self.metrics.clone(), self.changes.clone());
        let fresh = Arc::new(Self::new(name, self.identity, metrics, changes));
        filled.insert(Arc::clone(name), Arc::clone(&fresh));
        fresh
    }

    /// It, and every name that its wildcard was filled in with.
    pub(crate) fn all(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let filled = lock(&self.filled);
        std::iter::once(self).chain(filled.values()).map(Arc::clone).collect()
    }

    /// The names that its wildcard was filled in with and that are worth telling of.
    pub(crate) fn remarkable(&self) -> Vec<Arc<Self>> {
        let now = clock::tick();
        let filled = lock(&self.filled);
        filled.values().filter(|target| target.is_remarkable(now)).map(Arc::clone).collect()
    }

    /// Whether anything about it differs from a target that nobody has asked yet.
    fn is_remarkable(&self, now: Tick) -> bool {
        let breaker = lock(&self.breaker);
        breaker.standing(now) != Standing::Closed
            || breaker.failing_permille(now) > 0
            || self.outstanding.load(Ordering::Relaxed) > 0
    }

    /// What is known of it now.
    pub(crate) fn outlook(&self) -> Outlook {
        self.outlook_at(clock::tick())
    }

    fn outlook_at(&self, now: Tick) -> Outlook {
        let (standing, failing_permille) = {
            let breaker = lock(&self.breaker);
            (breaker.standing(now), breaker.failing_permille(now))
        };
        let reserved = Tick(self.reserved.load(Ordering::Relaxed));
        let standing = match standing {
            Standing::HalfOpen if reserved > now => Standing::Open { left: reserved.since(now) },
            Standing::HalfOpen
            | Standing::Closed
            | Standing::Open { .. }
            | Standing::Cooling { .. } => standing,
        };
        Outlook {
            standing,
            hinted: self.hinted.load(Ordering::Relaxed) > now.0,
            outstanding: self.outstanding.load(Ordering::Relaxed),
            latency_micros: lock(&self.latencies).mean_micros(),
            failing_permille,
        }
    }

    /// Tells the metric how it stands now: of a wildcard, the worst of what it was filled in with.
    pub(crate) fn tell_state(&self) {
        let now = clock::tick();
        let own = state_number(lock(&self.breaker).standing(now));
        let filled = lock(&self.filled);
        let others = filled.values().map(|one| state_number(lock(&one.breaker).standing(now)));
        self.metrics.state.set(others.fold(own, i64::max));
    }

    /// How it stands for a probe. One that is off keeps its trial for the probe, for `reserve` after its
    /// time is up.
    pub(crate) fn standing_for_probe(&self, reserve: Duration, now: Tick) -> Standing {
        let standing = lock(&self.breaker).standing(now);
        if let Standing::Open { left } = standing {
            self.reserved.store(now.plus(left).plus(reserve).0, Ordering::Relaxed);
        }
        standing
    }

    /// The failure that was met last, if there was one.
    pub(crate) fn last_failure(&self) -> Option<Failure> {
        *lock(&self.last_failure)
    }

    /// Attempts and failures so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.metrics.attempts.get(), self.metrics.failures.get())
    }

    /// How long to wait for its first token before a second target is asked.
    pub(crate) fn late_after(&self, body_bytes: u64, quantile_permille: u32) -> Option<Duration> {
        lock(&self.latencies).quantile(body_bytes, quantile_permille)
    }

    /// Leave for one attempt; `None` if it was taken by others in the meantime.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Ticket> {
        let ticket = self.ticket(false)?;
        self.metrics.attempts.inc();
        Some(ticket)
    }

    /// Leave for one probe, which is no call's attempt.
    pub(crate) fn admit_probe(self: &Arc<Self>) -> Option<Ticket> {
        self.ticket(true)
    }

    fn ticket(self: &Arc<Self>, probes: bool) -> Option<Ticket> {
        let permit = lock(&self.breaker).admit(clock::tick())?;
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Some(Ticket { target: Arc::clone(self), permit: Some(permit), probes })
    }

    fn note(&self, change: Option<Change>, failure: Option<Failure>) {
        let Some(change) = change else { return };
        let reason = failure.map(Failure::as_str);
        tracing::info!(target = &*self.name, change = change.as_str(), reason, "target");
        // Full: nobody listens, or cannot keep up; other edges find out by themselves.
        let changed = Changed { target: Arc::clone(&self.name), off: change.off() };
        let _told = self.changes.try_send(changed);
    }
}

/// A target's standing as the metric tells it: 0 takes calls, 1 is on trial, 2 cools down, 3 is off.
const fn state_number(standing: Standing) -> i64 {
    match standing {
        Standing::Closed => 0,
        Standing::HalfOpen => 1,
        Standing::Cooling { .. } => 2,
        Standing::Open { .. } => 3,
    }
}

/// Leave for one attempt at a target. Dropped without a word, it says nothing about the target.
#[derive(Debug)]
pub(crate) struct Ticket {
    target: Arc<Target>,
    permit: Option<Permit>,
    probes: bool,
}

impl Ticket {
    /// Whether the target was off, and this attempt decides whether it stays so.
    pub(crate) fn is_trial(&self) -> bool {
        self.permit.is_some_and(|permit| permit.is_probe())
    }

    /// The first semantic token came so long after the request had been sent.
    pub(crate) fn spoke(&mut self, body_bytes: u64, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        lock(&self.target.latencies).observe(body_bytes, micros);
        // A trial is passed by speaking; other attempts by coming to their end.
        if self.is_trial() {
            self.succeeded();
            // What happens to the rest of the answer counts as for any other attempt.
            self.permit = lock(&self.target.breaker).admit(clock::tick());
        }
    }

    /// The attempt did what it should.
    pub(crate) fn succeeded(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let change = lock(&self.target.breaker).succeeded(permit, clock::tick());
        self.target.note(change, None);
    }

    /// The attempt did not do.
    pub(crate) fn failed(&mut self, failure: Failure, retry_after: Option<Duration>) {
        let target = &self.target;
        // Probes have counters of their own, but a credential that is refused is everybody's business.
        let counts = !self.probes || failure == Failure::Credential;
        if failure.blame() != Blame::Caller {
            *lock(&target.last_failure) = Some(failure);
        }
        if failure.blame() != Blame::Caller && counts {
            target.metrics.failed(failure);
        }
        let Some(permit) = self.permit.take() else { return };
        let draw = (clock::tick(), clock::chance_bits());
        let change = lock(&target.breaker).failed(permit, failure, retry_after, draw);
        target.note(change, Some(failure));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.target.outstanding.fetch_sub(1, Ordering::Relaxed);
        if let Some(permit) = self.permit.take() {
            lock(&self.target.breaker).abandoned(permit, clock::tick());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: Duration = Duration::from_secs(1);

    fn target() -> (Metrics, Arc<Target>) {
        let metrics = Metrics::new().unwrap();
        let (targets, _) = Targets::new(&metrics);
        let assigned = targets.assign(&[(Arc::from("box/*"), 0)]);
        (metrics, Arc::clone(&assigned[0]))
    }

    /// Fails until it takes no more calls. Returns when that will be over.
    fn close_off(target: &Arc<Target>) -> Tick {
        while let Some(mut ticket) = target.admit() {
            ticket.failed(Failure::Server, None);
        }
        let now = clock::tick();
        let Standing::Open { left } = target.outlook_at(now).standing else {
            panic!("it is not off")
        };
        now.plus(left)
    }

    #[test]
    fn the_trial_of_a_target_that_is_looked_after_is_kept_for_a_probe() {
        let (_metrics, target) = target();
        let over = close_off(&target);
        let standing = |after: Duration| target.outlook_at(over.plus(after)).standing;
        assert_eq!(standing(Duration::ZERO), Standing::HalfOpen);
        let seen = target.standing_for_probe(RESERVE, clock::tick());
        assert!(matches!(seen, Standing::Open { .. }));
        assert!(matches!(standing(Duration::ZERO), Standing::Open { left } if left <= RESERVE));
        assert_eq!(target.standing_for_probe(RESERVE, over), Standing::HalfOpen);
        // A probe that comes too late is not waited for.
        assert_eq!(standing(RESERVE), Standing::HalfOpen);
    }

    #[test]
    fn a_probe_tells_of_all_that_a_wildcard_was_filled_in_with_and_is_no_attempt() {
        let (_metrics, target) = target();
        let filled = ["box/a", "box/b"].map(|name| target.named(&Arc::from(name)));
        let all = target.all();
        assert_eq!(all.len(), 3);
        assert!(filled.iter().all(|one| all.iter().any(|other| Arc::ptr_eq(one, other))));
        for _ in 0..2 {
            let tickets: Vec<_> = all.iter().filter_map(Target::admit_probe).collect();
            assert_eq!(tickets.len(), 3);
            for mut ticket in tickets {
                ticket.failed(Failure::Connect, None);
            }
        }
        assert_eq!(target.counts(), (0, 0));
        assert_eq!(filled[0].last_failure(), Some(Failure::Connect));
        target.admit_probe().unwrap().failed(Failure::Credential, None);
        assert_eq!(target.counts(), (0, 1));
    }
}
