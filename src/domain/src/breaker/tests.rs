//! Tests of the breaker: walks through simulated time.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const MILLI: u64 = 1_000;

fn at(seconds: u64) -> Tick {
    Tick(seconds * 1_000_000)
}

fn fail(breaker: &mut Breaker, now: Tick) -> Option<Change> {
    let permit = breaker.admit(now).expect("it takes calls");
    breaker.failed(permit, Failure::Server, None, (now, 0))
}

fn succeed(breaker: &mut Breaker, now: Tick) -> Option<Change> {
    let permit = breaker.admit(now).expect("it takes calls");
    breaker.succeeded(permit, now)
}

#[test]
fn a_cold_target_opens_after_three_failures_and_a_proven_one_after_five() {
    let mut cold = Breaker::default();
    assert_eq!((0..2).find_map(|_| fail(&mut cold, at(1))), None);
    assert_eq!(fail(&mut cold, at(1)), Some(Change::Opened(OFF_FIRST)));
    let mut proven = Breaker::default();
    succeed(&mut proven, at(1));
    assert_eq!((0..4).find_map(|_| fail(&mut proven, at(1))), None);
    assert_eq!(fail(&mut proven, at(1)), Some(Change::Opened(OFF_FIRST)));
    assert_eq!(proven.standing(at(2)), Standing::Open { left: Duration::from_secs(4) });
}

#[test]
fn half_of_twenty_results_open_it_and_old_ones_do_not_count() {
    let alternate = |breaker: &mut Breaker, from: u64, step: u64| {
        (0..20).find_map(|turn| {
            let now = Tick((from + turn * step) * MILLI);
            if turn % 2 == 0 { succeed(breaker, now) } else { fail(breaker, now) }
        })
    };
    assert!(alternate(&mut Breaker::default(), 100_000, 100).is_some());
    assert!(alternate(&mut Breaker::default(), 100_000, 2_000).is_none());
    // What came in a burst is forgotten as well, though nothing has come since.
    let mut breaker = Breaker::default();
    for _ in 0..9 {
        assert_eq!(succeed(&mut breaker, at(100)), None);
        assert_eq!(fail(&mut breaker, at(100)), None);
    }
    succeed(&mut breaker, at(100));
    assert_eq!(breaker.failing_permille(at(109)), 9_000 / 19);
    assert_eq!(breaker.failing_permille(at(110)), 0);
    assert_eq!(fail(&mut breaker, at(115)), None);
    assert_eq!(breaker.failing_permille(at(115)), 1_000);
}

#[test]
fn what_was_before_a_good_trial_is_settled() {
    let mut breaker = Breaker::default();
    while fail(&mut breaker, at(1)).is_none() {}
    assert_eq!(breaker.failing_permille(at(6)), 1_000);
    assert_eq!(succeed(&mut breaker, at(6)), Some(Change::Closed));
    assert_eq!(breaker.failing_permille(at(6)), 0);
}

#[test]
fn a_trial_that_met_the_callers_own_fault_is_free_again() {
    for own in [Failure::Request, Failure::ContextLength, Failure::ContentPolicy, Failure::Stale] {
        let mut breaker = Breaker::default();
        while fail(&mut breaker, at(1)).is_none() {}
        let trial = breaker.admit(at(6)).unwrap();
        assert_eq!(breaker.failed(trial, own, None, (at(6), 0)), None);
        assert!(breaker.admit(at(6)).is_some_and(|trial| trial.is_probe()), "{own:?}");
    }
}

#[test]
fn limits_and_callers_faults_never_open_it() {
    let mut breaker = Breaker::default();
    for turn in 0..100 {
        let now = at(turn * 100);
        for failure in Failure::ALL {
            if matches!(failure.blame(), Blame::Caller | Blame::Limit) {
                let Some(permit) = breaker.admit(now) else { continue };
                breaker.failed(permit, failure, None, (now, turn));
            }
        }
        assert!(!matches!(breaker.standing(now), Standing::Open { .. }));
    }
}

#[test]
fn a_limit_cools_for_as_long_as_the_target_says_within_a_bound() {
    let mut breaker = Breaker::default();
    let limit = |breaker: &mut Breaker, wait: Option<u64>, now: Tick| {
        let permit = Permit { epoch: breaker.epoch, trial: None };
        let wait = wait.map(Duration::from_secs);
        breaker.failed(permit, Failure::RateLimited, wait, (now, 0))
    };
    limit(&mut breaker, Some(7), at(1));
    assert_eq!(breaker.standing(at(3)), Standing::Cooling { left: Duration::from_secs(5) });
    assert_eq!(limit(&mut breaker, None, at(3)), None, "the one that ends last holds");
    assert!(breaker.admit(at(7)).is_none());
    assert_eq!(breaker.standing(at(8)), Standing::Closed);
    limit(&mut breaker, Some(86_400), at(8));
    assert_eq!(breaker.standing(at(8).plus(COOL_MAX)), Standing::Closed);
}

