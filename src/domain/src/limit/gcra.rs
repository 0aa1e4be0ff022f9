//! The generic cell rate algorithm as a bucket: it holds as many units as the limit says, and as many flow
//! back in each period. Exact in integers: what was taken is counted in units times microseconds of the
//! period, of which the limit's number comes back in each microsecond.

use std::time::Duration;

use crate::time::Tick;

const SECOND_MICROS: u64 = 1_000_000;
const MINUTE_MICROS: u64 = 60 * SECOND_MICROS;
/// Longest time that somebody is made to wait for what was spent beyond the limit, in microseconds.
const DEBT_MICROS_MAX: u64 = 3_600 * SECOND_MICROS;
/// How long to wait for what never comes, because the limit is zero.
pub const NEVER: Duration = Duration::from_hours(1);

/// So many units a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    limit: u64,
    period_micros: u64,
}

impl Rate {
    /// So many a second.
    pub const fn per_second(limit: u64) -> Self {
        Self { limit, period_micros: SECOND_MICROS }
    }

    /// So many a minute.
    pub const fn per_minute(limit: u64) -> Self {
        Self { limit, period_micros: MINUTE_MICROS }
    }

    /// How many.
    pub const fn limit(self) -> u64 {
        self.limit
    }

    /// In how many microseconds.
    pub const fn period_micros(self) -> u64 {
        self.period_micros
    }

    /// The share of one of `edges` that cannot ask each other: at least one unit, unless there is none.
    #[must_use]
    pub fn split(self, edges: u32) -> Self {
        let share = self.limit.checked_div(u64::from(edges)).unwrap_or(self.limit);
        Self { limit: share.max(1).min(self.limit), ..self }
    }

    /// What is asked of a bucket for a call of `units`: one that is larger than the bucket goes when it is
    /// full, and owes the rest.
    pub fn required(self, units: u64) -> u64 {
        // Of a bucket that holds nothing something is asked all the same, so that it refuses.
        units.min(self.limit.max(1))
    }

    /// Units that come in a time, rounded up.
    pub fn units_in(self, time: Duration) -> u64 {
        let product = time.as_micros().saturating_mul(u128::from(self.limit));
        narrow(product.div_ceil(u128::from(self.period_micros.max(1))))
    }

    fn scale(self, units: u64) -> u128 {
        u128::from(units).saturating_mul(u128::from(self.period_micros))
    }

    fn time_of(self, level: u128) -> Duration {
        match self.limit {
            0 => NEVER,
            limit => Duration::from_micros(narrow(level.div_ceil(u128::from(limit)))),
        }
    }
}

fn narrow(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// How much of a bucket is taken. The rate is told each time: it may change over a reload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gcra {
    /// Units times microseconds of the period.
    level: u128,
    at: Tick,
}

impl Gcra {
    /// A bucket of which so many thousandths of units are taken.
    pub fn with_taken(rate: Rate, milli: u64, now: Tick) -> Self {
        Self { level: rate.scale(milli) / 1_000, at: now }
    }

    /// A bucket that holds so many units, or as many as it can.
    pub fn with_available(rate: Rate, units: u64, now: Tick) -> Self {
        Self { level: rate.scale(rate.limit.saturating_sub(units)), at: now }
    }

    fn level(&self, rate: Rate, now: Tick) -> u128 {
        let returned = now.since(self.at).as_micros().saturating_mul(u128::from(rate.limit));
        self.level.saturating_sub(returned)
    }

    fn set(&mut self, level: u128, now: Tick) {
        (self.level, self.at) = (level, self.at.max(now));
    }

    /// Units that can be taken now.
    pub fn available(&self, rate: Rate, now: Tick) -> u64 {
        let room = rate.scale(rate.limit).saturating_sub(self.level(rate, now));
        narrow(room.checked_div(u128::from(rate.period_micros)).unwrap_or_default())
    }

    /// Units that are taken and have not come back, rounded up.
    pub fn taken(&self, rate: Rate, now: Tick) -> u64 {
        narrow(self.level(rate, now).div_ceil(u128::from(rate.period_micros.max(1))))
    }

    /// The same in thousandths of units.
    pub fn taken_milli(&self, rate: Rate, now: Tick) -> u64 {
        let milli = self.level(rate, now).saturating_mul(1_000);
        narrow(milli.div_ceil(u128::from(rate.period_micros.max(1))))
    }

    /// Takes `units` if there are as many; of what is more than the bucket ever holds, it owes the rest.
    pub fn take(&mut self, rate: Rate, units: u64, now: Tick) -> bool {
        let there = self.available(rate, now) >= rate.required(units);
        if there {
            self.force(rate, units, now);
        }
        there
    }

    /// Takes `units`, also what is not there.
    pub fn force(&mut self, rate: Rate, units: u64, now: Tick) {
        let debt_max = u128::from(DEBT_MICROS_MAX).saturating_mul(u128::from(rate.limit));
        let level_max = rate.scale(rate.limit).saturating_add(debt_max);
        let level = self.level(rate, now).saturating_add(rate.scale(units));
        self.set(level.min(level_max), now);
    }

    /// Puts back what was taken and not used.
    pub fn give_back(&mut self, rate: Rate, units: u64, now: Tick) {
        let level = self.level(rate, now).saturating_sub(rate.scale(units));
        self.set(level, now);
    }

    /// How long until `units` can be taken; zero if they can be now.
    pub fn wait(&self, rate: Rate, units: u64, now: Tick) -> Duration {
        let room = rate.scale(rate.limit);
        let wanted = rate.scale(rate.required(units));
        let level = self.level(rate, now).saturating_add(wanted);
        if level <= room { Duration::ZERO } else { rate.time_of(level.saturating_sub(room)) }
    }

    /// How long until nothing is taken any more.
    pub fn reset(&self, rate: Rate, now: Tick) -> Duration {
        let level = self.level(rate, now);
        if level == 0 { Duration::ZERO } else { rate.time_of(level) }
    }
}
