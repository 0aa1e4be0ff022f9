//! How many calls each key has under way, in a table of fixed size: keys that fall on the same place count
//! as one (stochastic fairness queueing, RFC 8290 section 1.2). Where they fall nobody can foresee.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use tokenroute_domain::id::KeyId;

/// Places of the table. With a hundred keys at work, one in forty shares its place.
const PLACES: usize = 4_096;

/// The table.
#[derive(Debug)]
pub(crate) struct Holders {
    places: Box<[AtomicU32]>,
    /// Places that are not empty.
    keys: AtomicUsize,
    calls: AtomicUsize,
    hasher: RandomState,
}

impl Default for Holders {
    fn default() -> Self {
        let places = std::iter::repeat_with(AtomicU32::default).take(PLACES).collect();
        let (keys, calls) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { places, keys, calls, hasher: RandomState::new() }
    }
}

impl Holders {
    /// Counts a call of `key` until what is returned is dropped.
    pub(crate) fn enter(holders: &Arc<Self>, key: KeyId) -> Held {
        let hash = usize::try_from(holders.hasher.hash_one(key)).unwrap_or_default();
        let place = hash % PLACES;
        let before = holders.place(place).map_or(0, |calls| calls.fetch_add(1, Ordering::Relaxed));
        if before == 0 {
            holders.keys.fetch_add(1, Ordering::Relaxed);
        }
        holders.calls.fetch_add(1, Ordering::Relaxed);
        let count = usize::try_from(before).unwrap_or(usize::MAX).saturating_add(1);
        Held { holders: Arc::clone(holders), place, count }
    }

    fn place(&self, place: usize) -> Option<&AtomicU32> {
        self.places.get(place)
    }

    /// Keys that have calls under way.
    pub(crate) fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Calls of all keys.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

/// A call of a key.
#[derive(Debug)]
#[must_use = "a call is counted as long as this is kept"]
pub(crate) struct Held {
    holders: Arc<Holders>,
    place: usize,
    count: usize,
}

impl Held {
    /// Calls of its key when it was counted, with it.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let place = self.holders.place(self.place);
        if place.is_some_and(|calls| calls.fetch_sub(1, Ordering::Relaxed) == 1) {
            self.holders.keys.fetch_sub(1, Ordering::Relaxed);
        }
        self.holders.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokenroute_domain::time::Timestamp;

    use super::*;

    fn key(chance: u128) -> KeyId {
        KeyId::new(Timestamp(1_000), chance)
    }

    #[test]
    fn a_key_is_there_from_its_first_call_to_its_last() {
        let holders = Arc::new(Holders::default());
        let (one, two) = (Holders::enter(&holders, key(1)), Holders::enter(&holders, key(1)));
        assert_eq!((one.count(), two.count()), (1, 2));
        assert_eq!((holders.keys(), holders.calls()), (1, 2));
        drop(one);
        assert_eq!((holders.keys(), holders.calls()), (1, 1));
        drop(two);
        assert_eq!((holders.keys(), holders.calls()), (0, 0));
        assert_eq!(Holders::enter(&holders, key(1)).count(), 1);
    }

    #[test]
    fn most_keys_have_a_place_of_their_own() {
        let holders = Arc::new(Holders::default());
        let held: Vec<_> = (0..100).map(|chance| Holders::enter(&holders, key(chance))).collect();
        let alone = held.iter().filter(|one| one.count() == 1).count();
        assert!(alone > 80 && holders.keys() == alone, "{alone}");
        assert_eq!(holders.calls(), 100);
    }
}