#[test]
fn a_refused_credential_benches_at_once_and_longer_each_time() {
    let mut breaker = Breaker::default();
    let mut now = at(1);
    let mut times = vec![];
    for _ in 0..6 {
        let permit = breaker.admit(now).unwrap();
        let change = breaker.failed(permit, Failure::Credential, None, (now, 0)).unwrap();
        assert_eq!(change.as_str(), "benched");
        times.push(change.off().as_secs());
        now = now.plus(change.off());
    }
    assert_eq!(times, [30, 60, 120, 240, 300, 300]);
}

#[test]
fn a_trial_is_one_call_and_decides() {
    let mut breaker = Breaker::default();
    while fail(&mut breaker, at(1)).is_none() {}
    let late = Permit { epoch: 0, trial: None };
    assert_eq!(breaker.standing(at(6)), Standing::HalfOpen);
    let trial = breaker.admit(at(6)).unwrap();
    assert!(trial.is_probe() && breaker.admit(at(6)).is_none());
    assert_eq!(breaker.succeeded(late, at(6)), None, "what began before says nothing");
    breaker.abandoned(trial, at(6));
    let trial = breaker.admit(at(6)).expect("a trial that was given back is free again");
    let change = breaker.failed(trial, Failure::Reset, None, (at(6), 0));
    assert_eq!(change, Some(Change::Opened(OFF_FIRST * 2)));
    let trial = breaker.admit(at(16)).unwrap();
    assert_eq!(breaker.succeeded(trial, at(16)), Some(Change::Closed));
    assert_eq!(breaker.standing(at(16)), Standing::Closed);
}

#[test]
fn a_trial_that_says_nothing_makes_room_for_another_and_may_decide_still() {
    let tried = || {
        let mut breaker = Breaker::default();
        while fail(&mut breaker, at(1)).is_none() {}
        let slow = breaker.admit(at(6)).unwrap();
        assert!(breaker.admit(at(15)).is_none());
        let second = breaker.admit(at(6).plus(TRIAL_MAX)).expect("the first has had its time");
        (breaker, slow, second)
    };
    let (mut breaker, slow, second) = tried();
    breaker.abandoned(slow, at(17));
    assert!(breaker.admit(at(17)).is_none(), "only the second could give back its place");
    breaker.abandoned(second, at(17));
    assert!(breaker.admit(at(17)).is_some());
    let (mut breaker, slow, second) = tried();
    assert_eq!(breaker.succeeded(slow, at(17)), Some(Change::Closed));
    assert_eq!(breaker.failed(second, Failure::Stall, None, (at(18), 0)), None);
    let (mut breaker, slow, second) = tried();
    assert_eq!(breaker.succeeded(second, at(17)), Some(Change::Closed));
    for _ in 0..IN_A_ROW_MAX {
        assert_eq!(breaker.failed(slow, Failure::Stall, None, (at(18), 0)), None);
    }
    assert_eq!(breaker.standing(at(18)), Standing::Closed);
}

#[test]
fn a_limit_met_by_a_trial_gives_it_back_when_the_limit_ends() {
    let mut breaker = Breaker::default();
    while fail(&mut breaker, at(1)).is_none() {}
    let trial = breaker.admit(at(6)).unwrap();
    let wait = Some(Duration::from_secs(3));
    let change = breaker.failed(trial, Failure::RateLimited, wait, (at(6), 0));
    assert_eq!(change, Some(Change::Cooled(Duration::from_secs(3))));
    assert_eq!(breaker.standing(at(8)), Standing::Cooling { left: Duration::from_secs(1) });
    assert_eq!(breaker.standing(at(9)), Standing::HalfOpen);
}

#[test]
fn times_off_are_longer_by_chance_within_a_bound() {
    let off = |chance: u64| {
        let mut breaker = Breaker::default();
        let fail = |breaker: &mut Breaker| {
            let permit = breaker.admit(at(1)).unwrap();
            breaker.failed(permit, Failure::Connect, None, (at(1), chance))
        };
        std::iter::from_fn(|| Some(fail(&mut breaker))).find_map(|one| one).unwrap().off()
    };
    let times: Vec<_> = (0..1_000).map(off).collect();
    assert_eq!(times.iter().min(), Some(&OFF_FIRST));
    assert_eq!(times.iter().max(), Some(&Duration::from_secs(6)));
}

