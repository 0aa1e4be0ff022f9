//! What edges share of an account: its free money, what is lent to each edge, and what is left under
//! the ceilings of its keys. Every store of it (SQL, Redis) does exactly what [`Pool::exchange`] does.
//!
//! An edge never asks call by call. It holds a *loan* (an allotment) ahead of need and spends it in
//! memory; now and then it exchanges messages with the pool: what has been charged, and what loan it
//! wants from here on. Wants are absolute, so an exchange that is repeated changes nothing; one that is
//! overtaken by a later one of the same edge lends and takes back nothing.
//!
//! **Invariant:** money is conserved: free, loans and charges together are what was credited; free, every
//! loan and what is left under every ceiling are never below zero.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::id::{AccountId, CallId, KeyId, NodeId};
use crate::key::Funding;
use crate::money::NanoUsd;
use crate::record::Record;
use crate::time::{Tick, Timestamp};

/// Purses that one key can have: one for each period.
pub const PURSES_MAX: usize = 4;

/// When whoever speaks for an edge that is gone asks: after all that the edge may still have on its way.
/// Redis counts in doubles, which are exact up to here.
pub const ASKED_LAST: Tick = Tick((1 << 53) - 1);

/// Over which time a key's ceiling counts. Days, weeks (from Monday) and months are those of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// The key's whole life.
    Total,
    /// One day.
    Day,
    /// One week, from Monday.
    Week,
    /// One month of the calendar.
    Month,
}

/// A key's spending ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ceiling {
    /// Over which time it counts.
    pub period: Period,
    /// How much may be charged in it.
    pub limit: NanoUsd,
}

/// What is counted under one ceiling: a key, and which of its periods. A period's number is that of the
/// day since the epoch, of the Monday-based week since the epoch, or `year * 12 + month - 1`; 0 for `Total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurseId {
    /// Whose.
    pub key: KeyId,
    /// Over which time.
    pub period: Period,
    /// Which one of them.
    pub number: u32,
}

/// What an edge wants of a pool or of a purse, once the settlements of the same exchange are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// How much it wants to have on loan. Less than it has: the rest goes back.
    pub target: NanoUsd,
    /// How much of it is for calls: at most `target`. The rest can be recalled.
    pub in_use: NanoUsd,
    /// How much of that is for calls that still wait for a loan: nothing is held for them yet.
    pub waiting: NanoUsd,
}

/// A call that is over and what it is to be charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Its record, with the account, the key and the true cost.
    pub record: Arc<Record>,
    /// What the edge has put down for it: at most its hold and what was free in the edge's loan.
    pub charge: NanoUsd,
    /// The ceilings it counts under, each once: those that its hold was placed under. Under one that the
    /// exchange does not name as wanted, no more is charged than the edge has on loan there.
    pub purses: Vec<PurseId>,
}

/// What an edge wants of one purse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PurseWant {
    /// Which.
    pub purse: PurseId,
    /// The ceiling, by the key as the edge knows it.
    pub limit: NanoUsd,
    /// How much of it.
    pub want: Want,
}

/// What an edge tells a pool, and wants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Whose pool.
    pub account: AccountId,
    /// How the account pays. An unmetered one has no money; the ceilings of its keys count all the same.
    pub funding: Funding,
    /// Which run of an edge.
    pub node: NodeId,
    /// When it asked, by its own clock ([`crate::allotment::Allotment::ask`]): later in each exchange than
    /// in the one before it.
    pub asked: Tick,
    /// Calls that are over. One that the pool has settled before is settled no more.
    pub settlements: Vec<Settlement>,
    /// The loan that is wanted.
    pub want: Want,
    /// The same for ceilings; a purse that is not named stays as it is.
    pub purses: Vec<PurseWant>,
}

/// How a settlement came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    /// Which call.
    pub call: CallId,
    /// What the account was charged; of an unmetered one, what was counted under the key's ceilings.
    pub charge: NanoUsd,
    /// What it should have been charged beyond: the house's loss.
    pub excess: NanoUsd,
}

/// What other edges have on loan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// All of it.
    pub lent: NanoUsd,
    /// What of it no call of theirs held when they were last heard of: a recall may bring it back.
    pub spare: NanoUsd,
    /// How long ago that was, for the one that has been silent the longest.
    pub silent: Duration,
}

