//! Whether a target takes calls: closed, open, half-open, and beside that a cooldown while its limit is
//! used up. Time and chance are arguments.

use std::time::Duration;

use crate::routing::{Blame, Failure, Standing};
use crate::time::Tick;

#[cfg(test)]
mod tests;

/// Failures in a row that close off a target which has done well before.
pub const IN_A_ROW_MAX: u32 = 5;
/// The same for a target that has done nothing well since it was made, or was last off: it has no
/// credit.
pub const COLD_IN_A_ROW_MAX: u32 = 3;
/// How far back the rate of failures looks.
pub const WINDOW_SECONDS: usize = 10;
/// Fewer results in the window say nothing about a rate.
pub const RATE_RESULTS_MIN: u32 = 20;
/// Failures among a thousand results that close off a target.
pub const RATE_PERMILLE_MAX: u32 = 500;
/// First time off: a restart of a provider's process takes no longer.
pub const OFF_FIRST: Duration = Duration::from_secs(5);
/// Longest time off. With its jitter, and a trial before it that said nothing for as long as it may be
/// alone, traffic still returns within 30 s of a recovery.
pub const OFF_MAX: Duration = Duration::from_secs(15);
/// First time off after our credential was refused: a new one has to be put in place by somebody.
pub const BENCH_FIRST: Duration = Duration::from_secs(30);
/// Longest time off after our credential was refused.
pub const BENCH_MAX: Duration = Duration::from_mins(5);
/// Cooldown after a 429 that does not say how long.
pub const COOL_DEFAULT: Duration = Duration::from_secs(1);
/// Longest cooldown, whatever a provider says: limits are mostly by the minute.
pub const COOL_MAX: Duration = Duration::from_mins(1);
/// Times off are this much longer by chance, so that many edges do not come back at once.
const JITTER_PERMILLE: u64 = 200;
/// A target that stays well for so long begins again with the first time off.
const STEADY: Duration = Duration::from_secs(30);
/// A trial is alone for so long. If it has said nothing by then another one may go: a call that hangs
/// because it began before a recovery must not keep traffic away for its whole deadline. Whichever
/// speaks first decides.
pub const TRIAL_MAX: Duration = Duration::from_secs(10);
/// What [`OFF_MAX`] and [`TRIAL_MAX`] promise; two seconds are left for the calls themselves.
const _: () = {
    let off_max = OFF_MAX.as_secs() * (1_000 + JITTER_PERMILLE) / 1_000;
    assert!(off_max + TRIAL_MAX.as_secs() <= 28);
};
/// When to ask again about a target whose trial is under way.
const TRIAL_LEFT: Duration = Duration::from_secs(1);

/// One target's breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    state: State,
    window: Window,
    /// Counts the changes of state: what began under another one says nothing about this.
    epoch: u64,
    /// Times off in a row because of failures, and because of our credential.
    trips: u32,
    benches: u32,
    cool_until: Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It takes calls.
    Closed { since: Tick, in_a_row: u32, proven: bool },
    /// It takes none until then.
    Open { until: Tick },
    /// It takes one to show that it is well; `trial` tells since when that one is under way.
    HalfOpen { trial: Option<Tick> },
}

/// Leave for one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    epoch: u64,
    /// Since when it is the target's trial, if it is one.
    trial: Option<Tick>,
}

impl Permit {
    /// Whether the attempt is the target's trial.
    pub const fn is_probe(&self) -> bool {
        self.trial.is_some()
    }
}

/// What a result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It failed too often and is off for so long.
    Opened(Duration),
    /// Our credential was refused; it is off for so long.
    Benched(Duration),
    /// Its limit is used up for so long.
    Cooled(Duration),
    /// It has shown that it is well.
    Closed,
}

impl Change {
    /// The stable word for logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Opened(_) => "opened",
            Self::Benched(_) => "benched",
            Self::Cooled(_) => "cooled",
            Self::Closed => "closed",
        }
    }

    /// How long the target is off from now on; zero if it takes calls again.
    pub const fn off(&self) -> Duration {
        match self {
            Self::Opened(off) | Self::Benched(off) | Self::Cooled(off) => *off,
            Self::Closed => Duration::ZERO,
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed { since: Tick(0), in_a_row: 0, proven: false },
            window: Window::default(),
            epoch: 0,
            trips: 0,
            benches: 0,
            cool_until: Tick(0),
        }
    }
}

