//! A world to try the rules in: one pool, three edges with clocks that run apart, keys with ceilings, and a
//! network that loses, doubles, delays and reorders. It checks itself after every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::{Allotment, Hold, Sent, Share, Short};
use crate::id::{AccountId, CallId, KeyId, NodeId};
use crate::journal::{Due, Ended};
use crate::key::Funding;
use crate::money::NanoUsd;
use crate::pool::{
    ASKED_LAST, Ceiling, Exchange, Loan, Period, Pool, Purse, PurseId, PurseWant, Reply,
    Settlement, Want,
};
use crate::record::{Endpoint, Outcome, Record};
use crate::time::{Tick, Timestamp};
use crate::usage::{Usage, UsageSource};

pub(super) const EDGES: usize = 3;
pub(super) const LEASE: Duration = Duration::from_mins(1);
/// The key whose ceilings are changed while calls run.
const LOOSE: usize = 3;
const KEYS: usize = 4;
/// How long a pool that has lost its memory waits for edges.
const BARRIER: Duration = Duration::from_secs(10);
/// 2026-11-21, ten minutes before midnight.
const START: u64 = 1_795_304_400_000_000 - 600_000_000;
const SECOND: u64 = 1_000_000;
/// Settlements in one exchange: few, so that some are left for the next.
const SETTLEMENTS_MAX: usize = 3;

pub(super) fn nano(amount: i64) -> NanoUsd {
    NanoUsd(amount)
}

pub(super) fn key_id(number: usize) -> KeyId {
    KeyId::new(Timestamp(0), u128::try_from(number).unwrap())
}

pub(super) fn account_id() -> AccountId {
    AccountId::new(Timestamp(0), 1)
}

pub(super) fn record(call: CallId, cost: NanoUsd) -> Arc<Record> {
    Arc::new(Record {
        call,
        started: Timestamp(0),
        endpoint: Endpoint::ChatCompletions,
        key: None,
        account: Some(account_id()),
        model: None,
        target: None,
        attempts: Vec::new(),
        status: 200,
        outcome: Outcome::Answered,
        error: None,
        streamed: false,
        usage: Usage::default(),
        usage_source: UsageSource::Provider,
        cost,
        charge: NanoUsd::ZERO,
        price_version: None,
        house_cost: NanoUsd::ZERO,
        latency_micros: 0,
        first_token_micros: None,
    })
}

/// What happens. Numbers are taken modulo what there is, so every step means something everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Time goes on, in milliseconds.
    Wait(u32),
    /// A call wants to hold so much with a key.
    Place { edge: usize, key: usize, amount: i64 },
    /// A call ends: its cost in percent of its hold.
    Settle { edge: usize, call: usize, percent: i64 },
    /// An edge asks the pool, with so much ahead of need.
    Ask { edge: usize, ahead: i64 },
    /// A message reaches the pool; `again` leaves a double of it on its way.
    Deliver { message: usize, again: bool },
    /// A message is lost.
    Lose { message: usize },
    /// An answer reaches its edge.
    Answer { answer: usize },
    /// An answer is lost.
    LoseAnswer { answer: usize },
    /// An edge waits no longer for its answer.
    TimeOut { edge: usize },
    /// An edge is killed; what its calls had come to is known to `percent`.
    Crash { edge: usize, percent: i64 },
    /// An edge starts anew.
    Start { edge: usize },
    /// What a killed edge has left in its journal is told; the answer is `heard` or lost.
    Replay { orphan: usize, heard: bool },
    /// So many settlements reach SQL.
    Post { count: usize },
    /// Somebody adds credit.
    TopUp { amount: i64 },
    /// Somebody takes credit back, if so much is free.
    Withdraw { amount: i64 },
    /// The ceilings of the loose key are set to so much.
    SetCeiling { limit: i64 },
    /// An edge learns the ceilings of the loose key.
    Learn { edge: usize },
    /// Lapsed loans are taken back.
    Sweep,
    /// The pool's store loses its memory, and the last `lost` settlements that SQL does not have.
    Forget { lost: usize },
    /// The pool's clock is set forward, in seconds.
    Jump { seconds: u32 },
}

/// A call and what is known of it.
#[derive(Clone, Debug)]
struct Call {
    hold: i64,
    cost: i64,
    /// What its edge put down for it.
    told: Option<i64>,
    /// Whether its loan was certain when it ended: the pool then owes the whole charge.
    certain: bool,
    loose: bool,
}

/// A hold of a running call.
#[derive(Debug)]
struct Running {
    call: CallId,
    hold: Hold,
}

