//! How money that was credited in SQL comes into pools.

use super::{Reign, Stop};

use crate::bank::redis::opening::{open_pool, word};
use crate::bank::redis::script::{Run, Script, Shard, pool};
use crate::bank::redis::server::garbled;
use crate::redis_cache::COMMAND_WAIT;
use crate::sql::findings::ESCROW_GAP;
use crate::{EscrowMove, Finding};

/// Accounts whose money is moved into escrow in one go.
const ACCOUNTS_MAX: u32 = 100;
/// Moves that are applied in one go.
const MOVES_MAX: u32 = 200;

impl Reign<'_> {
    /// Moves what customers have outside escrow there, and tells the pools of moves that they do not know.
    pub(super) async fn credit(&self) -> Result<(), Stop> {
        for account in self.books.outside_escrow(ACCOUNTS_MAX).await? {
            self.books.move_to_escrow(account, self.now()).await?;
        }
        for one in self.books.unapplied(MOVES_MAX).await? {
            if self.apply(one).await? {
                self.books.applied(one.account, one.sequence).await?;
            }
        }
        Ok(())
    }

    /// Whether the pool knows the move now.
    async fn apply(&self, one: EscrowMove) -> Result<bool, Stop> {
        let EscrowMove { account, sequence, amount } = one;
        let shard = Shard::of_account(account);
        let run = Run::new(Script::Credit, vec![pool(account), shard.epoch()])
            .arg(self.epoch)
            .arg(sequence)
            .arg(amount.at_least_zero().0);
        let answer = self.server.run_one(run, COMMAND_WAIT).await?;
        match word(&answer) {
            Some("OK" | "DUP") => Ok(true),
            Some("MISS") => {
                let now = self.now();
                let known = open_pool(&self.server, self.books, self.epoch, account, now).await?;
                Ok(known >= sequence)
            }
            Some("GAP") => {
                self.note_gap(one).await?;
                Ok(false)
            }
            Some("STALE") => Err(Stop::Forgotten),
            _ => Err(garbled().into()),
        }
    }

    async fn note_gap(&self, one: EscrowMove) -> Result<(), Stop> {
        let EscrowMove { account, sequence, amount } = one;
        let found = Finding {
            kind: ESCROW_GAP.to_owned(),
            subject: account.to_string(),
            detail: format!("move {sequence} of {amount} USD waits for one before it"),
            amount,
        };
        self.books.find(&found, self.now()).await?;
        Ok(())
    }
}
