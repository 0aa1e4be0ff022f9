//! The edge's books: what it has on loan of each account's pool, and the holds that calls have on it.
//! Placing and settling a hold is arithmetic in memory; the [`teller`] talks to the bank behind it.
//!
//! **Invariant:** a hold is settled exactly once, whatever becomes of its call: dropping it settles it at
//! nothing.

mod book;
mod progress;
mod teller;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pingora_timeout::timeout;
use tokenroute_domain::allotment::{self, Short};
use tokenroute_domain::id::{AccountId, KeyId, NodeId};
use tokenroute_domain::journal::{Due, Intent};
use tokenroute_domain::key::{ApiKey, Funding};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::PurseId;
use tokenroute_domain::time::Timestamp;
use tokio::sync::{Notify, oneshot};

use crate::bank::{Bank, Journal};
use crate::clock;

use self::book::Book;
pub(crate) use self::progress::Progress;
pub use self::teller::{Teller, TellerOptions};

/// Longest wait for a loan before a call is told to come back: beyond what a healthy bank needs, recall
/// included.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Calls that wait for a loan at the same time, in all.
const WAITING_MAX: u64 = 8_192;

/// All accounts of an edge. Clones share them.
#[derive(Clone, Debug)]
pub struct Books(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: NodeId,
    bank: Arc<dyn Bank>,
    journal: Arc<dyn Journal>,
    accounts: RwLock<HashMap<AccountId, Arc<Book>>>,
    calls: progress::Calls,
    /// Wakes the teller: a call waits, or a loan runs low.
    wake: Notify,
    /// The last word of the bank was that it cannot be asked.
    away: AtomicBool,
    waiting: AtomicU64,
    counts: Counts,
}

/// What the books have done, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls that the bank has taken.
    pub told: AtomicU64,
    /// Exchanges that were answered.
    pub exchanges: AtomicU64,
    /// Exchanges that were not.
    pub exchanges_failed: AtomicU64,
    /// Calls that had to wait for a loan.
    pub waited: AtomicU64,
    /// Accounts recalled from other edges.
    pub recalls: AtomicU64,
    /// Charges in nano-USD that the bank has confirmed.
    pub charged: AtomicU64,
    /// Cost beyond what accounts could be charged, in nano-USD: the house's loss.
    pub excess: AtomicU64,
    /// Calls that are over and not known to be posted.
    pub backlog: AtomicU64,
}

/// Why no hold could be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The account has not enough; so much can be held.
    Money(NanoUsd),
    /// A ceiling of the key leaves not enough; so much can be held.
    Ceiling(NanoUsd),
    /// Nobody can say now what the account has.
    Unavailable,
}

/// What a call wants to hold.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) amount: NanoUsd,
    pub(crate) ceilings: Vec<(PurseId, NanoUsd)>,
}

impl Claim {
    /// A claim of `amount` under the ceilings of `key` that are in force now.
    pub(crate) fn new(key: &ApiKey, amount: NanoUsd, now: Timestamp) -> Self {
        let of =
            |id: KeyId| key.terms.ceilings.iter().map(move |one| (one.purse(id, now), one.limit));
        Self { amount, ceilings: of(key.id).collect() }
    }
}

/// Money put aside for a call. Dropping it settles it at nothing.
#[derive(Debug)]
pub(crate) struct Hold {
    book: Arc<Book>,
    books: Books,
    placed: Option<allotment::Hold>,
}

impl Hold {
    /// How much.
    pub(crate) fn amount(&self) -> NanoUsd {
        self.placed.as_ref().map_or(NanoUsd::ZERO, allotment::Hold::amount)
    }

    /// The ceilings that it is placed under.
    pub(crate) fn purses(&self) -> &[PurseId] {
        self.placed.as_ref().map_or(&[], allotment::Hold::purses)
    }

    /// Ends the hold; tells what the call is to be charged.
    pub(crate) fn settle(mut self, cost: NanoUsd) -> Due {
        let Some(hold) = self.placed.take() else {
            return Due { charge: NanoUsd::ZERO, purses: Vec::new() };
        };
        self.book.settle(hold, cost)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(hold) = self.placed.take() {
            self.book.void(hold);
            self.books.0.wake_for_waiting();
        }
    }
}

impl Books {
    /// Empty books of one run of an edge.
    pub fn new(node: NodeId, bank: Arc<dyn Bank>, journal: Arc<dyn Journal>) -> Self {
        Self(Arc::new(Inner {
            node,
            bank,
            journal,
            accounts: RwLock::default(),
            calls: progress::Calls::default(),
            wake: Notify::new(),
            away: AtomicBool::new(false),
            waiting: AtomicU64::new(0),
            counts: Counts::default(),
        }))
    }

