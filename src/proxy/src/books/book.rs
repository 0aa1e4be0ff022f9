//! One account: the edge's loan, the calls that wait for more of it, and what is still to be told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokenroute_domain::allotment::{self, Allotment, Sent, Short};
use tokenroute_domain::id::{AccountId, NodeId};
use tokenroute_domain::journal::{Due, Ended};
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{Exchange, Others, PurseId, Settlement};
use tokenroute_domain::time::Tick;
use tokio::sync::oneshot;

use super::{Claim, Denied};
use crate::bank::Banked;

/// How long a call waits for what other edges give back.
const RECALL_WAIT: Duration = Duration::from_millis(100);
/// After which an account without calls gives back its loan.
const IDLE: Duration = Duration::from_secs(10);
/// Settlements that are told in one exchange.
const SETTLEMENTS_MAX: usize = 512;
/// Of what is free in a pool, the part that an edge takes ahead of need: so several edges share the rest,
/// and slices shrink as the balance does.
const AHEAD_PART: i64 = 4;
/// How many times the most that was held at once an edge is ready to hold, if the pool has it.
const PILED_UP: i64 = 8;
/// Weight of the past in the rate of spending, of 8.
const PAST: i64 = 6;

/// One account of an edge.
#[derive(Debug)]
pub(super) struct Book {
    account: AccountId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    allotment: Allotment,
    waiting: VecDeque<Waiter>,
    /// Calls that are over, to be told.
    pending: VecDeque<Arc<Ended>>,
    closed: bool,
    pace: Pace,
    /// When a hold was placed last.
    used: Tick,
    exchanged: Tick,
    /// What was taken ahead the last time.
    ahead: NanoUsd,
    /// The loan runs low before its time.
    low: bool,
    /// Another edge is short.
    recalled: bool,
}

/// How fast the account spends.
#[derive(Debug, Default)]
struct Pace {
    /// Nano-USD a second, smoothed.
    per_second: i64,
    /// The most that was held at the same time, slowly forgotten.
    held_peak: i64,
    /// Charged since `since`.
    charged: i64,
    since: Tick,
}

impl Pace {
    fn charge(&mut self, charge: NanoUsd) {
        self.charged = self.charged.saturating_add(charge.0);
    }

    fn held(&mut self, held: NanoUsd) {
        self.held_peak = self.held_peak.max(held.0);
    }

    /// What to have ready for calls of the next `lease`.
    fn ahead(&mut self, now: Tick, lease: Duration) -> NanoUsd {
        let micros = i64::try_from(now.since(self.since).as_micros()).unwrap_or(i64::MAX);
        if micros >= 250_000 {
            let scaled = i128::from(self.charged).saturating_mul(1_000_000);
            let rate = scaled.checked_div(i128::from(micros)).unwrap_or_default();
            let rate = i64::try_from(rate).unwrap_or(i64::MAX);
            let mixed = i128::from(self.per_second)
                .saturating_mul(i128::from(PAST))
                .saturating_add(i128::from(rate).saturating_mul(i128::from(8 - PAST)))
                / 8;
            // Up at once, down slowly: calls come in bursts.
            self.per_second = rate.max(i64::try_from(mixed).unwrap_or(i64::MAX));
            self.held_peak = self.held_peak.saturating_sub(self.held_peak / 64);
            (self.charged, self.since) = (0, now);
        }
        let seconds = i64::try_from(lease.as_secs()).unwrap_or(i64::MAX).saturating_add(1);
        let spent = self.per_second.saturating_mul(seconds);
        // A hold is many times what its call comes to, and calls pile up when something stalls.
        let held = self.held_peak.saturating_mul(PILED_UP);
        NanoUsd(spent.saturating_add(spent / 4).saturating_add(held))
    }
}

/// A call that waits for a loan.
#[derive(Debug)]
struct Waiter {
    claim: Claim,
    answer: oneshot::Sender<Result<allotment::Hold, Denied>>,
    /// When the bank was first asked with it.
    asked: Option<Tick>,
}

impl Waiter {
    fn ask(&mut self, now: Tick) {
        self.asked.get_or_insert(now);
    }

    /// Whether others may still give something back: they have not all been heard of since the bank was
    /// first asked, or they have told of something that they do not use; and there is time.
    fn hopes(&self, others: &Others, now: Tick) -> bool {
        let asked = self.asked.unwrap_or(now);
        let heard = others.silent < now.since(asked);
        let none = others.lent == NanoUsd::ZERO || (heard && others.spare == NanoUsd::ZERO);
        !none && now.since(asked) < RECALL_WAIT
    }
}

/// An exchange that is on its way, and what its answer means.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) exchange: Exchange,
    sent: Sent,
    told: Vec<Arc<Ended>>,
    asked: Tick,
}

