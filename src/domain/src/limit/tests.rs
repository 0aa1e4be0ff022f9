//! The rules of limits, alone and over several edges, with time as an argument.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::allowance::{Allowance, Ask, Shortage, Told};
use super::gcra::{Gcra, Rate};
use super::shared::{Leases, draw};
use super::slice::{Mode, POLL};
use super::slots::LEASE;
use super::*;
use crate::key::Terms;
use crate::time::{Tick, Timestamp};

const SECOND: u64 = 1_000_000;

fn at(millis: u64) -> Tick {
    Tick(millis * 1_000 + 10 * SECOND)
}

fn key(funding: Funding, terms: Terms) -> ApiKey {
    let now = Timestamp(0);
    let (id, account) = (KeyId::new(now, 1), AccountId::new(now, 1));
    ApiKey { id, account, funding, expires: None, terms: Arc::new(terms) }
}

fn per_second(limit: u32) -> Limits {
    Limits { requests_per_second: Some(limit), ..Limits::NONE }
}

#[test]
fn limits_are_the_keys_own_then_its_tiers_then_the_default() {
    let tier = |name: &str| Some(Arc::from(name));
    let slow = Limits { concurrency: Some(3), ..per_second(1) };
    let none = Tiers::new();
    let tiers = Tiers::from([("slow".into(), slow), ("default".into(), per_second(5))]);
    let free = key(Funding::Unmetered, Terms::default());
    let paid = key(Funding::Prepaid, Terms::default());
    assert_eq!(Limits::of_key(&free, &none), Limits::NONE);
    assert_eq!(Limits::of_key(&paid, &none), per_second(10));
    assert_eq!(Limits::of_key(&free, &tiers), per_second(5));
    assert_eq!(Limits::of_key(&paid, &tiers), per_second(5));
    let named = Terms { tier: tier("slow"), limits: per_second(7), ..Terms::default() };
    let named = key(Funding::Prepaid, named);
    assert_eq!(Limits::of_key(&named, &tiers), Limits { concurrency: Some(3), ..per_second(7) });
    assert_eq!(Limits::of_account(&named, &tiers), Limits::NONE);
    let gone = Terms { tier: tier("gone"), account_tier: tier("slow"), ..Terms::default() };
    let gone = key(Funding::Prepaid, gone);
    assert_eq!(Limits::of_key(&gone, &tiers), per_second(5));
    assert_eq!(Limits::of_account(&gone, &tiers), slow);
}

#[test]
fn a_bucket_gives_all_at_once_and_then_at_its_rate() {
    for limit in [1, 3, 7, 10, 600, 1_000_003] {
        let rate = Rate::per_second(limit);
        let mut bucket = Gcra::default();
        let burst = (0..limit + 5).filter(|_| bucket.take(rate, 1, at(0))).count();
        assert_eq!(u64::try_from(burst).unwrap(), limit);
        let wait = bucket.wait(rate, 1, at(0));
        let micros = u64::try_from(wait.as_micros()).unwrap();
        assert_eq!(micros, SECOND.div_ceil(limit));
        let early = Tick(at(0).0 + micros - 1);
        assert_eq!(bucket.available(rate, early), 0, "{limit}");
        assert!(bucket.take(rate, 1, at(0).plus(wait)), "{limit}");
        assert_eq!(bucket.reset(rate, at(10_000)), Duration::ZERO);
    }
}

#[test]
fn what_is_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_off() {
    let rate = Rate::per_minute(600);
    let mut bucket = Gcra::default();
    assert!(bucket.take(rate, 1_800, at(0)));
    assert_eq!(bucket.wait(rate, 1, at(0)), Duration::from_millis(120_100));
    assert!(!bucket.take(rate, 1, at(120_000)));
    bucket.give_back(rate, 1_200, at(120_000));
    assert!(bucket.take(rate, 600, at(120_000)));
    let none = Rate::per_minute(0);
    assert!(!Gcra::default().take(none, 1, at(0)));
    assert!(Gcra::default().wait(none, 1, at(0)) >= Duration::from_mins(1));
}

proptest! {
    /// In no stretch of time more than the bucket and what has come back in it.
    #[test]
    fn no_stretch_of_time_has_more_than_its_due(
        limit in 1_u64..200,
        steps in prop::collection::vec((0_u64..400_000, 1_u64..20), 1..200),
    ) {
        let rate = Rate::per_second(limit);
        let (mut bucket, mut now) = (Gcra::default(), at(0));
        let mut taken: Vec<(Tick, u64)> = Vec::new();
        for (micros, units) in steps {
            now = Tick(now.0 + micros);
            if units <= limit && bucket.take(rate, units, now) {
                taken.push((now, units));
            }
        }
        for (place, (start, _)) in taken.iter().enumerate() {
            let mut sum = 0;
            for (end, units) in &taken[place..] {
                sum += units;
                prop_assert!(sum * SECOND <= limit * SECOND + limit * (end.0 - start.0));
            }
        }
    }
}

/// An edge of the model.
struct Edge {
    allowance: Allowance,
    queued: bool,
}

