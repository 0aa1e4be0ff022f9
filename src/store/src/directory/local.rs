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

    /// Forgets every hash of no key but those that `stays` knows to be none.
    pub(super) fn forget_unknown(&self, stays: impl Fn(&KeyHash) -> bool) {
        self.unknown.retain(|hash, _since| stays(hash));
    }

    pub(super) fn forget(&self, hash: &KeyHash) {
        self.known.remove(hash);
        self.unknown.remove(hash);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokenroute_domain::id::{AccountId, KeyId};
    use tokenroute_domain::key::{ApiKey, Funding};

    use super::*;

    const T0: Timestamp = Timestamp(1_800_000_000_000_000);
    const HASH: KeyHash = KeyHash([1; 32]);

    fn key() -> SharedKey {
        Arc::new(ApiKey {
            id: KeyId::new(T0, 1),
            account: AccountId::new(T0, 2),
            funding: Funding::Unmetered,
            expires: None,
            terms: Arc::default(),
        })
    }

    fn after(seconds: u64) -> Timestamp {
        T0.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_key_is_fresh_then_stale_then_nothing() {
        let local = Local::new(&DirectoryOptions::default());
        assert_eq!(local.recall(&HASH, T0), Memory::Nothing);
        local.keep(HASH, key(), T0);
        for (seconds, memory) in [
            (0, Memory::Fresh(key())),
            (29, Memory::Fresh(key())),
            (30, Memory::Stale(key())),
            (299, Memory::Stale(key())),
            (300, Memory::Nothing),
        ] {
            assert_eq!(local.recall(&HASH, after(seconds)), memory, "{seconds}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_leaves_no_key_fresh_and_no_hash_unknown() {
        let local = Local::new(&DirectoryOptions::default());
        local.keep(HASH, key(), after(100));
        assert_eq!(local.recall(&HASH, after(96)), Memory::Fresh(key()), "clocks differ a little");
        assert_eq!(local.recall(&HASH, T0), Memory::Stale(key()));
        local.keep_unknown(HASH, after(100));
        assert_eq!(local.recall(&HASH, T0), Memory::Nothing);
    }

    #[test]
    fn a_hash_is_known_or_unknown_and_never_both() {
        let local = Local::new(&DirectoryOptions::default());
        local.keep(HASH, key(), T0);
        local.keep_unknown(HASH, T0);
        assert_eq!(local.recall(&HASH, T0), Memory::Unknown);
        assert_eq!(local.recall(&HASH, after(30)), Memory::Nothing);
        local.keep(HASH, key(), T0);
        assert_eq!(local.recall(&HASH, T0), Memory::Fresh(key()));
        local.forget(&HASH);
        assert_eq!(local.recall(&HASH, T0), Memory::Nothing);
    }

    #[test]
    fn a_flood_of_unknown_hashes_is_bounded_and_drives_out_no_key() {
        let options = DirectoryOptions { unknown_max: 100, ..DirectoryOptions::default() };
        let local = Local::new(&options);
        local.keep(HASH, key(), T0);
        for number in 0..10_000_u32 {
            let mut other = [2; 32];
            other[..4].copy_from_slice(&number.to_be_bytes());
            local.keep_unknown(KeyHash(other), T0);
        }
        assert!(local.unknown.len() <= 100);
        assert_eq!(local.recall(&HASH, T0), Memory::Fresh(key()));
    }
}
