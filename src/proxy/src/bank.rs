//! What the data plane needs of whoever keeps accounts: a bank that lends and settles, and a journal that
//! makes a call's hold and progress outlive the process. `server` implements both over `store`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokenroute_domain::id::{AccountId, CallId};
use tokenroute_domain::journal::{Ended, Intent, Mark};
use tokenroute_domain::pool::{Exchange, Reply};
use tokenroute_domain::record::Record;

/// A future of a trait that is used as an object.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The bank cannot be asked now. Whether it did what it was asked is not known: ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// A pool's answer, and what the bank has to say of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Banked {
    /// The pool's answer.
    pub reply: Reply,
    /// Which life of the hot store answered. In another one than before, everything that is not known to
    /// be posted has to be told again.
    pub epoch: u64,
    /// The store has lost its memory and is being told anew: only what is in use is lent for now, and a
    /// shortage says nothing about the account's balance.
    pub recovering: bool,
}

/// Who keeps accounts and records: SQL alone, or Redis in front of it.
pub trait Bank: Send + Sync + fmt::Debug + 'static {
    /// Exchanges with several pools, one answer each in the same order. Repeating an exchange of which
    /// the answer was lost is safe.
    fn exchange<'a>(&'a self, all: &'a [Exchange]) -> Later<'a, Vec<Result<Banked, Unavailable>>>;

    /// Writes records in which no money is: all of them, or none. Repeating it is safe.
    fn write<'a>(&'a self, records: &'a [Arc<Record>]) -> Later<'a, Result<(), Unavailable>>;

    /// Which of these calls are in SQL for good, so that no journal needs them any more.
    fn posted<'a>(&'a self, calls: &'a [CallId]) -> Later<'a, Result<Vec<CallId>, Unavailable>>;

    /// Asks the other edges to give back what they do not use of an account. Never waits.
    fn recall(&self, account: AccountId);

    /// Waits for an account that another edge recalls; for ever if none can.
    fn recalled(&self) -> Later<'_, AccountId>;

    /// Whether what an exchange or a write has taken is in SQL for good when it is answered.
    fn posts_at_once(&self) -> bool;

    /// How long a loan lasts without being renewed.
    fn lease(&self) -> Duration;

    /// How long what it has taken has been waiting to be in SQL for good, at most.
    fn posting_lag(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether that is too long for anything more to be spent.
    fn is_behind(&self) -> bool {
        false
    }
}

/// The journal cannot be written: the disk is full, or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritable;

/// The node's journal: append-only, synced within milliseconds, read again by the next start.
pub trait Journal: Send + Sync + fmt::Debug + 'static {
    /// Writes down that a call is about to go upstream. On return it outlives the process, and within
    /// milliseconds the machine.
    fn intend(&self, intent: &Intent) -> Result<(), Unwritable>;

    /// Writes down how far calls have come. What cannot be written is tried again with the next marks.
    fn mark(&self, marks: &[Mark]);

    /// Writes down calls that are over.
    fn ended(&self, ended: &[Arc<Ended>]) -> Result<(), Unwritable>;

    /// These calls need not be kept any more.
    fn forget(&self, calls: &[CallId]);

    /// Whether it can be written.
    fn is_writable(&self) -> bool;
}
