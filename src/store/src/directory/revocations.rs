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
const CLOCK_SLACK: Duration = Duration::from_secs(5);

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
