//! Tests of the rules: single decisions, and walks of many calls through simulated time.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::choice::mix;
use super::rules::RETRY_AFTER;
use super::*;
use crate::catalog::{ProviderIndex, Route, Target, TargetSlot};
use crate::money::Prices;

mod walks;

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
        policy: Arc::default(),
    }
}

fn walk(tried: &[Tried]) -> Walk<'_> {
    Walk {
        tried,
        replayable: true,
        elapsed: Duration::ZERO,
        waited: Duration::ZERO,
        may_retry: true,
        key: None,
        chance: 7,
    }
}

fn tried(place: usize, failure: Failure) -> Tried {
    Tried { place, failure, retry_after: None }
}

/// Asked to come back in so many seconds.
fn limited(seconds: u64) -> Tried {
    Tried { retry_after: Some(Duration::from_secs(seconds)), ..tried(0, Failure::RateLimited) }
}

/// The wait in milliseconds; `None`: no attempt.
fn wait(step: Step) -> Option<u128> {
    match step {
        Step::Try { wait, .. } => Some(wait.as_millis()),
        Step::GiveUp { .. } => None,
    }
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
    // One that holds as much is not larger; and of one that nobody knows any other that is known may be.
    route.targets[1].context_tokens = Some(128_000);
    assert_eq!(place(next(&route, &walk(&last), &|_| WELL)), None);
    route.targets[2].context_tokens = None;
    let last = [tried(2, Failure::ContextLength), tried(0, Failure::ContextLength)];
    assert_eq!(
        place(next(&route, &walk(&last[..1]), &|_| WELL)).map(|step| step.1),
        Some(Why::Fallback)
    );
    assert_eq!(place(next(&route, &walk(&last), &|_| WELL)), Some((1, Why::Fallback)));
}

#[test]
fn a_lone_target_that_keeps_failing_is_asked_twice() {
    let mut one = route(&[(0, 1)]);
    Arc::make_mut(&mut one.policy).attempts_max = 9;
    let failed = [tried(0, Failure::Server); 2];
    for chance in 0..1_000 {
        let any = Walk { chance: mix(chance, 0), ..walk(&failed[..1]) };
        let step = next(&one, &any, &|_| WELL);
        let Step::Try { wait, why: Why::Retry, .. } = step else { panic!("{step:?}") };
        assert!(wait >= RETRY_AFTER / 2 && wait <= RETRY_AFTER * 3 / 2);
    }
    assert_eq!(place(next(&one, &walk(&failed), &|_| WELL)), None);
    let unread = [tried(0, Failure::Stale), failed[0]];
    assert_eq!(place(next(&one, &walk(&unread), &|_| WELL)), Some((0, Why::Retry)));
    let full = Walk { may_retry: false, ..walk(&failed[..1]) };
    assert_eq!(place(next(&one, &full, &|_| WELL)), None, "the edge has no room for repeats");
    assert_eq!(place(next(&one, &walk(&failed[..1]), &|_| off(5))), None, "it is off by now");
    let told = |seconds| Tried { retry_after: Some(Duration::from_secs(seconds)), ..failed[0] };
    assert!(matches!(wait(next(&one, &walk(&[told(2)]), &|_| WELL)), Some(2_000..=2_200)));
    assert_eq!(wait(next(&one, &walk(&[told(9)]), &|_| WELL)), None);
    assert!(wait(next(&one, &walk(&[told(0)]), &|_| WELL)) >= Some(50), "it is never hammered");
}

#[test]
fn a_limit_is_waited_for_only_if_there_is_nothing_better_and_it_is_short() {
    let one = route(&[(0, 1)]);
    let step = next(&one, &walk(&[limited(2)]), &|_| cooling(2));
    assert_eq!(place(step), Some((0, Why::Retry)));
    assert!(matches!(wait(step), Some(2_000..=2_200)));
    let again = [limited(2), limited(2)];
    assert!(wait(next(&one, &walk(&again), &|_| cooling(2))).is_some(), "it is not at fault");
    let step = next(&one, &walk(&[limited(9)]), &|_| cooling(9));
    assert_eq!(step, Step::GiveUp { retry_after: Some(Duration::from_secs(9)) });
    let two = route(&[(0, 1), (1, 1)]);
    let look = |place| if place == 0 { cooling(2) } else { WELL };
    assert_eq!(next(&two, &walk(&[limited(2)]), &look), Step::now(1, Why::Fallback));
    // A first attempt waits too, or tells when to come back.
    let first = next(&one, &walk(&[]), &|_| cooling(1));
    assert_eq!(place(first), Some((0, Why::Chosen)));
    assert!(matches!(wait(first), Some(1_000..=1_100)));
    assert_eq!(
        next(&two, &walk(&[]), &|place| if place == 0 { off(4) } else { cooling(60) }),
        Step::GiveUp { retry_after: Some(Duration::from_secs(4)) }
    );
}

