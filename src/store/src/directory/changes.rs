//! The keys that were made or changed lately, so that an older value in Redis is not taken for what they may
//! do now. No waits, no I/O.

use std::collections::HashMap;
use std::time::Duration;

use tokenroute_domain::key::KeyHash;
use tokenroute_domain::time::Timestamp;

use super::revocations::CLOCK_SLACK;

/// How long a change is remembered: longer than a cached key lives.
const REMEMBERED: Duration = Duration::from_secs(40);
/// How many are remembered.
const CHANGED_MAX: usize = 65_536;

/// Recent changes, and when they were seen.
#[derive(Debug, Default)]
pub(super) struct Changes(HashMap<KeyHash, Timestamp>);

impl Changes {
    /// Remembers a change. `false` if there are too many: then nothing older than now may be believed.
    pub(super) fn insert(&mut self, hash: KeyHash, now: Timestamp) -> bool {
        if self.0.len() >= CHANGED_MAX {
            self.0.retain(|_, seen| now.since(*seen) < REMEMBERED);
        }
        let room = self.0.len() < CHANGED_MAX || self.0.contains_key(&hash);
        if room {
            self.0.insert(hash, now);
        }
        room
    }

    /// Whether what another edge confirmed at `confirmed` may be from before a change.
    pub(super) fn doubts(&self, hash: &KeyHash, confirmed: Timestamp) -> bool {
        self.0.get(hash).is_some_and(|seen| confirmed < seen.plus(CLOCK_SLACK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_800_000_000_000_000);

    fn hash(number: usize) -> KeyHash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        KeyHash(hash)
    }

    #[test]
    fn what_was_confirmed_before_a_change_is_doubted() {
        let mut changes = Changes::default();
        assert!(changes.insert(hash(1), T0));
        assert!(changes.doubts(&hash(1), T0) && !changes.doubts(&hash(2), T0));
        assert!(!changes.doubts(&hash(1), T0.plus(CLOCK_SLACK)));
        assert!(changes.insert(hash(1), T0.plus(REMEMBERED)), "changed again");
        assert!(changes.doubts(&hash(1), T0.plus(REMEMBERED)));
    }

    #[test]
    fn a_flood_is_told_and_room_is_made_by_time() {
        let mut changes = Changes::default();
        assert!((0..CHANGED_MAX).all(|number| changes.insert(hash(number), T0)));
        assert!(!changes.insert(hash(CHANGED_MAX), T0) && changes.insert(hash(0), T0));
        assert!(changes.insert(hash(CHANGED_MAX), T0.plus(REMEMBERED)));
        assert_eq!(changes.0.len(), 1);
    }
}
