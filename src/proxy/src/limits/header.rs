//! How limits stand, in the headers that clients of OpenAI pace themselves by.

use std::fmt::Write;
use std::time::Duration;

use http::HeaderName;
use pingora_http::ResponseHeader;
use tokenroute_domain::limit::allowance::Levels;

/// The names of a limit, of what is left, and of when all of it is.
const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Adds what there is to say of our limits.
pub(crate) fn insert(head: &mut ResponseHeader, levels: &Levels) -> pingora_core::Result<()> {
    for ([limit, left, reset], level) in [(REQUESTS, levels.requests), (TOKENS, levels.tokens)] {
        if let Some(level) = level {
            head.insert_header(limit, level.limit)?;
            head.insert_header(left, level.remaining)?;
            head.insert_header(reset, duration(level.reset))?;
        }
    }
    Ok(())
}

/// A time as Go writes it, to the millisecond, rounded up: `12ms`, `1.5s`, `6m0s`, `1h0m0s`.
fn duration(time: Duration) -> String {
    let millis = time.as_nanos().div_ceil(1_000_000);
    let (seconds, rest) = (millis / 1_000, millis % 1_000);
    if seconds == 0 && rest > 0 {
        return format!("{rest}ms");
    }
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let mut text = String::with_capacity(16);
    // Writing to a text does not fail.
    if hours > 0 {
        let _written = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _written = write!(text, "{minutes}m");
    }
    let _written = write!(text, "{}", seconds % 60);
    if rest > 0 {
        let fraction = format!(".{rest:03}");
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('s');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (micros, text) in [
            (0, "0s"),
            (1, "1ms"),
            (12_000, "12ms"),
            (999_001, "1s"),
            (1_500_000, "1.5s"),
            (8_640_000, "8.64s"),
            (360_000_000, "6m0s"),
            (61_001_000, "1m1.001s"),
            (3_600_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), text);
        }
    }
}
