//! Tests of the rules: single decisions, and seeded walks over routes whose targets stand and fall.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::breaker::Breaker;
use crate::catalog::{ProviderIndex, TargetSlot};
use crate::time::Tick;

const WELL: Outlook = Outlook {
    standing: Standing::Closed,
    hinted: false,
    outstanding: 0,
    latency_micros: 0,
    failing_permille: 0,
};

fn off(seconds: u64) -> Outlook {
    Outlook { standing: Standing::Open { left: Duration::from_secs(seconds) }, ..WELL }
}

fn cooling(seconds: u64) -> Outlook {
    Outlook { standing: Standing::Cooling { left: Duration::from_secs(seconds) }, ..WELL }
}

/// A route over targets of these ranks and weights.
fn route(targets: &[(u32, u32)]) -> Route {
    let target = |(place, (rank, weight)): (usize, &(u32, u32))| Target {
        name: Arc::from(format!("p{place}/m")),
        provider: ProviderIndex(place),
        upstream_model: Arc::from("m"),
        price: None,
        weight: *weight,
        rank: *rank,
        slot: TargetSlot(place),
        prefill: false,
        context_tokens: None,
    };
    Route {
        model: Arc::from("m"),
        pattern: Arc::from("m"),
        targets: targets.iter().enumerate().map(target).collect(),
        policy: Arc::default(),
    }
}

fn walk(tried: &[Tried]) -> Walk<'_> {
    Walk { tried, replayable: true, elapsed: Duration::ZERO, may_retry: true, key: None, chance: 7 }
}

fn tried(place: usize, failure: Failure) -> Tried {
    Tried { place, failure, retry_after: None }
}

fn place(step: Step) -> Option<(usize, Why)> {
    match step {
        Step::Try { place, why, .. } => Some((place, why)),
        Step::GiveUp { .. } => None,
    }
}

#[test]
fn a_stale_connection_is_retried_once_on_a_new_one_and_does_not_count() {
    let mut route = route(&[(0, 1)]);
    Arc::make_mut(&mut route.policy).attempts_max = 1;
    let stale = [tried(0, Failure::Stale), tried(0, Failure::Stale)];
    let step = next(&route, &walk(&stale[..1]), &|_| WELL);
    let fresh = Step::Try { place: 0, pooled: false, wait: Duration::ZERO, why: Why::Reconnect };
    assert_eq!(step, fresh);
    assert_eq!(place(next(&route, &walk(&stale), &|_| WELL)), None);
    let gone = Walk { replayable: false, ..walk(&stale[..1]) };
    assert_eq!(place(next(&route, &gone, &|_| WELL)), None);
}

#[test]
fn each_failure_has_its_next_step() {
    let two = route(&[(0, 1), (1, 1)]);
    let one = route(&[(0, 1)]);
    for failure in Failure::ALL {
        let last = [tried(0, failure)];
        let there = place(next(&two, &walk(&last), &|_| WELL));
        let alone = place(next(&one, &walk(&last), &|_| WELL));
        let (fallback, retry) = (Some((1, Why::Fallback)), Some((0, Why::Retry)));
        let expected = match failure {
            Failure::Request
            | Failure::ContentPolicy
            | Failure::ContextLength
            | Failure::Diverged => (None, None),
            Failure::Stale => (Some((0, Why::Reconnect)), Some((0, Why::Reconnect))),
            Failure::RateLimited
            | Failure::Server
            | Failure::ErrorEvent
            | Failure::Reset
            | Failure::Cut => (fallback, retry),
            Failure::Resolve
            | Failure::Connect
            | Failure::HeadTimeout
            | Failure::FirstTokenTimeout
            | Failure::Protocol
            | Failure::Credential
            | Failure::Redirect
            | Failure::Stall
            | Failure::Garbage => (fallback, None),
        };
        assert_eq!((there, alone), expected, "{failure:?}");
    }
}