/// How a loan stands after an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The loan.
    pub loan: NanoUsd,
    /// What is left for anybody.
    pub free: NanoUsd,
    /// What other edges have.
    pub others: Others,
}

/// A pool's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// How the loan stands.
    pub granted: Granted,
    /// The same for each purse that was named, in that order.
    pub purses: Vec<Granted>,
    /// The settlements that were new to the pool.
    pub charged: Vec<Charged>,
}

/// A loan whose edge was not heard of in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapsed {
    /// Whose it was.
    pub node: NodeId,
    /// What went back.
    pub amount: NanoUsd,
    /// How much of it was held by calls when the edge was last heard of.
    pub in_use: NanoUsd,
}

/// What an edge has of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loan {
    /// How much.
    pub amount: NanoUsd,
    /// How much of it was held by calls when the edge was last heard of.
    pub in_use: NanoUsd,
    /// When it lapses unless the edge is heard of.
    pub deadline: Timestamp,
    /// When the edge asked for it, by its own clock: what it asked before that comes too late.
    pub asked: Tick,
}

/// What is counted under one ceiling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purse {
    /// What has been charged under it.
    pub spent: NanoUsd,
    /// What edges may charge under it; a loan lapses with its edge's loan of the pool.
    pub loans: BTreeMap<NodeId, Loan>,
}

/// The shared state of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// What is neither lent nor charged.
    pub free: NanoUsd,
    /// What is lent, by edge.
    pub loans: BTreeMap<NodeId, Loan>,
    /// What is counted under the ceilings of its keys.
    pub purses: BTreeMap<PurseId, Purse>,
}

impl Period {
    /// Every period.
    pub const ALL: [Self; PURSES_MAX] = [Self::Total, Self::Day, Self::Week, Self::Month];

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// Reads what [`Self::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }

    /// The number of the period that holds `now`.
    pub fn number(self, now: Timestamp) -> u32 {
        let day = u32::try_from(now.seconds() / SECONDS_PER_DAY).unwrap_or(u32::MAX);
        match self {
            Self::Total => 0,
            Self::Day => day,
            // 1970-01-01 was a Thursday: three days after a Monday.
            Self::Week => day.saturating_add(3) / 7,
            Self::Month => month(day),
        }
    }
}

const SECONDS_PER_DAY: u64 = 86_400;

/// Year and month of a day since the epoch, as `year * 12 + month - 1` (the civil-from-days algorithm
/// of proleptic Gregorian dates, with years that begin in March).
fn month(day: u32) -> u32 {
    let days = u64::from(day).saturating_add(719_468);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let leaps = (of_era / 36_524).saturating_sub(of_era / 146_096);
    let year_of_era = (of_era.saturating_sub(of_era / 1_460).saturating_add(leaps)) / 365;
    let before =
        (365 * year_of_era).saturating_add(year_of_era / 4).saturating_sub(year_of_era / 100);
    let from_march = (5 * of_era.saturating_sub(before)).saturating_add(2) / 153;
    let months = (era.saturating_mul(400).saturating_add(year_of_era))
        .saturating_mul(12)
        .saturating_add(from_march)
        .saturating_add(2);
    u32::try_from(months).unwrap_or(u32::MAX)
}

impl Ceiling {
    /// The purse of `key` that counts under it now.
    pub fn purse(self, key: KeyId, now: Timestamp) -> PurseId {
        PurseId { key, period: self.period, number: self.period.number(now) }
    }
}

impl Want {
    /// How much a pool may lend of it at most to an edge that has `had`.
    fn most(self, had: NanoUsd, adopts: bool) -> NanoUsd {
        let target = self.target.at_least_zero();
        if adopts { target.min(self.held().max(had)) } else { target }
    }

    /// What calls hold already, or are owed.
    fn held(self) -> NanoUsd {
        self.in_use.minus(self.waiting.at_least_zero()).at_least_zero()
    }
}

impl Purse {
    /// What is left for anybody under a ceiling of `limit`.
    pub fn free(&self, limit: NanoUsd) -> NanoUsd {
        limit.minus(self.used()).at_least_zero()
    }

