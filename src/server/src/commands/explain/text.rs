//! The explanation for people: the route and its policy, its targets as a table, and the order of attempts.

use std::time::Duration;

use tokenroute_domain::catalog::Target;
use tokenroute_domain::routing::{Balance, Policy, Standing, Why};

use super::order::Turn;
use super::{Explanation, Told, cell};
use crate::config;

pub(super) fn of(explanation: &Explanation) -> String {
    let mut lines = vec![head(explanation)];
    lines.extend(policy(&explanation.route.policy));
    lines.push(String::new());
    lines.push(node(explanation));
    lines.push(row(&HEADS.map(str::to_owned)));
    let targets = explanation.route.targets.iter().zip(&explanation.targets);
    lines.extend(targets.map(|(target, told)| row(&cells(target, told))));
    lines.push(String::new());
    lines.extend(order(explanation));
    lines.join("\n")
}

fn head(explanation: &Explanation) -> String {
    let (model, pattern) = (&explanation.route.model, &explanation.route.pattern);
    if explanation.is_exact() {
        format!("{model}: a route of its own")
    } else {
        format!("{model}: the route {pattern}, for all names that begin so")
    }
}

fn policy(policy: &Policy) -> Vec<String> {
    let words = config::words(policy);
    let hedge = policy.hedge.map_or_else(
        || "never".to_owned(),
        |hedge| {
            format!(
                "a second target when {} of calls would have spoken, after {} at least; \
                 at most {} of calls",
                percent(hedge.quantile_permille),
                length(hedge.wait_min),
                percent(hedge.share_permille)
            )
        },
    );
    let patience = &policy.patience;
    let named = [
        ("connect", patience.connect),
        ("head", patience.head),
        ("first token", patience.first_token),
        ("stall", patience.stall),
        ("total", patience.total),
    ];
    let own = named.iter().filter_map(|(name, time)| Some(format!("{name} {}", length((*time)?))));
    let mut deadlines: Vec<_> = own.collect();
    if deadlines.len() < named.len() {
        let others = if deadlines.is_empty() { "the providers'" } else { "else the providers'" };
        deadlines.push(others.to_owned());
    }
    let attempts = format!(
        "at most {}, none later than {} after the call",
        policy.attempts_max,
        length(policy.attempts_within)
    );
    let wait =
        format!("at most {} for a target that says when to come back", length(policy.wait_max));
    vec![
        format!("  attempts   {attempts}"),
        format!("  wait       {wait}"),
        format!("  on_break   {}", words.on_break),
        format!("  balance    {}", words.balance),
        format!("  affinity   {}", words.affinity),
        format!("  hedge      {hedge}"),
        format!("  deadlines  {}", deadlines.join(", ")),
    ]
}

fn node(explanation: &Explanation) -> String {
    let address = explanation.address;
    match &explanation.node {
        Ok(page) => format!("as the node at {address} sees them (generation {}):", page.generation),
        Err(problem) => {
            format!("as if all were well (of {address} nothing is known: {}):", cell(problem))
        }
    }
}

const HEADS: [&str; 10] = [
    "RANK", "WEIGHT", "SHARE", "STATE", "CALLS", "FIRST", "FAILING", "PREFILL", "CONTEXT", "TARGET",
];

fn row(cells: &[String; 10]) -> String {
    let [rank, weight, share, state, busy, first, failing, prefill, context, target] = cells;
    format!(
        "  {rank:>4}  {weight:>6}  {share:>6}  {state:<18}  {busy:>5}  {first:>8}  {failing:>7}  \
         {prefill:<7}  {context:>9}  {target}"
    )
}

