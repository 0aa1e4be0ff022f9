//! Points in time for people and for JSON: UTC as RFC 3339 writes it. Reads no clock.

use tokenroute_domain::time::Timestamp;

const DAY_SECONDS: u64 = 86_400;
/// Days in 400 years of the Gregorian calendar, after which it repeats.
const ERA_DAYS: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;

/// `2026-11-20T23:34:06Z`
pub(crate) fn seconds(time: Timestamp) -> String {
    format!("{}Z", date_and_time(time))
}

/// `2026-11-20T23:34:06.123456Z`
pub(crate) fn micros(time: Timestamp) -> String {
    format!("{}.{:06}Z", date_and_time(time), time.micros().rem_euclid(1_000_000))
}

/// No number here can overflow: 2^64 microseconds are less than 2^28 days.
fn date_and_time(time: Timestamp) -> String {
    let (days, second) = (time.seconds() / DAY_SECONDS, time.seconds() % DAY_SECONDS);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// The date of a day since 1970-01-01. Years are counted from the first of March, so that the leap
/// day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let leaps = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leaps) / 365;
    let year_start = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
    let day_of_year = day_of_era - year_start;
    // Months from March on have 31, 30, 31, 30, 31 days, twice, and then 31 and the rest.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year_of_era + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_date_writes() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_763_681_646, "2025-11-20T23:34:06"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
        ] {
            let time = Timestamp(second * 1_000_000 + 7);
            assert_eq!(seconds(time), format!("{text}Z"));
            assert_eq!(micros(time), format!("{text}.000007Z"));
        }
        assert_eq!(seconds(Timestamp(u64::MAX)), "586524-01-19T08:01:49Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = date(0);
        for day in 1..200_000 {
            let now = date(day);
            let next_day = (now.0, now.1, now.2) == (before.0, before.1, before.2 + 1);
            let next_month = now.2 == 1 && now.1 == before.1 + 1 && before.2 >= 28;
            let next_year = (now.1, now.2, before.1, before.2) == (1, 1, 12, 31);
            assert!(next_day || next_month || next_year, "{before:?} {now:?}");
            before = now;
        }
    }
}
