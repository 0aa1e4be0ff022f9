//! Keeps look-ups from waiting for a database that has just failed, one after the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokenroute_domain::time::Timestamp;

/// How long a failed store is left alone before one look-up tries it again.
const PAUSE: Duration = Duration::from_secs(1);

/// Closed (0), or open until a time in microseconds. At that time one look-up may try.
#[derive(Debug, Default)]
pub(super) struct Circuit(AtomicU64);

impl Circuit {
    /// Whether the store has failed lately and should be left alone.
    pub(super) fn is_open(&self, now: Timestamp) -> bool {
        pausing(Timestamp(self.0.load(Ordering::Acquire)), now)
    }

    /// Whether the caller may try: everyone while closed, one a pause while open.
    pub(super) fn try_pass(&self, now: Timestamp) -> bool {
        let until = self.0.load(Ordering::Acquire);
        if until == 0 {
            return true;
        }
        let next = now.plus(PAUSE).micros();
        !pausing(Timestamp(until), now)
            && self.0.compare_exchange(until, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(super) fn open(&self, now: Timestamp) {
        self.0.store(now.plus(PAUSE).micros(), Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// A clock that was set back must not keep the circuit open for longer than a pause.
fn pausing(until: Timestamp, now: Timestamp) -> bool {
    now < until && until.since(now) <= PAUSE
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_800_000_000_000_000);

    #[test]
    fn lets_one_try_a_pause_while_open() {
        let circuit = Circuit::default();
        assert!(circuit.try_pass(T0) && circuit.try_pass(T0));
        circuit.open(T0);
        assert!(circuit.is_open(T0) && !circuit.try_pass(T0));
        let later = T0.plus(PAUSE);
        assert!(circuit.try_pass(later), "the first one tries");
        assert!(!circuit.try_pass(later), "the second one does not");
        assert!(circuit.is_open(later), "the try is not over");
        circuit.close();
        assert!(!circuit.is_open(later) && circuit.try_pass(later));
    }

    #[test]
    fn a_clock_set_back_does_not_hold_it_open() {
        let circuit = Circuit::default();
        circuit.open(T0.plus(Duration::from_hours(1)));
        assert!(!circuit.is_open(T0) && circuit.try_pass(T0));
    }
}
