//! The rules of a call's way from target to target.

use std::time::Duration;

use super::choice::{mix, pick};
use super::places::Places;
use super::{Failure, OnBreak, Outlook, Standing, Step, TARGETS_MAX, Tried, Walk, Why};
use crate::catalog::{Route, Target};

/// Before a target that has failed is tried again, give or take a half by chance: long enough for a
/// balancer to send the call to another of its servers, too short for a person to notice.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(100);
/// A wait that a target has asked for is longer by up to one part in so many by chance, so that the
/// calls that wait for it do not come back together.
const WAIT_SPREAD: u64 = 10;

/// The next step of a call on a route whose targets stand as `look` says.
///
/// A target that takes no calls is tried only if there is no other, and then only after the wait
/// that it has asked for. What cannot be sent again is not tried again, and no more is tried than the
/// route's policy allows; a stale connection, which nobody read from, does not count.
pub fn next(route: &Route, walk: &Walk<'_>, look: &dyn Fn(usize) -> Outlook) -> Step {
    let scene = Scene::new(route, walk, look);
    let Some(last) = walk.tried.last() else { return scene.first() };
    if !walk.replayable {
        return scene.give_up(last);
    }
    if scene.reconnects(last) {
        let (place, why) = (last.place, Why::Reconnect);
        return Step::Try { place, pooled: false, wait: Duration::ZERO, why };
    }
    if !within_budget(route, walk) {
        return scene.give_up(last);
    }
    let step = match remedy(last.failure) {
        Remedy::None => None,
        Remedy::Larger => {
            scene.fallback(scene.untried().only(|place| scene.is_larger(place, last)))
        }
        Remedy::Another | Remedy::Again => scene.fallback(scene.untried()).or_else(|| scene.wait()),
    };
    step.unwrap_or_else(|| scene.give_up(last))
}

/// A second target for a call whose `first` is late: another one that is well. It is an attempt like
/// others; `None` also if the policy allows no more of them.
pub fn hedge(
    route: &Route,
    walk: &Walk<'_>,
    first: usize,
    look: &dyn Fn(usize) -> Outlook,
) -> Option<usize> {
    // The first is under way and so not among those that were tried.
    let attempts = walk.attempts().saturating_add(1);
    if !walk.replayable || attempts >= route.policy.attempts_max {
        return None;
    }
    let scene = Scene::new(route, walk, look);
    let well = scene.closed.minus(scene.hinted).minus(scene.tried).without(first);
    scene.choose(well).map(|(place, _)| place)
}

/// The target that goes on with an answer which broke off: one that has not been tried in this call
/// and takes calls. `None` if there is none, or the policy has it end in an error or allows no more
/// attempts.
pub fn continuation(
    route: &Route,
    walk: &Walk<'_>,
    look: &dyn Fn(usize) -> Outlook,
) -> Option<usize> {
    match route.policy.on_break {
        OnBreak::Error => return None,
        OnBreak::Continue => {}
    }
    if !walk.replayable || !within_budget(route, walk) {
        return None;
    }
    let scene = Scene::new(route, walk, look);
    let untried = scene.untried();
    // A client is reading: this is no time for a trial if another target is well.
    let chosen = scene.choose(untried.and(scene.closed)).or_else(|| scene.choose(untried));
    chosen.map(|(place, _)| place)
}

/// Whether a call may make one more attempt by the route's policy.
pub fn within_budget(route: &Route, walk: &Walk<'_>) -> bool {
    walk.attempts() < route.policy.attempts_max && walk.elapsed <= route.policy.attempts_within
}

/// What helps against a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// Nothing: the client is to know.
    None,
    /// A target that holds more.
    Larger,
    /// Another target.
    Another,
    /// Another target, or if there is none the same again.
    Again,
}

const fn remedy(failure: Failure) -> Remedy {
    match failure {
        Failure::Request | Failure::ContentPolicy | Failure::Diverged => Remedy::None,
        Failure::ContextLength => Remedy::Larger,
        // A connection that broke may have been a server's that went down; another may be up.
        Failure::RateLimited
        | Failure::Server
        | Failure::ErrorEvent
        | Failure::Reset
        | Failure::Cut => Remedy::Again,
        Failure::Resolve
        | Failure::Connect
        | Failure::Stale
        | Failure::HeadTimeout
        | Failure::FirstTokenTimeout
        | Failure::Protocol
        | Failure::Credential
        | Failure::Redirect
        | Failure::Stall
        | Failure::Garbage => Remedy::Another,
    }
}

