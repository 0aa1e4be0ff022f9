//! What the rule of attempts does with a route's targets as they stand: it is asked, with every chance.

use std::time::Duration;

use tokenroute_domain::catalog::Route;
use tokenroute_domain::routing::{Failure, Outlook, Step, TARGETS_MAX, Tried, Walk, Why, next};

/// Times that the rule is asked, at least, where more than weights decides.
const SAMPLES_MIN: u64 = 4096;
/// A share is told in parts of so many.
const PERMILLE: u64 = 1_000;

/// In which order a call tries targets that fail one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The likeliest way.
    pub turns: Vec<Turn>,
    /// Targets that such a call does not come to.
    pub left_out: Vec<usize>,
    /// When a target may take calls again, if none does now.
    pub retry_after: Option<Duration>,
}

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Which of the route's targets.
    pub place: usize,
    /// What the rule says.
    pub why: Why,
    /// How long the call waits before.
    pub wait: Duration,
}

/// How many of a thousand calls that come now try each target first.
pub(super) fn shares(route: &Route, outlooks: &[Outlook]) -> Vec<u32> {
    let hits = hits(route, outlooks, &[]);
    let sum: u64 = hits.iter().map(|(count, _)| count).sum();
    let permille = |count: u64| {
        let rounded = count.saturating_mul(PERMILLE).saturating_add(sum / 2).checked_div(sum);
        rounded.and_then(|share| u32::try_from(share).ok()).unwrap_or_default()
    };
    hits.into_iter().map(|(count, _)| permille(count)).collect()
}

/// The likeliest way of a call whose every attempt is refused a connection.
pub(super) fn of(route: &Route, outlooks: &[Outlook]) -> Order {
    let mut tried: Vec<Tried> = Vec::new();
    let mut turns: Vec<Turn> = Vec::new();
    // The rule ends every walk; this is the bound that does not depend on it.
    for _attempt in 0..TARGETS_MAX.saturating_mul(2) {
        let hits = hits(route, outlooks, &tried);
        // Of equally likely ones the first, which is the last that compares as greatest from behind.
        let likeliest = hits.iter().rev().max_by_key(|(count, _)| *count);
        let Some((_, Some(turn))) = likeliest else { break };
        turns.push(*turn);
        tried.push(Tried { place: turn.place, failure: Failure::Connect, retry_after: None });
    }
    let has_turn = |place: &usize| turns.iter().any(|turn| turn.place == *place);
    let left_out = (0..route.targets.len()).filter(|place| !has_turn(place)).collect();
    let retry_after = match ask(route, outlooks, &tried, 0) {
        Step::GiveUp { retry_after } => retry_after,
        Step::Try { .. } => None,
    };
    Order { turns, left_out, retry_after }
}

/// How often each target is the next one, and its turn then, over chances that are spread evenly.
fn hits(route: &Route, outlooks: &[Outlook], tried: &[Tried]) -> Vec<(u64, Option<Turn>)> {
    // A weight of nothing counts as one where nothing else is there to count.
    let weight =
        |place: usize| route.targets.get(place).map_or(0, |target| u64::from(target.weight.max(1)));
    let places = 0..route.targets.len();
    // As many chances as all weights together meet everyone who can be drawn …
    let met = count(route, outlooks, tried, places.clone().map(weight).sum());
    // … and a multiple of the weights of those who were met shares them out without a remainder.
    let weights: u64 = places.filter(|place| is_met(&met, *place)).map(weight).sum();
    let rounds = SAMPLES_MIN.div_ceil(weights.max(1));
    if weights == 0 { met } else { count(route, outlooks, tried, weights.saturating_mul(rounds)) }
}

fn is_met(hits: &[(u64, Option<Turn>)], place: usize) -> bool {
    hits.get(place).is_some_and(|(count, _)| *count > 0)
}

fn count(
    route: &Route,
    outlooks: &[Outlook],
    tried: &[Tried],
    chances: u64,
) -> Vec<(u64, Option<Turn>)> {
    let mut hits = vec![(0_u64, None); route.targets.len()];
    for chance in 0..chances {
        if let Step::Try { place, wait, why, pooled: _ } = ask(route, outlooks, tried, chance)
            && let Some((count, turn)) = hits.get_mut(place)
        {
            *count = count.saturating_add(1);
            turn.get_or_insert(Turn { place, why, wait });
        }
    }
    hits
}