#[test]
fn a_lone_target_that_keeps_failing_is_asked_twice() {
    let mut one = route(&[(0, 1)]);
    Arc::make_mut(&mut one.policy).attempts_max = 9;
    let failed = [tried(0, Failure::Server); 2];
    let step = next(&one, &walk(&failed[..1]), &|_| WELL);
    let Step::Try { wait, .. } = step else { panic!("{step:?}") };
    assert!(wait >= RETRY_AFTER / 2 && wait < RETRY_AFTER * 2);
    assert_eq!(place(next(&one, &walk(&failed), &|_| WELL)), None);
    let full = Walk { may_retry: false, ..walk(&failed[..1]) };
    assert_eq!(place(next(&one, &full, &|_| WELL)), None);
}

#[test]
fn a_longer_context_is_looked_for() {
    let mut route = route(&[(0, 1), (1, 1), (2, 1)]);
    for (target, tokens) in route.targets.iter_mut().zip([Some(8_000), Some(4_000), Some(128_000)])
    {
        target.context_tokens = tokens;
    }
    let last = [tried(0, Failure::ContextLength)];
    assert_eq!(place(next(&route, &walk(&last), &|_| WELL)), Some((2, Why::Fallback)));
    let last = [tried(2, Failure::ContextLength)];
    assert_eq!(place(next(&route, &walk(&last), &|_| WELL)), None);
}

#[test]
fn a_limit_is_waited_for_only_if_there_is_nothing_better_and_it_is_short() {
    let one = route(&[(0, 1)]);
    let limited = |seconds| Tried {
        retry_after: Some(Duration::from_secs(seconds)),
        ..tried(0, Failure::RateLimited)
    };
    let step = next(&one, &walk(&[limited(2)]), &|_| cooling(2));
    let wait = Duration::from_secs(2);
    assert_eq!(step, Step::Try { place: 0, pooled: true, wait, why: Why::Retry });
    let step = next(&one, &walk(&[limited(9)]), &|_| cooling(9));
    assert_eq!(step, Step::GiveUp { retry_after: Some(Duration::from_secs(9)) });
    let two = route(&[(0, 1), (1, 1)]);
    let look = |place| if place == 0 { cooling(2) } else { WELL };
    assert_eq!(place(next(&two, &walk(&[limited(2)]), &look)), Some((1, Why::Fallback)));
    // A first attempt waits too, or tells when to come back.
    let first = next(&one, &walk(&[]), &|_| cooling(1));
    assert!(matches!(first, Step::Try { wait, .. } if wait == Duration::from_secs(1)));
    assert_eq!(
        next(&two, &walk(&[]), &|place| if place == 0 { off(4) } else { cooling(60) }),
        Step::GiveUp { retry_after: Some(Duration::from_secs(4)) }
    );
}

#[test]
fn ranks_come_in_order_and_a_trial_gets_its_call() {
    let route = route(&[(0, 1), (0, 1), (1, 1)]);
    for chance in 0..64 {
        let any = Walk { chance, ..walk(&[]) };
        assert!(place(next(&route, &any, &|_| WELL)).is_some_and(|(place, _)| place < 2));
        let look = |place| if place < 2 { off(1) } else { WELL };
        assert_eq!(place(next(&route, &any, &look)), Some((2, Why::Fallback)));
        let half = Outlook { standing: Standing::HalfOpen, ..WELL };
        let look = |place| if place == 1 { half } else { WELL };
        assert_eq!(place(next(&route, &any, &look)), Some((1, Why::Probe)));
    }
}

#[test]
fn a_hint_is_a_preference_and_no_veto() {
    let route = route(&[(0, 1), (1, 1)]);
    let hinted = Outlook { hinted: true, ..WELL };
    let look = |place| if place == 0 { hinted } else { WELL };
    assert_eq!(place(next(&route, &walk(&[]), &look)), Some((1, Why::Fallback)));
    let look = |place| if place == 0 { hinted } else { off(3) };
    assert_eq!(place(next(&route, &walk(&[]), &look)), Some((0, Why::Chosen)));
}