    /// What they have done.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Whether the bank answers.
    pub fn is_served(&self) -> bool {
        !self.0.away.load(Ordering::Acquire)
    }

    /// How long what the bank has taken has been waiting to be in SQL for good, at most.
    pub fn posting_lag(&self) -> Duration {
        self.0.bank.posting_lag()
    }

    /// Puts money aside for a call: at once where the loan covers it, else after asking the bank, and
    /// through it the other edges. `Denied::Money` and `Denied::Ceiling` are final.
    pub(crate) async fn hold(&self, key: &ApiKey, claim: &Claim) -> Result<Hold, Denied> {
        if !self.0.journal.is_writable() || self.0.bank.is_behind() {
            return Err(Denied::Unavailable);
        }
        let book = self.0.book(key);
        match book.place(claim, clock::tick()) {
            Ok((hold, runs_low)) => {
                if runs_low {
                    self.0.wake.notify_one();
                }
                Ok(self.held(book, hold))
            }
            Err(_) => self.wait(book, claim).await,
        }
    }

    async fn wait(&self, book: Arc<Book>, claim: &Claim) -> Result<Hold, Denied> {
        // While the bank is away nobody waits for it; what is on loan goes on being spent.
        if !self.is_served() {
            return Err(Denied::Unavailable);
        }
        let _place = WaitingRoom::enter(&self.0).ok_or(Denied::Unavailable)?;
        self.0.counts.waited.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        book.enqueue(claim.clone(), answer);
        self.0.wake.notify_one();
        match timeout(WAIT_MAX, answered).await {
            Ok(Ok(Ok(hold))) => Ok(self.held(book, hold)),
            Ok(Ok(Err(denied))) => Err(denied),
            Ok(Err(_)) | Err(_) => Err(Denied::Unavailable),
        }
    }

    fn held(&self, book: Arc<Book>, hold: allotment::Hold) -> Hold {
        Hold { book, books: self.clone(), placed: Some(hold) }
    }

    /// Writes down that a call goes upstream and follows its progress. Refused if the journal cannot be
    /// written: what is not written down must not be spent.
    pub(crate) fn begin(&self, intent: &Intent) -> Result<Arc<Progress>, Denied> {
        self.0.journal.intend(intent).map_err(|_| Denied::Unavailable)?;
        Ok(self.0.calls.begin(intent.call, &self.0.journal))
    }
}

/// A place among the calls that wait for a loan.
struct WaitingRoom<'a>(&'a Inner);

impl<'a> WaitingRoom<'a> {
    fn enter(inner: &'a Inner) -> Option<Self> {
        let before = inner.waiting.fetch_add(1, Ordering::AcqRel);
        let place = Self(inner);
        (before < WAITING_MAX).then_some(place)
    }
}

impl Drop for WaitingRoom<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Inner {
    /// The book of a key's account; an empty one if it has none yet.
    fn book(&self, key: &ApiKey) -> Arc<Book> {
        self.open(key.account, key.funding)
    }

    /// The book of an account that is known to be prepaid.
    fn prepaid(&self, account: AccountId) -> Arc<Book> {
        self.open(account, Funding::Prepaid)
    }

    fn open(&self, account: AccountId, funding: Funding) -> Arc<Book> {
        if let Some(book) = self.known(account).filter(|book| !book.is_closed()) {
            return book;
        }
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        let book = accounts.entry(account).or_insert_with(|| Arc::new(Book::new(account, funding)));
        if book.is_closed() {
            *book = Arc::new(Book::new(account, funding));
        }
        Arc::clone(book)
    }

    /// The book of an account, if it has one.
    fn known(&self, account: AccountId) -> Option<Arc<Book>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.get(&account).cloned()
    }

    /// Whether any account has a book.
    fn is_used(&self) -> bool {
        !self.accounts.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn wake_for_waiting(&self) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.wake.notify_one();
        }
    }

    fn all(&self) -> Vec<Arc<Book>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        accounts.values().cloned().collect()
    }

    /// Forgets a book that has been closed.
    fn remove(&self, book: &Arc<Book>) {
        let mut accounts = self.accounts.write().unwrap_or_else(PoisonError::into_inner);
        if accounts.get(&book.account()).is_some_and(|known| Arc::ptr_eq(known, book)) {
            accounts.remove(&book.account());
        }
    }
}

impl From<Short> for Denied {
    fn from(short: Short) -> Self {
        match short {
            Short::Money(left) => Self::Money(left),
            Short::Ceiling(_, left) => Self::Ceiling(left),
            Short::Lease => Self::Unavailable,
        }
    }
}
