//! Which target is tried next: the rule, without the doing.

use std::time::Duration;

mod choice;
mod failure;
mod policy;
#[cfg(test)]
mod tests;

pub use failure::{Blame, Failure, Why};
pub use policy::{Affinity, Balance, Hedge, OnBreak, Patience, Policy};

use crate::catalog::{Route, Target};
use choice::{Places, pick, soonest};

/// Most targets of a route that the rules can tell apart.
pub const TARGETS_MAX: usize = 64;
/// Before a target that has failed is tried again, give or take a half by chance.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// An attempt of a call that did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Which of the route's targets.
    pub place: usize,
    /// Why it did not do.
    pub failure: Failure,
    /// How long the target said to wait.
    pub retry_after: Option<Duration>,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// Its attempts so far, in order.
    pub tried: &'a [Tried],
    /// Whether the request can be sent again from its first byte.
    pub replayable: bool,
    /// How long the call has been looking for a target.
    pub elapsed: Duration,
    /// Whether the edge has room for one more repeat on the same target.
    pub may_retry: bool,
    /// What calls with the same beginning have in common.
    pub key: Option<u64>,
    /// Uniformly random, and another for each decision.
    pub chance: u64,
}

/// Whether a target takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Closed,
    /// It was off, and takes one call to show that it is well.
    HalfOpen,
    /// It takes none for so long, or its one call is under way.
    Open {
        /// Until it may be asked again.
        left: Duration,
    },
    /// Its limit is used up for so long.
    Cooling {
        /// Until it may be asked again.
        left: Duration,
    },
}

/// What is known of a target now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Whether it takes calls.
    pub standing: Standing,
    /// Another edge says that it is off. A hint, never a veto.
    pub hinted: bool,
    /// Attempts under way there.
    pub outstanding: u32,
    /// Mean time to its first token, in microseconds; 0 if nothing is known.
    pub latency_micros: u64,
    /// Failures among a thousand attempts of late.
    pub failing_permille: u32,
}

impl Outlook {
    /// Whether it takes a call now.
    pub const fn takes_calls(&self) -> bool {
        matches!(self.standing, Standing::Closed | Standing::HalfOpen)
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try a target.
    Try {
        /// Which of the route's targets.
        place: usize,
        /// Whether a pooled connection may be used.
        pooled: bool,
        /// How long to wait before.
        wait: Duration,
        /// Why it is its turn.
        why: Why,
    },
    /// No target is left; the last failure is the answer.
    GiveUp {
        /// The soonest that one may take calls again, as far as is known.
        retry_after: Option<Duration>,
    },
}

impl Step {
    const fn now(place: usize, why: Why) -> Self {
        Self::Try { place, pooled: true, wait: Duration::ZERO, why }
    }
}

/// What the rules look at: a route, a call's way so far, and how its targets stand.
#[derive(Clone, Copy)]
struct Scene<'a> {
    route: &'a Route,
    walk: &'a Walk<'a>,
    look: &'a dyn Fn(usize) -> Outlook,
}

/// The next step of a call on a route whose targets stand as `look` says.
///
/// A target that takes no calls is tried only if there is no other, and then only after the wait
/// that it has asked for. What cannot be sent again is not tried again, and no more is tried than the
/// route's policy allows; a stale connection, which nobody read from, does not count.
pub fn next(route: &Route, walk: &Walk<'_>, look: &dyn Fn(usize) -> Outlook) -> Step {
    let scene = Scene { route, walk, look };
    let Some(last) = walk.tried.last() else { return scene.first() };
    if !walk.replayable {
        return scene.give_up();
    }
    if last.failure == Failure::Stale && walk.failures(last.place, Failure::Stale) == 1 {
        return Step::Try {
            place: last.place,
            pooled: false,
            wait: Duration::ZERO,
            why: Why::Reconnect,
        };
    }
    if !scene.within_budget() {
        return scene.give_up();
    }
    match last.failure {
        Failure::Request | Failure::ContentPolicy | Failure::Diverged => scene.give_up(),
        Failure::ContextLength => {
            let size = |place: usize| scene.target(place).and_then(|target| target.context_tokens);
            let failed = size(last.place).unwrap_or_default();
            scene.other(&|place| size(place).is_some_and(|tokens| tokens > failed))
        }
        Failure::RateLimited => scene.other_or(|| scene.after_limit(last)),
        // A connection that broke may have been a server's that went down; another may be up.
        Failure::Server | Failure::ErrorEvent | Failure::Reset | Failure::Cut => {
            scene.other_or(|| scene.once_more(last))
        }
        Failure::Resolve
        | Failure::Connect
        | Failure::Stale
        | Failure::HeadTimeout
        | Failure::FirstTokenTimeout
        | Failure::Protocol
        | Failure::Credential
        | Failure::Redirect
        | Failure::Stall
        | Failure::Garbage => scene.other(&|_| true),
    }
}

