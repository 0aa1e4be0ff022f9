//! Long seeded walks through the world.

use super::world::{Counts, EDGES, Step, World};
use crate::key::Funding;

/// A plain generator that a seed repeats anywhere (<https://prng.di.unimi.it/splitmix64.c>).
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn place(&mut self) -> usize {
        usize::try_from(self.below(1_000)).unwrap()
    }

    fn amount(&mut self, end: u64) -> i64 {
        i64::try_from(self.below(end)).unwrap()
    }

    fn yes(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Steps of one walk; every test takes a hundred walks.
const STEPS: usize = 500;

/// What may happen besides calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Nothing is lost; answers come.
    Fair,
    /// Messages are lost, doubled, late and out of order.
    Rough,
    /// Edges are killed as well, and stores forget.
    Wild,
}

fn step(chance: &mut Chance, weather: Weather) -> Step {
    let edge = chance.place() % EDGES;
    let rough = weather != Weather::Fair;
    match chance.below(if weather == Weather::Wild { 112 } else { 100 }) {
        0..=19 => Step::Place { edge, key: chance.place(), amount: chance.amount(60) },
        20..=37 => {
            // Below, at and above the hold.
            let percent = [0, 40, 90, 100, 100, 130, 300][chance.place() % 7];
            Step::Settle { edge, call: chance.place(), percent }
        }
        38..=52 => Step::Ask { edge, ahead: chance.amount(200) },
        53..=67 => Step::Deliver { message: chance.place(), again: rough && chance.yes(25) },
        68..=80 => Step::Answer { answer: chance.place() },
        81 if rough => Step::Lose { message: chance.place() },
        82 if rough => Step::LoseAnswer { answer: chance.place() },
        83..=87 if rough => Step::TimeOut { edge },
        88..=91 => Step::Wait(u32::try_from(chance.below(4_000)).unwrap()),
        92 if chance.yes(20) => Step::Wait(u32::try_from(chance.below(70_000)).unwrap()),
        93..=94 => Step::Post { count: chance.place() % 8 },
        95 => Step::TopUp { amount: chance.amount(150) },
        96 => Step::Withdraw { amount: chance.amount(200) },
        97 if chance.yes(30) => Step::SetCeiling { limit: chance.amount(1_500) },
        98 => Step::Learn { edge },
        99 => Step::Sweep,
        100..=101 => Step::Crash { edge, percent: chance.amount(130) },
        102..=105 => Step::Start { edge },
        106..=109 => Step::Replay { orphan: chance.place(), heard: chance.yes(70) },
        110 if chance.yes(30) => Step::Forget { lost: chance.place() % 5 },
        111 if chance.yes(10) => Step::Jump { seconds: u32::try_from(chance.below(80)).unwrap() },
        _ => Step::Wait(1),
    }
}

fn walk(seed: u64, steps: usize, funding: Funding, weather: Weather) -> Counts {
    let mut chance = Chance(seed);
    let rates = std::array::from_fn(|_| 940 + chance.below(121));
    let mut world = World::new(funding, rates, 300 + chance.amount(4_000));
    for _ in 0..steps {
        world.apply(step(&mut chance, weather));
    }
    world.rest();
    world.counts
}

fn walks(funding: Funding, weather: Weather) -> Counts {
    let mut all = Counts::default();
    for seed in 0..100 {
        all.add(walk(seed, STEPS, funding, weather));
    }
    all
}

#[test]
fn a_fair_world_charges_everything() {
    let counts = walks(Funding::Prepaid, Weather::Fair);
    println!("{counts:?}");
    assert!(counts.placed > 1_000 && counts.short > 1_000 && counts.beyond_hold > 100);
}

#[test]
fn a_rough_world_keeps_the_rules() {
    let counts = walks(Funding::Prepaid, Weather::Rough);
    println!("{counts:?}");
    assert!(counts.overtaken > 100 && counts.repeated > 100 && counts.certain > 1_000);
}

#[test]
fn a_wild_world_keeps_the_rules() {
    let counts = walks(Funding::Prepaid, Weather::Wild);
    println!("{counts:?}");
    assert!(counts.lapsed > 20 && counts.replayed > 100 && counts.forgotten > 10);
}

#[test]
fn ceilings_count_without_money_as_well() {
    let counts = walks(Funding::Unmetered, Weather::Wild);
    println!("{counts:?}");
    assert!(counts.placed > 1_000 && counts.short > 100);
}
