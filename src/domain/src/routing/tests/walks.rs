//! Walks of many calls at a time over routes whose targets go down and come back, in simulated time.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::breaker::{Breaker, Permit, TRIAL_MAX};
use crate::time::Tick;

/// What a target does to the attempts that begin at a time of trouble.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Fails with this within some milliseconds.
    Fails(usize),
    /// Fails with it only when this deadline, in milliseconds, has passed.
    Hangs(usize, u64),
    /// Says to come back after so many milliseconds, if it says when.
    Limits(Option<u64>),
}

/// A time of trouble of a target, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Down {
    from: u64,
    until: u64,
    trouble: Trouble,
}

#[derive(Clone, Debug)]
struct World {
    /// Rank and weight of each target.
    targets: Vec<(u32, u32)>,
    downs: Vec<Vec<Down>>,
    policy: Policy,
    gap_millis: u64,
    seed: u64,
}

/// How long calls come, in milliseconds. No trouble lasts longer than until [`WELL_AT`].
const END: u64 = 85_000;
const WELL_AT: u64 = 50_000;
/// Decisions of one call: each ends in an attempt, or another call was faster. Waits have a least length
/// and are bounded in all, so no call is outrun for ever.
const STEPS_MAX: u32 = 100;

/// Those after which another attempt may be made and traffic returns by itself within half a minute.
const TRANSIENT: [Failure; 12] = [
    Failure::Resolve,
    Failure::Connect,
    Failure::Reset,
    Failure::HeadTimeout,
    Failure::FirstTokenTimeout,
    Failure::Protocol,
    Failure::Server,
    Failure::Redirect,
    Failure::Cut,
    Failure::Stall,
    Failure::Garbage,
    Failure::ErrorEvent,
];

fn worlds(failures: &'static [Failure]) -> impl Strategy<Value = World> {
    let failure = || 0..failures.len();
    let trouble = prop_oneof![
        3 => failure().prop_map(Trouble::Fails),
        1 => (failure(), 100_u64..20_000).prop_map(|(which, millis)| Trouble::Hangs(which, millis)),
        1 => proptest::option::of(0_u64..10_000).prop_map(Trouble::Limits),
    ];
    let down = (0..WELL_AT, 0..WELL_AT, trouble).prop_map(|(one, other, trouble)| Down {
        from: one.min(other),
        until: one.max(other),
        trouble,
    });
    let policy = (1_u32..8, any::<bool>(), any::<bool>(), 0_u64..4_000).prop_map(
        |(attempts_max, least, prefix, wait)| Policy {
            attempts_max,
            balance: if least { Balance::LeastLoaded } else { Balance::Weighted },
            affinity: if prefix { Affinity::Prefix } else { Affinity::None },
            wait_max: Duration::from_millis(wait),
            ..Policy::default()
        },
    );
    let target = ((0_u32..3, 0_u32..4), proptest::collection::vec(down, 0..3));
    let targets = proptest::collection::vec(target, 1..7);
    (targets, policy, 20_u64..100, any::<u64>()).prop_map(|(targets, policy, gap_millis, seed)| {
        let (targets, downs) = targets.into_iter().unzip();
        World { targets, downs, policy, gap_millis, seed }
    })
}

fn tick(millis: u64) -> Tick {
    Tick(millis * 1_000)
}

fn millis(tick: Tick) -> u64 {
    tick.0 / 1_000
}

struct Call {
    began: Tick,
    key: u64,
    tried: Vec<Tried>,
    waited: Duration,
    steps: u32,
    /// How it ended, once it has.
    answered: Option<bool>,
}

/// What happens next to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Decide,
    /// The wait before an attempt is over.
    Begin {
        place: usize,
        reconnects: bool,
    },
    /// The attempt with this number is over.
    End {
        attempt: usize,
    },
}

struct Attempt {
    place: usize,
    permit: Permit,
    began: Tick,
    result: Option<(Failure, Option<Duration>)>,
    over: bool,
}