fn cells(target: &Target, told: &Told) -> [String; 10] {
    let unknown = || "-".to_owned();
    let live = told.live.as_ref();
    let latency = live.map(|live| live.latency_ms).filter(|latency| *latency > 0);
    [
        target.rank.to_string(),
        target.weight.to_string(),
        percent(told.share_permille),
        state(told),
        live.map_or_else(unknown, |live| live.outstanding.to_string()),
        latency.map_or_else(unknown, |latency| format!("{latency} ms")),
        live.map_or_else(unknown, |live| percent(live.failing_permille)),
        if target.prefill { "yes" } else { "no" }.to_owned(),
        target.context_tokens.map_or_else(unknown, |tokens| tokens.to_string()),
        target.name.to_string(),
    ]
}

/// `open, 4.2 s`
fn state(told: &Told) -> String {
    let Some(live) = &told.live else { return "-".to_owned() };
    let hinted = if live.hinted { ", hinted" } else { "" };
    let left = live.left().map_or_else(String::new, |left| format!(", {}", length(left)));
    format!("{}{left}{hinted}", cell(&live.state))
}

fn order(explanation: &Explanation) -> Vec<String> {
    let order = &explanation.order;
    let mut lines = Vec::new();
    if order.turns.is_empty() {
        let soonest = order
            .retry_after
            .map_or_else(String::new, |left| format!("; the soonest may in {}", length(left)));
        lines.push(format!("no target takes calls{soonest}"));
    } else {
        lines.push("a call tries, if one after the other fails:".to_owned());
    }
    lines.extend((1_usize..).zip(&order.turns).map(|(number, turn)| {
        format!(
            "  {number}. {}: {}",
            explanation.name(turn.place),
            reason(explanation, number, *turn)
        )
    }));
    lines.extend(order.left_out.iter().map(|place| {
        format!("  not {}: {}", explanation.name(*place), obstacle(explanation, *place))
    }));
    lines
}

/// Why it is a target's turn at attempt `number`.
fn reason(explanation: &Explanation, number: usize, turn: Turn) -> String {
    let told = explanation.targets.get(turn.place);
    let share = told.map_or(0, |told| told.share_permille);
    let drawn = match explanation.route.policy.balance {
        Balance::Weighted => "drawn by weight",
        Balance::LeastLoaded => "drawn by weight and load",
    };
    let why = match turn.why {
        Why::Chosen if share >= 1_000 => "the first of its rank that takes calls".to_owned(),
        Why::Chosen => format!("{drawn}, as {} of calls", percent(share)),
        Why::Affinity => format!("by how the prompt begins, as {} of calls", percent(share)),
        Why::Probe => "it was off, and takes one call to show that it is well".to_owned(),
        Why::Fallback if number == 1 => "those of a lower rank take no calls".to_owned(),
        Why::Fallback => "the next that takes calls".to_owned(),
        Why::Reconnect | Why::Retry => "once more".to_owned(),
        Why::Hedge => "the others are late".to_owned(),
        Why::Continue => "it goes on with what broke off".to_owned(),
    };
    if turn.wait.is_zero() { why } else { format!("{why}, after {}", length(turn.wait)) }
}

/// Why a call does not come to a target.
fn obstacle(explanation: &Explanation, place: usize) -> &'static str {
    let Some(told) = explanation.targets.get(place) else { return "" };
    match told.outlook.standing {
        Standing::Open { .. } => "it is off",
        Standing::Cooling { .. } => "its limit is used up",
        Standing::Closed | Standing::HalfOpen => "attempts_max is reached before",
    }
}

fn percent(permille: u32) -> String {
    match (permille / 10, permille % 10) {
        (whole, 0) => format!("{whole} %"),
        (whole, tenth) => format!("{whole}.{tenth} %"),
    }
}

fn length(time: Duration) -> String {
    let milliseconds = time.as_millis();
    if milliseconds > 0 && milliseconds < 1_000 {
        return format!("{milliseconds} ms");
    }
    let (whole, tenth) = (time.as_secs(), time.subsec_millis() / 100);
    if tenth == 0 { format!("{whole} s") } else { format!("{whole}.{tenth} s") }
}