/// What a decision is made of: a route, a call's way so far, and how its targets stand, each of which
/// has been looked at once.
pub(super) struct Scene<'a> {
    pub(super) route: &'a Route,
    pub(super) walk: &'a Walk<'a>,
    pub(super) look: &'a dyn Fn(usize) -> Outlook,
    closed: Places,
    half_open: Places,
    cooling: Places,
    hinted: Places,
    tried: Places,
}

impl<'a> Scene<'a> {
    fn new(route: &'a Route, walk: &'a Walk<'a>, look: &'a dyn Fn(usize) -> Outlook) -> Self {
        let none = Places::default();
        let tried = walk.tried.iter().map(|tried| tried.place).collect();
        let mut scene = Self {
            route,
            walk,
            look,
            closed: none,
            half_open: none,
            cooling: none,
            hinted: none,
            tried,
        };
        for place in 0..route.targets.len().min(TARGETS_MAX) {
            let outlook = look(place);
            let set = match outlook.standing {
                Standing::Closed => &mut scene.closed,
                Standing::HalfOpen => &mut scene.half_open,
                Standing::Cooling { .. } => &mut scene.cooling,
                Standing::Open { .. } => continue,
            };
            *set = set.with(place);
            if outlook.hinted {
                scene.hinted = scene.hinted.with(place);
            }
        }
        scene
    }