#[derive(Clone, Debug)]
struct Claim {
    key: usize,
    amount: i64,
}

#[derive(Debug)]
struct Sending {
    number: u64,
    exchange: Exchange,
    sent: Sent,
    told: Vec<Arc<Ended>>,
}

#[derive(Debug)]
struct Edge {
    node: NodeId,
    up: bool,
    started: u64,
    /// How fast its clock runs, in thousandths.
    rate: u64,
    allotment: Allotment,
    running: Vec<Running>,
    waiting: VecDeque<Claim>,
    pending: VecDeque<Arc<Ended>>,
    /// Told, and not known to be posted.
    told: Vec<Arc<Ended>>,
    sending: Option<Sending>,
    epoch: u64,
    /// The limit of the loose key, as far as this edge knows.
    limit: i64,
    /// The pool may not know of its loan: until it has heard of the pool.
    unbacked: bool,
    /// Its holds may be more than its loan: until it holds and owes nothing.
    uncertain: bool,
}

#[derive(Clone, Debug)]
struct Message {
    number: u64,
    edge: usize,
    epoch: u64,
    /// All is told that the edge has to tell to a store that has lost its memory.
    complete: bool,
    exchange: Exchange,
}

#[derive(Clone, Debug)]
struct Answer {
    number: u64,
    edge: usize,
    epoch: u64,
    /// How often the pool's clock had been set.
    jumps: u64,
    reply: Reply,
}

/// What a killed edge has left.
#[derive(Clone, Debug)]
struct Orphan {
    node: NodeId,
    ended: Vec<Arc<Ended>>,
}

#[derive(Debug)]
struct Recovery {
    until: u64,
    missing: BTreeSet<NodeId>,
}

#[derive(Debug)]
pub(super) struct World {
    funding: Funding,
    time: u64,
    pool_rate: u64,
    pool_ahead: u64,
    jumps: u64,
    pool: Pool,
    epoch: u64,
    recovery: Option<Recovery>,
    edges: Vec<Edge>,
    network: Vec<Message>,
    answers: Vec<Answer>,
    orphans: Vec<Orphan>,
    calls: BTreeMap<CallId, Call>,
    credited: i64,
    /// What the pool has charged, and in which order that is not in SQL yet.
    charged: BTreeMap<CallId, (i64, Vec<PurseId>)>,
    unposted: VecDeque<CallId>,
    /// The sums of it: all, and under each ceiling.
    paid: i64,
    spent: BTreeMap<PurseId, i64>,
    limit: i64,
    next: u128,
    pub(super) counts: Counts,
}

/// How often what has happened, so that a walk can show that it was one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) placed: u64,
    pub(super) short: u64,
    pub(super) settled: u64,
    pub(super) beyond_hold: u64,
    pub(super) clamped: u64,
    pub(super) overtaken: u64,
    pub(super) repeated: u64,
    pub(super) lapsed: u64,
    pub(super) replayed: u64,
    pub(super) forgotten: u64,
    pub(super) withdrawn: u64,
    pub(super) certain: u64,
}

impl Counts {
    pub(super) fn add(&mut self, more: Self) {
        self.placed += more.placed;
        self.short += more.short;
        self.settled += more.settled;
        self.beyond_hold += more.beyond_hold;
        self.clamped += more.clamped;
        self.overtaken += more.overtaken;
        self.repeated += more.repeated;
        self.lapsed += more.lapsed;
        self.replayed += more.replayed;
        self.forgotten += more.forgotten;
        self.withdrawn += more.withdrawn;
        self.certain += more.certain;
    }
}

impl World {
    pub(super) fn new(funding: Funding, rates: [u64; EDGES + 1], credit: i64) -> Self {
        let free = if funding == Funding::Prepaid { credit } else { 0 };
        let mut world = Self {
            funding,
            time: 0,
            pool_rate: rates[EDGES],
            pool_ahead: 0,
            jumps: 0,
            pool: Pool { free: nano(free), ..Pool::default() },
            epoch: 1,
            recovery: None,
            edges: Vec::new(),
            network: Vec::new(),
            answers: Vec::new(),
            orphans: Vec::new(),
            calls: BTreeMap::new(),
            credited: free,
            charged: BTreeMap::new(),
            unposted: VecDeque::new(),
            paid: 0,
            spent: BTreeMap::new(),
            limit: 500,
            next: 1,
            counts: Counts::default(),
        };
        for rate in rates.into_iter().take(EDGES) {
            let edge = world.new_edge(rate);
            world.edges.push(edge);
        }
        world
    }