#[test]
fn weights_are_shares_and_none_takes_none() {
    let route = route(&[(0, 3), (0, 1), (0, 0)]);
    let mut drawn = [0_u32; 3];
    for chance in 0..4_000 {
        let any = Walk { chance, ..walk(&[]) };
        drawn[place(next(&route, &any, &|_| WELL)).unwrap().0] += 1;
    }
    assert_eq!(drawn, [3_000, 1_000, 0]);
    let look = |place| if place < 2 { off(1) } else { WELL };
    assert!(place(next(&route, &walk(&[]), &look)).is_some_and(|(place, _)| place == 2));
}

#[test]
fn the_less_loaded_of_two_is_taken() {
    let mut route = route(&[(0, 1), (0, 1)]);
    Arc::make_mut(&mut route.policy).balance = Balance::LeastLoaded;
    let slow = Outlook { latency_micros: 900_000, ..WELL };
    let fast = Outlook { latency_micros: 300_000, outstanding: 1, ..WELL };
    let full = Outlook { outstanding: 9, ..fast };
    let failing = Outlook { failing_permille: 500, ..fast };
    for chance in 0..32 {
        let any = Walk { chance, ..walk(&[]) };
        for (first, second, better) in [(slow, fast, 1), (slow, full, 0), (fast, failing, 0)] {
            let look = |place| if place == 0 { first } else { second };
            assert_eq!(place(next(&route, &any, &look)).unwrap().0, better);
        }
    }
}

#[test]
fn a_hedge_is_another_target_that_is_well() {
    let route = route(&[(0, 1), (1, 1)]);
    assert_eq!(hedge(&route, &walk(&[]), 0, &|_| WELL), Some(1));
    for poor in [off(1), cooling(1), Outlook { standing: Standing::HalfOpen, ..WELL }] {
        assert_eq!(
            hedge(&route, &walk(&[]), 0, &|place| if place == 1 { poor } else { WELL }),
            None
        );
    }
}

/// Where each of a thousand keys goes.
fn homes(route: &Route, look: &dyn Fn(usize) -> Outlook) -> HashMap<u64, Arc<str>> {
    let home = |key: u64| {
        let keyed = Walk { key: Some(key.wrapping_mul(0x9e37_79b9)), chance: key, ..walk(&[]) };
        let (place, why) = place(next(route, &keyed, look)).unwrap();
        assert_eq!(why, Why::Affinity);
        (key, Arc::clone(&route.targets[place].name))
    };
    (0..1_000).map(home).collect()
}

#[test]
fn affinity_moves_only_the_calls_of_a_target_that_goes() {
    let mut route = route(&[(0, 1), (0, 2), (0, 1)]);
    Arc::make_mut(&mut route.policy).affinity = Affinity::Prefix;
    let before = homes(&route, &|_| WELL);
    let share = before.values().filter(|name| &***name == "p1/m").count();
    assert!((430..570).contains(&share), "half of the weight has {share} of 1000");
    let after = homes(&route, &|place| if place == 0 { off(1) } else { WELL });
    for (key, name) in &before {
        assert!(&**name == "p0/m" || after[key] == *name);
    }
}

#[test]
fn affinity_is_bounded_by_load() {
    let mut route = route(&[(0, 1), (0, 1)]);
    Arc::make_mut(&mut route.policy).affinity = Affinity::Prefix;
    let loaded = Outlook { outstanding: 10, ..WELL };
    let homes = homes(&route, &|place| if place == 0 { loaded } else { WELL });
    assert!(homes.values().all(|name| &**name == "p1/m"));
}

#[derive(Clone, Debug)]
struct Plan {
    targets: Vec<(u32, u32)>,
    policy: Policy,
    /// What each target does with each attempt, in turn; `None` is an answer.
    fates: Vec<Vec<Option<usize>>>,
    calls: Vec<(u64, u64)>,
    rooms: bool,
}

