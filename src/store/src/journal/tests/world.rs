//! A journal and what it ought to know, through steps by chance: calls begin, go on, end and are forgotten,
//! the keeper does its duties in any order, and the disk fails and heals.

use std::collections::{BTreeMap, BTreeSet};

use tokenroute_domain::id::CallId;
use tokenroute_domain::record::Outcome;

use super::chance::Chance;
use super::{Bench, Fault, call, ended, intent, mark, options, summary};

const FAULTS: [Fault; 7] = [
    Fault::Full(0),
    Fault::Full(3),
    Fault::Full(60),
    Fault::Cut,
    Fault::Sync,
    Fault::Create,
    Fault::Read,
];

/// A call as it ought to be known.
#[derive(Default)]
struct Known {
    /// What it had cost, with each mark; 0 at its intent. The last is the end's if it is over.
    costs: Vec<i64>,
    over: bool,
    /// How many of `costs` are on the disk for sure.
    durable: usize,
}

pub(super) struct World {
    seed: u64,
    chance: Chance,
    bench: Bench,
    calls: BTreeMap<CallId, (u64, Known)>,
    forgotten: BTreeSet<CallId>,
    next: u64,
    cost: i64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            chance: Chance(seed),
            bench: Bench::new(options()),
            calls: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            next: 0,
            cost: 0,
        }
    }

    pub(super) fn run(mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
            if self.chance.below(8) == 0 {
                self.check_killed();
                self.check_cut_off();
            }
        }
        self.bench.disk.set(None);
        self.bench.core.recover();
        assert!(self.bench.core.is_writable());
        self.synced();
        self.check_killed();
        self.check_cut_off();
    }

    fn step(&mut self) {
        match self.chance.below(20) {
            0..5 => self.begin(),
            5..9 => self.go_on(),
            9..12 => self.end(),
            12 | 13 => self.forget(),
            14 => {
                if self.bench.core.sync() {
                    self.synced();
                }
            }
            15 => self.bench.core.rotate(),
            16 => self.bench.core.tidy(),
            17 => {
                if !self.bench.core.is_writable() {
                    self.bench.core.recover();
                }
            }
            18 => {
                let fault = FAULTS[self.chance.below(FAULTS.len())];
                self.bench.disk.set(Some(fault));
            }
            _ => self.bench.disk.set(None),
        }
    }

    fn begin(&mut self) {
        self.next += 1;
        if self.bench.core.intend(&intent(self.next)).is_ok() {
            let known = Known { costs: vec![0], ..Known::default() };
            self.calls.insert(call(self.next), (self.next, known));
        }
    }

    fn pick(&mut self, over: bool) -> Option<CallId> {
        let under_way: Vec<CallId> = self
            .calls
            .iter()
            .filter(|(_, (_, known))| known.over == over)
            .map(|(id, _)| *id)
            .collect();
        (!under_way.is_empty()).then(|| under_way[self.chance.below(under_way.len())])
    }

    fn go_on(&mut self) {
        let mut marks = Vec::new();
        for _ in 0..=self.chance.below(3) {
            let Some(id) = self.pick(false) else { return };
            self.cost += 1;
            let (number, known) = self.calls.get_mut(&id).unwrap();
            known.costs.push(self.cost);
            marks.push(mark(*number, self.cost));
        }
        self.bench.core.mark(&marks);
    }

    fn end(&mut self) {
        let Some(id) = self.pick(false) else { return };
        self.cost += 1;
        let (number, known) = self.calls.get_mut(&id).unwrap();
        known.costs.push(self.cost);
        known.over = true;
        let _owed = self.bench.core.ended(&[ended(*number, self.cost)]);
    }

    fn forget(&mut self) {
        if let Some(id) = self.pick(true) {
            self.bench.core.forget(&[id]);
            self.calls.remove(&id);
            self.forgotten.insert(id);
        }
    }

    /// All that was written is on the disk; what is owed was not written.
    fn synced(&mut self) {
        let gauges = self.bench.core.with(|log, options| log.gauges(options));
        if gauges.owed_calls == 0 {
            self.calls.values_mut().for_each(|(_, known)| known.durable = known.costs.len());
        }
    }

    /// What a restart finds: of each call at least so many of its states, and no call that never was.
    fn check(&self, found: &[(CallId, Outcome, i64)], least: impl Fn(&Known) -> usize, what: &str) {
        let seed = self.seed;
        let found: BTreeMap<_, _> =
            found.iter().map(|(id, outcome, cost)| (*id, (*outcome, *cost))).collect();
        for id in found.keys() {
            let known = self.calls.contains_key(id) || self.forgotten.contains(id);
            assert!(known, "{what}, seed {seed}: {id} never was");
        }
        for (id, (_, known)) in &self.calls {
            let least = least(known);
            let Some((outcome, cost)) = found.get(id) else {
                assert_eq!(least, 0, "{what}, seed {seed}: {id} is lost");
                continue;
            };
            let at = known.costs.iter().position(|one| one == cost);
            let at = at.unwrap_or_else(|| panic!("{what}, seed {seed}: {id} never cost {cost}"));
            assert!(at + 1 >= least, "{what}, seed {seed}: {id} went back to {cost}");
            let over = known.over && at + 1 == known.costs.len();
            assert_eq!(*outcome == Outcome::Answered, over, "{what}, seed {seed}: {id}");
        }
    }

    fn check_killed(&self) {
        let gauges = self.bench.core.with(|log, options| log.gauges(options));
        let written = |known: &Known| if gauges.owed_calls == 0 { known.costs.len() } else { 1 };
        self.check(&self.bench.killed(), written, "killed");
    }

    fn check_cut_off(&mut self) {
        let chance = &mut self.chance;
        let files =
            self.bench.disk.after_a_cut(|more| (chance.below(more + 1), chance.below(4) == 0));
        self.check(&summary(&files), |known| known.durable, "cut off");
    }
}