    /// How much more is charged and lent than a ceiling of `limit` allows.
    fn over(&self, limit: NanoUsd) -> NanoUsd {
        self.used().minus(limit).at_least_zero()
    }

    fn used(&self) -> NanoUsd {
        self.loans.values().map(|loan| loan.amount).fold(self.spent, NanoUsd::plus)
    }
}

/// Who asks for loans, when by its own clock, and until when it gets them.
#[derive(Clone, Copy)]
struct Asker {
    node: NodeId,
    asked: Tick,
    deadline: Timestamp,
    adopts: bool,
}

impl Pool {
    /// Settles, then lends or takes back. The caller leaves out settlements that the pool has seen.
    /// Loans that have lapsed by `now` are taken back first; `lease` is how long a loan then lasts.
    pub fn exchange(
        &mut self,
        exchange: &Exchange,
        now: Timestamp,
        lease: Duration,
    ) -> (Reply, Vec<Lapsed>) {
        self.answer(exchange, (now, lease), false)
    }

    /// The same, of a pool whose store has lost its memory and has not heard of every edge since: nothing is
    /// lent but what calls hold already.
    pub fn adopt(
        &mut self,
        exchange: &Exchange,
        now: Timestamp,
        lease: Duration,
    ) -> (Reply, Vec<Lapsed>) {
        self.answer(exchange, (now, lease), true)
    }

    fn answer(
        &mut self,
        exchange: &Exchange,
        (now, lease): (Timestamp, Duration),
        adopts: bool,
    ) -> (Reply, Vec<Lapsed>) {
        let lapsed = self.reclaim(now);
        let (node, asked, deadline) = (exchange.node, exchange.asked, now.plus(lease));
        let by = Asker { node, asked, deadline, adopts };
        let mut told = BTreeSet::new();
        let once = exchange.settlements.iter().filter(|one| told.insert(one.record.call));
        let charged = once.map(|one| self.settle(exchange, one)).collect();
        let granted = match exchange.funding {
            Funding::Prepaid => self.lend(by, exchange.want),
            Funding::Unmetered => Granted::default(),
        };
        let purses = exchange.purses.iter();
        let purses = purses.map(|wanted| self.lend_of_purse(by, wanted)).collect();
        self.drop_spent_loans(node);
        (Reply { granted, purses, charged }, lapsed)
    }

    /// Takes back what was lent to edges that were not heard of in time.
    pub fn reclaim(&mut self, now: Timestamp) -> Vec<Lapsed> {
        let mut lapsed = Vec::new();
        let free = &mut self.free;
        self.loans.retain(|node, loan| {
            if loan.deadline > now {
                return true;
            }
            *free = free.plus(loan.amount);
            lapsed.push(Lapsed { node: *node, amount: loan.amount, in_use: loan.in_use });
            false
        });
        for purse in self.purses.values_mut() {
            purse.loans.retain(|_, loan| loan.deadline > now);
        }
        lapsed
    }

    /// A loan of nothing is none, also where it was spent and nothing was said of it.
    fn drop_spent_loans(&mut self, node: NodeId) {
        let all = self.purses.values_mut().map(|purse| &mut purse.loans);
        for loans in all.chain(std::iter::once(&mut self.loans)) {
            if loans.get(&node).is_some_and(|loan| loan.amount == NanoUsd::ZERO) {
                loans.remove(&node);
            }
        }
    }

    /// Charges a call to its edge's loan, and what that does not cover to what is free: never more than
    /// there is, in the pool and under each ceiling. The rest is the house's.
    fn settle(&mut self, exchange: &Exchange, settlement: &Settlement) -> Charged {
        let node = exchange.node;
        let loan = self.loans.get(&node).map_or(NanoUsd::ZERO, |loan| loan.amount);
        let mut charge = settlement.charge.at_least_zero();
        if exchange.funding == Funding::Prepaid {
            charge = charge.min(loan.plus(self.free));
        }
        for id in &settlement.purses {
            charge = charge.min(self.room(exchange, *id));
        }
        if exchange.funding == Funding::Prepaid {
            let from_loan = charge.min(loan);
            lower(&mut self.loans, node, from_loan);
            self.free = self.free.minus(charge.minus(from_loan));
        }
        for id in &settlement.purses {
            let purse = self.purses.entry(*id).or_default();
            purse.spent = purse.spent.plus(charge);
            lower(&mut purse.loans, node, charge);
        }
        let excess = settlement.record.cost.minus(charge).at_least_zero();
        Charged { call: settlement.record.call, charge, excess }
    }