#[test]
fn waits_are_spread_and_never_longer_than_allowed() {
    let one = route(&[(0, 1)]);
    let waits = |seconds: u64| {
        let any = |chance: u64| Walk { chance: mix(chance, 0), ..walk(&[]) };
        let steps = (0..100).map(move |chance| (chance, seconds));
        let waits = steps.map(|(chance, seconds)| {
            wait(next(&route(&[(0, 1)]), &any(chance), &|_| cooling(seconds))).unwrap()
        });
        waits.collect::<Vec<_>>()
    };
    let of_two = waits(2);
    assert!(of_two.iter().all(|wait| (2_000..=2_200).contains(wait)));
    assert!(of_two.iter().max().unwrap() - of_two.iter().min().unwrap() > 100);
    assert!(waits(3).iter().all(|wait| *wait == 3_000), "that is the longest");
    assert_eq!(wait(next(&one, &walk(&[]), &|_| cooling(4))), None);
    // However often a call waits and finds that others were faster, it waits no longer in all.
    let waited = |seconds| Walk { waited: Duration::from_secs(seconds), ..walk(&[]) };
    assert!(wait(next(&one, &waited(1), &|_| cooling(2))).is_some());
    assert_eq!(wait(next(&one, &waited(2), &|_| cooling(2))), None);
    assert_eq!(wait(next(&one, &waited(4), &|_| cooling(0))), None);
    assert!(wait(next(&one, &walk(&[]), &|_| cooling(0))) >= Some(50));
}

#[test]
fn nothing_is_given_up_while_another_would_do_in_a_moment() {
    let two = route(&[(0, 1), (1, 1)]);
    // The one that failed is of no use, the other takes calls again in a second.
    let look = |place| if place == 1 { cooling(1) } else { WELL };
    let step = next(&two, &walk(&[tried(0, Failure::Connect)]), &look);
    assert_eq!(place(step), Some((1, Why::Fallback)));
    assert!(matches!(wait(step), Some(1_000..=1_100)));
    // The first asked for a second, the other is of no use.
    let look = |place| if place == 0 { cooling(1) } else { WELL };
    let step = next(&two, &walk(&[limited(1), tried(1, Failure::Connect)]), &look);
    assert_eq!(place(step), Some((0, Why::Retry)));
    // Both may do better: the last one, and after it the first, each once.
    let mut failed = vec![tried(0, Failure::Server), tried(1, Failure::Server)];
    let mut many = two.clone();
    Arc::make_mut(&mut many.policy).attempts_max = 9;
    for expected in [Some((1, Why::Retry)), Some((0, Why::Retry)), None] {
        let step = place(next(&many, &walk(&failed), &|_| WELL));
        assert_eq!(step, expected);
        failed.extend(step.map(|(place, _)| tried(place, Failure::Server)));
    }
}

#[test]
fn budgets_of_attempts_and_of_time_hold() {
    let many = route(&[(0, 1); 5]);
    let failed: Vec<_> = (0..4).map(|place| tried(place, Failure::Connect)).collect();
    assert!(place(next(&many, &walk(&failed[..2]), &|_| WELL)).is_some());
    assert_eq!(place(next(&many, &walk(&failed[..3]), &|_| WELL)), None);
    let within = many.policy.attempts_within;
    let late = |elapsed, tried| Walk { elapsed, ..walk(tried) };
    assert!(place(next(&many, &late(within, &failed[..1]), &|_| WELL)).is_some());
    let over = within + Duration::from_micros(1);
    assert_eq!(place(next(&many, &late(over, &failed[..1]), &|_| WELL)), None);
    let stale = [tried(0, Failure::Stale)];
    assert_eq!(place(next(&many, &late(over, &stale), &|_| WELL)), None);
    // Nor does an attempt begin after its time because of a wait.
    assert_eq!(place(next(&many, &late(within, &[]), &|_| cooling(1))), None);
    let once = Walk { replayable: false, ..walk(&failed[..1]) };
    assert_eq!(place(next(&many, &once, &|_| WELL)), None);
}

#[test]
fn a_stale_connection_is_made_anew_only_where_calls_are_taken() {
    let two = route(&[(0, 1), (1, 1)]);
    let stale = [tried(0, Failure::Stale), tried(0, Failure::Stale)];
    let look = |place| if place == 0 { off(3) } else { WELL };
    assert_eq!(next(&two, &walk(&stale[..1]), &look), Step::now(1, Why::Fallback));
    assert_eq!(next(&two, &walk(&stale), &|_| WELL), Step::now(1, Why::Fallback));
    // Each target has its own free one.
    let both = [tried(0, Failure::Stale), tried(0, Failure::Connect), tried(1, Failure::Stale)];
    assert_eq!(place(next(&two, &walk(&both), &|_| WELL)), Some((1, Why::Reconnect)));
}

