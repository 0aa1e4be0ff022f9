//! What this process remembers of keys, and for how long it may be believed. No waits, no I/O.

use std::time::Duration;

use quick_cache::sync::Cache;
use tokenroute_domain::key::{KeyHash, SharedKey};
use tokenroute_domain::time::Timestamp;

use super::DirectoryOptions;

/// How far in the future a confirmation may lie before the clock is taken to have been set back.
const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// What is remembered of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// A key, confirmed lately.
    Fresh(SharedKey),
    /// A key, confirmed too long ago to be used without asking, but good enough for an outage.
    Stale(SharedKey),
    /// Nobody's, as of lately.
    Unknown,
    /// Nothing that may be used.
    Nothing,
}

/// Keys and hashes of no key, each bounded, so that a flood of one never drives out the other.
#[derive(Debug)]
pub(super) struct Local {
    known: Cache<KeyHash, (SharedKey, Timestamp)>,
    unknown: Cache<KeyHash, Timestamp>,
    fresh: Duration,
    stale: Duration,
    unknown_for: Duration,
}

impl Local {
    pub(super) fn new(options: &DirectoryOptions) -> Self {
        Self {
            known: Cache::new(options.known_max),
            unknown: Cache::new(options.unknown_max),
            fresh: options.fresh,
            stale: options.stale,
            unknown_for: options.unknown,
        }
    }

    pub(super) fn recall(&self, hash: &KeyHash, now: Timestamp) -> Memory {
        if let Some((key, confirmed)) = self.known.get(hash) {
            let age = now.since(confirmed);
            let set_back = confirmed > now.plus(CLOCK_SLACK);
            return match age {
                _ if age >= self.stale => Memory::Nothing,
                _ if age >= self.fresh || set_back => Memory::Stale(key),
                _ => Memory::Fresh(key),
            };
        }
        match self.unknown.get(hash) {
            Some(since)
                if now.since(since) < self.unknown_for && since <= now.plus(CLOCK_SLACK) =>
            {
                Memory::Unknown
            }
            Some(_) | None => Memory::Nothing,
        }
    }

    pub(super) fn keep(&self, hash: KeyHash, key: SharedKey, confirmed: Timestamp) {
        self.unknown.remove(&hash);
        self.known.insert(hash, (key, confirmed));
    }

    pub(super) fn keep_unknown(&self, hash: KeyHash, now: Timestamp) {
        self.known.remove(&hash);
        self.unknown.insert(hash, now);
    }

    pub(super) fn forget(&self, hash: &KeyHash) {
        self.known.remove(hash);
        self.unknown.remove(hash);
    }
}
