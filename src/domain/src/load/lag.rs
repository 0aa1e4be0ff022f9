//! Whether the threads keep up, by how late they do what was due at a certain time.
//!
//! A thread with more to do than it can is late with everything. Late for an instant is nothing: a burst
//! is worked off. Late for [`STANDS`] without a break means a standing queue (the distinction is
//! `CoDel`'s, RFC 8289), and then a share of the new calls is turned away that grows with the lag. It
//! follows the lag of the moment: what is learned slowly comes too late for calls of a millisecond, and
//! long streams change slowly by themselves.

use std::time::Duration;

use super::share::ALL;
use crate::time::Tick;

/// How long a lag has to last to be more than a burst.
pub const STANDS: Duration = Duration::from_millis(100);
/// How long the threads have to keep up before it is over.
const CALM: Duration = Duration::from_secs(1);
/// Calls are turned away from this part of the target on, and all of them at the target.
const BEGINS: u32 = 4;

/// What is known of the threads' lag. Times are arguments.
#[derive(Clone, Debug)]
pub struct Lag {
    target: Duration,
    sheds: bool,
    /// Since when it has been above the target, or while calls are shed, below where that begins.
    since: Option<Tick>,
}

impl Lag {
    /// New calls are to find the threads at most `target` late; zero: whatever they find.
    pub const fn new(target: Duration) -> Self {
        Self { target, sheds: false, since: None }
    }

    /// Whether calls are shed, or may be at any moment.
    pub const fn is_shedding(&self) -> bool {
        self.sheds
    }

    /// Takes note of a lag and tells how many of a thousand new calls are to be turned away.
    pub fn observe(&mut self, lag: Duration, now: Tick) -> u32 {
        if self.target.is_zero() {
            return 0;
        }
        let begins = self.target / BEGINS;
        // While calls are shed it is looked for the end of that, else for its beginning.
        let (turns, stands) =
            if self.sheds { (lag < begins, CALM) } else { (lag >= self.target, STANDS) };
        if !turns {
            self.since = None;
        } else if now.since(*self.since.get_or_insert(now)) >= stands {
            self.since = None;
            self.sheds = !self.sheds;
        }
        if !self.sheds {
            return 0;
        }
        let (beyond, range) = (lag.saturating_sub(begins), self.target.saturating_sub(begins));
        let share = beyond.as_micros().saturating_mul(u128::from(ALL)) / range.as_micros().max(1);
        u32::try_from(share).unwrap_or(ALL).min(ALL)
    }
}

/// Connections rest on which a call was turned away when the lag is so many times the target: all are turned
/// away then, and that does not help.
const REST_FROM: u32 = 2;
/// So many times what the lag is above that.
const REST_TIMES: u32 = 50;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(500);

/// How long nothing is read of a connection on which a call was just turned away. To say no is work too: those
/// who ask again at once, against what they were told, could keep the threads busy with nothing else. None
/// as long as the threads cope.
pub fn rest(lag: Duration, target: Duration) -> Duration {
    if target.is_zero() {
        return Duration::ZERO;
    }
    lag.saturating_sub(target.saturating_mul(REST_FROM)).saturating_mul(REST_TIMES).min(REST_MAX)
}

/// How late a thread is that was `late` with what it did last, and was or is to do the next at `due`.
pub fn estimate(late: Duration, due: Tick, now: Tick) -> Duration {
    late.max(now.since(due))
}

#[cfg(test)]
mod tests;
