//! An edge's side of an account: the loan that it has of the pool, and the holds that it places on it in
//! memory. [`crate::pool`] is the other side.
//!
//! **Invariant:** what calls hold and what is owed for ended ones is never more than the loan was when it
//! was given out, so the edge never spends what it does not have; and no hold is placed on a loan whose
//! lease is over by the edge's own clock. (A hold that outlives the lease is settled all the same: the pool
//! charges what is there.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::key::Funding;
use crate::money::NanoUsd;
use crate::pool::{Granted, Others, PurseId, PurseWant, Reply, Want};
use crate::time::Tick;

/// Of a lease's time, how much the edge uses, in percent: it stops well before the pool takes back.
const LEASE_USED_PERCENT: u32 = 80;

/// Money put aside for one call. It is spent by [`Allotment::settle`], once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a hold that is dropped is never freed"]
pub struct Hold {
    amount: NanoUsd,
    purses: Vec<PurseId>,
}

impl Hold {
    /// How much.
    pub const fn amount(&self) -> NanoUsd {
        self.amount
    }

    /// The ceilings that it is placed under.
    pub fn purses(&self) -> &[PurseId] {
        &self.purses
    }
}

/// What a hold could not be placed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// The loan of the pool has not enough left; so much has it.
    Money(NanoUsd),
    /// The loan under a ceiling has not enough left; so much has it.
    Ceiling(PurseId, NanoUsd),
    /// The lease is over: nobody has been heard of for too long.
    Lease,
}

/// A part of the pool, or of what is left under a ceiling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// What is lent.
    loan: NanoUsd,
    /// What calls hold of it.
    held: NanoUsd,
    /// What ended calls were charged that the pool may not know of yet.
    owed: NanoUsd,
    /// What the pool said last: what is left for anybody, and what others have.
    free: NanoUsd,
    others: Others,
}

impl Share {
    /// What can be put aside for a call.
    pub fn left(&self) -> NanoUsd {
        self.loan.minus(self.held).minus(self.owed).at_least_zero()
    }

    /// What calls hold.
    pub const fn held(&self) -> NanoUsd {
        self.held
    }

    /// What the pool had left for anybody when it was last heard of.
    pub const fn free(&self) -> NanoUsd {
        self.free
    }

    /// What others had when the pool was last heard of.
    pub const fn others(&self) -> &Others {
        &self.others
    }

    const fn is_idle(&self) -> bool {
        self.loan.0 == 0 && self.held.0 == 0 && self.owed.0 == 0
    }

    /// Gives up what is not wanted, and tells what is. `demand` waits for a loan, `ahead` is for calls to
    /// come, `sent` is owed and told in the same exchange.
    fn want(&mut self, demand: NanoUsd, ahead: NanoUsd, sent: NanoUsd) -> Want {
        let in_use = self.held.plus(self.owed.minus(sent).at_least_zero()).plus(demand);
        let target = in_use.plus(ahead);
        // What goes back is not spent any more, whether or not the answer arrives.
        self.loan = self.loan.min(target.plus(sent));
        Want { target, in_use, waiting: demand }
    }

    fn granted(&mut self, granted: Granted, sent: NanoUsd) {
        self.loan = granted.loan;
        self.owed = self.owed.minus(sent).at_least_zero();
        (self.free, self.others) = (granted.free, granted.others);
    }
}

/// What was told in an exchange, until its answer has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    money: NanoUsd,
    purses: BTreeMap<PurseId, NanoUsd>,
}

impl Sent {
    /// Takes note of a settlement that is told.
    pub fn add(&mut self, charge: NanoUsd, purses: &[PurseId]) {
        self.money = self.money.plus(charge);
        for purse in purses {
            let sum = self.purses.entry(*purse).or_default();
            *sum = sum.plus(charge);
        }
    }

    fn of(&self, purse: PurseId) -> NanoUsd {
        self.purses.get(&purse).copied().unwrap_or_default()
    }
}

/// What an edge has under one ceiling.
#[derive(Clone, Copy, Debug)]
struct Under {
    limit: NanoUsd,
    share: Share,
    /// When a call asked for it last.
    used: Tick,
}

/// An edge's side of one account.
#[derive(Clone, Debug)]
pub struct Allotment {
    funding: Funding,
    money: Share,
    purses: BTreeMap<PurseId, Under>,
    /// Until when it may be spent; before the first loan, not at all.
    spend_until: Tick,
    /// When the pool was asked last.
    asked: Tick,
}

impl Allotment {
    /// Nothing, of an account that pays so.
    pub const fn new(funding: Funding) -> Self {
        let money = Share {
            loan: NanoUsd::ZERO,
            held: NanoUsd::ZERO,
            owed: NanoUsd::ZERO,
            free: NanoUsd::ZERO,
            others: Others { lent: NanoUsd::ZERO, spare: NanoUsd::ZERO, silent: Duration::ZERO },
        };
        Self { funding, money, purses: BTreeMap::new(), spend_until: Tick(0), asked: Tick(0) }
    }

    /// The share of the pool.
    pub const fn money(&self) -> &Share {
        &self.money
    }

    /// The share under a ceiling.
    pub fn purse(&self, purse: PurseId) -> Option<&Share> {
        self.purses.get(&purse).map(|under| &under.share)
    }

    /// Whether a call has asked for what is under a ceiling at `since` or later.
    pub fn is_used(&self, purse: PurseId, since: Tick) -> bool {
        self.purses.get(&purse).is_some_and(|under| under.used >= since)
    }

    /// How the account pays.
    pub const fn funding(&self) -> Funding {
        self.funding
    }

