//! Whose calls are turned away first: those of who has most of them under way.
//!
//! Two rules, both without a table of who wants what. Where calls are counted, a key may hold as many as
//! a multiple of those that are still free (the dynamic threshold of shared buffers, Choudhury and Hahne,
//! 1998): one key alone gets eight ninths, two get eight seventeenths each, and there is always room for
//! one who has nothing yet. Where threads do not keep up, who holds more than the mean is shed first.

/// A key may hold so many times what is free.
const FREE_TIMES: usize = 8;
/// All of something, in thousandths.
pub const ALL: u32 = 1_000;
/// Below this only those are shed who hold more than the mean; above it the others too.
const HEAVY_ALONE: u32 = ALL / 2;

/// Whether a key that has `held` calls under way may begin another, when there are `calls` of all keys
/// (this one not counted) and may be `calls_max`.
pub const fn may_begin(held: usize, calls: usize, calls_max: usize) -> bool {
    held < calls_max.saturating_sub(calls).saturating_mul(FREE_TIMES)
}

/// Whether a key that has `held` calls under way holds at least the mean of the `keys` that share `calls`.
pub const fn is_heavy(held: usize, keys: usize, calls: usize) -> bool {
    held.saturating_mul(keys) >= calls
}

/// How many of a thousand new calls are shed of a key that is heavy or not, when so much has to be shed in
/// all.
pub fn of_key(share: u32, heavy: bool) -> u32 {
    let beyond = if heavy { share } else { share.saturating_sub(HEAVY_ALONE) };
    beyond.saturating_mul(ALL / HEAVY_ALONE).min(ALL)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What each of some keys gets that all want as much as there is, one call at a time in turn.
    fn fill(keys: usize, calls_max: usize) -> Vec<usize> {
        let mut held = vec![0; keys];
        loop {
            let before = held.clone();
            for key in 0..keys {
                let calls = held.iter().sum();
                held[key] += usize::from(may_begin(held[key], calls, calls_max));
            }
            if held == before {
                return held;
            }
        }
    }

    #[test]
    fn one_key_leaves_room_and_several_are_equal() {
        assert_eq!(fill(1, 9_000), [8_000]);
        assert_eq!(fill(2, 1_700), [800, 800]);
        assert_eq!(fill(1, 1), [1], "the smallest edge serves");
        assert_eq!(fill(1, 8), [8], "and a small one to the last place");
        assert!(!may_begin(0, 8, 8));
    }

    #[test]
    fn who_has_nothing_finds_a_place_beside_a_greedy_key() {
        let held = fill(1, 100)[0];
        assert!(!may_begin(held, held, 100) && may_begin(0, held, 100) && held > 80);
    }

    #[test]
    fn the_heavy_are_shed_first() {
        assert!(is_heavy(100, 2, 101) && !is_heavy(1, 2, 101));
        assert!(is_heavy(3, 1, 3), "one key alone is the mean");
        for (share, heavy, light) in [(0, 0, 0), (250, 500, 0), (500, 1_000, 0), (750, 1_000, 500)]
        {
            assert_eq!((of_key(share, true), of_key(share, false)), (heavy, light));
        }
        assert_eq!((of_key(ALL, true), of_key(ALL, false)), (ALL, ALL));
    }

    proptest! {
        #[test]
        fn there_is_never_more_than_there_may_be(keys in 1..20_usize, calls_max in 1..500_usize) {
            let held = fill(keys, calls_max);
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            prop_assert!(held.iter().sum::<usize>() <= calls_max);
            prop_assert!(most - least <= FREE_TIMES, "{held:?}");
        }

        #[test]
        fn somebody_is_always_at_or_above_the_mean(held in prop::collection::vec(1..1_000_usize, 1..20)) {
            let calls = held.iter().sum();
            prop_assert!(held.iter().any(|one| is_heavy(*one, held.len(), calls)));
        }
    }
}