impl Breaker {
    /// Whether calls are taken now.
    pub fn standing(&self, now: Tick) -> Standing {
        let cooling = self.cool_until.since(now);
        match self.state {
            State::Open { until } if until > now => Standing::Open { left: until.since(now) },
            State::HalfOpen { trial: Some(since) } if now.since(since) < TRIAL_MAX => {
                Standing::Open { left: TRIAL_LEFT }
            }
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. }
                if !cooling.is_zero() =>
            {
                Standing::Cooling { left: cooling }
            }
            State::Closed { .. } => Standing::Closed,
            State::Open { .. } | State::HalfOpen { .. } => Standing::HalfOpen,
        }
    }

    /// Leave for one attempt; `None` if no call is taken now. Of a target that is half-open, one call
    /// at a time has it, until it tells how it went or [`TRIAL_MAX`] has passed.
    pub fn admit(&mut self, now: Tick) -> Option<Permit> {
        match self.standing(now) {
            Standing::Closed => Some(Permit { epoch: self.epoch, trial: None }),
            Standing::HalfOpen => {
                let trial = State::HalfOpen { trial: Some(now) };
                match self.state {
                    // Trials that follow each other are of one epoch: any of them decides.
                    State::HalfOpen { .. } => self.state = trial,
                    State::Closed { .. } | State::Open { .. } => self.change(trial),
                }
                Some(Permit { epoch: self.epoch, trial: Some(now) })
            }
            Standing::Open { .. } | Standing::Cooling { .. } => None,
        }
    }

    /// The attempt did what it should.
    pub fn succeeded(&mut self, permit: Permit, now: Tick) -> Option<Change> {
        if permit.epoch != self.epoch {
            return None;
        }
        match &mut self.state {
            State::Closed { since, in_a_row, proven } => {
                *in_a_row = 0;
                *proven = true;
                if now.since(*since) >= STEADY {
                    (self.trips, self.benches) = (0, 0);
                }
                self.window.add(now, true);
                None
            }
            State::HalfOpen { .. } => {
                self.window = Window::default();
                self.change(State::Closed { since: now, in_a_row: 0, proven: true });
                Some(Change::Closed)
            }
            State::Open { .. } => None,
        }
    }

    /// The attempt did not do. Who is to blame decides what that means; `retry_after` is what the
    /// target said, `chance` uniformly random.
    pub fn failed(
        &mut self,
        permit: Permit,
        failure: Failure,
        retry_after: Option<Duration>,
        (now, chance): (Tick, u64),
    ) -> Option<Change> {
        match failure.blame() {
            Blame::Caller => {
                self.abandoned(permit, now);
                None
            }
            Blame::Limit => {
                self.abandoned(permit, now);
                let off = retry_after.unwrap_or(COOL_DEFAULT).min(COOL_MAX);
                let until = now.plus(off);
                let longer = until > self.cool_until;
                self.cool_until = self.cool_until.max(until);
                longer.then_some(Change::Cooled(off))
            }
            Blame::Credential | Blame::Target if permit.epoch != self.epoch => None,
            Blame::Credential => {
                let off = stretch(doubled(BENCH_FIRST, self.benches, BENCH_MAX), chance);
                self.benches = self.benches.saturating_add(1);
                self.change(State::Open { until: now.plus(off) });
                Some(Change::Benched(off))
            }
            Blame::Target => self.count_failure(now, chance),
        }
    }

    fn count_failure(&mut self, now: Tick, chance: u64) -> Option<Change> {
        let trips = match &mut self.state {
            State::Closed { in_a_row, proven, .. } => {
                *in_a_row = in_a_row.saturating_add(1);
                let bound = if *proven { IN_A_ROW_MAX } else { COLD_IN_A_ROW_MAX };
                let often = *in_a_row >= bound;
                self.window.add(now, false);
                let (good, bad) = self.window.totals(now);
                let all = good.saturating_add(bad);
                often || all >= RATE_RESULTS_MIN && permille(bad, all) >= RATE_PERMILLE_MAX
            }
            State::HalfOpen { .. } => true,
            State::Open { .. } => false,
        };
        if !trips {
            return None;
        }
        let off = stretch(doubled(OFF_FIRST, self.trips, OFF_MAX), chance);
        self.trips = self.trips.saturating_add(1);
        self.change(State::Open { until: now.plus(off) });
        Some(Change::Opened(off))
    }

    /// The attempt has ended without a word about the target: if it was the trial, another one may go.
    pub fn abandoned(&mut self, permit: Permit, _now: Tick) {
        match &mut self.state {
            State::HalfOpen { trial } if *trial == permit.trial => *trial = None,
            State::Closed { .. } | State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// Failures among a thousand results of late.
    pub fn failing_permille(&self, now: Tick) -> u32 {
        let (good, bad) = self.window.totals(now);
        permille(bad, good.saturating_add(bad))
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.epoch = self.epoch.saturating_add(1);
    }
}

/// `first`, doubled so often, at most `max`.
fn doubled(first: Duration, times: u32, max: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX)).min(max)
}

/// Longer by chance, by up to [`JITTER_PERMILLE`].
fn stretch(time: Duration, chance: u64) -> Duration {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let share = chance.checked_rem(JITTER_PERMILLE.saturating_add(1)).unwrap_or_default();
    let more = micros.saturating_mul(share).checked_div(1_000).unwrap_or_default();
    time.saturating_add(Duration::from_micros(more))
}

fn permille(part: u32, all: u32) -> u32 {
    u64::from(part)
        .saturating_mul(1_000)
        .checked_div(u64::from(all))
        .and_then(|share| u32::try_from(share).ok())
        .unwrap_or_default()
}

/// Results of the last seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Window([Second; WINDOW_SECONDS]);

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    good: u32,
    bad: u32,
}

impl Window {
    fn add(&mut self, now: Tick, good: bool) {
        let number = second(now);
        let length = u64::try_from(WINDOW_SECONDS).unwrap_or(1);
        let place = number.checked_rem(length).and_then(|place| usize::try_from(place).ok());
        let Some(second) = place.and_then(|place| self.0.get_mut(place)) else { return };
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        let count = if good { &mut second.good } else { &mut second.bad };
        *count = count.saturating_add(1);
    }

    fn totals(&self, now: Tick) -> (u32, u32) {
        let length = u64::try_from(WINDOW_SECONDS).unwrap_or(1);
        let recent = |one: &&Second| second(now).saturating_sub(one.number) < length;
        self.0.iter().filter(recent).fold((0_u32, 0_u32), |(good, bad), one| {
            (good.saturating_add(one.good), bad.saturating_add(one.bad))
        })
    }
}

const fn second(now: Tick) -> u64 {
    now.0 / 1_000_000
}