    fn number(&mut self) -> u128 {
        self.next += 1;
        self.next
    }

    fn new_edge(&mut self, rate: u64) -> Edge {
        let node = NodeId::new(Timestamp(0), self.number());
        Edge {
            node,
            up: true,
            started: self.time,
            rate,
            allotment: Allotment::new(self.funding),
            running: Vec::new(),
            waiting: VecDeque::new(),
            pending: VecDeque::new(),
            told: Vec::new(),
            sending: None,
            epoch: 0,
            limit: self.limit,
            unbacked: false,
            uncertain: false,
        }
    }

    fn tick(&self, edge: usize) -> Tick {
        let edge = &self.edges[edge];
        Tick((self.time - edge.started) * edge.rate / 1_000 + 1)
    }

    fn wall(&self) -> Timestamp {
        Timestamp(START + self.time)
    }

    fn pool_now(&self) -> Timestamp {
        Timestamp(START + self.time * self.pool_rate / 1_000 + self.pool_ahead)
    }

    /// The ceilings of a key that are in force now.
    fn ceilings(&self, key: usize, loose: i64) -> Vec<(PurseId, NanoUsd)> {
        let all: &[(Period, i64)] = match key {
            0 => &[],
            1 => &[(Period::Total, 5_000), (Period::Day, 700)],
            2 => &[(Period::Week, 300), (Period::Month, 2_000)],
            _ => &[(Period::Day, loose)],
        };
        let ceilings =
            all.iter().map(|(period, limit)| Ceiling { period: *period, limit: nano(*limit) });
        ceilings.map(|one| (one.purse(key_id(key), self.wall()), one.limit)).collect()
    }

    fn limit_of(purse: PurseId, loose: i64) -> NanoUsd {
        let limit = match (purse.key, purse.period) {
            (key, Period::Total) if key == key_id(1) => 5_000,
            (key, Period::Day) if key == key_id(1) => 700,
            (key, Period::Week) if key == key_id(2) => 300,
            (key, Period::Month) if key == key_id(2) => 2_000,
            (key, Period::Day) if key == key_id(LOOSE) => loose,
            other => panic!("no such ceiling: {other:?}"),
        };
        nano(limit)
    }

    pub(super) fn messages(&self) -> usize {
        self.network.len()
    }