/// What an answer has changed.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Settlements that the bank has now.
    pub(super) told: Vec<Arc<Ended>>,
    /// Calls still wait for what others have spare.
    pub(super) recall: bool,
    /// Calls still wait.
    pub(super) waiting: bool,
}

impl Book {
    pub(super) fn new(account: AccountId, funding: Funding) -> Self {
        let state = State {
            allotment: Allotment::new(funding),
            waiting: VecDeque::new(),
            pending: VecDeque::new(),
            closed: false,
            pace: Pace::default(),
            used: Tick(0),
            exchanged: Tick(0),
            ahead: NanoUsd::ZERO,
            low: false,
            recalled: false,
        };
        Self { account, state: Mutex::new(state) }
    }

    pub(super) const fn account(&self) -> AccountId {
        self.account
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Places a hold if the loan covers it; tells whether the loan now runs low.
    pub(super) fn place(&self, claim: &Claim, now: Tick) -> Result<(allotment::Hold, bool), Short> {
        let mut state = self.lock();
        if state.closed {
            return Err(Short::Lease);
        }
        state.used = now;
        let hold = state.allotment.place(claim.amount, &claim.ceilings, now)?;
        let in_all = state.allotment.money().held();
        state.pace.held(in_all);
        let left = state.allotment.money().left();
        let low = left.0 < state.ahead.0 / 4;
        // To say so once is enough until the next exchange.
        let first = low && !state.low;
        state.low |= low;
        Ok((hold, first))
    }

    pub(super) fn settle(&self, hold: allotment::Hold, cost: NanoUsd) -> Due {
        let mut state = self.lock();
        let (charge, purses) = state.allotment.settle(hold, cost);
        state.pace.charge(charge);
        Due { charge, purses }
    }

    pub(super) fn void(&self, hold: allotment::Hold) {
        let _nothing = self.lock().allotment.settle(hold, NanoUsd::ZERO);
    }

    pub(super) fn enqueue(
        &self,
        claim: Claim,
        answer: oneshot::Sender<Result<allotment::Hold, Denied>>,
    ) {
        let mut state = self.lock();
        if state.closed {
            // Whoever waits reads that nobody answers.
            return;
        }
        state.waiting.push_back(Waiter { claim, answer, asked: None });
    }

    /// Takes a call that is over, to be told.
    pub(super) fn push(&self, ended: Arc<Ended>) {
        self.lock().pending.push_back(ended);
    }

    /// Takes a call that was told before to a store that has lost its memory since.
    pub(super) fn push_again(&self, ended: Arc<Ended>) {
        let mut state = self.lock();
        if let Some(due) = &ended.due {
            state.allotment.owe(due.charge, &due.purses);
        }
        state.pending.push_back(ended);
    }

    /// Another edge is short of money: what is not in use goes back.
    pub(super) fn recall(&self) {
        self.lock().recalled = true;
    }

    /// Nobody can be asked: those who wait are told so.
    pub(super) fn turn_away(&self) {
        let mut state = self.lock();
        for waiter in state.waiting.drain(..) {
            // A call that has given up does not listen.
            let _gone = waiter.answer.send(Err(Denied::Unavailable));
        }
    }

    /// The next exchange, if one is due.
    pub(super) fn exchange(
        &self,
        node: NodeId,
        (now, lease, steady): (Tick, Duration, Duration),
    ) -> Option<Sending> {
        let mut state = self.lock();
        let state = &mut *state;
        if !state.is_due(now, lease, steady) {
            return None;
        }
        let count = state.pending.len().min(SETTLEMENTS_MAX);
        let told: Vec<Arc<Ended>> = state.pending.drain(..count).collect();
        let mut sent = Sent::default();
        let settlements = told.iter().filter_map(|ended| {
            let due = ended.due.as_ref()?;
            sent.add(due.charge, &due.purses);
            let (charge, purses) = (due.charge, due.purses.clone());
            Some(Settlement { record: Arc::clone(&ended.record), charge, purses })
        });
        let settlements = settlements.collect();
        let idle = now.since(state.used) > IDLE;
        let wanted = state.pace.ahead(now, lease);
        let ahead = if idle || state.recalled { NanoUsd::ZERO } else { wanted };
        let recently = Tick(now.0.saturating_sub(micros(IDLE)));
        state.allotment.forget_purses(recently);
        for waiter in &state.waiting {
            state.allotment.know(&waiter.claim.ceilings, now);
        }
        let shares = state.allotment.clone();
        state.ahead = part(&shares, None, (ahead, recently));
        let (want, purses) = state.allotment.wants(
            |purse| demand(&state.waiting, purse),
            |purse| part(&shares, purse, (ahead, recently)),
            &sent,
        );
        for waiter in &mut state.waiting {
            waiter.ask(now);
        }
        state.exchanged = now;
        (state.low, state.recalled) = (false, false);
        let funding = state.allotment.funding();
        let account = self.account;
        let asked = state.allotment.ask(now);
        let exchange = Exchange { account, funding, node, asked, settlements, want, purses };
        Some(Sending { exchange, sent, told, asked: now })
    }

    /// Takes the bank's answer and serves those who wait.
    pub(super) fn replied(
        &self,
        sending: Sending,
        banked: &Banked,
        (now, lease): (Tick, Duration),
    ) -> Outcome {
        let mut state = self.lock();
        let Sending { exchange, sent, told, asked } = sending;
        state.allotment.replied(&banked.reply, &exchange.purses, &sent, (asked, lease));
        let recall = state.serve(now, banked.recovering);
        let waiting = !state.waiting.is_empty();
        Outcome { told, recall, waiting }
    }

    /// The answer did not come: what was told is told again.
    pub(super) fn unanswered(&self, sending: Sending) {
        let mut state = self.lock();
        for ended in sending.told.into_iter().rev() {
            state.pending.push_front(ended);
        }
    }

    /// Closes the book if nothing is in it any more.
    pub(super) fn close_if_idle(&self, now: Tick) -> bool {
        let mut state = self.lock();
        let empty = state.pending.is_empty() && state.waiting.is_empty();
        if empty && state.allotment.is_idle() && now.since(state.used) > IDLE {
            state.closed = true;
        }
        state.closed
    }

    /// Whether nothing is held, and all is told.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.lock();
        state.pending.is_empty() && state.allotment.money().held() == NanoUsd::ZERO
    }