    pub(super) fn target(&self, place: usize) -> Option<&'a Target> {
        self.route.targets.get(place)
    }

    /// Those that take calls.
    const fn taking(&self) -> Places {
        self.closed.or(self.half_open)
    }

    /// Those that take calls and have not been tried.
    const fn untried(&self) -> Places {
        self.taking().minus(self.tried)
    }

    /// The first attempt of a call.
    fn first(&self) -> Step {
        match self.choose(self.taking()) {
            Some((place, why)) => Step::now(place, why),
            None => self.wait().unwrap_or_else(|| self.unavailable()),
        }
    }

    /// Whether the last attempt met a stale connection for the first time at its target, which takes
    /// the call still.
    fn reconnects(&self, last: &Tried) -> bool {
        let index = self.walk.tried.len().saturating_sub(1);
        self.walk.is_free(index, last)
            && self.taking().has(last.place)
            && self.walk.elapsed <= self.route.policy.attempts_within
    }

    fn is_larger(&self, place: usize, last: &Tried) -> bool {
        let tokens = |place: usize| self.target(place).and_then(|target| target.context_tokens);
        tokens(place).is_some_and(|larger| larger > tokens(last.place).unwrap_or_default())
    }

    /// One of a set of other targets, at once.
    fn fallback(&self, set: Places) -> Option<Step> {
        let (place, drawn) = self.choose(set)?;
        let why = if drawn == Why::Probe { Why::Probe } else { Why::Fallback };
        Some(Step::now(place, why))
    }

    /// No target takes the call at once: the one that may be tried soonest, if that is soon enough.
    /// It is one whose limit is used up for a moment, or one that has failed and may do better now.
    fn wait(&self) -> Option<Step> {
        let last = self.walk.tried.last().map(|last| last.place);
        let fresh = self.cooling.minus(self.tried).iter();
        let fresh = fresh.filter_map(|place| Some((self.until(self.left(place)?)?, place)));
        let again = self.tried.iter().filter_map(|place| Some((self.again(place)?, place)));
        let in_time = |wait: Duration| {
            self.walk.elapsed.saturating_add(wait) <= self.route.policy.attempts_within
        };
        let (wait, place) = fresh
            .chain(again)
            .filter(|(wait, _)| in_time(*wait))
            .min_by_key(|(wait, place)| (*wait, Some(*place) != last))?;
        let why = match (self.tried.has(place), last) {
            (true, _) => Why::Retry,
            (false, Some(_)) => Why::Fallback,
            (false, None) => Why::Chosen,
        };
        Some(Step::Try { place, pooled: true, wait, why })
    }

    /// The wait before a target that has failed is tried again; `None` if it is not to be. One that
    /// says when to come back may be tried more often than once: it is not at fault.
    fn again(&self, place: usize) -> Option<Duration> {
        let newest = self.walk.tried.iter().rev().find(|tried| tried.place == place)?;
        let told = newest.retry_after.max(self.left(place));
        let limited = newest.failure == Failure::RateLimited && newest.retry_after.is_some();
        let once = limited || self.walk.tries(place) == 1;
        let takes = self.taking().or(self.cooling).has(place);
        if !self.walk.may_retry || !once || !takes || remedy(newest.failure) != Remedy::Again {
            return None;
        }
        told.map_or_else(|| Some(jittered(self.walk.chance)), |told| self.until(told))
    }

    /// A wait that a target has asked for, a little longer by chance, and never so short that calls
    /// which wait for it come again and again; `None` if it is longer than the call may wait still.
    fn until(&self, wait: Duration) -> Option<Duration> {
        let max = self.route.policy.wait_max.checked_sub(self.walk.waited)?;
        let spread = micros(wait).checked_div(WAIT_SPREAD).unwrap_or_default();
        let more = mix(self.walk.chance, 2).checked_rem(spread.saturating_add(1))?;
        let spread = wait.saturating_add(Duration::from_micros(more)).min(max);
        (wait <= max).then(|| spread.max(jittered(self.walk.chance)))
    }

    /// How long a target takes no calls; `None` if it takes them, or nobody knows.
    fn left(&self, place: usize) -> Option<Duration> {
        match (self.look)(place).standing {
            Standing::Open { left } | Standing::Cooling { left } => {
                (left != Duration::MAX).then_some(left)
            }
            Standing::Closed | Standing::HalfOpen => None,
        }
    }

    /// The last failure is the answer. Waiting helps only against a target's fault, and is not needed
    /// where the budget alone has kept the call from a target that takes it.
    fn give_up(&self, last: &Tried) -> Step {
        match remedy(last.failure) {
            Remedy::None | Remedy::Larger => Step::GiveUp { retry_after: None },
            Remedy::Another | Remedy::Again if !self.untried().is_empty() => {
                Step::GiveUp { retry_after: None }
            }
            Remedy::Another | Remedy::Again => self.unavailable(),
        }
    }

    /// No target takes the call: the soonest that one has said to, or may.
    fn unavailable(&self) -> Step {
        let told = self.walk.tried.iter().filter_map(|tried| tried.retry_after);
        let places = 0..self.route.targets.len().min(TARGETS_MAX);
        let left = places.filter_map(|place| self.left(place));
        Step::GiveUp { retry_after: told.chain(left).min() }
    }

    /// One of the places that fit. What other edges say to be off comes last, and before that the
    /// lowest rank comes first; a target without weight only if there is no other.
    fn choose(&self, fit: Places) -> Option<(usize, Why)> {
        let weighs = |place: usize| self.target(place).is_some_and(|target| target.weight > 0);
        let rank = |place: usize| self.target(place).map_or(u32::MAX, |target| target.rank);
        let heavy = fit.only(weighs);
        let classes = [heavy.minus(self.hinted), heavy, fit.minus(self.hinted), fit];
        let class = classes.into_iter().find(|class| !class.is_empty())?;
        let lowest = class.iter().map(rank).min()?;
        let set = class.only(|place| rank(place) == lowest);
        // A target on trial gets its one call, or traffic would never return to it.
        if let Some(place) = set.and(self.half_open).first() {
            return Some((place, Why::Probe));
        }
        let (place, drawn) = pick(self, set)?;
        let is_first = |target: &&Target| target.weight > 0 && target.rank < lowest;
        let passed_over = self.route.targets.iter().find(is_first).is_some();
        Some((place, if passed_over { Why::Fallback } else { drawn }))
    }
}

/// A short wait, so that retries do not come together.
fn jittered(chance: u64) -> Duration {
    let whole = micros(RETRY_AFTER);
    let more = chance.checked_rem(whole.saturating_add(1)).unwrap_or_default();
    Duration::from_micros((whole / 2).saturating_add(more))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