#[test]
fn when_to_come_back_is_told_only_where_that_would_help() {
    let two = route(&[(0, 1), (1, 1)]);
    let look = |place| if place == 1 { off(9) } else { WELL };
    let told = |tried: &[Tried], look: &dyn Fn(usize) -> Outlook| {
        let step = next(&two, &Walk { may_retry: false, ..walk(tried) }, look);
        let Step::GiveUp { retry_after } = step else { panic!("{step:?}") };
        retry_after.map(|time| time.as_secs())
    };
    assert_eq!(told(&[tried(0, Failure::Connect)], &look), Some(9));
    for own in [Failure::Request, Failure::ContentPolicy, Failure::ContextLength] {
        assert_eq!(told(&[tried(0, own)], &look), None, "{own:?} stays what it is");
    }
    // What a target has said counts, the soonest of all.
    assert_eq!(
        told(&[limited(20)], &|place| if place == 0 { cooling(20) } else { off(9) }),
        Some(9)
    );
    assert_eq!(told(&[limited(7), tried(1, Failure::Connect)], &|_| off(9)), Some(7));
    // The budget is used up, and another target would take the call.
    assert_eq!(told(&[limited(7); 3], &|_| WELL), None);
    // Nobody knows when.
    let never = Outlook { standing: Standing::Open { left: Duration::MAX }, ..WELL };
    assert_eq!(told(&[tried(0, Failure::Connect)], &|_| never), None);
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

/// How many of a thousand calls go to the first of two targets of these weights.
fn share_of_first(weights: (u32, u32), outlooks: (Outlook, Outlook)) -> u32 {
    let mut route = route(&[(0, weights.0), (0, weights.1)]);
    Arc::make_mut(&mut route.policy).balance = Balance::LeastLoaded;
    let look = |place| if place == 0 { outlooks.0 } else { outlooks.1 };
    let is_first = |chance: &u64| {
        let any = Walk { chance: mix(*chance, 0), ..walk(&[]) };
        place(next(&route, &any, &look)).unwrap().0 == 0
    };
    u32::try_from((0..1_000).filter(is_first).count()).unwrap()
}

#[test]
fn the_less_loaded_of_two_is_taken_but_the_other_is_not_forgotten() {
    let slow = Outlook { latency_micros: 900_000, ..WELL };
    let fast = Outlook { latency_micros: 300_000, outstanding: 1, ..WELL };
    let full = Outlook { outstanding: 9, ..fast };
    let failing = Outlook { failing_permille: 500, ..fast };
    for (better, worse) in [(fast, slow), (slow, full), (fast, failing)] {
        let share = share_of_first((1, 1), (better, worse));
        assert!((930..1_000).contains(&share), "{share}");
        assert_eq!(share_of_first((1, 1), (better, worse)), share, "chance is an argument");
        assert!((1..70).contains(&share_of_first((1, 1), (worse, better))));
    }
}

#[test]
fn load_counts_for_the_weight_and_the_unknown_is_neutral() {
    let busy = |outstanding| Outlook { outstanding, latency_micros: 500_000, ..WELL };
    let unknown = |outstanding| Outlook { outstanding, ..WELL };
    // Those that are alike share by weight: four times as much for four times the weight.
    for alike in [(WELL, WELL), (busy(0), busy(0)), (busy(8), busy(2)), (unknown(8), busy(2))] {
        assert!((760..840).contains(&share_of_first((4, 1), alike)), "{alike:?}");
    }
    for (first, second) in [(busy(7), busy(2)), (unknown(7), busy(2)), (busy(7), unknown(2))] {
        assert!(share_of_first((4, 1), (first, second)) > 930);
    }
    for (first, second) in [(busy(9), busy(2)), (unknown(9), busy(2)), (busy(9), unknown(2))] {
        assert!(share_of_first((4, 1), (first, second)) < 70);
    }
}

#[test]
fn each_target_is_looked_at_once_for_a_decision() {
    let looks = Cell::new(0);
    let look = |_| {
        looks.set(looks.get() + 1);
        WELL
    };
    for targets in [&[(0, 1)][..], &[(0, 1), (0, 2), (1, 1), (2, 0)]] {
        looks.set(0);
        assert!(place(next(&route(targets), &walk(&[]), &look)).is_some());
        assert_eq!(looks.get(), targets.len());
    }
}

#[test]
fn a_hedge_is_another_target_that_is_well() {
    let mut route = route(&[(0, 1), (1, 1)]);
    assert_eq!(hedge(&route, &walk(&[]), 0, &|_| WELL), Some(1));
    let half_open = Outlook { standing: Standing::HalfOpen, ..WELL };
    for poor in [off(1), cooling(1), half_open, Outlook { hinted: true, ..WELL }] {
        let look = |place| if place == 1 { poor } else { WELL };
        assert_eq!(hedge(&route, &walk(&[]), 0, &look), None);
    }
    assert_eq!(hedge(&route, &walk(&[tried(1, Failure::Connect)]), 0, &|_| WELL), None);
    Arc::make_mut(&mut route.policy).attempts_max = 1;
    assert_eq!(hedge(&route, &walk(&[]), 0, &|_| WELL), None, "it would be one attempt too many");
}

#[test]
fn an_answer_is_continued_by_a_target_that_has_not_been_tried() {
    let mut route = route(&[(0, 1), (1, 1), (2, 1)]);
    let cut = [tried(0, Failure::Cut)];
    assert_eq!(continuation(&route, &walk(&cut), &|_| WELL), Some(1));
    assert_eq!(continuation(&route, &walk(&cut), &|_| off(1)), None);
    let half_open = Outlook { standing: Standing::HalfOpen, ..WELL };
    let look = |place| if place == 1 { half_open } else { WELL };
    assert_eq!(continuation(&route, &walk(&cut), &look), Some(2), "no trial while one is well");
    let look = |place| if place == 1 { half_open } else { off(1) };
    assert_eq!(continuation(&route, &walk(&cut), &look), Some(1));
    let two = [tried(1, Failure::Request), tried(0, Failure::Cut)];
    assert_eq!(continuation(&route, &walk(&two), &|_| WELL), Some(2));
    let all = [two[0], two[1], tried(2, Failure::Connect)];
    assert_eq!(continuation(&route, &walk(&all), &|_| WELL), None);
    let gone = Walk { replayable: false, ..walk(&cut) };
    assert_eq!(continuation(&route, &gone, &|_| WELL), None);
    Arc::make_mut(&mut route.policy).attempts_max = 2;
    assert_eq!(continuation(&route, &walk(&two), &|_| WELL), None);
    Arc::make_mut(&mut route.policy).on_break = OnBreak::Error;
    assert_eq!(continuation(&route, &walk(&cut), &|_| WELL), None);
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
    // Without it in the configuration, and so at other places, the rest is the same.
    route.targets.remove(0);
    assert_eq!(homes(&route, &|_| WELL), after);
}

#[test]
fn affinity_is_bounded_by_load() {
    let mut route = route(&[(0, 1), (0, 1)]);
    Arc::make_mut(&mut route.policy).affinity = Affinity::Prefix;
    let loaded = Outlook { outstanding: 10, ..WELL };
    let homes = homes(&route, &|place| if place == 0 { loaded } else { WELL });
    assert!(homes.values().all(|name| &**name == "p1/m"));
}

proptest! {
    /// However the keys fall, no target has more under way than a quarter above its share, and one.
    #[test]
    fn no_key_overloads_its_target(
        weights in proptest::collection::vec(1_u32..5, 1..7),
        keys in 1_u64..5,
        seed: u64,
    ) {
        let ranked: Vec<_> = weights.iter().map(|weight| (0, *weight)).collect();
        let mut route = route(&ranked);
        Arc::make_mut(&mut route.policy).affinity = Affinity::Prefix;
        let mut under_way = vec![0_u32; weights.len()];
        for call in 0..300 {
            let look = |place: usize| Outlook { outstanding: under_way[place], ..WELL };
            let key = Some(mix(seed, call % keys));
            let (place, _) = place(next(&route, &Walk { key, ..walk(&[]) }, &look)).unwrap();
            under_way[place] += 1;
            let share = f64::from(weights[place]) / f64::from(weights.iter().sum::<u32>());
            let bound = 1.25 * share * f64::from(under_way.iter().sum::<u32>()) + 2.0;
            prop_assert!(f64::from(under_way[place]) <= bound, "{under_way:?} of {weights:?}");
        }
    }

    /// Pearson's test of the shares that weights get: all but one in ten million fair draws pass.
    #[test]
    fn weights_are_shares_by_chance(
        weights in proptest::collection::vec(1_u32..9, 6),
        seed: u64,
    ) {
        let ranked: Vec<_> = weights.iter().map(|weight| (0, *weight)).collect();
        let route = route(&ranked);
        let mut drawn = [0_u32; 6];
        for call in 0..4_000 {
            let any = Walk { chance: mix(seed, call), ..walk(&[]) };
            drawn[place(next(&route, &any, &|_| WELL)).unwrap().0] += 1;
        }
        let sum = f64::from(weights.iter().sum::<u32>());
        let off = drawn.iter().zip(&weights).map(|(drawn, weight)| {
            let expected = 4_000.0 * f64::from(*weight) / sum;
            (f64::from(*drawn) - expected).powi(2) / expected
        });
        let off: f64 = off.sum();
        prop_assert!(off < 42.0, "{drawn:?} of {weights:?}: {off}");
    }
}