    /// Takes note of ceilings that a call comes under, so that a share under them is asked for.
    pub fn know(&mut self, ceilings: &[(PurseId, NanoUsd)], now: Tick) {
        for (purse, limit) in ceilings {
            let share = Share::default();
            let new = Under { limit: *limit, share, used: now };
            let under = self.purses.entry(*purse).or_insert(new);
            (under.limit, under.used) = (*limit, now);
        }
    }

    /// Whether the lease runs.
    pub fn is_live(&self, now: Tick) -> bool {
        now < self.spend_until
    }

    /// Puts money aside for a call, in the pool's loan and under every ceiling, or in none. A ceiling that
    /// is given twice is one.
    pub fn place(
        &mut self,
        amount: NanoUsd,
        ceilings: &[(PurseId, NanoUsd)],
        now: Tick,
    ) -> Result<Hold, Short> {
        let amount = amount.at_least_zero();
        self.know(ceilings, now);
        if (self.is_metered() || !ceilings.is_empty()) && !self.is_live(now) {
            return Err(Short::Lease);
        }
        if self.is_metered() && self.money.left() < amount {
            return Err(Short::Money(self.money.left()));
        }
        for (purse, _) in ceilings {
            let left = self.purse(*purse).map_or(NanoUsd::ZERO, Share::left);
            if left < amount {
                return Err(Short::Ceiling(*purse, left));
            }
        }
        let purses: BTreeSet<PurseId> = ceilings.iter().map(|(purse, _)| *purse).collect();
        self.money.held = self.money.held.plus(amount);
        for purse in &purses {
            if let Some(under) = self.purses.get_mut(purse) {
                under.share.held = under.share.held.plus(amount);
            }
        }
        Ok(Hold { amount, purses: purses.into_iter().collect() })
    }

    /// Ends a hold and tells what is charged: the cost, as far as the hold and what else is left in the
    /// loan and under every ceiling cover it. A void is a settlement of nothing.
    pub fn settle(&mut self, hold: Hold, cost: NanoUsd) -> (NanoUsd, Vec<PurseId>) {
        let Hold { amount, purses } = hold;
        let mut charge = cost.at_least_zero();
        if self.is_metered() {
            charge = charge.min(amount.plus(self.money.left()));
        }
        for purse in &purses {
            let left = self.purse(*purse).map_or(NanoUsd::ZERO, Share::left);
            charge = charge.min(amount.plus(left));
        }
        let shares = self.purses.iter_mut().filter(|(id, _)| purses.contains(id));
        let shares = shares.map(|(_, under)| &mut under.share);
        for share in shares.chain(std::iter::once(&mut self.money)) {
            share.held = share.held.minus(amount).at_least_zero();
            share.owed = share.owed.plus(charge);
        }
        (charge, purses)
    }

    /// Takes note that a settlement which the pool had been told has to be told again, since its store has
    /// lost its memory: until then it is owed once more.
    pub fn owe(&mut self, charge: NanoUsd, purses: &[PurseId]) {
        self.money.owed = self.money.owed.plus(charge);
        for purse in purses {
            if let Some(under) = self.purses.get_mut(purse) {
                under.share.owed = under.share.owed.plus(charge);
            }
        }
    }

    /// When an exchange that is begun now was asked, for the pool: later than the one before it, even
    /// within a microsecond.
    pub fn ask(&mut self, now: Tick) -> Tick {
        self.asked = now.max(Tick(self.asked.0.saturating_add(1)));
        self.asked
    }

    /// What to ask of the pool. `demand` is what calls wait for and `ahead` what is for calls to come, of
    /// the pool and of each purse; `sent` is told in the same exchange.
    pub fn wants(
        &mut self,
        demand: impl Fn(Option<PurseId>) -> NanoUsd,
        ahead: impl Fn(Option<PurseId>) -> NanoUsd,
        sent: &Sent,
    ) -> (Want, Vec<PurseWant>) {
        let want = self.money.want(demand(None), ahead(None), sent.money);
        let purses = self.purses.iter_mut().map(|(id, under)| {
            let (demand, ahead) = (demand(Some(*id)), ahead(Some(*id)));
            let want = under.share.want(demand, ahead, sent.of(*id));
            PurseWant { purse: *id, limit: under.limit, want }
        });
        let purses = purses.collect();
        (want, purses)
    }

    /// Takes the pool's answer to an exchange that was begun at `asked` and named `purses`.
    pub fn replied(
        &mut self,
        reply: &Reply,
        purses: &[PurseWant],
        sent: &Sent,
        (asked, lease): (Tick, Duration),
    ) {
        self.money.granted(reply.granted, sent.money);
        for (wanted, granted) in purses.iter().zip(&reply.purses) {
            if let Some(under) = self.purses.get_mut(&wanted.purse) {
                under.share.granted(*granted, sent.of(wanted.purse));
            }
        }
        let used = lease.saturating_mul(LEASE_USED_PERCENT) / 100;
        self.spend_until = asked.plus(used);
    }

    /// Forgets ceilings that nothing is lent, held or owed under and that no call has asked for at `since`
    /// or later: periods that are over, keys that are gone.
    pub fn forget_purses(&mut self, since: Tick) {
        self.purses.retain(|_, under| !under.share.is_idle() || under.used >= since);
    }

    /// Whether nothing is lent, held or owed.
    pub fn is_idle(&self) -> bool {
        self.money.is_idle() && self.purses.values().all(|under| under.share.is_idle())
    }

    fn is_metered(&self) -> bool {
        self.funding == Funding::Prepaid
    }
}

#[cfg(test)]
mod tests;