fn plans() -> impl Strategy<Value = Plan> {
    let policy = (1_u32..6, any::<bool>(), any::<bool>(), 0_u64..5).prop_map(
        |(attempts_max, least, prefix, wait)| Policy {
            attempts_max,
            balance: if least { Balance::LeastLoaded } else { Balance::Weighted },
            affinity: if prefix { Affinity::Prefix } else { Affinity::None },
            wait_max: Duration::from_secs(wait),
            ..Policy::default()
        },
    );
    let fate = proptest::option::weighted(0.7, 0..Failure::ALL.len());
    (1_usize..7).prop_flat_map(move |count| {
        let targets = proptest::collection::vec((0_u32..3, 0_u32..4), count);
        let fates =
            proptest::collection::vec(proptest::collection::vec(fate.clone(), 1..12), count);
        let calls = proptest::collection::vec((0_u64..4_000, any::<u64>()), 1..40);
        (targets, policy.clone(), fates, calls, any::<bool>()).prop_map(
            |(targets, policy, fates, calls, rooms)| Plan { targets, policy, fates, calls, rooms },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Calls walk over a route in simulated time; their targets' breakers learn from them.
    #[test]
    fn walks_keep_to_the_rules(plan in plans()) {
        let mut route = route(&plan.targets);
        route.policy = Arc::new(plan.policy.clone());
        let breakers: Vec<_> = plan.targets.iter().map(|_| RefCell::new(Breaker::default())).collect();
        let mut turns = vec![0_usize; plan.targets.len()];
        let mut now = Tick(1_000_000);
        for (gap, seed) in plan.calls {
            now = now.plus(Duration::from_millis(gap));
            let begun = now;
            let (mut tried, mut attempts) = (Vec::<Tried>::new(), vec![0_u32; plan.targets.len()]);
            let mut counted = 0_u32;
            for step in 0_u64.. {
                prop_assert!(step < 40, "the walk does not end");
                let chance = seed.wrapping_mul(step * 2 + 1);
                let look = |place: usize| Outlook {
                    standing: breakers[place].borrow().standing(now),
                    ..WELL
                };
                let walk = Walk {
                    tried: &tried,
                    replayable: true,
                    elapsed: now.since(begun),
                    may_retry: plan.rooms,
                    key: Some(seed),
                    chance,
                };
                let Step::Try { place, wait, why, .. } = next(&route, &walk, &look) else { break };
                prop_assert!(wait <= plan.policy.wait_max || why == Why::Retry);
                let well = |other: usize| {
                    look(other).takes_calls() && !tried.iter().any(|tried| tried.place == other)
                };
                if why != Why::Reconnect && !look(place).takes_calls() {
                    prop_assert!(!(0..plan.targets.len()).any(well), "another one is well");
                    let cools = matches!(look(place).standing, Standing::Cooling { .. });
                    prop_assert!(cools, "what is off is never tried");
                }
                if why == Why::Retry {
                    prop_assert!(plan.rooms && !(0..plan.targets.len()).any(well));
                }
                now = now.plus(wait);
                let Some(permit) = breakers[place].borrow_mut().admit(now) else {
                    prop_assert_eq!(why, Why::Reconnect, "what is chosen takes the call");
                    break;
                };
                attempts[place] += 1;
                let fate = plan.fates[place][turns[place] % plan.fates[place].len()];
                turns[place] += 1;
                now = now.plus(Duration::from_millis(chance % 500));
                let mut breaker = breakers[place].borrow_mut();
                let Some(fate) = fate else {
                    breaker.succeeded(permit, now);
                    break;
                };
                let failure = Failure::ALL[fate];
                let retry_after = (chance % 3 == 0).then(|| Duration::from_secs(chance % 7));
                breaker.failed(permit, failure, retry_after, (now, chance));
                let free = failure == Failure::Stale
                    && !tried.iter().any(|one| one.place == place && one.failure == failure);
                counted += u32::from(!free);
                prop_assert!(counted <= plan.policy.attempts_max, "more attempts than the budget");
                tried.push(Tried { place, failure, retry_after });
            }
        }
    }
}
