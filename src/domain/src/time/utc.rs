//! Points in time for people and for JSON: UTC as RFC 3339 writes it.

use super::Timestamp;

const DAY_SECONDS: u64 = 86_400;
/// Days in 400 years of the Gregorian calendar, after which it repeats.
const ERA_DAYS: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;

/// `2026-11-20T23:34:06Z`
pub fn seconds(time: Timestamp) -> String {
    format!("{}Z", date_and_time(time))
}

/// `2026-11-20T23:34:06.123456Z`
pub fn micros(time: Timestamp) -> String {
    format!("{}.{:06}Z", date_and_time(time), time.micros().rem_euclid(1_000_000))
}

/// Reads a time as RFC 3339 writes it, with `Z` or an offset, as exactly as a microsecond; `None` if it is none,
/// is before 1970, or is a leap second.
pub fn parse(text: &str) -> Option<Timestamp> {
    let (date_text, rest) = text.split_once(['T', 't'])?;
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at_checked(zone)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [year, month, day] = numbers(date_text, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let time = day_number(year, month, day)? * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
    let time = offset(zone, time)?;
    Some(Timestamp(time * 1_000_000 + micros_of(fraction)?))
}

/// Three numbers of so many digits each.
fn numbers(text: &str, between: char, lengths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut all = [0; 3];
    for (number, length) in all.iter_mut().zip(lengths) {
        let part = parts.next().filter(|part| part.len() == length)?;
        *number = digits(part)?;
    }
    parts.next().is_none().then_some(all)
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

/// A fraction of a second, what is below a microsecond cut off.
fn micros_of(fraction: &str) -> Option<u64> {
    digits(fraction.get(..fraction.len().min(18))?)?;
    let plain = fraction.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits(format!("{fraction:0<6}").get(..6)?))?
}

/// The second in UTC of one that is `zone` ahead.
fn offset(zone: &str, second: u64) -> Option<u64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(second);
    }
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let two = |text: &str| (text.len() == 2).then(|| digits(text))?;
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let by = hours * 3_600 + minutes * 60;
    if zone.starts_with('-') { second.checked_add(by) } else { second.checked_sub(by) }
}

/// Days since 1970-01-01; `None` if there is no such date, or it is earlier.
fn day_number(year: u64, month: u64, day: u64) -> Option<u64> {
    // The turned way of `date`: years from the first of March on.
    let (from_march, year_before) =
        if month > 2 { (month - 3, 0) } else { (month.checked_add(9)?, 1) };
    let year_of_all = year.checked_sub(year_before)?;
    let (era, year_of_era) = (year_of_all / 400, year_of_all % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * ERA_DAYS + day_of_era).checked_sub(EPOCH_DAYS)?;
    // The thirtieth of February is another date.
    (date(days) == (year, month, day)).then_some(days)
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
    fn reads_what_it_wrote() {
        for micros_since in [0, 1, 951_782_399_999_999, 951_782_400_000_001, 4_107_542_400_500_000]
        {
            let time = Timestamp(micros_since);
            assert_eq!(parse(&micros(time)), Some(time));
            assert_eq!(parse(&seconds(time)).map(Timestamp::seconds), Some(time.seconds()));
        }
        for day in 0..200_000 {
            let time = Timestamp(day * DAY_SECONDS * 1_000_000);
            assert_eq!(parse(&seconds(time)), Some(time));
        }
    }

    #[test]
    fn reads_other_offsets_and_fractions() {
        let wanted = parse("2026-11-21T20:00:00Z");
        for same in
            ["2026-11-21T21:30:00+01:30", "2026-11-21t12:00:00-08:00", "2026-11-21T20:00:00.0z"]
        {
            assert_eq!(parse(same), wanted, "{same}");
        }
        assert_eq!(parse("1970-01-01T00:00:00.1234567Z"), Some(Timestamp(123_456)));
        assert_eq!(parse("1970-01-01T00:00:00.5Z"), Some(Timestamp(500_000)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "now",
            "2026-11-21",
            "2026-11-21T20:00:00",
            "2026-11-21 20:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "26-01-01T00:00:00Z",
            "2026-1-01T00:00:00Z",
            "2026-01-01T00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.-1Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00ZZ",
            "2026-01-01T00:00:00+24:00",
            "\u{ff12}026-01-01T00:00:00Z",
            "T",
            "TZ",
            "0000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
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
