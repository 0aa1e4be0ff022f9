//! When a target is late: learned times to the first token, and how many calls may be hedged.

use std::time::Duration;

/// Classes of request size: below 1 KiB, and then four times as much each.
const SIZES: usize = 8;
/// Buckets of time: four an octave from about a millisecond to 18 minutes, so one is a quarter wide.
const BUCKETS: usize = 80;
/// The first bucket ends in 2 to this power, in microseconds.
const FIRST_OCTAVE: u32 = 10;
/// Fewer times say nothing about a quantile.
pub const TIMES_MIN: u32 = 20;
/// With so many times in a class all counts are halved, so that old ones fade.
const TIMES_MAX: u32 = 512;
/// The moving mean moves by this part of the distance.
const MEAN_SHARE: u64 = 8;
/// Hedges that calls without one save up, in thousandths.
const CREDIT_MAX: u32 = 10_000;

/// Times from the request to the first semantic token, by the size of the request.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: [[u16; BUCKETS]; SIZES],
    mean_micros: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: [[0; BUCKETS]; SIZES], mean_micros: 0 }
    }
}

impl Latencies {
    /// Learns that a request of so many bytes was answered after so long.
    pub fn observe(&mut self, body_bytes: u64, micros: u64) {
        self.mean_micros = match self.mean_micros {
            0 => micros,
            mean => {
                let rest = mean.saturating_mul(MEAN_SHARE.saturating_sub(1));
                rest.saturating_add(micros).checked_div(MEAN_SHARE).unwrap_or(mean)
            }
        };
        let Some(counts) = self.counts.get_mut(size_class(body_bytes)) else { return };
        if let Some(count) = counts.get_mut(bucket(micros)) {
            *count = count.saturating_add(1);
        }
        if total(counts) >= TIMES_MAX {
            for count in counts.iter_mut() {
                *count /= 2;
            }
        }
    }

    /// The time within which so many of a thousand requests of this size were answered, rounded up by
    /// at most a quarter; `None` as long as too few are known.
    pub fn quantile(&self, body_bytes: u64, permille: u32) -> Option<Duration> {
        let counts = self.counts.get(size_class(body_bytes))?;
        let all = total(counts);
        if all < TIMES_MIN {
            return None;
        }
        let wanted = u64::from(all).saturating_mul(u64::from(permille)).div_ceil(1_000);
        let mut below = 0_u64;
        let place = counts.iter().position(|count| {
            below = below.saturating_add(u64::from(*count));
            below >= wanted
        })?;
        Some(Duration::from_micros(bucket_end(place)))
    }

    /// The moving mean over all sizes, in microseconds; 0 as long as nothing is known.
    pub const fn mean_micros(&self) -> u64 {
        self.mean_micros
    }
}

fn total(counts: &[u16; BUCKETS]) -> u32 {
    counts.iter().map(|count| u32::from(*count)).sum()
}

fn size_class(bytes: u64) -> usize {
    let kib_octaves = (bytes / 1024).checked_ilog2().map_or(0, |octave| octave / 2 + 1);
    usize::try_from(kib_octaves).unwrap_or(SIZES).min(SIZES.saturating_sub(1))
}

/// Where a time is counted: its octave, and the two bits behind its first one.
fn bucket(micros: u64) -> usize {
    let micros = micros.max(1 << FIRST_OCTAVE);
    let octave = micros.ilog2();
    let quarter = (micros >> octave.saturating_sub(2)) & 3;
    let place = u64::from(octave.saturating_sub(FIRST_OCTAVE)).saturating_mul(4);
    let place = usize::try_from(place.saturating_add(quarter)).unwrap_or(BUCKETS);
    place.min(BUCKETS.saturating_sub(1))
}

/// The end of a bucket, in microseconds.
fn bucket_end(place: usize) -> u64 {
    let place = u32::try_from(place).unwrap_or(u32::MAX);
    let octave = (place / 4).saturating_add(FIRST_OCTAVE);
    let quarters = u64::from(place % 4).saturating_add(5);
    quarters.checked_shl(octave.saturating_sub(2)).unwrap_or(u64::MAX)
}

/// Lets at most a share of calls through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    credit: u32,
}

impl Share {
    /// Counts a call, of which `permille` in a thousand may take.
    pub fn call(&mut self, permille: u32) {
        self.credit = self.credit.saturating_add(permille).min(CREDIT_MAX);
    }

    /// Takes, if there is leave.
    pub fn take(&mut self) -> bool {
        match self.credit.checked_sub(1_000) {
            Some(left) => {
                self.credit = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_quarter_too_long(
            micros in 1_024_u64..1 << 29,
            bytes in 0_u64..1 << 30,
        ) {
            let mut latencies = Latencies::default();
            for _ in 0..TIMES_MIN {
                prop_assert_eq!(latencies.quantile(bytes, 950), None);
                latencies.observe(bytes, micros);
            }
            let learned = latencies.quantile(bytes, 950).unwrap();
            let micros = Duration::from_micros(micros);
            let bound = micros * 5 / 4 + Duration::from_micros(1);
            prop_assert!(learned > micros && learned <= bound, "{micros:?} {learned:?}");
        }

        #[test]
        fn no_more_than_the_share_takes(permille in 0_u32..=500, calls in 1_u32..5_000) {
            let mut share = Share::default();
            let taken = (0..calls).filter(|_| {
                share.call(permille);
                share.take()
            });
            let taken = u32::try_from(taken.count()).unwrap();
            prop_assert!(u64::from(taken) * 1_000 <= u64::from(calls) * u64::from(permille));
        }
    }

    #[test]
    fn quantiles_are_by_size_and_old_times_fade() {
        let mut latencies = Latencies::default();
        (0..100).for_each(|_| latencies.observe(100, 10_000));
        (0..100).for_each(|_| latencies.observe(1 << 20, 900_000));
        assert!(latencies.quantile(100, 950) < Some(Duration::from_millis(13)));
        assert!(latencies.quantile(1 << 20, 950) > Some(Duration::from_millis(800)));
        (0..400).for_each(|_| latencies.observe(100, 10_000));
        (0..1_400).for_each(|_| latencies.observe(100, 80_000));
        assert!(latencies.quantile(100, 100) > Some(Duration::from_millis(70)));
    }

    #[test]
    fn sizes_are_apart_by_a_factor_of_four() {
        let mut learned = Latencies::default();
        (0..TIMES_MIN).for_each(|_| learned.observe(4 << 10, 10_000));
        let known = |bytes: u64| learned.quantile(bytes, 950).is_some();
        assert_eq!([4 << 10, (16 << 10) - 1].map(known), [true; 2]);
        assert_eq!([0, (4 << 10) - 1, 16 << 10, u64::MAX].map(known), [false; 4]);
    }

    #[test]
    fn the_mean_begins_with_the_first_time_and_follows() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.mean_micros(), 0);
        latencies.observe(100, 80_000);
        assert_eq!(latencies.mean_micros(), 80_000);
        latencies.observe(1 << 20, 160_000);
        assert_eq!(latencies.mean_micros(), 90_000);
        (0..100).for_each(|_| latencies.observe(100, 16_000));
        assert!(latencies.mean_micros().abs_diff(16_000) < 10);
    }

    #[test]
    fn calls_that_take_nothing_save_up_a_few_hedges_and_no_more() {
        let mut share = Share::default();
        assert!(!share.take());
        (0..100_000).for_each(|_| share.call(500));
        assert_eq!((0..100).filter(|_| share.take()).count(), 10);
    }
}