    /// No more calls will come: everything that is not held goes back.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        state.used = Tick(0);
        state.recalled = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What calls wait for: of the pool, or under a ceiling.
fn demand(waiting: &VecDeque<Waiter>, purse: Option<PurseId>) -> NanoUsd {
    let claims = waiting.iter().map(|waiter| &waiter.claim);
    let named =
        |claim: &&Claim| purse.is_none_or(|id| claim.ceilings.iter().any(|(one, _)| *one == id));
    claims.filter(named).fold(NanoUsd::ZERO, |sum, claim| sum.plus(claim.amount))
}

/// What to have ready of the pool, or under a ceiling that has been asked for recently: as much as is
/// wanted, of a part of what is there.
fn part(shares: &Allotment, purse: Option<PurseId>, (ahead, recently): (NanoUsd, Tick)) -> NanoUsd {
    let used = |id| shares.purse(id).filter(|_| shares.is_used(id, recently));
    let share = purse.map_or(Some(shares.money()), used);
    // Before the first answer nothing is known of the pool: only what is needed is asked for.
    let there = share.map_or(NanoUsd::ZERO, |share| share.free().plus(share.left()));
    ahead.min(NanoUsd(there.0 / AHEAD_PART))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl State {
    /// Whether there is a reason to talk to the bank.
    fn is_due(&self, now: Tick, lease: Duration, steady: Duration) -> bool {
        let since = now.since(self.exchanged);
        if !self.waiting.is_empty() || self.recalled {
            return true;
        }
        if since < steady {
            return self.low && since >= steady / 8;
        }
        let renews = since >= lease / 4 && !self.allotment.is_idle();
        !self.pending.is_empty() || renews || now.since(self.used) < steady
    }

    /// Gives those who wait what there is now. Tells whether a recall may bring more.
    fn serve(&mut self, now: Tick, recovering: bool) -> bool {
        let mut recall = false;
        let mut still = VecDeque::new();
        while let Some(waiter) = self.waiting.pop_front() {
            if waiter.answer.is_closed() {
                continue;
            }
            let placed = self.allotment.place(waiter.claim.amount, &waiter.claim.ceilings, now);
            let share = match &placed {
                Err(Short::Ceiling(id, _)) => self.allotment.purse(*id),
                Ok(_) | Err(Short::Money(_) | Short::Lease) => Some(self.allotment.money()),
            };
            let others = share.map(|share| *share.others()).unwrap_or_default();
            let more = waiter.hopes(&others, now);
            match placed {
                Ok(hold) => {
                    if let Err(Ok(hold)) = waiter.answer.send(Ok(hold)) {
                        let _nothing = self.allotment.settle(hold, NanoUsd::ZERO);
                    }
                }
                Err(_) if waiter.asked.is_none() || recovering => still.push_back(waiter),
                Err(_) if more => {
                    recall = true;
                    still.push_back(waiter);
                }
                Err(short) => {
                    // What was lent for it is of use to others.
                    self.recalled = true;
                    let _gone = waiter.answer.send(Err(short.into()));
                }
            }
        }
        self.waiting = still;
        recall
    }
}