    /// What may still be charged under a ceiling by an edge: its loan and what is free. Of a ceiling that
    /// the exchange does not name it is not known what is free.
    fn room(&self, exchange: &Exchange, id: PurseId) -> NanoUsd {
        let wanted = exchange.purses.iter().find(|wanted| wanted.purse == id);
        let limit = wanted.map_or(NanoUsd::ZERO, |wanted| wanted.limit);
        let Some(purse) = self.purses.get(&id) else { return limit.at_least_zero() };
        let loan = purse.loans.get(&exchange.node).map_or(NanoUsd::ZERO, |loan| loan.amount);
        purse.free(limit).plus(loan)
    }

    fn lend(&mut self, asker: Asker, want: Want) -> Granted {
        let node = asker.node;
        let loan = self.loans.get(&node).copied();
        let had = loan.map_or(NanoUsd::ZERO, |loan| loan.amount);
        let amount = if is_overtaken(loan, asker) {
            had
        } else {
            let amount = want.most(had, asker.adopts).min(had.plus(self.free));
            self.free = self.free.plus(had).minus(amount);
            note(&mut self.loans, asker, (amount, want.in_use));
            amount
        };
        Granted { loan: amount, free: self.free, others: others(&self.loans, asker) }
    }

    fn lend_of_purse(&mut self, asker: Asker, wanted: &PurseWant) -> Granted {
        let purse = self.purses.entry(wanted.purse).or_default();
        let loan = purse.loans.get(&asker.node).copied();
        let had = loan.map_or(NanoUsd::ZERO, |loan| loan.amount);
        let amount = if is_overtaken(loan, asker) {
            had
        } else {
            // A ceiling that was lowered leaves less than was lent: that much is taken back, except for
            // what calls hold.
            let over = purse.over(wanted.limit);
            let kept = had.minus(over).max(had.min(wanted.want.held()));
            let most = kept.plus(purse.free(wanted.limit));
            let amount = wanted.want.most(had, asker.adopts).min(most);
            note(&mut purse.loans, asker, (amount, wanted.want.in_use));
            amount
        };
        let free = purse.free(wanted.limit);
        Granted { loan: amount, free, others: others(&purse.loans, asker) }
    }
}

/// Whether an edge has asked for its loan later than this.
fn is_overtaken(loan: Option<Loan>, asker: Asker) -> bool {
    loan.is_some_and(|loan| asker.asked < loan.asked)
}

/// Lowers a loan by what was charged, down to nothing.
fn lower(loans: &mut BTreeMap<NodeId, Loan>, node: NodeId, by: NanoUsd) {
    if let Some(loan) = loans.get_mut(&node) {
        loan.amount = loan.amount.minus(by).at_least_zero();
        loan.in_use = loan.in_use.min(loan.amount);
    }
}

/// Writes a loan down; one of nothing is none.
fn note(loans: &mut BTreeMap<NodeId, Loan>, asker: Asker, (amount, in_use): (NanoUsd, NanoUsd)) {
    let Asker { node, asked, deadline, .. } = asker;
    if amount == NanoUsd::ZERO {
        loans.remove(&node);
    } else {
        let in_use = in_use.at_least_zero().min(amount);
        loans.insert(node, Loan { amount, in_use, deadline, asked });
    }
}

/// What others have. A loan that is renewed now lasts to `deadline`, so how much earlier another one ends
/// tells how long ago its edge was heard of.
fn others(loans: &BTreeMap<NodeId, Loan>, asker: Asker) -> Others {
    let others = loans.iter().filter(|(other, _)| **other != asker.node);
    others.fold(Others::default(), |sum, (_, loan)| Others {
        lent: sum.lent.plus(loan.amount),
        spare: sum.spare.plus(loan.amount.minus(loan.in_use)),
        silent: sum.silent.max(asker.deadline.since(loan.deadline)),
    })
}

#[cfg(test)]
mod tests;