/// Edges that share one bucket of each kind, the answers on their way, and the time.
struct Model {
    limits: Limits,
    edges: Vec<Edge>,
    buckets: [Gcra; 3],
    leases: Leases,
    answers: VecDeque<(Tick, usize, Ask, Told)>,
    now: Tick,
    exchanges: usize,
    reachable: bool,
}

/// Between a question and its answer.
const ROUND_TRIP: Duration = Duration::from_millis(2);

impl Model {
    fn new(edges: usize, limits: Limits) -> Self {
        let edge = || Edge { allowance: Allowance::new(Mode::Cold, at(0)), queued: false };
        Self {
            limits,
            edges: std::iter::repeat_with(edge).take(edges).collect(),
            buckets: [Gcra::default(); 3],
            leases: Leases::default(),
            answers: VecDeque::new(),
            now: at(0),
            exchanges: 0,
            reachable: true,
        }
    }

    fn ask(&mut self, number: usize) {
        let edge = &mut self.edges[number];
        edge.queued = false;
        let ask = edge.allowance.ask(Subject::Account(AccountId::new(Timestamp(0), 1)), self.now);
        if !self.reachable {
            edge.allowance.unanswered(3, self.now);
            return;
        }
        self.exchanges += 1;
        let mut told = Told::default();
        for ((bucket, ask), told) in self.buckets.iter_mut().zip(ask.rates).zip(&mut told.rates) {
            if let Some(ask) = ask {
                *told = draw(bucket, &ask, self.now);
            }
        }
        if let Some(ask) = ask.slots {
            told.slots = self.leases.hold(u64::try_from(number).unwrap(), &ask, LEASE, self.now);
        }
        self.answers.push_back((self.now.plus(ROUND_TRIP), number, ask, told));
    }

    /// Takes a millisecond further; each edge asks every 25 at other moments than the others.
    fn step(&mut self) {
        self.now = Tick(self.now.0 + 1_000);
        while self.answers.front().is_some_and(|(when, ..)| *when <= self.now) {
            let (_, number, ask, told) = self.answers.pop_front().unwrap();
            self.edges[number].allowance.told(&ask, &told, self.now);
        }
        let millis = self.now.0 / 1_000;
        for number in 0..self.edges.len() {
            let phase = u64::try_from(number).unwrap() * 9;
            if millis % 500 == phase {
                self.edges[number].queued |= self.edges[number].allowance.is_due(self.now);
            }
            if self.edges[number].queued && millis % 25 == phase {
                self.ask(number);
            }
        }
    }

    /// A call to an edge; it waits for an answer if it has to.
    fn call(&mut self, number: usize, tokens: u64) -> Result<(), Shortage> {
        let until = self.now.plus(Duration::from_millis(50));
        let limits = self.limits;
        self.edges[number].allowance.set_limits(limits, self.now);
        self.edges[number].allowance.note(tokens, self.now);
        loop {
            let (now, edge) = (self.now, &mut self.edges[number]);
            let Some(shortage) = edge.allowance.shortage(tokens, now) else {
                edge.queued |= edge.allowance.take(tokens, now);
                return Ok(());
            };
            if !shortage.ask || now >= until {
                edge.queued |= edge.allowance.refused(tokens, now);
                return Err(shortage);
            }
            edge.allowance.await_answer(tokens, now);
            self.ask(number);
            self.step();
            self.step();
        }
    }

    /// Calls at a rate on each edge for some seconds: how many were admitted in each.
    fn run(&mut self, seconds: u64, per_edge: u64) -> Vec<usize> {
        let mut admitted = Vec::new();
        for _ in 0..seconds {
            let (end, mut count) = (Tick(self.now.0 + SECOND), 0);
            let mut due = vec![0; self.edges.len()];
            while self.now < end {
                for (number, due) in due.iter_mut().enumerate() {
                    *due += per_edge;
                    if *due >= 1_000 {
                        *due -= 1_000;
                        count += usize::from(self.call(number, 1).is_ok());
                    }
                }
                self.step();
            }
            admitted.push(count);
        }
        admitted
    }
}

#[test]
fn three_edges_share_a_limit_to_within_a_twentieth() {
    for (limit, per_edge) in [(100, 133), (100, 400), (1_000, 1_000), (60, 80)] {
        let mut model = Model::new(3, per_second(limit));
        let admitted = model.run(20, per_edge);
        let limit = usize::try_from(limit).unwrap();
        for second in &admitted[1..] {
            assert!(second * 20 >= limit * 19 && second * 20 <= limit * 21, "{limit} {admitted:?}");
        }
    }
}

#[test]
fn a_limit_that_only_one_edge_needs_is_its_own() {
    let mut model = Model::new(3, per_second(100));
    model.run(2, 30);
    let mut admitted = Vec::new();
    for _ in 0..4 {
        let (before, mut count) = (model.now, 0);
        while model.now.since(before) < Duration::from_secs(1) {
            count += usize::from(model.call(0, 1).is_ok());
            model.step();
        }
        admitted.push(count);
    }
    for second in &admitted[2..] {
        assert!((95..=105).contains(second), "{admitted:?}");
    }
}

