//! What the hot store needs of SQL, which is the truth behind it.

use std::fmt;
use std::sync::Arc;

use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::PurseId;
use tokenroute_domain::record::Record;
use tokenroute_domain::time::Timestamp;

use super::Later;
use crate::Error;

/// A call on its way from the hot store into SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostedCall {
    /// What is kept of it.
    pub record: Arc<Record>,
    /// What its account was charged, out of escrow unless the account is unmetered.
    pub charge: NanoUsd,
    /// What it should have been charged beyond: the house's loss.
    pub excess: NanoUsd,
    /// Whether the charge is money of the account. It counts under ceilings all the same.
    pub prepaid: bool,
    /// The ceilings that it counts under.
    pub purses: Vec<PurseId>,
}

/// What SQL has put aside for the hot store, and the number of the last move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Escrow {
    /// All that is in escrow.
    pub total: NanoUsd,
    /// The number of the account's last move; 0 if there was none.
    pub sequence: u64,
}

/// Money that SQL has moved into escrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscrowMove {
    /// Whose.
    pub account: AccountId,
    /// Its number among the account's moves, from 1.
    pub sequence: u64,
    /// How much.
    pub amount: NanoUsd,
}

/// Money that has been taken out of a pool for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// Whose.
    pub account: AccountId,
    /// Which one: the same is done once.
    pub id: String,
    /// How much.
    pub amount: NanoUsd,
    /// Who did it.
    pub actor: String,
    /// Why.
    pub note: String,
}

/// One life of the hot store's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotEpoch {
    /// Its number, from 1.
    pub epoch: u64,
    /// Which run of the Redis server holds it.
    pub run_id: String,
    /// When it began.
    pub started: Timestamp,
}

/// Something that an operator should look at. One with the same kind and subject is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its stable word.
    pub kind: &'static str,
    /// What it is about.
    pub subject: String,
    /// What is known.
    pub detail: String,
}

/// The right to post, sweep and open epochs. It ends when it is dropped, and with SQL's connection.
pub trait Lead: Send + fmt::Debug {
    /// Whether it is still held.
    fn is_held(&mut self) -> Later<'_, bool>;
}

/// SQL as the hot store sees it. What fails may have been done or not: everything can be repeated.
pub trait Books: Send + Sync + fmt::Debug + 'static {
    /// Writes records and charges of calls that SQL does not have yet, all or nothing, and tells which those
    /// were. It refuses as `Unavailable` if `epoch` is not the last that was declared (0: none was).
    fn post<'a>(
        &'a self,
        epoch: u64,
        calls: &'a [PostedCall],
        now: Timestamp,
    ) -> Later<'a, Result<Vec<CallId>, Error>>;

    /// Writes a withdrawal out of escrow, once.
    fn withdrawn<'a>(
        &'a self,
        epoch: u64,
        withdrawal: &'a Withdrawal,
        now: Timestamp,
    ) -> Later<'a, Result<(), Error>>;

    /// Which of these calls have a record.
    fn posted<'a>(&'a self, calls: &'a [CallId]) -> Later<'a, Result<Vec<CallId>, Error>>;

    /// Moves what the customer has into escrow, if anything, and tells what is there.
    fn move_to_escrow(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Later<'_, Result<Escrow, Error>>;

    /// What is in escrow, and the last move.
    fn escrow(&self, account: AccountId) -> Later<'_, Result<Escrow, Error>>;

    /// At most `limit` accounts that have money outside escrow.
    fn outside_escrow(&self, limit: u32) -> Later<'_, Result<Vec<AccountId>, Error>>;

    /// At most `limit` moves that the hot store may not know, by account and number.
    fn unapplied(&self, limit: u32) -> Later<'_, Result<Vec<EscrowMove>, Error>>;

    /// The hot store knows this move.
    fn applied(&self, account: AccountId, sequence: u64) -> Later<'_, Result<(), Error>>;

    /// What has been charged under each of these ceilings.
    fn spent<'a>(&'a self, purses: &'a [PurseId]) -> Later<'a, Result<Vec<NanoUsd>, Error>>;

    /// The epoch that was declared last.
    fn hot_epoch(&self) -> Later<'_, Result<Option<HotEpoch>, Error>>;

    /// Declares an epoch. `false` if its number is not the one after the last.
    fn declare_epoch<'a>(&'a self, epoch: &'a HotEpoch) -> Later<'a, Result<bool, Error>>;

    /// An edge says that it lives, and hears which epoch was declared last (0: none).
    fn beat(&self, node: NodeId, now: Timestamp) -> Later<'_, Result<u64, Error>>;

    /// Edges that have said so since then.
    fn live_nodes(&self, since: Timestamp) -> Later<'_, Result<Vec<NodeId>, Error>>;

    /// Notes a finding, or that it is still so.
    fn find<'a>(&'a self, found: &'a Found, now: Timestamp) -> Later<'a, Result<(), Error>>;

    /// Takes the lead, if nobody has it.
    fn lead(&self) -> Later<'_, Result<Option<Box<dyn Lead>>, Error>>;
}
