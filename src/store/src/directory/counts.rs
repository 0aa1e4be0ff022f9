//! What the directory did, as plain counters: this crate knows no metrics library.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident $field:ident,)*) => {
        /// Something that the directory did.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Event { $($(#[$doc])* $name,)* }

        impl Event {
            /// Every event, in the order of their bounded metric labels.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable word for metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($field),)* }
            }
        }

        /// How often each event occurred since the start.
        #[derive(Debug, Default)]
        pub struct Counts { $($field: AtomicU64,)* }

        impl Counts {
            const fn cell(&self, event: Event) -> &AtomicU64 {
                match event { $(Event::$name => &self.$field,)* }
            }
        }
    };
}

events! {
    /// A fresh key was in this process's cache.
    LocalHit local_hit,
    /// A hash was known here to be nobody's.
    LocalUnknown local_unknown,
    /// A call waited for a look-up that another call had begun.
    Joined joined,
    /// A key came from Redis.
    RedisHit redis_hit,
    /// Redis had nothing for the hash.
    RedisMiss redis_miss,
    /// Redis marked the key as revoked.
    RedisRevoked redis_revoked,
    /// What Redis held was too old, or older than what is known of revocations.
    RedisDoubted redis_doubted,
    /// What Redis held was not written for this hash.
    RedisForeign redis_foreign,
    /// Redis was late or refused.
    RedisFailed redis_failed,
    /// Redis was not asked, because no connection stood.
    RedisSkipped redis_skipped,
    /// The database was asked for a key.
    SqlRead sql_read,
    /// The database did not answer.
    SqlFailed sql_failed,
    /// A key was served although it could not be confirmed in time.
    StaleServed stale_served,
    /// A call was told that keys cannot be looked up now.
    Unavailable unavailable,
    /// The database was asked what changed, and answered.
    Polled polled,
    /// The database was asked what changed, and did not answer.
    PollFailed poll_failed,
    /// A revocation was learnt from Redis.
    RevocationHeard revocation_heard,
    /// A revocation was learnt from the database.
    RevocationRead revocation_read,
}

impl Counts {
    /// How often `event` occurred.
    pub fn of(&self, event: Event) -> u64 {
        self.cell(event).load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, event: Event) {
        self.cell(event).fetch_add(1, Ordering::Relaxed);
    }
}