#[test]
fn far_from_the_limit_few_questions_are_asked_and_no_call_is_refused() {
    let mut model = Model::new(3, per_second(1_000));
    model.run(2, 60);
    model.exchanges = 0;
    let admitted: usize = model.run(10, 60).iter().sum();
    assert_eq!(admitted, 1_800);
    assert!(model.exchanges < 90, "{} questions for 1,800 calls", model.exchanges);
}

#[test]
fn what_is_not_used_goes_back() {
    let mut model = Model::new(3, per_second(100));
    model.run(3, 25);
    for _ in 0..40_000 {
        model.step();
    }
    let rate = Rate::per_second(100);
    for number in 0..3 {
        assert!(model.edges[number].allowance.is_idle(at(200_000)), "{number}");
    }
    assert_eq!(model.buckets[0].available(rate, model.now), 100);
}

#[test]
fn without_the_shared_bucket_the_edges_share_by_number_and_never_give_twice_the_limit() {
    let mut model = Model::new(3, per_second(99));
    model.run(3, 133);
    model.reachable = false;
    for number in 0..3 {
        model.edges[number].allowance.go_alone(3, model.now);
    }
    let alone = model.run(5, 133);
    assert!(alone.iter().all(|second| (90..=132).contains(second)), "{alone:?}");
    model.reachable = true;
    (0..3).for_each(|number| model.ask(number));
    let back = model.run(5, 133);
    assert!(back.iter().all(|second| *second <= 132), "{back:?}");
    assert!(back[2..].iter().all(|second| (94..=104).contains(second)), "{back:?}");
}

#[test]
fn what_was_spent_alone_is_told_once() {
    let mut model = Model::new(1, per_second(100));
    model.run(1, 10);
    model.edges[0].allowance.go_alone(1, model.now);
    for _ in 0..50 {
        model.call(0, 1).unwrap();
    }
    let now = model.now;
    model.ask(0);
    let rate = Rate::per_second(100);
    let left = model.buckets[0].available(rate, now);
    assert!((20..=50).contains(&left), "{left}");
    while model.edges[0].allowance.mode() != Mode::Shared {
        model.step();
    }
    let subject = Subject::Account(AccountId::new(Timestamp(0), 1));
    let again = model.edges[0].allowance.ask(subject, model.now).rates[0].unwrap();
    assert!(again.correction <= 0, "not told twice: {again:?}");
}

#[test]
fn tokens_are_put_right_at_the_end() {
    let limits = Limits { tokens_per_minute: Some(6_000), ..Limits::NONE };
    let mut model = Model::new(2, limits);
    model.call(0, 100).unwrap();
    model.edges[0].allowance.settle(100, 9_000, model.now);
    let refused = model.call(0, 100).unwrap_err();
    assert_eq!(refused.kind, Kind::TokensPerMinute);
    model.ask(0);
    model.step();
    let refused = model.call(1, 100).unwrap_err();
    assert!(
        refused.wait > Duration::from_secs(30),
        "{refused:?}: the other edge knows of the debt"
    );
    model.edges[0].allowance.settle(9_000, 0, model.now);
    (0..2_000).for_each(|_| model.step());
    assert!(model.call(1, 100).is_ok());
}

#[test]
fn a_large_call_is_not_kept_waiting_by_halves() {
    let limits = Limits { tokens_per_minute: Some(6_000), ..Limits::NONE };
    let mut model = Model::new(3, limits);
    model.call(0, 3_500).unwrap();
    let before = model.buckets[2];
    assert!(model.call(1, 4_000).is_err());
    assert_eq!(
        model.buckets[2].taken(Rate::per_minute(6_000), model.now) / 100,
        before.taken(Rate::per_minute(6_000), model.now) / 100,
        "nothing was taken for it"
    );
    assert!(model.call(2, 2_000).is_ok());
}

#[test]
fn slots_are_shared_and_come_back() {
    let limits = Limits { concurrency: Some(5), ..Limits::NONE };
    let mut model = Model::new(3, limits);
    let mut running = [0; 3];
    for round in 0..30 {
        let number = round % 3;
        running[number] += usize::from(model.call(number, 1).is_ok());
        (0..60).for_each(|_| model.step());
    }
    assert_eq!(running.iter().sum::<usize>(), 5);
    assert!(model.call(0, 1).is_err());
    let (giver, taker) = if running[0] > 0 { (0, 1) } else { (1, 0) };
    model.edges[giver].queued |= model.edges[giver].allowance.release();
    (0..60).for_each(|_| model.step());
    assert!(model.call(taker, 1).is_ok(), "another edge has the slot that was left");
    assert!(model.call(giver, 1).is_err());
}

#[test]
fn the_slots_of_an_edge_that_is_gone_come_back_after_its_lease() {
    let limits = Limits { concurrency: Some(2), ..Limits::NONE };
    let mut model = Model::new(2, limits);
    model.call(0, 1).unwrap();
    model.call(0, 1).unwrap();
    assert!(model.call(1, 1).is_err());
    let end = model.now.plus(LEASE);
    while model.now <= end.plus(POLL) {
        model.now = Tick(model.now.0 + 1_000);
    }
    assert!(model.call(1, 1).is_ok());
}
