//! How pools and purses come into Redis, and how money leaves a pool for good.

use futures_util::StreamExt;
use futures_util::stream::iter;
use redis::Value;
use tokenroute_domain::id::AccountId;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::PurseId;
use tokenroute_domain::time::Timestamp;
use tokio::time::timeout;

use super::script::{Run, Script, Shard, number, pool, purse, seen, text, withdrawn};
use super::server::{Server, garbled};
use super::{RedisBank, Standing, away};
use crate::Error;
use crate::bank::books::{Books, Withdrawal};
use crate::posting::event;
use crate::redis_cache::{COMMAND_WAIT, RedisFailure};

/// Pools that one batch of exchanges opens at the same time.
const OPENINGS_MAX: usize = 8;

/// What an exchange cannot go on without.
#[derive(Debug)]
pub(super) enum Need {
    Pool(AccountId),
    Purses(AccountId, Vec<PurseId>),
}

/// Why something could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Shut {
    #[error("{0}")]
    Redis(#[from] RedisFailure),
    #[error("{0}")]
    Sql(#[from] Error),
    #[error("the hot store has lost its memory")]
    Forgotten,
}

/// What came of a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// It is done, or was done before.
    Done,
    /// One of another amount was done before under its name.
    Conflict,
    /// The pool has only so much that is not lent.
    Short(NanoUsd),
}

/// Opens a pool with all that SQL has put in escrow for it, unless it is open; tells the last move that
/// the pool knows. What the customer had outside escrow is moved there first.
pub(crate) async fn open_pool(
    server: &Server,
    books: &dyn Books,
    epoch: u64,
    account: AccountId,
    now: Timestamp,
) -> Result<u64, Shut> {
    let escrow = books.move_to_escrow(account, now).await?;
    let shard = Shard::of_account(account);
    let run = Run::new(Script::Open, vec![pool(account), shard.epoch(), shard.opened()])
        .arg(epoch)
        .arg(account)
        .arg(escrow.total.0)
        .arg(escrow.sequence);
    let answer = server.run_one(run, COMMAND_WAIT).await?;
    match (word(&answer), answer.get(1)) {
        (Some("OPEN"), Some(sequence)) => {
            let sequence = number(sequence).and_then(|one| u64::try_from(one).ok());
            Ok(sequence.ok_or_else(garbled)?)
        }
        (Some("STALE" | "LOST"), _) => Err(Shut::Forgotten),
        _ => Err(garbled().into()),
    }
}

/// Opens purses with what SQL knows to be charged under them, those that are not open.
async fn open_purses(
    server: &Server,
    books: &dyn Books,
    epoch: u64,
    account: AccountId,
    purses: &[PurseId],
) -> Result<(), Shut> {
    let spent = books.spent(purses).await?;
    let shard = Shard::of_account(account);
    let runs: Vec<_> = purses
        .iter()
        .zip(spent)
        .map(|(id, spent)| {
            let keys = vec![purse(account, *id), shard.epoch()];
            Run::new(Script::Purse, keys).arg(epoch).arg(spent.0)
        })
        .collect();
    for answer in server.run(&runs, COMMAND_WAIT).await? {
        match word(&answer?) {
            Some("OPEN") => {}
            Some("STALE") => return Err(Shut::Forgotten),
            _ => return Err(garbled().into()),
        }
    }
    Ok(())
}

/// The first word of an answer.
pub(crate) fn word(answer: &[Value]) -> Option<&str> {
    answer.first().and_then(text)
}

impl RedisBank {
    /// Opens what exchanges need, and tells which cannot be opened; an error ends the connection.
    pub(super) async fn open_all(
        &self,
        standing: &Standing,
        needs: Vec<(usize, Need)>,
    ) -> Result<Vec<(usize, Error)>, RedisFailure> {
        let openings = needs.into_iter().map(|(place, need)| async move {
            let opened = timeout(self.0.options.sql, self.open(standing, &need)).await;
            (place, opened.unwrap_or_else(|_elapsed| Err(late())))
        });
        let mut failed = Vec::new();
        let mut opened = iter(openings).buffer_unordered(OPENINGS_MAX);
        while let Some((place, result)) = opened.next().await {
            match result {
                Ok(()) => {}
                Err(Shut::Sql(failure)) => failed.push((place, failure)),
                Err(Shut::Redis(failure)) => return Err(failure),
                Err(Shut::Forgotten) => return Err(RedisFailure::Disconnected),
            }
        }
        Ok(failed)
    }

    async fn open(&self, standing: &Standing, need: &Need) -> Result<(), Shut> {
        let (books, epoch, server) = (&*self.0.books, standing.life.epoch, &standing.server);
        match need {
            Need::Pool(account) => {
                open_pool(server, books, epoch, *account, (self.0.clock)()).await.map(drop)
            }
            Need::Purses(account, purses) => {
                open_purses(server, books, epoch, *account, purses).await
            }
        }
    }

    /// Takes money out of a pool for good; SQL follows when the event is posted. Repeating it is safe for
    /// minutes, and after that if SQL is asked first whether it knows the withdrawal.
    pub async fn withdraw(&self, withdrawal: &Withdrawal) -> Result<Withdrawn, Error> {
        let standing = self.standing().ok_or_else(away)?;
        let cut = |failure: RedisFailure| {
            self.cut(standing.number);
            Error::from(failure)
        };
        for _try in 0..2 {
            let answer =
                standing.server.run_one(withdraw(&standing, withdrawal), COMMAND_WAIT).await;
            let answer = answer.map_err(cut)?;
            match (word(&answer), answer.get(1).and_then(number)) {
                (Some("OK" | "DUP"), _) => return Ok(Withdrawn::Done),
                (Some("OTHER"), _) => return Ok(Withdrawn::Conflict),
                (Some("SHORT"), Some(free)) => return Ok(Withdrawn::Short(NanoUsd(free))),
                (Some("MISS"), _) => {
                    let needs = vec![(0, Need::Pool(withdrawal.account))];
                    let failed = self.open_all(&standing, needs).await.map_err(cut)?;
                    if let Some((_, failure)) = failed.into_iter().next() {
                        return Err(failure);
                    }
                }
                _ => return Err(cut(RedisFailure::Disconnected)),
            }
        }
        Err(away())
    }
}

fn withdraw(standing: &Standing, withdrawal: &Withdrawal) -> Run {
    let account = withdrawal.account;
    let shard = Shard::of_account(account);
    Run::new(
        Script::Withdraw,
        vec![pool(account), seen(account), shard.events(), shard.epoch(), withdrawn(account)],
    )
    .arg(standing.life.epoch)
    .arg(account)
    .arg(&withdrawal.id)
    .arg(withdrawal.amount.at_least_zero().0)
    .arg(event::of_withdrawal(withdrawal))
}

fn late() -> Shut {
    Shut::Sql(Error::Unavailable("the database did not answer in time".to_owned()))
}
