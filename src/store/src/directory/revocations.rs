//! The keys that were revoked lately, so that an old value in Redis or a look-up that was already
//! under way cannot bring one back. No waits, no I/O.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokenroute_domain::key::KeyHash;
use tokenroute_domain::time::Timestamp;

/// How long a revocation is remembered: many times the life of a cached key.
pub(super) const REMEMBERED: Duration = Duration::from_mins(10);
/// How many are remembered.
pub(super) const REVOKED_MAX: usize = 65_536;
/// How far the clocks of two edges may be apart.
pub(super) const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// Recent revocations, and from when on a confirmation by another edge can be believed.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    since: HashMap<KeyHash, Timestamp>,
    order: VecDeque<(Timestamp, KeyHash)>,
    /// `None` until the recent revocations have been read: a cold edge believes no cached key.
    believed_from: Option<Timestamp>,
}

impl Revocations {
    pub(super) fn contains(&self, hash: &KeyHash) -> bool {
        self.since.contains_key(hash)
    }

    /// Whether a key that another edge confirmed at `confirmed` cannot have been revoked unnoticed.
    pub(super) fn believes(&self, confirmed: Timestamp) -> bool {
        self.believed_from.is_some_and(|from| confirmed >= from)
    }

    /// Remembers a revocation. When too many come at once, the oldest is forgotten at the price of
    /// believing only what is confirmed from now on.
    pub(super) fn insert(&mut self, hash: KeyHash, now: Timestamp) {
        if self.since.contains_key(&hash) {
            return;
        }
        self.prune(now);
        if self.order.len() >= REVOKED_MAX
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.since.remove(&oldest);
            self.doubt_before(now);
        }
        self.since.insert(hash, now);
        self.order.push_back((now, hash));
    }

    /// The recent revocations have all been read.
    pub(super) fn complete(&mut self) {
        self.believed_from.get_or_insert(Timestamp(0));
    }

    /// Not all recent revocations could be read: believe only what is confirmed from `now` on.
    pub(super) fn doubt_before(&mut self, now: Timestamp) {
        self.believed_from = self.believed_from.max(Some(now.plus(CLOCK_SLACK)));
    }

    /// The latest revocations, at most `limit`.
    pub(super) fn latest(&self, limit: usize) -> Vec<KeyHash> {
        self.order.iter().rev().take(limit).map(|(_, hash)| *hash).collect()
    }

    fn prune(&mut self, now: Timestamp) {
        while let Some((since, hash)) = self.order.front().copied() {
            if now.since(since) < REMEMBERED {
                break;
            }
            self.order.pop_front();
            self.since.remove(&hash);
        }
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
    fn a_cold_edge_believes_nothing_and_one_that_has_caught_up_everything() {
        let mut revocations = Revocations::default();
        assert!(!revocations.believes(Timestamp(u64::MAX)));
        revocations.complete();
        assert!(revocations.believes(Timestamp(0)));
    }

    #[test]
    fn an_edge_that_could_not_read_all_believes_what_is_confirmed_from_then_on() {
        let mut revocations = Revocations::default();
        revocations.doubt_before(T0);
        revocations.complete();
        assert!(!revocations.believes(T0));
        assert!(revocations.believes(T0.plus(CLOCK_SLACK)));
    }

    #[test]
    fn what_was_revoked_is_remembered_for_its_time_and_then_makes_room() {
        let mut revocations = Revocations::default();
        revocations.insert(hash(1), T0);
        revocations.insert(hash(1), T0.plus(REMEMBERED / 2));
        revocations.insert(hash(2), T0.plus(REMEMBERED / 2));
        assert_eq!(revocations.latest(5), [hash(2), hash(1)]);
        assert_eq!(revocations.latest(1), [hash(2)]);
        revocations.insert(hash(3), T0.plus(REMEMBERED));
        assert!(!revocations.contains(&hash(1)));
        assert!(revocations.contains(&hash(2)) && revocations.contains(&hash(3)));
    }

    #[test]
    fn a_flood_forgets_the_oldest_and_doubts_what_was_confirmed_before() {
        let mut revocations = Revocations::default();
        revocations.complete();
        (0..REVOKED_MAX).for_each(|number| revocations.insert(hash(number), T0));
        assert!(revocations.believes(T0));
        revocations.insert(hash(REVOKED_MAX), T0);
        assert!(!revocations.believes(T0), "hash 0 could come back by an old value");
        assert!(!revocations.contains(&hash(0)) && revocations.contains(&hash(REVOKED_MAX)));
        assert_eq!(revocations.since.len(), REVOKED_MAX);
        assert_eq!(revocations.order.len(), REVOKED_MAX);
    }
}
