//! How near the memory in use is to the limit that the process runs under.

/// Percent of the limit from which on no new calls are taken.
const SHED: u64 = 85;
/// Percent below which they are taken again.
const TAKE: u64 = 80;
/// Percent of the limit from which on no new connections are taken either.
const REFUSE: u64 = 95;
/// Percent below which they are taken again.
const ACCEPT: u64 = 90;

/// What the memory in use permits. Each step has a way back that begins lower, so that an edge at its
/// limit does not change its mind with every look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Everything.
    #[default]
    Normal,
    /// No new calls.
    Shedding,
    /// No new connections either.
    Refusing,
}

impl Pressure {
    /// What `used` of `limit` bytes permit, after this.
    #[must_use]
    pub fn next(self, used: u64, limit: u64) -> Self {
        let percent = u128::from(used).saturating_mul(100) / u128::from(limit.max(1));
        let reaches = |threshold: u64| percent >= u128::from(threshold);
        let refuses = reaches(if self >= Self::Refusing { ACCEPT } else { REFUSE });
        let sheds = reaches(if self >= Self::Shedding { TAKE } else { SHED });
        match (sheds, refuses) {
            (_, true) => Self::Refusing,
            (true, false) => Self::Shedding,
            (false, false) => Self::Normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_step_has_its_way_back() {
        use Pressure::{Normal, Refusing, Shedding};
        let mut now = Normal;
        for (percent, then) in [
            (84, Normal),
            (85, Shedding),
            (81, Shedding),
            (79, Normal),
            (94, Shedding),
            (95, Refusing),
            (91, Refusing),
            (89, Shedding),
            (80, Shedding),
            (99, Refusing),
            (79, Normal),
        ] {
            now = now.next(percent, 100);
            assert_eq!(now, then, "at {percent} %");
        }
    }

    proptest! {
        #[test]
        fn more_memory_never_permits_more(less in 0..2_000_u64, more in 0..2_000_u64, limit in 0..1_000_u64) {
            let (less, more) = (less.min(more), less.max(more));
            for now in [Pressure::Normal, Pressure::Shedding, Pressure::Refusing] {
                prop_assert!(now.next(less, limit) <= now.next(more, limit));
                // A second look at the same memory changes nothing.
                prop_assert_eq!(now.next(less, limit).next(less, limit), now.next(less, limit));
            }
        }
    }
}
