//! Three edges and a store as a state machine: what is up, who waits for an answer and what is on its way is
//! predicted by a reference, which also makes walks that shrink to the few steps that matter.

use proptest::prelude::*;
use proptest::strategy::Union;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::world::{EDGES, Step, World};
use crate::key::Funding;

/// Messages and answers that are on their way at most.
const ON_THE_WAY_MAX: usize = 12;

/// A message or an answer: its number, its edge, and the life of the store that it is meant for.
type Letter = (u64, usize, u64);

#[derive(Clone, Debug)]
struct Plan {
    rates: [u64; EDGES + 1],
    credit: i64,
    prepaid: bool,
    next: u64,
    epoch: u64,
    up: [bool; EDGES],
    /// The number of the exchange that each edge waits for.
    asking: [Option<u64>; EDGES],
    messages: Vec<Letter>,
    answers: Vec<Letter>,
}

impl Plan {
    fn ask(&mut self, edge: usize) {
        if self.up[edge] && self.asking[edge].is_none() {
            self.next += 1;
            self.asking[edge] = Some(self.next);
            self.messages.push((self.next, edge, self.epoch));
        }
    }

    fn deliver(&mut self, message: usize, again: bool) {
        let Some(place) = message.checked_rem(self.messages.len()) else { return };
        let letter = if again { self.messages[place] } else { self.messages.swap_remove(place) };
        if letter.2 == self.epoch {
            self.answers.push(letter);
        } else {
            self.messages.retain(|one| one.0 != letter.0);
        }
    }

    fn answer(&mut self, answer: usize) {
        let Some(place) = answer.checked_rem(self.answers.len()) else { return };
        let (number, edge, _) = self.answers.swap_remove(place);
        if self.up[edge] && self.asking[edge] == Some(number) {
            self.asking[edge] = None;
        }
    }
}

fn remove<T>(all: &mut Vec<T>, number: usize) {
    if let Some(place) = number.checked_rem(all.len()) {
        all.remove(place);
    }
}

impl ReferenceStateMachine for Plan {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        (prop::array::uniform4(940_u64..=1_060), 0_i64..2_000, prop::bool::weighted(0.8))
            .prop_map(|(rates, credit, prepaid)| Self {
                rates,
                credit,
                prepaid,
                next: 0,
                epoch: 1,
                up: [true; EDGES],
                asking: [None; EDGES],
                messages: Vec::new(),
                answers: Vec::new(),
            })
            .boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let edge = || 0..EDGES;
        let nth = || 0..ON_THE_WAY_MAX;
        let percent = || prop::sample::select(vec![0_i64, 50, 100, 150, 300]);
        let mut all: Vec<(u32, BoxedStrategy<Step>)> = vec![
            (6, (1_u32..5_000).prop_map(Step::Wait).boxed()),
            (1, (40_000_u32..70_000).prop_map(Step::Wait).boxed()),
            (
                24,
                (edge(), 0..4_usize, 0_i64..90)
                    .prop_map(|(edge, key, amount)| Step::Place { edge, key, amount })
                    .boxed(),
            ),
            (
                18,
                (edge(), nth(), percent())
                    .prop_map(|(edge, call, percent)| Step::Settle { edge, call, percent })
                    .boxed(),
            ),
            (18, (edge(), 0_i64..300).prop_map(|(edge, ahead)| Step::Ask { edge, ahead }).boxed()),
            (4, edge().prop_map(|edge| Step::TimeOut { edge }).boxed()),
            (
                1,
                (edge(), 0_i64..130)
                    .prop_map(|(edge, percent)| Step::Crash { edge, percent })
                    .boxed(),
            ),
            (3, edge().prop_map(|edge| Step::Start { edge }).boxed()),
            (
                3,
                (nth(), any::<bool>())
                    .prop_map(|(orphan, heard)| Step::Replay { orphan, heard })
                    .boxed(),
            ),
            (2, (0..6_usize).prop_map(|count| Step::Post { count }).boxed()),
            (2, (0_i64..200).prop_map(|amount| Step::TopUp { amount }).boxed()),
            (2, (0_i64..300).prop_map(|amount| Step::Withdraw { amount }).boxed()),
            (1, (0_i64..900).prop_map(|limit| Step::SetCeiling { limit }).boxed()),
            (1, edge().prop_map(|edge| Step::Learn { edge }).boxed()),
            (2, Just(Step::Sweep).boxed()),
            (1, (0..4_usize).prop_map(|lost| Step::Forget { lost }).boxed()),
        ];
        if !state.messages.is_empty() {
            all.push((
                24,
                (nth(), prop::bool::weighted(0.25))
                    .prop_map(|(message, again)| Step::Deliver { message, again })
                    .boxed(),
            ));
            all.push((2, nth().prop_map(|message| Step::Lose { message }).boxed()));
        }
        if !state.answers.is_empty() {
            all.push((20, nth().prop_map(|answer| Step::Answer { answer }).boxed()));
            all.push((2, nth().prop_map(|answer| Step::LoseAnswer { answer }).boxed()));
        }
        Union::new_weighted(all).boxed()
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        let asks = matches!(step, Step::Ask { .. });
        let delivers = matches!(step, Step::Deliver { .. });
        !(asks && state.messages.len() >= ON_THE_WAY_MAX
            || delivers && state.answers.len() >= ON_THE_WAY_MAX)
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        match *step {
            Step::Ask { edge, .. } => state.ask(edge),
            Step::Deliver { message, again } => state.deliver(message, again),
            Step::Lose { message } => remove(&mut state.messages, message),
            Step::Answer { answer } => state.answer(answer),
            Step::LoseAnswer { answer } => remove(&mut state.answers, answer),
            Step::TimeOut { edge } => state.asking[edge] = None,
            Step::Crash { edge, .. } => (state.up[edge], state.asking[edge]) = (false, None),
            Step::Start { edge } => state.up[edge] = true,
            Step::Forget { .. } => state.epoch += 1,
            Step::Wait(_)
            | Step::Place { .. }
            | Step::Settle { .. }
            | Step::Replay { .. }
            | Step::Post { .. }
            | Step::TopUp { .. }
            | Step::Withdraw { .. }
            | Step::SetCeiling { .. }
            | Step::Learn { .. }
            | Step::Sweep
            | Step::Jump { .. } => {}
        }
        state
    }
}

struct Edges;

impl StateMachineTest for Edges {
    type SystemUnderTest = World;
    type Reference = Plan;

    fn init_test(plan: &Plan) -> World {
        let funding = if plan.prepaid { Funding::Prepaid } else { Funding::Unmetered };
        World::new(funding, plan.rates, plan.credit)
    }

    fn apply(mut world: World, _: &Plan, step: Step) -> World {
        world.apply(step);
        world
    }

    fn check_invariants(world: &World, plan: &Plan) {
        world.check();
        assert_eq!(world.messages(), plan.messages.len());
        assert_eq!(world.answers(), plan.answers.len());
        for edge in 0..EDGES {
            assert_eq!(world.is_up(edge), plan.up[edge]);
            assert_eq!(world.is_asking(edge), plan.asking[edge].is_some());
        }
    }

    fn teardown(mut world: World, _: Plan) {
        world.rest();
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_edges_and_a_store_keep_the_rules(sequential 1..150 => Edges);
}