#[test]
fn a_target_that_stayed_well_begins_again_with_the_first_time_off() {
    let mut breaker = Breaker::default();
    let mut now = at(1);
    for expected in [5, 10, 15, 15] {
        let change = std::iter::from_fn(|| Some(fail(&mut breaker, now))).find_map(|one| one);
        let off = change.unwrap().off();
        assert_eq!(off.as_secs(), expected);
        now = now.plus(off);
    }
    assert_eq!(succeed(&mut breaker, now), Some(Change::Closed));
    // It is well only for a moment.
    now = now.plus(Duration::from_secs(29));
    succeed(&mut breaker, now);
    let change = std::iter::from_fn(|| Some(fail(&mut breaker, now))).find_map(|one| one);
    assert_eq!(change.unwrap().off(), OFF_MAX);
    now = now.plus(OFF_MAX);
    succeed(&mut breaker, now);
    now = now.plus(STEADY);
    succeed(&mut breaker, now);
    let change = std::iter::from_fn(|| Some(fail(&mut breaker, now))).find_map(|one| one);
    assert_eq!(change.unwrap().off(), OFF_FIRST);
}

/// One event of a simulated target: time passes, a call comes, an earlier one ends.
#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Call,
    End(usize, Option<usize>),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let end = (any::<usize>(), proptest::option::of(0..Failure::ALL.len()));
    let event = prop_oneof![
        (1_u64..3_000).prop_map(Event::Pass),
        Just(Event::Call),
        Just(Event::Call),
        end.prop_map(|(which, how)| Event::End(which, how)),
    ];
    proptest::collection::vec(event, 1..300)
}

proptest! {
    #[test]
    fn a_half_open_target_admits_one_and_an_open_one_none(events in events(), chance: u64) {
        let mut breaker = Breaker::default();
        let (mut now, mut out) = (at(1), Vec::<Permit>::new());
        for event in events {
            match event {
                Event::Pass(millis) => now = now.plus(Duration::from_millis(millis)),
                Event::Call => {
                    let before = breaker.standing(now);
                    let permit = breaker.admit(now);
                    let takes = matches!(before, Standing::Closed | Standing::HalfOpen);
                    prop_assert_eq!(permit.is_some(), takes);
                    let is_trial = permit.is_some_and(|one| one.is_probe());
                    prop_assert_eq!(is_trial, before == Standing::HalfOpen);
                    out.extend(permit);
                    let alone = |one: &&Permit| {
                        let young = |since| now.since(since) < TRIAL_MAX;
                        one.epoch == breaker.epoch && one.trial.is_some_and(young)
                    };
                    prop_assert!(out.iter().filter(alone).count() <= 1, "two trials at a time");
                    if is_trial {
                        prop_assert!(breaker.admit(now).is_none());
                    }
                }
                Event::End(which, how) if !out.is_empty() => {
                    let permit = out.swap_remove(which % out.len());
                    match how {
                        None => breaker.succeeded(permit, now),
                        Some(how) => breaker.failed(permit, Failure::ALL[how], None, (now, chance)),
                    };
                }
                Event::End(..) => {}
            }
        }
    }

    /// However long each call hangs before it fails, also over the recovery, and whatever is the chance.
    #[test]
    fn traffic_returns_within_thirty_seconds_of_a_recovery(
        down_seconds in 1_u64..400,
        hang_millis in prop_oneof![0_u64..100, 0_u64..30_000, 0_u64..130_000],
        gap_millis in 10_u64..1_000,
        chance: u64,
    ) {
        let mut breaker = Breaker::default();
        let recovery = at(down_seconds);
        let mut hanging: VecDeque<(Tick, Permit)> = VecDeque::new();
        let mut now = at(0);
        let mut waits = 0_u32;
        // What began as the target was down hangs, then fails; what begins later does well at once.
        let back = loop {
            while let Some((_, permit)) = hanging.pop_front_if(|(end, _)| *end <= now) {
                breaker.failed(permit, Failure::FirstTokenTimeout, None, (now, chance));
            }
            match breaker.admit(now) {
                Some(permit) if now >= recovery => {
                    breaker.succeeded(permit, now);
                    break now;
                }
                Some(permit) => {
                    hanging.push_back((now.plus(Duration::from_millis(hang_millis)), permit));
                }
                None => waits += 1,
            }
            now = now.plus(Duration::from_millis(gap_millis));
        };
        prop_assert!(back.since(recovery) <= Duration::from_secs(30), "{:?}", back.since(recovery));
        prop_assert_eq!(breaker.standing(back), Standing::Closed);
        let down_longer = down_seconds * 1_000 > hang_millis + 20 * gap_millis;
        prop_assert!(waits > 0 || !down_longer, "a target that was down has been off");
    }

    /// While a target is down it sees a call in each of its times off, and no more.
    #[test]
    fn a_target_that_is_down_is_not_hammered(gap_millis in 1_u64..200, chance: u64) {
        let mut breaker = Breaker::default();
        let mut now = at(1);
        let mut seen = 0;
        while now < at(301) {
            if let Some(permit) = breaker.admit(now) {
                seen += 1;
                breaker.failed(permit, Failure::Connect, None, (now, chance));
            }
            now = now.plus(Duration::from_millis(gap_millis));
        }
        prop_assert!(seen <= COLD_IN_A_ROW_MAX + 300 / 15 + 2, "{seen} calls in 300 s");
    }
}