    pub(super) fn answers(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn is_up(&self, edge: usize) -> bool {
        self.edges[edge].up
    }

    pub(super) fn is_asking(&self, edge: usize) -> bool {
        self.edges[edge].sending.is_some()
    }

    pub(super) fn apply(&mut self, step: Step) {
        match step {
            Step::Wait(millis) => self.time += u64::from(millis) * 1_000,
            Step::Place { edge, key, amount } => {
                self.place(edge % EDGES, Claim { key: key % KEYS, amount });
            }
            Step::Settle { edge, call, percent } => self.settle(edge % EDGES, call, percent),
            Step::Ask { edge, ahead } => self.ask(edge % EDGES, ahead),
            Step::Deliver { message, again } => self.deliver(message, again),
            Step::Lose { message } => {
                if let Some(place) = at(message, self.network.len()) {
                    self.network.remove(place);
                }
            }
            Step::Answer { answer } => self.answer(answer),
            Step::LoseAnswer { answer } => {
                if let Some(place) = at(answer, self.answers.len()) {
                    self.answers.remove(place);
                }
            }
            Step::TimeOut { edge } => self.time_out(edge % EDGES),
            Step::Crash { edge, percent } => self.crash(edge % EDGES, percent),
            Step::Start { edge } => self.start(edge % EDGES),
            Step::Replay { orphan, heard } => self.replay(orphan, heard),
            Step::Post { count } => self.post(count),
            Step::TopUp { amount } => self.top_up(amount),
            Step::Withdraw { amount } => self.withdraw(amount),
            Step::SetCeiling { limit } => self.limit = limit,
            Step::Learn { edge } => self.edges[edge % EDGES].limit = self.limit,
            Step::Sweep => self.sweep(),
            Step::Forget { lost } => self.forget(lost),
            Step::Jump { seconds } => {
                self.pool_ahead += u64::from(seconds) * SECOND;
                self.jumps += 1;
                for place in 0..EDGES {
                    self.edges[place].unbacked = true;
                    self.doubt(place);
                }
            }
        }
        self.check();
    }

    fn place(&mut self, place: usize, claim: Claim) {
        let now = self.tick(place);
        let ceilings = self.ceilings(claim.key, self.edges[place].limit);
        let edge = &mut self.edges[place];
        if !edge.up {
            return;
        }
        let live = edge.allotment.is_live(now);
        let metered = self.funding == Funding::Prepaid || !ceilings.is_empty();
        match edge.allotment.place(nano(claim.amount), &ceilings, now) {
            Ok(hold) => {
                assert!(live || !metered, "a hold was placed on a lease that is over");
                let call = CallId::new(Timestamp(0), self.number());
                let hold_amount = hold.amount().0;
                assert_eq!(hold_amount, claim.amount.max(0));
                self.edges[place].running.push(Running { call, hold });
                let (cost, told, certain, loose) = (0, None, false, claim.key == LOOSE);
                self.calls.insert(call, Call { hold: hold_amount, cost, told, certain, loose });
                self.counts.placed += 1;
            }
            Err(short) => {
                assert_eq!(short == Short::Lease, !live);
                self.counts.short += 1;
                if edge.waiting.len() < 3 {
                    edge.waiting.push_back(claim);
                }
            }
        }
    }

    fn settle(&mut self, place: usize, call: usize, percent: i64) {
        let edge = &mut self.edges[place];
        let Some(nth) = at(call, edge.running.len()) else { return };
        if !edge.up {
            return;
        }
        let Running { call, hold } = edge.running.swap_remove(nth);
        let known = self.calls.get_mut(&call).unwrap();
        known.cost = known.hold * percent / 100 + percent % 7;
        let amount = hold.amount();
        let mut most = nano(i64::MAX);
        if self.funding == Funding::Prepaid {
            most = amount.plus(edge.allotment.money().left());
        }
        for purse in hold.purses() {
            most = most
                .min(amount.plus(edge.allotment.purse(*purse).map_or(NanoUsd::ZERO, Share::left)));
        }
        let (charge, purses) = edge.allotment.settle(hold, nano(known.cost));
        assert!(charge.0 >= 0 && charge.0 <= known.cost, "{charge} of {}", known.cost);
        assert_eq!(charge, most.min(nano(known.cost)), "no more, and no less");
        self.counts.beyond_hold += u64::from(charge > amount);
        known.told = Some(charge.0);
        known.certain = !edge.uncertain;
        self.counts.settled += 1;
        let due = Some(Due { charge, purses });
        edge.pending.push_back(Arc::new(Ended { record: record(call, nano(known.cost)), due }));
    }

    fn ask(&mut self, place: usize, ahead: i64) {
        let (now, number) = (self.tick(place), u64::try_from(self.number()).unwrap());
        let ceilings: Vec<_> =
            (0..KEYS).map(|key| self.ceilings(key, self.edges[place].limit)).collect();
        let (account, funding, epoch) = (account_id(), self.funding, self.epoch);
        let edge = &mut self.edges[place];
        if !edge.up || edge.sending.is_some() {
            return;
        }
        let count = edge.pending.len().min(SETTLEMENTS_MAX);
        let told: Vec<_> = edge.pending.drain(..count).collect();
        let mut sent = Sent::default();
        let settlements = told.iter().map(|ended| {
            let due = ended.due.as_ref().unwrap();
            sent.add(due.charge, &due.purses);
            let (charge, purses) = (due.charge, due.purses.clone());
            Settlement { record: Arc::clone(&ended.record), charge, purses }
        });
        let settlements = settlements.collect();
        edge.allotment.forget_purses(Tick(now.0.saturating_sub(10 * SECOND)));
        let waiting = &edge.waiting;
        let demand = |purse: Option<PurseId>| {
            let named = waiting.iter().filter(|claim| {
                purse.is_none_or(|id| ceilings[claim.key].iter().any(|(one, _)| *one == id))
            });
            nano(named.map(|claim| claim.amount).sum())
        };
        let (want, purses) = edge.allotment.wants(demand, |_| nano(ahead), &sent);
        let (node, asked) = (edge.node, edge.allotment.ask(now));
        let exchange = Exchange { account, funding, node, asked, settlements, want, purses };
        let complete = edge.epoch == epoch && edge.pending.is_empty();
        self.network.push(Message {
            number,
            edge: place,
            epoch,
            complete,
            exchange: exchange.clone(),
        });
        edge.sending = Some(Sending { number, exchange, sent, told });
    }

    fn deliver(&mut self, message: usize, again: bool) {
        let Some(place) = at(message, self.network.len()) else { return };
        let message =
            if again { self.network[place].clone() } else { self.network.swap_remove(place) };
        if message.epoch != self.epoch {
            // The store refuses what was meant for its former life.
            self.network.retain(|one| one.number != message.number);
            return;
        }
        let last = self.pool.loans.get(&message.exchange.node).map(|loan| loan.asked);
        self.counts.overtaken += u64::from(last.is_some_and(|last| message.exchange.asked < last));
        let reply = self.exchange(&message.exchange);
        if let Some(recovery) = &mut self.recovery
            && message.complete
        {
            recovery.missing.remove(&message.exchange.node);
        }
        let Message { number, edge, epoch, .. } = message;
        self.answers.push(Answer { number, edge, epoch, jumps: self.jumps, reply });
        self.network.truncate(24);
        self.answers.truncate(24);
    }

    /// What a store does with an exchange.
    fn exchange(&mut self, exchange: &Exchange) -> Reply {
        let mut exchange = exchange.clone();
        self.end_recovery();
        let all = exchange.settlements.len();
        exchange.settlements.retain(|one| !self.charged.contains_key(&one.record.call));
        self.counts.repeated += u64::from(all > exchange.settlements.len());
        let before = self.pool.clone();
        self.lapse();
        let now = self.pool_now();
        let (reply, lapsed) = if self.recovery.is_some() {
            self.pool.adopt(&exchange, now, LEASE)
        } else {
            self.pool.exchange(&exchange, now, LEASE)
        };
        self.counts.lapsed += u64::try_from(lapsed.len()).unwrap();
        assert_eq!(reply.charged.len(), exchange.settlements.len());
        for (charged, settlement) in reply.charged.iter().zip(&exchange.settlements) {
            assert_eq!(charged.call, settlement.record.call);
            let call = &self.calls[&charged.call];
            let (charge, told) = (charged.charge.0, settlement.charge.0);
            assert!((0..=told).contains(&charge), "{charge} of {told}");
            assert_eq!(charge + charged.excess.0, call.cost, "what is not charged is the house's");
            self.counts.clamped += u64::from(charge < told);
            self.counts.certain += u64::from(call.certain && told > 0);
            if call.certain && !call.loose {
                assert_eq!(charge, told, "the loan was certain");
            }
            let double = self.charged.insert(charged.call, (charge, settlement.purses.clone()));
            assert_eq!(double, None, "charged twice");
            self.unposted.push_back(charged.call);
            self.paid += charge;
            for purse in &settlement.purses {
                *self.spent.entry(*purse).or_default() += charge;
            }
        }
        self.check_ceilings(&before, &exchange);
        reply
    }

    /// Under a ceiling no more is charged and lent than it allows, by whoever asks; what was beyond it
    /// before it was lowered does not grow.
    fn check_ceilings(&self, before: &Pool, exchange: &Exchange) {
        let used = |purse: &Purse| {
            purse.loans.values().fold(purse.spent.0, |sum, loan| sum + loan.amount.0)
        };
        for (id, purse) in &self.pool.purses {
            let limit = exchange.purses.iter().find(|one| one.purse == *id).map(|one| one.limit.0);
            let was = before.purses.get(id).map_or(0, used);
            let now = used(purse);
            assert!(now <= was.max(limit.unwrap_or(0)), "{now} under {limit:?}, {was} before");
        }
    }

    /// No loan lapses on which its edge may still place holds. What it holds is then not certain any more.
    fn lapse(&mut self) {
        let now = self.pool_now();
        for place in 0..EDGES {
            let edge = &self.edges[place];
            let lapses = |loans: &BTreeMap<NodeId, Loan>| {
                loans.get(&edge.node).is_some_and(|loan| loan.deadline <= now)
            };
            let mut lost = Vec::new();
            if lapses(&self.pool.loans) {
                lost.push(Some(edge.allotment.money()));
            }
            let purses = self.pool.purses.iter().filter(|(_, purse)| lapses(&purse.loans));
            lost.extend(purses.map(|(id, _)| edge.allotment.purse(*id)));
            if !edge.up || lost.is_empty() {
                continue;
            }
            let live = !edge.unbacked && edge.allotment.is_live(self.tick(place));
            // One that the edge does not know of, from an exchange that it has given up, it does not use.
            let used = lost.iter().flatten().any(|share| share.loan.0 > 0);
            assert!(!live || !used, "a loan in use lapses");
            if used {
                self.doubt(place);
            }
        }
    }

    /// An edge may hold more than the pool has lent it.
    fn doubt(&mut self, place: usize) {
        let edge = &mut self.edges[place];
        edge.uncertain = true;
        for ended in edge.pending.iter().chain(edge.sending.iter().flat_map(|one| &one.told)) {
            self.calls.get_mut(&ended.record.call).unwrap().certain = false;
        }
    }

    fn answer(&mut self, answer: usize) {
        let Some(place) = at(answer, self.answers.len()) else { return };
        let answer = self.answers.swap_remove(place);
        let now = self.tick(answer.edge);
        let edge = &mut self.edges[answer.edge];
        if !edge.up || edge.sending.as_ref().is_none_or(|one| one.number != answer.number) {
            return;
        }
        let Sending { exchange, sent, told, .. } = edge.sending.take().unwrap();
        edge.allotment.replied(&answer.reply, &exchange.purses, &sent, (exchange.asked, LEASE));
        edge.told.extend(told);
        if edge.epoch != 0 && edge.epoch != answer.epoch {
            // What SQL has is known when the store comes back: the rest is told again.
            let charged = &self.charged;
            let (posted, again): (Vec<_>, Vec<_>) =
                edge.told.drain(..).partition(|one| charged.contains_key(&one.record.call));
            for ended in &again {
                let due = ended.due.as_ref().unwrap();
                edge.allotment.owe(due.charge, &due.purses);
            }
            edge.pending.extend(again);
            edge.told = posted;
        }
        edge.epoch = answer.epoch;
        if (answer.epoch, answer.jumps) == (self.epoch, self.jumps) && edge.allotment.is_live(now) {
            edge.unbacked = false;
            let quiet = edge.running.is_empty() && edge.pending.is_empty();
            edge.uncertain &= !quiet;
        }
        for claim in std::mem::take(&mut edge.waiting) {
            self.place(answer.edge, claim);
        }
        // Who cannot be served now has been told so.
        self.edges[answer.edge].waiting.truncate(1);
    }

    fn time_out(&mut self, edge: usize) {
        let edge = &mut self.edges[edge];
        let Some(sending) = edge.sending.take() else { return };
        for ended in sending.told.into_iter().rev() {
            edge.pending.push_front(ended);
        }
    }

    fn crash(&mut self, place: usize, percent: i64) {
        let edge = &mut self.edges[place];
        if !edge.up {
            return;
        }
        edge.up = false;
        edge.waiting.clear();
        let mut left: Vec<_> = edge.told.drain(..).collect();
        left.extend(edge.sending.take().into_iter().flat_map(|sending| sending.told));
        left.extend(edge.pending.drain(..));
        for Running { call, hold } in edge.running.drain(..) {
            let known = self.calls.get_mut(&call).unwrap();
            known.cost = known.hold * percent / 100;
            let charge = hold.amount().min(nano(known.cost));
            known.told = Some(charge.0);
            let purses = hold.purses().to_vec();
            let due = Some(Due { charge, purses });
            left.push(Arc::new(Ended { record: record(call, nano(known.cost)), due }));
        }
        // The loan may lapse before the rest is told.
        for ended in &left {
            self.calls.get_mut(&ended.record.call).unwrap().certain = false;
        }
        let node = edge.node;
        if let Some(recovery) = &mut self.recovery {
            recovery.missing.remove(&node);
        }
        self.orphans.push(Orphan { node, ended: left });
    }

    fn start(&mut self, place: usize) {
        if !self.edges[place].up {
            self.edges[place] = self.new_edge(self.edges[place].rate);
        }
    }

    fn replay(&mut self, orphan: usize, heard: bool) {
        let Some(place) = at(orphan, self.orphans.len()) else { return };
        let Orphan { node, ended } = self.orphans[place].clone();
        let told: Vec<_> = ended.iter().take(SETTLEMENTS_MAX).cloned().collect();
        let settlements = told.iter().map(|ended| {
            let due = ended.due.as_ref().unwrap();
            let (charge, purses) = (due.charge, due.purses.clone());
            Settlement { record: Arc::clone(&ended.record), charge, purses }
        });
        let settlements: Vec<_> = settlements.collect();
        // What later ones hold is kept, and all else goes back.
        let rest = |purse: Option<PurseId>| {
            let dues = ended.iter().skip(told.len()).filter_map(|one| one.due.as_ref());
            let dues = dues.filter(|due| purse.is_none_or(|id| due.purses.contains(&id)));
            nano(dues.map(|due| due.charge.0).sum())
        };
        let want = |rest: NanoUsd| Want { target: rest, in_use: rest, waiting: NanoUsd::ZERO };
        let purses: BTreeSet<_> =
            settlements.iter().flat_map(|one| one.purses.iter().copied()).collect();
        let named = purses.into_iter().map(|purse| {
            let limit = Self::limit_of(purse, self.limit);
            PurseWant { purse, limit, want: want(rest(Some(purse))) }
        });
        let exchange = Exchange {
            account: account_id(),
            funding: self.funding,
            node,
            asked: ASKED_LAST,
            settlements,
            want: want(rest(None)),
            purses: named.collect(),
        };
        let _reply = self.exchange(&exchange);
        self.counts.replayed += 1;
        if heard {
            // The journal keeps them until SQL has them.
            let posted = |one: &Arc<Ended>| {
                let call = one.record.call;
                self.charged.contains_key(&call) && !self.unposted.contains(&call)
            };
            let mut left: Vec<_> = ended.into_iter().filter(|one| !posted(one)).collect();
            let turn = told.len().min(left.len());
            left.rotate_left(turn);
            if left.is_empty() {
                self.orphans.remove(place);
            } else {
                self.orphans[place].ended = left;
            }
        }
    }

    fn post(&mut self, count: usize) {
        let count = count.min(self.unposted.len());
        let posted: BTreeSet<_> = self.unposted.drain(..count).collect();
        for edge in &mut self.edges {
            edge.told.retain(|one| !posted.contains(&one.record.call));
        }
    }

    fn top_up(&mut self, amount: i64) {
        if self.funding == Funding::Prepaid {
            self.credited += amount;
            self.pool.free = self.pool.free.plus(nano(amount));
        }
    }

    fn withdraw(&mut self, amount: i64) {
        if self.funding == Funding::Prepaid && self.pool.free >= nano(amount) {
            self.credited -= amount;
            self.pool.free = self.pool.free.minus(nano(amount));
            self.counts.withdrawn += 1;
        }
    }

    fn sweep(&mut self) {
        self.end_recovery();
        self.lapse();
        let lapsed = self.pool.reclaim(self.pool_now());
        self.counts.lapsed += u64::try_from(lapsed.len()).unwrap();
    }

    fn forget(&mut self, lost: usize) {
        for _ in 0..lost.min(self.unposted.len()) {
            let call = self.unposted.pop_back().unwrap();
            self.charged.remove(&call);
            // It has to be told again, after others may have taken the money.
            self.calls.get_mut(&call).unwrap().certain = false;
        }
        self.unposted.clear();
        (self.paid, self.spent) = (0, BTreeMap::new());
        for (charge, purses) in self.charged.values() {
            self.paid += charge;
            for purse in purses {
                *self.spent.entry(*purse).or_default() += charge;
            }
        }
        let mut pool = Pool::default();
        for (purse, spent) in &self.spent {
            pool.purses.entry(*purse).or_default().spent = nano(*spent);
        }
        if self.funding == Funding::Prepaid {
            pool.free = nano(self.credited - self.paid);
        }
        self.pool = pool;
        self.epoch += 1;
        for place in 0..EDGES {
            self.edges[place].unbacked = true;
            self.doubt(place);
        }
        let missing = self.edges.iter().filter(|edge| edge.up).map(|edge| edge.node).collect();
        let until = self.time + u64::try_from(BARRIER.as_micros()).unwrap();
        self.recovery = Some(Recovery { until, missing });
        self.counts.forgotten += 1;
    }

    fn end_recovery(&mut self) {
        let over = |one: &Recovery| one.missing.is_empty() || one.until <= self.time;
        if self.recovery.as_ref().is_some_and(over) {
            self.recovery = None;
        }
    }

    /// What holds at every moment.
    pub(super) fn check(&self) {
        let lent: i64 = self.pool.loans.values().map(|loan| loan.amount.0).sum();
        match self.funding {
            Funding::Prepaid => {
                assert_eq!(
                    self.pool.free.0 + lent + self.paid,
                    self.credited,
                    "money is conserved"
                );
            }
            Funding::Unmetered => assert_eq!((self.pool.free.0, lent), (0, 0), "no money in it"),
        }
        assert!(self.pool.free.0 >= 0, "{self:#?}");
        let whole =
            |loan: &Loan| loan.amount.0 >= 0 && (0..=loan.amount.0).contains(&loan.in_use.0);
        assert!(self.pool.loans.values().all(whole));
        for (id, purse) in &self.pool.purses {
            assert!(purse.loans.values().all(whole));
            let spent = self.spent.get(id).copied().unwrap_or(0);
            assert_eq!(purse.spent.0, spent, "what counts is what is charged");
            if id.key != key_id(LOOSE) {
                let lent =
                    purse.loans.values().fold(NanoUsd::ZERO, |sum, loan| sum.plus(loan.amount));
                assert!(purse.spent.plus(lent) <= Self::limit_of(*id, 0), "{id:?}: {purse:?}");
            }
        }
        let known =
            |(id, spent): (&PurseId, &i64)| *spent == 0 || self.pool.purses.contains_key(id);
        assert!(self.spent.iter().all(known));
        (0..EDGES).for_each(|place| self.check_edge(place));
    }

    /// An edge that may place holds has what it believes to have.
    fn check_edge(&self, place: usize) {
        let edge = &self.edges[place];
        if !edge.up {
            return;
        }
        let told = edge.pending.iter().chain(edge.sending.iter().flat_map(|one| &one.told));
        let told: Vec<_> = told.filter(|one| self.charged.contains_key(&one.record.call)).collect();
        let known = |purse: Option<PurseId>| -> i64 {
            let dues = told.iter().filter_map(|one| one.due.as_ref());
            let dues = dues.filter(|due| purse.is_none_or(|id| due.purses.contains(&id)));
            dues.map(|due| due.charge.0).sum()
        };
        let lent =
            |loans: &BTreeMap<NodeId, Loan>| loans.get(&edge.node).map_or(0, |loan| loan.amount.0);
        let sure = edge.allotment.is_live(self.tick(place)) && !edge.unbacked;
        let money = edge.allotment.money();
        if sure && self.funding == Funding::Prepaid {
            let backed = money.loan.0 - known(None) <= lent(&self.pool.loans);
            assert!(backed, "edge {place} spends what it does not have: {self:#?}");
        }
        if sure && !edge.uncertain && self.funding == Funding::Prepaid {
            assert!(money.held.0 + money.owed.0 <= money.loan.0, "edge {place}: {money:?}");
        }
        for id in edge.allotment.purses.keys().filter(|id| id.key != key_id(LOOSE)) {
            let share = edge.allotment.purse(*id).unwrap();
            assert!(share.held.0 >= 0 && share.owed.0 >= 0);
            let there = self.pool.purses.get(id).map_or(0, |purse| lent(&purse.loans));
            assert!(
                !sure || share.loan.0 - known(Some(*id)) <= there,
                "edge {place}, {id:?}: {share:?}"
            );
            assert!(!sure || edge.uncertain || share.held.0 + share.owed.0 <= share.loan.0);
        }
        let holds: i64 = edge.running.iter().map(|one| one.hold.amount().0).sum();
        assert_eq!(money.held.0, holds, "what is held is what calls hold");
    }

    /// Ends every call, tells everything and waits until every loan has gone back; then nothing is left.
    pub(super) fn rest(&mut self) {
        self.apply(Step::Wait(11_000));
        self.network.clear();
        self.answers.clear();
        for place in 0..EDGES {
            self.apply(Step::Start { edge: place });
            while !self.edges[place].running.is_empty() {
                self.apply(Step::Settle { edge: place, call: 0, percent: 80 });
            }
            self.apply(Step::TimeOut { edge: place });
            self.edges[place].waiting.clear();
            // Twice more than what is pending needs: the first answer may be of a new life of the store.
            for _ in 0..self.edges[place].pending.len() + self.edges[place].told.len() + 3 {
                self.apply(Step::Ask { edge: place, ahead: 0 });
                self.apply(Step::Deliver { message: 0, again: false });
                self.apply(Step::Answer { answer: 0 });
                self.edges[place].waiting.clear();
            }
            assert!(self.edges[place].pending.is_empty());
            assert!(self.edges[place].allotment.is_idle(), "{:?}", self.edges[place]);
        }
        for _ in 0..10_000 {
            self.apply(Step::Replay { orphan: 0, heard: true });
            self.apply(Step::Post { count: usize::MAX });
            if self.orphans.is_empty() {
                break;
            }
        }
        assert!(self.orphans.is_empty());
        self.apply(Step::Wait(70_000));
        self.apply(Step::Sweep);
        assert!(self.pool.loans.is_empty());
        assert!(self.pool.purses.values().all(|purse| purse.loans.is_empty()));
        let charged: i64 = self.charged.values().map(|(charge, _)| charge).sum();
        if self.funding == Funding::Prepaid {
            assert_eq!(self.pool.free.0, self.credited - charged);
        }
        for (id, call) in &self.calls {
            let (charge, _) = self.charged.get(id).unwrap_or_else(|| panic!("{id} is lost"));
            let told = call.told.unwrap();
            assert!(*charge <= told && told <= call.cost);
        }
    }
}

/// One of `count` places, if there are any.
fn at(number: usize, count: usize) -> Option<usize> {
    number.checked_rem(count)
}
