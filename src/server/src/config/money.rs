//! Checks tiers of limits, and how calls that are paid for are bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokenroute_domain::limit::Limits;
use tokenroute_proxy::snapshot::MoneySettings;

use super::check::{Bounds, Checker, bounds};
use super::file;
use super::plan::MoneyPlan;
use super::providers::{NAME_BYTES_MAX, TOKENS_MAX, is_plain_name};

/// Set to `off`, it leaves the journals of earlier runs alone: for tests, and for an operator who wants to
/// look at them first.
const REPLAY: &str = "TOKENROUTE_JOURNAL_REPLAY";
/// Most tiers in a file.
const TIERS_MAX: usize = 1_000;
/// How long a loan may last: short ones cost exchanges, long ones keep money from others if an edge dies.
const LEASE: Bounds<Duration> =
    bounds(Duration::from_mins(1), Duration::from_secs(2), Duration::from_hours(1));
/// How long a charge may wait to be posted: less than a restart of the database takes refuses calls for
/// nothing.
const POSTING_LAG: Bounds<Duration> =
    bounds(Duration::from_mins(15), Duration::from_secs(1), Duration::from_hours(24));
/// Most calls that a limit may name, a second or a minute or at once: more is a slip of the pen.
const CALLS_MAX: u64 = 1_000_000;
/// The same for tokens a minute.
const TOKENS_PER_MINUTE_MAX: u64 = 1_000_000_000_000;

/// Limits under a name.
pub(super) fn tiers(checker: &mut Checker<'_>, file: &file::File) -> HashMap<Arc<str>, Limits> {
    if file.tiers.len() > TIERS_MAX {
        checker.problem("tiers", format!("are too many: at most {TIERS_MAX}"));
    }
    let tiers = file.tiers.iter().take(TIERS_MAX);
    tiers.map(|(name, typed)| (Arc::from(name.as_str()), tier(checker, name, typed))).collect()
}

fn tier(checker: &mut Checker<'_>, name: &str, typed: &file::Tier) -> Limits {
    let path = format!("tiers.{name}");
    if !is_plain_name(name) {
        let message = format!("is no name: use a-z, 0-9, - and _, at most {NAME_BYTES_MAX}");
        checker.problem(&path, message);
    }
    let mut count = |field: &str, typed: Option<i64>, max: u64| {
        typed.map(|_| checker.count(&format!("{path}.{field}"), typed, bounds(1, 1, max)))
    };
    let narrow = |count: Option<u64>| count.and_then(|count| u32::try_from(count).ok());
    Limits {
        requests_per_second: narrow(count(
            "requests_per_second",
            typed.requests_per_second,
            CALLS_MAX,
        )),
        requests_per_minute: narrow(count(
            "requests_per_minute",
            typed.requests_per_minute,
            CALLS_MAX,
        )),
        tokens_per_minute: count(
            "tokens_per_minute",
            typed.tokens_per_minute,
            TOKENS_PER_MINUTE_MAX,
        ),
        concurrency: narrow(count("concurrency", typed.concurrency, CALLS_MAX)),
    }
}

/// How calls that are paid for are bounded, and how long money is lent to an edge.
pub(super) fn money(checker: &mut Checker<'_>, typed: &file::Money) -> MoneyPlan {
    let usual = MoneySettings::default();
    let lease = checker.seconds("money.lease_seconds", typed.lease_seconds, LEASE);
    let lag = typed.posting_lag_max_seconds;
    let posting_lag_max = checker.seconds("money.posting_lag_max_seconds", lag, POSTING_LAG);
    let mut tokens = |name: &str, typed, default| {
        checker.count(&format!("money.{name}"), typed, bounds(default, 1, TOKENS_MAX))
    };
    let output_tokens_default =
        tokens("output_tokens_default", typed.output_tokens_default, usual.output_tokens_default);
    let output_tokens_min =
        tokens("output_tokens_min", typed.output_tokens_min, usual.output_tokens_min);
    if output_tokens_min > output_tokens_default {
        checker.problem("money.output_tokens_min", "must not exceed money.output_tokens_default");
    }
    let settings = MoneySettings { output_tokens_default, output_tokens_min };
    let replay = checker.variable(REPLAY).is_none_or(|value| value != "off");
    MoneyPlan { lease, posting_lag_max, settings, replay }
}