struct Run<'a> {
    world: &'a World,
    failures: &'static [Failure],
    route: Route,
    breakers: Vec<RefCell<Breaker>>,
    outstanding: Vec<u32>,
    attempts: Vec<Attempt>,
    calls: Vec<Call>,
    events: BinaryHeap<Reverse<(Tick, usize, Event)>>,
    now: Tick,
    drawn: u64,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, failures: &'static [Failure]) -> Self {
        let mut route = route(&world.targets);
        route.policy = Arc::new(world.policy.clone());
        let calls: Vec<_> = (0..END / world.gap_millis)
            .map(|number| Call {
                began: tick(number * world.gap_millis),
                key: mix(world.seed, number % 5),
                tried: Vec::new(),
                waited: Duration::ZERO,
                steps: 0,
                answered: None,
            })
            .collect();
        let begins = calls.iter().enumerate();
        let events = begins.map(|(call, one)| Reverse((one.began, call, Event::Decide))).collect();
        let breakers = world.targets.iter().map(|_| RefCell::default()).collect();
        Self {
            world,
            failures,
            route,
            breakers,
            outstanding: vec![0; world.targets.len()],
            attempts: Vec::new(),
            calls,
            events,
            now: Tick(0),
            drawn: 0,
        }
    }

    fn chance(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.world.seed, self.drawn)
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        while let Some(Reverse((now, call, event))) = self.events.pop() {
            self.now = now;
            match event {
                Event::Decide => self.decide(call)?,
                Event::Begin { place, reconnects } => self.begin(call, (place, reconnects))?,
                Event::End { attempt } => self.end(call, attempt),
            }
        }
        for call in &self.calls {
            prop_assert!(call.answered.is_some(), "every call ends");
        }
        Ok(())
    }

    fn outlook(&self, place: usize) -> Outlook {
        let breaker = self.breakers[place].borrow();
        Outlook {
            standing: breaker.standing(self.now),
            hinted: false,
            outstanding: self.outstanding[place],
            latency_micros: 200_000,
            failing_permille: breaker.failing_permille(self.now),
        }
    }

    /// Takes the next step of a call, and holds it against the rules.
    fn decide(&mut self, index: usize) -> Result<(), TestCaseError> {
        let chance = self.chance();
        self.calls[index].steps += 1;
        let call = &self.calls[index];
        prop_assert!(call.steps <= STEPS_MAX, "the walk does not end");
        let look = |place: usize| self.outlook(place);
        let walk = Walk {
            tried: &call.tried,
            replayable: true,
            elapsed: self.now.since(call.began),
            waited: call.waited,
            may_retry: !chance.is_multiple_of(8),
            key: Some(call.key),
            chance,
        };
        let step = next(&self.route, &walk, &look);
        let Step::Try { place, pooled, wait, why } = step else {
            self.calls[index].answered = Some(false);
            return Ok(());
        };
        let policy = &self.world.policy;
        let tries = |place| call.tried.iter().filter(|one| one.place == place).count();
        let takes = |place| look(place).takes_calls();
        let another = (0..self.breakers.len()).any(|other| takes(other) && tries(other) == 0);
        if !takes(place) {
            let Standing::Cooling { left } = look(place).standing else {
                return Err(TestCaseError::fail("what is off is tried"));
            };
            prop_assert!(!another, "a target that takes no calls while another does");
            prop_assert!(wait >= left, "a target does not get the time that it has asked for");
        }
        if tries(place) > 0 && why != Why::Reconnect {
            prop_assert!(!another, "the same target again while another takes calls");
            prop_assert!(walk.may_retry, "more repeats than the edge has room for");
            prop_assert_eq!(why, Why::Retry);
        }
        prop_assert_eq!(pooled, why != Why::Reconnect);
        prop_assert_eq!(
            why == Why::Probe,
            look(place).standing == Standing::HalfOpen
                && !matches!(why, Why::Retry | Why::Reconnect)
        );
        let quick = RETRY_AFTER * 3 / 2;
        prop_assert!(wait <= policy.wait_max.max(quick), "{wait:?}");
        let repeats = tries(place) > 0 && wait <= quick;
        prop_assert!(
            wait.is_zero() || repeats || call.waited <= policy.wait_max,
            "waits on and on"
        );
        prop_assert!(walk.elapsed + wait <= policy.attempts_within || call.tried.is_empty());
        self.calls[index].waited += wait;
        let begin = Event::Begin { place, reconnects: why == Why::Reconnect };
        self.events.push(Reverse((self.now.plus(wait), index, begin)));
        Ok(())
    }

    fn begin(
        &mut self,
        index: usize,
        (place, reconnects): (usize, bool),
    ) -> Result<(), TestCaseError> {
        let permit = self.breakers[place].borrow_mut().admit(self.now);
        let Some(permit) = permit else {
            // What came in between decides: another call's trial, or its failure.
            self.events.push(Reverse((self.now, index, Event::Decide)));
            return Ok(());
        };
        let tried = &self.calls[index].tried;
        let stale = |place: &usize| {
            tried.iter().any(|one| one.place == *place && one.failure == Failure::Stale)
        };
        let counted = tried.len() - (0..self.breakers.len()).filter(stale).count();
        let max = usize::try_from(self.world.policy.attempts_max).unwrap();
        prop_assert!(counted < max || reconnects, "more attempts than the budget");
        if permit.is_probe() {
            let alone = self.attempts.iter().rev().filter(|one| {
                let young = self.now.since(one.began) < TRIAL_MAX;
                one.place == place && one.permit.is_probe() && !one.over && young
            });
            // A trial of an earlier time off may be among them, but its word counts no more.
            let current = alone.filter(|one| self.decides(one)).count();
            prop_assert!(current == 0, "two trials at a time");
        }
        let (result, took) = self.fate(place, reconnects);
        let attempt = self.attempts.len();
        let began = self.now;
        self.outstanding[place] += 1;
        self.attempts.push(Attempt { place, permit, began, result, over: false });
        let end = self.now.plus(Duration::from_millis(took));
        self.events.push(Reverse((end, index, Event::End { attempt })));
        Ok(())
    }

    /// Whether the end of a trial would change its target's breaker.
    fn decides(&self, attempt: &Attempt) -> bool {
        let mut breaker = self.breakers[attempt.place].borrow().clone();
        breaker.succeeded(attempt.permit, self.now).is_some()
    }

    /// How an attempt that begins now goes, and for how many milliseconds.
    fn fate(
        &mut self,
        place: usize,
        reconnects: bool,
    ) -> (Option<(Failure, Option<Duration>)>, u64) {
        let (chance, at) = (self.chance(), millis(self.now));
        if chance.is_multiple_of(64) && !reconnects {
            return (Some((Failure::Stale, None)), 1);
        }
        let down =
            self.world.downs[place].iter().find(|down| (down.from..down.until).contains(&at));
        match down.map(|down| down.trouble) {
            None => (None, 20 + chance % 200),
            Some(Trouble::Fails(which)) => (Some((self.failures[which], None)), chance % 50),
            Some(Trouble::Hangs(which, deadline)) => (Some((self.failures[which], None)), deadline),
            Some(Trouble::Limits(wait)) => {
                (Some((Failure::RateLimited, wait.map(Duration::from_millis))), chance % 50)
            }
        }
    }

    fn end(&mut self, index: usize, attempt: usize) {
        let chance = self.chance();
        let now = self.now;
        let attempt = &mut self.attempts[attempt];
        attempt.over = true;
        let Attempt { place, permit, result, .. } = *attempt;
        self.outstanding[place] -= 1;
        let mut breaker = self.breakers[place].borrow_mut();
        let call = &mut self.calls[index];
        let Some((failure, retry_after)) = result else {
            breaker.succeeded(permit, now);
            call.answered = Some(true);
            return;
        };
        breaker.failed(permit, failure, retry_after, (now, chance));
        call.tried.push(Tried { place, failure, retry_after });
        self.events.push(Reverse((now, index, Event::Decide)));
    }

    /// When a target was well for good, and when it first answered after that.
    fn recovery(&self, place: usize) -> (Tick, Option<Tick>) {
        let well = self.world.downs[place].iter().map(|down| down.until).max().unwrap_or(0);
        let answered =
            |one: &&Attempt| one.place == place && one.result.is_none() && one.began >= tick(well);
        (tick(well), self.attempts.iter().find(answered).map(|one| one.began))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever fails and how, each step keeps to the rules, and each call ends.
    #[test]
    fn walks_keep_to_the_rules(world in worlds(&Failure::ALL)) {
        Run::new(&world, &Failure::ALL).run()?;
    }

    /// Every target of the first rank has calls again within 30 s of its last recovery.
    #[test]
    fn traffic_returns_to_each_target(world in worlds(&TRANSIENT)) {
        let mut run = Run::new(&world, &TRANSIENT);
        run.run()?;
        let weighs = |target: &&(u32, u32)| target.1 > 0;
        let first = world.targets.iter().filter(weighs).map(|target| target.0).min();
        for (place, (rank, weight)) in world.targets.iter().enumerate() {
            if Some(*rank) == first && *weight > 0 && world.policy.affinity == Affinity::None {
                let (well, back) = run.recovery(place);
                let back = back.map(|back| back.since(well));
                prop_assert!(back.is_some_and(|back| back <= Duration::from_secs(30)), "{back:?}");
            }
        }
    }

    /// As long as one target is well and the budget reaches it, every call has its answer.
    #[test]
    fn one_target_that_is_well_is_enough(world in worlds(&TRANSIENT), well in 0_usize..7) {
        let mut world = world;
        let well = well % world.targets.len();
        world.downs[well].clear();
        world.policy.attempts_max = u32::try_from(world.targets.len()).unwrap() + 1;
        let mut run = Run::new(&world, &TRANSIENT);
        run.run()?;
        let failed = run.calls.iter().filter(|call| call.answered != Some(true)).count();
        prop_assert_eq!(failed, 0);
    }
}
