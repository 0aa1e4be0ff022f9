//! The explanation for machines: one JSON object.

use std::time::Duration;

use serde_json::{Value, json};
use tokenroute_domain::catalog::Target;
use tokenroute_domain::routing::Policy;

use super::{Explanation, Told};
use crate::config;

pub(super) fn of(explanation: &Explanation) -> String {
    let Explanation { route, address, node, targets, order } = explanation;
    let node = match node {
        Ok(page) => json!({ "address": address.to_string(), "generation": page.generation }),
        Err(problem) => json!({ "address": address.to_string(), "problem": problem }),
    };
    let targets: Vec<_> =
        route.targets.iter().zip(targets).map(|(target, told)| of_target(target, told)).collect();
    let turns = order.turns.iter().map(|turn| {
        json!({
            "target": explanation.name(turn.place),
            "why": turn.why.as_str(),
            "wait_ms": milliseconds(turn.wait),
        })
    });
    let turns: Vec<_> = turns.collect();
    let left_out: Vec<_> = order.left_out.iter().map(|place| explanation.name(*place)).collect();
    json!({
        "model": &*route.model,
        "route": &*route.pattern,
        "exact": explanation.is_exact(),
        "policy": of_policy(&route.policy),
        "node": node,
        "targets": targets,
        "order": turns,
        "left_out": left_out,
        "retry_after_ms": order.retry_after.map(milliseconds),
    })
    .to_string()
}

fn of_policy(policy: &Policy) -> Value {
    let words = config::words(policy);
    let patience = &policy.patience;
    let seconds = |length: Option<Duration>| length.map(|length| length.as_secs_f64());
    let hedge = policy.hedge.map(|hedge| {
        json!({
            "quantile_permille": hedge.quantile_permille,
            "share_permille": hedge.share_permille,
            "wait_seconds_min": hedge.wait_min.as_secs_f64(),
        })
    });
    json!({
        "attempts_max": policy.attempts_max,
        "attempts_seconds": policy.attempts_within.as_secs_f64(),
        "wait_seconds_max": policy.wait_max.as_secs_f64(),
        "on_break": words.on_break,
        "balance": words.balance,
        "affinity": words.affinity,
        "hedge": hedge,
        "deadlines": {
            "connect_seconds": seconds(patience.connect),
            "head_seconds": seconds(patience.head),
            "first_token_seconds": seconds(patience.first_token),
            "stall_seconds": seconds(patience.stall),
            "total_seconds": seconds(patience.total),
        },
    })
}

fn of_target(target: &Target, told: &Told) -> Value {
    let live = told.live.as_ref().map(|live| {
        json!({
            "state": live.state,
            "left_ms": live.left().map(milliseconds),
            "hinted": live.hinted,
            "outstanding": live.outstanding,
            "latency_ms": live.latency_ms,
            "failing_permille": live.failing_permille,
            "attempts": live.attempts,
            "failures": live.failures,
            "last_failure": live.last_failure,
        })
    });
    json!({
        "name": &*target.name,
        "rank": target.rank,
        "weight": target.weight,
        "share_permille": told.share_permille,
        "prefill": target.prefill,
        "context_tokens": target.context_tokens,
        "live": live,
    })
}

fn milliseconds(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
