//! Checks how a route tries its targets.

use std::time::Duration;

use tokenroute_domain::routing::{Affinity, Balance, Hedge, OnBreak, Policy};

use super::check::{Bounds, Checker, bounds};
use super::{deadlines, file};

/// Most attempts of a call.
const ATTEMPTS_MAX: u64 = 10;
/// Latest that an attempt may begin after its call.
const WITHIN_MAX: Duration = Duration::from_hours(24);
/// Longest wait for a target that has said when to come back.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// Part of the times to the first token that are shorter than the wait for a hedge, in thousandths.
const QUANTILE: Bounds<u32> = bounds(950, 500, 999);
/// Part of the calls that may be hedged, in thousandths.
const SHARE: Bounds<u32> = bounds(50, 0, 500);
/// The least that is waited before a call is hedged.
const HEDGE_WAIT: Bounds<Duration> =
    bounds(Duration::from_millis(500), Duration::ZERO, Duration::from_mins(1));

const ON_BREAK: [(&str, OnBreak); 2] = [("continue", OnBreak::Continue), ("error", OnBreak::Error)];
const BALANCE: [(&str, Balance); 2] =
    [("weighted", Balance::Weighted), ("least_loaded", Balance::LeastLoaded)];
const AFFINITY: [(&str, Affinity); 2] = [("none", Affinity::None), ("prefix", Affinity::Prefix)];

/// A policy's choices as a file says them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    pub on_break: &'static str,
    pub balance: &'static str,
    pub affinity: &'static str,
}

/// The words that stand for a policy's choices.
pub(crate) fn words(policy: &Policy) -> Words {
    fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
        words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
    }
    Words {
        on_break: word(&ON_BREAK, policy.on_break),
        balance: word(&BALANCE, policy.balance),
        affinity: word(&AFFINITY, policy.affinity),
    }
}

/// The policy of all routes that say nothing.
pub(super) fn defaults(checker: &mut Checker<'_>, typed: &file::Routing) -> Policy {
    policy(checker, "routing", typed, &Policy::default())
}

/// The policy of the route at `path`; what it does not say, `or` says.
pub(super) fn of_route(
    checker: &mut Checker<'_>,
    path: &str,
    typed: &file::Route,
    or: &Policy,
) -> Policy {
    let routing = file::Routing {
        attempts_max: typed.attempts_max,
        attempts_seconds: typed.attempts_seconds,
        wait_seconds_max: typed.wait_seconds_max,
        on_break: typed.on_break.clone(),
        balance: typed.balance.clone(),
        affinity: typed.affinity.clone(),
    };
    let policy = policy(checker, path, &routing, or);
    let hedge = typed.hedge.as_ref().map(|typed| hedge(checker, &format!("{path}.hedge"), typed));
    let patience = deadlines::patience(checker, &format!("{path}.deadlines"), &typed.deadlines);
    if typed.targets.len() == 1 {
        let alone = "has no effect: the route has no other target";
        if routing.on_break.is_some() && policy.on_break == OnBreak::Continue {
            checker.warnings.push(format!("{path}.on_break {alone} that could go on"));
        }
        if hedge.is_some() {
            checker.warnings.push(format!("{path}.hedge {alone} that could be tried"));
        }
    }
    Policy { hedge, patience, ..policy }
}

fn policy(checker: &mut Checker<'_>, path: &str, typed: &file::Routing, or: &Policy) -> Policy {
    let at = |field: &str| format!("{path}.{field}");
    let attempts = bounds(or.attempts_max.into(), 1, ATTEMPTS_MAX);
    let attempts = checker.count(&at("attempts_max"), typed.attempts_max, attempts);
    let within = bounds(or.attempts_within, Duration::from_millis(10), WITHIN_MAX);
    let wait = bounds(or.wait_max, Duration::ZERO, WAIT_MAX);
    let [on_break, balance, affinity] =
        [&typed.on_break, &typed.balance, &typed.affinity].map(Option::as_deref);
    Policy {
        attempts_max: u32::try_from(attempts).unwrap_or(or.attempts_max),
        attempts_within: checker.seconds(&at("attempts_seconds"), typed.attempts_seconds, within),
        wait_max: checker.seconds(&at("wait_seconds_max"), typed.wait_seconds_max, wait),
        on_break: checker.word(&at("on_break"), on_break, &ON_BREAK, or.on_break),
        balance: checker.word(&at("balance"), balance, &BALANCE, or.balance),
        affinity: checker.word(&at("affinity"), affinity, &AFFINITY, or.affinity),
        hedge: or.hedge,
        patience: or.patience,
    }
}

fn hedge(checker: &mut Checker<'_>, path: &str, typed: &file::Hedge) -> Hedge {
    let at = |field: &str| format!("{path}.{field}");
    Hedge {
        quantile_permille: checker.permille(&at("quantile"), typed.quantile, QUANTILE),
        share_permille: checker.permille(&at("share"), typed.share, SHARE),
        wait_min: checker.seconds(&at("wait_seconds_min"), typed.wait_seconds_min, HEDGE_WAIT),
    }
}
