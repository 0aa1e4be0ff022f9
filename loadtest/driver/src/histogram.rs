//! A histogram of durations with a relative error below 2 %. It forgets the order of what it counted.

/// Buckets in each power of two.
const STEPS: u64 = 64;
const STEP_BITS: u32 = 6;
/// Buckets in all: enough for every `u64`.
const BUCKETS: usize = 64 * 60;

/// Counts of values by size.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count = count.saturating_add(1);
            self.total = self.total.saturating_add(1);
            self.max = self.max.max(value);
        }
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The largest value; 0 when there is none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// A value that `per_mille` of 1,000 values do not exceed; `None` when there are no values.
    pub fn quantile(&self, per_mille: u64) -> Option<u64> {
        if self.total == 0 {
            return None;
        }
        let rank = u128::from(self.total).saturating_mul(u128::from(per_mille)).div_ceil(1_000);
        let mut below = 0_u128;
        for (index, count) in self.counts.iter().enumerate() {
            below = below.saturating_add(u128::from(*count));
            if below >= rank.max(1) {
                return Some(upper_end(index).min(self.max));
            }
        }
        Some(self.max)
    }
}

/// Values below [`STEPS`] have a bucket each; above, each power of two has [`STEPS`] of them.
fn bucket(value: u64) -> usize {
    if value < STEPS {
        return usize::try_from(value).unwrap_or(0);
    }
    let shift = value.ilog2().saturating_sub(STEP_BITS);
    let step = (value >> shift).saturating_sub(STEPS);
    let index = u64::from(shift).saturating_add(1).saturating_mul(STEPS).saturating_add(step);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest value that falls in the bucket.
fn upper_end(index: usize) -> u64 {
    let index = u64::try_from(index).unwrap_or(u64::MAX);
    if index < STEPS {
        return index;
    }
    let shift = (index / STEPS).saturating_sub(1);
    let start = u128::from((index % STEPS).saturating_add(STEPS)) << shift;
    let end = start.saturating_add(1_u128 << shift).saturating_sub(1);
    u64::try_from(end).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_narrow() {
        let mut last = 0;
        for value in (0..10_000).chain([1 << 20, 1 << 40, u64::MAX]) {
            let index = bucket(value);
            assert!(index >= last && index < BUCKETS, "{value}");
            last = index;
            let end = upper_end(index);
            assert!(end >= value && end - value <= value / 32, "{value} is counted as {end}");
        }
    }

    #[test]
    fn quantiles_of_a_thousand_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), None);
        (1..=1_000).for_each(|value| histogram.add(value));
        let median = histogram.quantile(500).unwrap();
        assert!((500..=510).contains(&median), "{median}");
        assert_eq!(histogram.quantile(1_000), Some(1_000));
        assert_eq!(histogram.quantile(0), Some(1));
        assert_eq!((histogram.total(), histogram.max()), (1_000, 1_000));
    }
}
