//! Checks how long things may take: for all providers, for one, and for one route.

use std::time::Duration;

use tokenroute_domain::routing::Patience;
use tokenroute_proxy::snapshot::Deadlines;

use super::check::{Checker, bounds};
use super::file::{self, Seconds};

/// The most that a file may say, in seconds.
const CONNECT_MAX: u64 = 60;
const HEAD_MAX: u64 = 900;
const FIRST_TOKEN_MAX: u64 = 900;
const STALL_MAX: u64 = 900;
const TOTAL_MAX: u64 = 86_400;
const DRAIN_MAX: u64 = 300;
const POOL_IDLE_MAX: u64 = 900;

/// How long a provider may take if nobody says otherwise.
pub(super) const fn defaults() -> Deadlines {
    Deadlines {
        connect: Duration::from_secs(3),
        head: Duration::from_mins(2),
        first_token: Duration::from_mins(2),
        stall: Duration::from_secs(30),
        total: Duration::from_hours(1),
        drain: Duration::from_secs(30),
        pool_idle: Duration::from_secs(30),
    }
}

/// The deadlines at `path`; what they do not say, `or` says.
pub(super) fn deadlines(
    checker: &mut Checker<'_>,
    path: &str,
    typed: &file::Deadlines,
    or: &Deadlines,
) -> Deadlines {
    let mut read = |name: &str, typed, default, seconds_max| {
        length(checker, (path, name), typed, seconds_max).unwrap_or(default)
    };
    Deadlines {
        connect: read("connect", typed.connect_seconds, or.connect, CONNECT_MAX),
        head: read("head", typed.head_seconds, or.head, HEAD_MAX),
        first_token: read(
            "first_token",
            typed.first_token_seconds,
            or.first_token,
            FIRST_TOKEN_MAX,
        ),
        stall: read("stall", typed.stall_seconds, or.stall, STALL_MAX),
        total: read("total", typed.total_seconds, or.total, TOTAL_MAX),
        drain: read("drain", typed.drain_seconds, or.drain, DRAIN_MAX),
        pool_idle: read("pool_idle", typed.pool_idle_seconds, or.pool_idle, POOL_IDLE_MAX),
    }
}

/// The deadlines of a route, at `path`, that take the place of the provider's.
pub(super) fn patience(checker: &mut Checker<'_>, path: &str, typed: &file::Patience) -> Patience {
    let mut read =
        |name: &str, typed, seconds_max| length(checker, (path, name), typed, seconds_max);
    Patience {
        connect: read("connect", typed.connect_seconds, CONNECT_MAX),
        head: read("head", typed.head_seconds, HEAD_MAX),
        first_token: read("first_token", typed.first_token_seconds, FIRST_TOKEN_MAX),
        stall: read("stall", typed.stall_seconds, STALL_MAX),
        total: read("total", typed.total_seconds, TOTAL_MAX),
    }
}

/// A length from a hundredth of a second to `seconds_max`, if one was typed.
fn length(
    checker: &mut Checker<'_>,
    (path, name): (&str, &str),
    typed: Option<Seconds>,
    seconds_max: u64,
) -> Option<Duration> {
    let (min, max) = (Duration::from_millis(10), Duration::from_secs(seconds_max));
    typed.map(|_| checker.seconds(&format!("{path}.{name}_seconds"), typed, bounds(min, min, max)))
}
