//! What the hot store needs of SQL, which is the truth behind it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::PurseId;
use tokenroute_domain::record::Record;
use tokenroute_domain::time::Timestamp;

use tokio::time::timeout;

use crate::{
    Database, Error, Escrow, EscrowMove, Finding, HotEpoch, Leadership, Moved, Movement, Pocket,
    PostedCall,
};

/// How long the holder of the lead waits for a sign of it.
const LEAD_WAIT: Duration = Duration::from_secs(2);

/// A future of a trait that is used as an object.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

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

    /// Writes records in which no money is, all or nothing.
    fn write<'a>(&'a self, records: &'a [Arc<Record>]) -> Later<'a, Result<(), Error>>;

    /// Writes a withdrawal out of escrow, once.
    fn withdrawn<'a>(
        &'a self,
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

    /// Declares the epoch after `last` (0: the first); `None` if somebody else has.
    fn declare_epoch<'a>(
        &'a self,
        last: u64,
        run_id: &'a str,
        now: Timestamp,
    ) -> Later<'a, Result<Option<HotEpoch>, Error>>;

    /// An edge says that it lives, and hears which epoch was declared last (0: none).
    fn beat(&self, node: NodeId, now: Timestamp) -> Later<'_, Result<u64, Error>>;

    /// Edges that have said so since then.
    fn live_nodes(&self, since: Timestamp) -> Later<'_, Result<Vec<NodeId>, Error>>;

    /// Notes a finding, or that it is still so; whether it is open: an operator may have put up with it.
    fn find<'a>(&'a self, finding: &'a Finding, now: Timestamp) -> Later<'a, Result<bool, Error>>;

    /// Closes the findings of a kind that were not seen at `since` or later.
    fn found_no_more(&self, kind: &'static str, since: Timestamp) -> Later<'_, Result<(), Error>>;

    /// Takes the lead, if nobody has it.
    fn lead(&self) -> Later<'_, Result<Option<Box<dyn Lead>>, Error>>;
}

impl Lead for Leadership {
    fn is_held(&mut self) -> Later<'_, bool> {
        Box::pin(async { timeout(LEAD_WAIT, self.holds()).await.unwrap_or(false) })
    }
}

impl Books for Database {
    fn post<'a>(
        &'a self,
        epoch: u64,
        calls: &'a [PostedCall],
        now: Timestamp,
    ) -> Later<'a, Result<Vec<CallId>, Error>> {
        Box::pin(self.post_in_epoch(epoch, calls, now))
    }

    fn write<'a>(&'a self, records: &'a [Arc<Record>]) -> Later<'a, Result<(), Error>> {
        Box::pin(self.write_records(records))
    }

    fn withdrawn<'a>(
        &'a self,
        withdrawal: &'a Withdrawal,
        now: Timestamp,
    ) -> Later<'a, Result<(), Error>> {
        Box::pin(async move {
            let movement = Movement {
                account: withdrawal.account,
                amount: withdrawal.amount,
                idempotency_key: &withdrawal.id,
                actor: &withdrawal.actor,
                note: &withdrawal.note,
            };
            match self.withdraw(&movement, Pocket::Escrow, now).await? {
                Moved::Done | Moved::Duplicate => Ok(()),
                Moved::Conflict | Moved::TooMuch | Moved::NoAccount => {
                    Err(Error::Corrupt("a withdrawal that escrow does not cover".to_owned()))
                }
            }
        })
    }

    fn posted<'a>(&'a self, calls: &'a [CallId]) -> Later<'a, Result<Vec<CallId>, Error>> {
        Box::pin(self.recorded(calls))
    }

    fn move_to_escrow(
        &self,
        account: AccountId,
        now: Timestamp,
    ) -> Later<'_, Result<Escrow, Error>> {
        Box::pin(Self::move_to_escrow(self, account, now))
    }

    fn escrow(&self, account: AccountId) -> Later<'_, Result<Escrow, Error>> {
        Box::pin(Self::escrow(self, account))
    }

    fn outside_escrow(&self, limit: u32) -> Later<'_, Result<Vec<AccountId>, Error>> {
        Box::pin(Self::outside_escrow(self, limit))
    }

    fn unapplied(&self, limit: u32) -> Later<'_, Result<Vec<EscrowMove>, Error>> {
        Box::pin(self.unapplied_moves(limit))
    }

    fn applied(&self, account: AccountId, sequence: u64) -> Later<'_, Result<(), Error>> {
        Box::pin(self.mark_applied(account, sequence))
    }

    fn spent<'a>(&'a self, purses: &'a [PurseId]) -> Later<'a, Result<Vec<NanoUsd>, Error>> {
        Box::pin(Self::spent(self, purses))
    }

    fn hot_epoch(&self) -> Later<'_, Result<Option<HotEpoch>, Error>> {
        Box::pin(Self::hot_epoch(self))
    }

    fn declare_epoch<'a>(
        &'a self,
        last: u64,
        run_id: &'a str,
        now: Timestamp,
    ) -> Later<'a, Result<Option<HotEpoch>, Error>> {
        Box::pin(Self::declare_epoch(self, last, run_id, now))
    }

    fn beat(&self, node: NodeId, now: Timestamp) -> Later<'_, Result<u64, Error>> {
        Box::pin(async move {
            Self::beat(self, node, now).await?;
            Ok(Self::hot_epoch(self).await?.map_or(0, |epoch| epoch.epoch))
        })
    }

    fn live_nodes(&self, since: Timestamp) -> Later<'_, Result<Vec<NodeId>, Error>> {
        Box::pin(Self::live_nodes(self, since))
    }

    fn find<'a>(&'a self, finding: &'a Finding, now: Timestamp) -> Later<'a, Result<bool, Error>> {
        Box::pin(self.note_finding(finding, now))
    }

    fn found_no_more(&self, kind: &'static str, since: Timestamp) -> Later<'_, Result<(), Error>> {
        Box::pin(async move { self.close_findings(kind, since).await.map(drop) })
    }

    fn lead(&self) -> Later<'_, Result<Option<Box<dyn Lead>>, Error>> {
        Box::pin(async {
            let lead = Self::lead(self).await?;
            Ok(lead.map(|lead| -> Box<dyn Lead> { Box::new(lead) }))
        })
    }
}
