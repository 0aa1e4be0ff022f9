//! The one place of the data plane that reads the wall clock and draws random numbers.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokenroute_domain::time::{Tick, Timestamp};

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "this is where time becomes an argument")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The process's own clock, which never goes back.
pub(crate) fn tick() -> Tick {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    Tick(u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// 64 random bits for a choice.
pub fn chance_bits() -> u64 {
    u64::try_from(chance() >> 64).unwrap_or_default()
}

/// 128 random bits for an identifier. They need to be unlike each other, not unpredictable.
pub(crate) fn chance() -> u128 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};

    // Seeded by the operating system once a thread, told apart by a counter: no system call a call.
    thread_local!(static SEEDS: (RandomState, RandomState) = (RandomState::new(), RandomState::new()));
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let draw = |state: &RandomState| {
        let mut hasher = state.build_hasher();
        hasher.write_u64(count);
        u128::from(hasher.finish())
    };
    SEEDS.with(|(high, low)| (draw(high) << 64) | draw(low))
}