/// A second target for a call whose `first` is late: another one that is well.
pub fn hedge(
    route: &Route,
    walk: &Walk<'_>,
    first: usize,
    look: &dyn Fn(usize) -> Outlook,
) -> Option<usize> {
    let scene = Scene { route, walk, look };
    let well = |place| {
        let outlook = look(place);
        outlook.standing == Standing::Closed && !outlook.hinted
    };
    scene.choose(&|place| place != first && well(place)).map(|(place, _)| place)
}

/// The target that goes on with an answer which broke off: one that has not been tried in this call
/// and takes calls. `None` if there is none, or the policy allows no more attempts.
pub fn continuation(
    route: &Route,
    walk: &Walk<'_>,
    look: &dyn Fn(usize) -> Outlook,
) -> Option<usize> {
    let scene = Scene { route, walk, look };
    if !walk.replayable || !scene.within_budget() {
        return None;
    }
    scene
        .choose(&|place| !walk.has_tried(place) && look(place).takes_calls())
        .map(|(place, _)| place)
}

/// Whether a call may make one more attempt by the route's policy.
pub fn within_budget(route: &Route, walk: &Walk<'_>) -> bool {
    walk.attempts() < route.policy.attempts_max && walk.elapsed <= route.policy.attempts_within
}

impl Walk<'_> {
    fn has_tried(&self, place: usize) -> bool {
        self.tried.iter().any(|tried| tried.place == place)
    }

    fn failures(&self, place: usize, failure: Failure) -> usize {
        let same = |tried: &&Tried| tried.place == place && tried.failure == failure;
        self.tried.iter().filter(same).count()
    }

    /// Attempts that count: all but the first stale connection of each target.
    fn attempts(&self) -> u32 {
        let before = |index: usize, place: usize| {
            let stale = |tried: &&Tried| tried.place == place && tried.failure == Failure::Stale;
            self.tried.iter().take(index).any(|tried| stale(&tried))
        };
        let counts = |(index, tried): &(usize, &Tried)| {
            tried.failure != Failure::Stale || before(*index, tried.place)
        };
        u32::try_from(self.tried.iter().enumerate().filter(counts).count()).unwrap_or(u32::MAX)
    }
}

