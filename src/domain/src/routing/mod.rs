//! Which target is tried next: the rule, without the doing.

use std::time::Duration;

mod choice;
mod failure;
mod places;
mod policy;
mod rules;
#[cfg(test)]
mod tests;

pub use failure::{Blame, Failure, Why};
pub use policy::{Affinity, Balance, Hedge, OnBreak, Patience, Policy};
pub use rules::{continuation, hedge, next, within_budget};

/// Most targets of a route that the rules can tell apart.
pub const TARGETS_MAX: usize = 64;

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
    /// How long of that it has waited because a step said so.
    pub waited: Duration,
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
        /// Until it may be asked again; `Duration::MAX`: nobody knows.
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

impl Walk<'_> {
    /// How often a target has seen the request, as far as is known.
    fn tries(&self, place: usize) -> usize {
        let seen = |tried: &&Tried| tried.place == place && tried.failure != Failure::Stale;
        self.tried.iter().filter(seen).count()
    }

    /// Whether the attempt was the first to meet a stale connection of its target: those are free.
    fn is_free(&self, index: usize, attempt: &Tried) -> bool {
        let same = |tried: &Tried| tried.place == attempt.place && tried.failure == Failure::Stale;
        same(attempt) && !self.tried.iter().take(index).any(same)
    }

    /// The attempts that count.
    fn attempts(&self) -> u32 {
        let tried = self.tried.iter().enumerate();
        let counted = tried.filter(|(index, tried)| !self.is_free(*index, tried)).count();
        u32::try_from(counted).unwrap_or(u32::MAX)
    }
}