/// What the rule says to a call that could be sent again and has just begun to look for a target.
fn ask(route: &Route, outlooks: &[Outlook], tried: &[Tried], chance: u64) -> Step {
    let walk = Walk {
        tried,
        replayable: true,
        elapsed: Duration::ZERO,
        waited: Duration::ZERO,
        may_retry: true,
        key: Some(chance),
        chance,
    };
    next(route, &walk, &|place| outlooks.get(place).copied().unwrap_or(super::live::WELL))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokenroute_domain::catalog::{ProviderIndex, Target, TargetSlot};
    use tokenroute_domain::money::Prices;
    use tokenroute_domain::routing::{Balance, Policy, Standing};

    use super::super::live::WELL;
    use super::*;

    /// A route to targets of such ranks and weights.
    fn route(policy: Policy, targets: &[(u32, u32)]) -> Route {
        let target = |(place, (rank, weight)): (usize, &(u32, u32))| Target {
            name: Arc::from(format!("p/{place}")),
            provider: ProviderIndex(0),
            upstream_model: Arc::from("m"),
            prices: Prices::default(),
            weight: *weight,
            rank: *rank,
            slot: TargetSlot(place),
            prefill: false,
            context_tokens: None,
            output_tokens_max: None,
            image_tokens_max: None,
        };
        Route {
            model: Arc::from("m"),
            pattern: Arc::from("m"),
            targets: targets.iter().enumerate().map(target).collect(),
            policy: Arc::new(policy),
        }
    }

    fn places(order: &Order) -> Vec<usize> {
        order.turns.iter().map(|turn| turn.place).collect()
    }

    #[test]
    fn shares_by_weight_are_exact_and_of_the_first_rank_alone() {
        let route = route(Policy::default(), &[(0, 7), (0, 0), (0, 9_993), (1, 5)]);
        assert_eq!(shares(&route, &[WELL; 4]), [1, 0, 999, 0]);
        let off = Outlook { standing: Standing::Open { left: Duration::MAX }, ..WELL };
        assert_eq!(shares(&route, &[off, off, off, WELL]), [0, 0, 0, 1_000]);
        assert_eq!(shares(&route, &[off; 4]), [0; 4]);
    }

    #[test]
    fn the_less_loaded_get_more_and_nobody_nothing() {
        let policy = Policy { balance: Balance::LeastLoaded, ..Policy::default() };
        let busy = Outlook { outstanding: 50, latency_micros: 1_000, ..WELL };
        let idle = Outlook { outstanding: 0, latency_micros: 1_000, ..WELL };
        let shares = shares(&route(policy, &[(0, 1), (0, 1), (0, 1)]), &[busy, idle, idle]);
        assert!(shares[0] < shares[1] && shares[0] < shares[2], "{shares:?}");
        assert!((999..=1_001).contains(&shares.iter().sum::<u32>()), "{shares:?}");
    }

    #[test]
    fn the_order_ends_with_the_budget_and_knows_when_to_come_back() {
        let policy = Policy { attempts_max: 3, ..Policy::default() };
        let route = route(policy, &[(0, 1), (0, 8), (1, 1), (2, 1)]);
        let order = of(&route, &[WELL; 4]);
        assert_eq!((places(&order), order.left_out), (vec![1, 0, 2], vec![3]));
        let left = Duration::from_secs(9);
        let off = Outlook { standing: Standing::Open { left }, ..WELL };
        let none = of(&route, &[off; 4]);
        assert_eq!((none.turns, none.left_out), (vec![], vec![0, 1, 2, 3]));
        assert_eq!(none.retry_after, Some(left));
        let soon = Duration::from_millis(1_500);
        let cooling = Outlook { standing: Standing::Cooling { left: soon }, ..WELL };
        let waits = of(&route, &[off, off, cooling, off]).turns;
        assert_eq!((waits[0].place, waits[0].why), (2, Why::Chosen));
        assert!(waits[0].wait >= soon, "{waits:?}");
    }
}