impl<'a> Scene<'a> {
    fn target(&self, place: usize) -> Option<&'a Target> {
        self.route.targets.get(place)
    }

    fn places(&self) -> std::ops::Range<usize> {
        0..self.route.targets.len().min(TARGETS_MAX)
    }

    fn within_budget(&self) -> bool {
        within_budget(self.route, self.walk)
    }

    /// The first attempt of a call.
    fn first(&self) -> Step {
        if let Some((place, why)) = self.choose(&|place| (self.look)(place).takes_calls()) {
            return Step::now(place, why);
        }
        let cooling = |place: usize| match (self.look)(place).standing {
            Standing::Cooling { left } => Some((left, place)),
            Standing::Closed | Standing::HalfOpen | Standing::Open { .. } => None,
        };
        let first = self.places().filter_map(cooling).min();
        match first.filter(|(left, _)| *left <= self.route.policy.wait_max) {
            Some((wait, place)) => Step::Try { place, pooled: true, wait, why: Why::Chosen },
            None => self.give_up(),
        }
    }

    /// Another target that may do, or nothing.
    fn other(&self, may: &dyn Fn(usize) -> bool) -> Step {
        self.another(may).unwrap_or_else(|| self.give_up())
    }

    fn other_or(&self, or: impl FnOnce() -> Step) -> Step {
        self.another(&|_| true).unwrap_or_else(or)
    }

    fn another(&self, may: &dyn Fn(usize) -> bool) -> Option<Step> {
        let fit =
            |place| may(place) && !self.walk.has_tried(place) && (self.look)(place).takes_calls();
        let (place, why) = self.choose(&fit)?;
        let why = if why == Why::Probe { Why::Probe } else { Why::Fallback };
        Some(Step::now(place, why))
    }

    /// The same target again, when its limit lets it: it is the only one left.
    fn after_limit(&self, last: &Tried) -> Step {
        let told = last.retry_after.or(match (self.look)(last.place).standing {
            Standing::Cooling { left } => Some(left),
            Standing::Closed | Standing::HalfOpen | Standing::Open { .. } => None,
        });
        let again = self.walk.may_retry
            && (last.retry_after.is_some()
                || self.walk.failures(last.place, Failure::RateLimited) == 1);
        let wait = told.unwrap_or_else(|| jittered(self.walk.chance));
        let cooling = match (self.look)(last.place).standing {
            Standing::Cooling { left } => left,
            Standing::Closed | Standing::HalfOpen => Duration::ZERO,
            Standing::Open { .. } => return self.give_up(),
        };
        let wait = wait.max(cooling);
        if again && wait <= self.route.policy.wait_max {
            Step::Try { place: last.place, pooled: true, wait, why: Why::Retry }
        } else {
            self.give_up()
        }
    }

    /// The same target once more after a moment: it is the only one left.
    fn once_more(&self, last: &Tried) -> Step {
        let before = |tried: &&Tried| tried.place == last.place && tried.failure != Failure::Stale;
        let once = self.walk.tried.iter().filter(before).count() == 1;
        let wait = last.retry_after.unwrap_or_else(|| jittered(self.walk.chance));
        let takes = (self.look)(last.place).takes_calls();
        if once && takes && self.walk.may_retry && wait <= self.route.policy.wait_max {
            Step::Try { place: last.place, pooled: true, wait, why: Why::Retry }
        } else {
            self.give_up()
        }
    }

    fn give_up(&self) -> Step {
        let left = |place: usize| match (self.look)(place).standing {
            Standing::Open { left } | Standing::Cooling { left } => Some(left),
            Standing::Closed | Standing::HalfOpen => None,
        };
        Step::GiveUp { retry_after: soonest(self.places().filter_map(left)) }
    }

    /// One of the places that fit. What other edges say to be off comes last, and before that the
    /// lowest rank comes first; a target without weight only if there is no other.
    fn choose(&self, fit: &dyn Fn(usize) -> bool) -> Option<(usize, Why)> {
        let fitting = Places::of(self.places().filter(|place| fit(*place)));
        if fitting.is_empty() {
            return None;
        }
        let weighs = |place: usize| self.target(place).is_some_and(|target| target.weight > 0);
        let hinted = |place: usize| (self.look)(place).hinted;
        let classes: [&dyn Fn(usize) -> bool; 3] =
            [&|place| weighs(place) && !hinted(place), &weighs, &|_| true];
        let class =
            classes.into_iter().map(|class| fitting.only(class)).find(|set| !set.is_empty())?;
        let rank = |place: usize| self.target(place).map_or(u32::MAX, |target| target.rank);
        let lowest = class.iter().map(rank).min()?;
        let set = class.only(&|place| rank(place) == lowest);
        // A target on trial gets its one call, or traffic would never return to it.
        let trial = set.iter().find(|place| (self.look)(*place).standing == Standing::HalfOpen);
        if let Some(place) = trial {
            return Some((place, Why::Probe));
        }
        let (place, drawn) = pick(self, set)?;
        let first = self.places().filter(|place| weighs(*place)).map(rank).min();
        let why = if first.is_some_and(|first| lowest > first) { Why::Fallback } else { drawn };
        Some((place, why))
    }
}

/// A short wait, so that retries do not come together.
fn jittered(chance: u64) -> Duration {
    let micros = u64::try_from(RETRY_AFTER.as_micros()).unwrap_or(u64::MAX);
    let more = chance.checked_rem(micros.max(1)).unwrap_or_default();
    Duration::from_micros((micros / 2).saturating_add(more))
}
