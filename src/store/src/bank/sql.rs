//! SQL as the bank: pools, loans and purses are rows, and a settlement is in the ledger at once.
//!
//! All exchanges of one request share one transaction, and with it one sync of the disk. What an exchange
//! does to a pool is [`Pool::exchange`] and nothing else: this loads a pool, locked, and writes back how it
//! has come out.
//!
//! **Invariant:** what the ledger says of `customer:<account>` is what is free in its pool and lent of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{
    Charged, Exchange, Lapsed, Loan, Pool, Purse, PurseId, Reply, Settlement,
};
use tokenroute_domain::record::Record;
use tokenroute_domain::time::{Tick, Timestamp};

use crate::sql::findings::{ABANDONED, Finding, note};
use crate::sql::ledger::{Pocket, lock_pool, set_free};
use crate::sql::posting::{PostedCall, post_calls};
use crate::sql::records::recorded;
use crate::sql::statement::{Row, Statement, Transaction, sql};
use crate::{Database, Error};

/// Pools that one step of a sweep reclaims, in one transaction.
const SWEEP_MAX: u32 = 100;

/// A bank whose pools are in SQL.
#[derive(Clone, Debug)]
pub struct SqlBank {
    database: Database,
    lease: Duration,
}

/// A pool as a transaction has locked and read it, and as it was then.
struct Opened {
    pool: Pool,
    before: Pool,
}

impl SqlBank {
    /// A bank that lends for `lease` at a time.
    pub const fn new(database: Database, lease: Duration) -> Self {
        Self { database, lease }
    }

    /// How long a loan lasts without being renewed.
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// Exchanges with several pools, one answer each in the same order. What is answered is durable.
    /// Repeating an exchange of which the answer was lost is safe: of its settlements those that were made
    /// are made no more.
    pub async fn exchange(
        &self,
        exchanges: &[Exchange],
        now: Timestamp,
    ) -> Vec<Result<Reply, Error>> {
        if exchanges.is_empty() {
            return Vec::new();
        }
        match self.exchange_all(exchanges, now).await {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            // What is wrong with one account must not keep the others from theirs.
            Err(Error::Corrupt(_)) if exchanges.len() > 1 => {
                let mut replies = Vec::with_capacity(exchanges.len());
                for one in exchanges {
                    let reply = self.exchange_all(std::slice::from_ref(one), now).await;
                    replies.push(reply.and_then(|replies| {
                        replies.into_iter().next().ok_or(Error::unreadable("a reply"))
                    }));
                }
                replies
            }
            Err(error) => exchanges.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn exchange_all(
        &self,
        exchanges: &[Exchange],
        now: Timestamp,
    ) -> Result<Vec<Reply>, Error> {
        let mut transaction = self.database.begin().await?;
        let accounts: BTreeSet<AccountId> = exchanges.iter().map(|one| one.account).collect();
        let mut pools = BTreeMap::new();
        for account in accounts {
            let of_account = exchanges.iter().filter(|one| one.account == account);
            let purses = of_account.flat_map(purses_of).collect();
            pools.insert(account, open(&mut transaction, account, purses).await?);
        }
        // The pools are locked: nobody else settles calls of theirs now.
        let mut settled = settled_before(&mut transaction, exchanges).await?;
        let (mut replies, mut calls, mut abandoned) = (Vec::new(), Vec::new(), Vec::new());
        for exchange in exchanges {
            let Some(opened) = pools.get_mut(&exchange.account) else {
                return Err(Error::unreadable("a pool that was just opened"));
            };
            let exchange = without(exchange, &mut settled);
            let (reply, lapsed) = opened.pool.exchange(&exchange, now, self.lease);
            calls.extend(posted(&exchange, &reply));
            abandoned.extend(lapsed.into_iter().map(|one| (exchange.account, one)));
            replies.push(reply);
        }
        if !calls.is_empty() {
            let new = post_calls(&mut transaction, &calls, Pocket::Customer, now).await?;
            if new.len() != calls.len() {
                // A record without money was written of a call with money: this must be seen.
                return Err(Error::Corrupt("a call of a pool has a record already".to_owned()));
            }
        }
        for (account, opened) in &pools {
            save(&mut transaction, *account, opened).await?;
        }
        for (account, lapsed) in abandoned {
            note_abandoned(&mut transaction, account, lapsed, now).await?;
        }
        transaction.commit().await?;
        Ok(replies)
    }

    /// Writes records in which no money is: all of them, or, on an error, none. Repeating it is safe.
    pub async fn write(&self, records: &[Arc<Record>]) -> Result<(), Error> {
        self.database.write_records(records).await
    }

    /// Which of these calls are in SQL for good.
    pub async fn posted(&self, calls: &[CallId]) -> Result<Vec<CallId>, Error> {
        self.database.recorded(calls).await
    }

    /// Takes back what was lent to edges that were not heard of in time, from every pool, and says how many
    /// loans that were. One that calls were holding leaves a finding.
    pub async fn sweep(&self, now: Timestamp) -> Result<u64, Error> {
        let mut swept = 0_u64;
        loop {
            let accounts = sql("SELECT DISTINCT account FROM pool_loans WHERE deadline <= $1
                 ORDER BY account LIMIT $2")
            .bind(now)
            .bind(SWEEP_MAX)
            .fetch_all(self.database.reading())
            .await?;
            if accounts.is_empty() {
                break;
            }
            let mut transaction = self.database.begin().await?;
            for row in &accounts {
                let account = row.word("account", AccountId::parse)?;
                let mut opened = open(&mut transaction, account, BTreeSet::new()).await?;
                for lapsed in opened.pool.reclaim(now) {
                    swept = swept.saturating_add(1);
                    note_abandoned(&mut transaction, account, lapsed, now).await?;
                }
                save(&mut transaction, account, &opened).await?;
            }
            transaction.commit().await?;
        }
        sql("DELETE FROM purse_loans WHERE deadline <= $1")
            .bind(now)
            .execute(self.database.writing())
            .await?;
        Ok(swept)
    }

    /// How a pool stands, with the purses that are named.
    pub async fn pool(&self, account: AccountId, purses: &[PurseId]) -> Result<Pool, Error> {
        let mut transaction = self.database.begin().await?;
        let purses = purses.iter().copied().collect();
        Ok(open(&mut transaction, account, purses).await?.pool)
    }
}

/// Every purse that an exchange speaks of.
fn purses_of(exchange: &Exchange) -> impl Iterator<Item = PurseId> {
    let settled = exchange.settlements.iter().flat_map(|one| one.purses.iter().copied());
    settled.chain(exchange.purses.iter().map(|wanted| wanted.purse))
}

/// The exchange without settlements that were made before, be it in the same list; what is left in it
/// counts as made.
fn without(exchange: &Exchange, settled: &mut BTreeSet<CallId>) -> Exchange {
    let mut left = exchange.clone();
    left.settlements.retain(|one| settled.insert(one.record.call));
    left
}

/// What is to be posted of an exchange.
fn posted(exchange: &Exchange, reply: &Reply) -> Vec<PostedCall> {
    let both = exchange.settlements.iter().zip(&reply.charged);
    let one = |(settlement, charged): (&Settlement, &Charged)| PostedCall {
        account: exchange.account,
        funding: exchange.funding,
        record: Arc::clone(&settlement.record),
        charge: charged.charge,
        excess: charged.excess,
        purses: settlement.purses.clone(),
    };
    both.map(one).collect()
}

async fn settled_before(
    transaction: &mut Transaction,
    exchanges: &[Exchange],
) -> Result<BTreeSet<CallId>, Error> {
    let calls = exchanges.iter().flat_map(|one| &one.settlements).map(|one| one.record.call);
    let calls: Vec<_> = calls.collect();
    recorded(transaction, &calls).await
}

/// Locks a pool, and reads it with the purses that are named.
async fn open(
    transaction: &mut Transaction,
    account: AccountId,
    purses: BTreeSet<PurseId>,
) -> Result<Opened, Error> {
    let free = lock_pool(transaction, account).await?;
    let mut pool = Pool { free, ..Pool::default() };
    let rows =
        sql("SELECT node, amount, in_use, deadline, asked FROM pool_loans WHERE account = $1")
            .bind(account)
            .fetch_all(transaction.on())
            .await?;
    pool.loans = loans(&rows)?;
    for id in purses {
        let Some(row) = of_purse(
            sql("SELECT spent FROM key_purses WHERE key_id = $1 AND period = $2 AND number = $3"),
            id,
        )
        .fetch_optional(transaction.on())
        .await?
        else {
            continue;
        };
        let rows = of_purse(
            sql("SELECT node, amount, in_use, deadline, asked FROM purse_loans
                 WHERE key_id = $1 AND period = $2 AND number = $3"),
            id,
        )
        .fetch_all(transaction.on())
        .await?;
        pool.purses.insert(id, Purse { spent: row.money("spent")?, loans: loans(&rows)? });
    }
    Ok(Opened { before: pool.clone(), pool })
}

fn of_purse(statement: Statement<'_>, purse: PurseId) -> Statement<'_> {
    statement.bind(purse.key).bind(purse.period.as_str()).bind(purse.number)
}

fn loans(rows: &[Row]) -> Result<BTreeMap<NodeId, Loan>, Error> {
    let one = |row: &Row| {
        let (amount, in_use) = (row.money("amount")?, row.money("in_use")?);
        let asked = Tick(row.time("asked")?.micros());
        let loan = Loan { amount, in_use, deadline: row.time("deadline")?, asked };
        Ok((row.word("node", NodeId::parse)?, loan))
    };
    rows.iter().map(one).collect()
}

/// Writes back what has changed of a pool. What purses have spent is posted with the calls.
async fn save(
    transaction: &mut Transaction,
    account: AccountId,
    Opened { pool, before }: &Opened,
) -> Result<(), Error> {
    if pool.free != before.free {
        set_free(transaction, account, pool.free).await?;
    }
    for (node, loan) in changes(&before.loans, &pool.loans) {
        let Some(loan) = loan else {
            sql("DELETE FROM pool_loans WHERE account = $1 AND node = $2")
                .bind(account)
                .bind(node)
                .execute(transaction.on())
                .await?;
            continue;
        };
        sql("INSERT INTO pool_loans (account, node, amount, in_use, deadline, asked)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (account, node) DO UPDATE SET amount = excluded.amount,
                 in_use = excluded.in_use, deadline = excluded.deadline,
                 asked = excluded.asked")
        .bind(account)
        .bind(node)
        .bind(loan.amount)
        .bind(loan.in_use)
        .bind(loan.deadline)
        .bind(Timestamp(loan.asked.0))
        .execute(transaction.on())
        .await?;
    }
    let none = Purse::default();
    for (id, purse) in &pool.purses {
        let known = before.purses.get(id);
        if known.is_none() {
            let statement = sql("INSERT INTO key_purses (key_id, period, number, spent)
                 VALUES ($1, $2, $3, 0) ON CONFLICT DO NOTHING");
            of_purse(statement, *id).execute(transaction.on()).await?;
        }
        for (node, loan) in changes(&known.unwrap_or(&none).loans, &purse.loans) {
            save_purse_loan(transaction, *id, node, loan).await?;
        }
    }
    Ok(())
}

async fn save_purse_loan(
    transaction: &mut Transaction,
    purse: PurseId,
    node: NodeId,
    loan: Option<Loan>,
) -> Result<(), Error> {
    let statement = match loan {
        None => of_purse(
            sql("DELETE FROM purse_loans
                 WHERE key_id = $1 AND period = $2 AND number = $3 AND node = $4"),
            purse,
        )
        .bind(node),
        Some(loan) => of_purse(
            sql("INSERT INTO purse_loans (key_id, period, number, node, amount, in_use, deadline,
                     asked)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (key_id, period, number, node) DO UPDATE SET
                     amount = excluded.amount, in_use = excluded.in_use,
                     deadline = excluded.deadline, asked = excluded.asked"),
            purse,
        )
        .bind(node)
        .bind(loan.amount)
        .bind(loan.in_use)
        .bind(loan.deadline)
        .bind(Timestamp(loan.asked.0)),
    };
    statement.execute(transaction.on()).await?;
    Ok(())
}

/// The loans that are others than before; `None` is one that is no more.
fn changes(
    before: &BTreeMap<NodeId, Loan>,
    after: &BTreeMap<NodeId, Loan>,
) -> Vec<(NodeId, Option<Loan>)> {
    let gone = before.keys().filter(|node| !after.contains_key(node)).map(|node| (*node, None));
    let other = after.iter().filter(|(node, loan)| before.get(node) != Some(loan));
    gone.chain(other.map(|(node, loan)| (*node, Some(*loan)))).collect()
}

async fn note_abandoned(
    transaction: &mut Transaction,
    account: AccountId,
    lapsed: Lapsed,
    now: Timestamp,
) -> Result<(), Error> {
    if lapsed.in_use <= NanoUsd::ZERO {
        return Ok(());
    }
    let finding = Finding {
        kind: ABANDONED.to_owned(),
        subject: format!("{account} {}", lapsed.node),
        detail: format!(
            "an edge was not heard of again: calls held {} USD of its {} USD",
            lapsed.in_use, lapsed.amount
        ),
        amount: lapsed.in_use,
    };
    note(transaction.on(), &finding, now).await?;
    Ok(())
}
