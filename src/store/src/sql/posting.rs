//! Settled calls on their way into the ledger: the record of each, and purses and entries for all of them that are
//! posted together, in one transaction, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokenroute_domain::id::{AccountId, CallId};
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::PurseId;
use tokenroute_domain::record::Record;
use tokenroute_domain::time::Timestamp;

use super::Database;
use super::ledger::{
    HOUSE_LOSS, HOUSE_PROVIDERS, HOUSE_REVENUE, HOUSE_UPSTREAM_COST, Pocket, Posting, negative,
    post,
};
use super::records::{Inserted, insert_new};
use super::statement::{Transaction, sql};
use crate::Error;

/// A call that the hot store has settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostedCall {
    /// Who pays.
    pub account: AccountId,
    /// How; of an unmetered account nothing but the record and the purses is kept.
    pub funding: Funding,
    /// What is kept of the call; its own `charge` is what the edge had put down.
    pub record: Arc<Record>,
    /// What was charged.
    pub charge: NanoUsd,
    /// What should have been charged beyond: the house's loss.
    pub excess: NanoUsd,
    /// The ceilings that the charge counts under.
    pub purses: Vec<PurseId>,
}

impl PostedCall {
    /// What leaves the account.
    pub(crate) fn paid(&self) -> NanoUsd {
        match self.funding {
            Funding::Prepaid => self.charge.at_least_zero(),
            Funding::Unmetered => NanoUsd::ZERO,
        }
    }
}

impl Database {
    /// Moves calls that the hot store has settled into records, purses and the ledger, out of escrow: all of
    /// those that have no record yet, or, on an error, none. Repeating it is safe. Says which were new.
    pub async fn post(&self, calls: &[PostedCall], now: Timestamp) -> Result<Vec<CallId>, Error> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let mut transaction = self.begin().await?;
        let new = post_calls(&mut transaction, calls, Pocket::Escrow, now).await?;
        transaction.commit().await?;
        Ok(new.into_iter().collect())
    }

    /// What has been charged under each of these ceilings.
    pub async fn spent(&self, purses: &[PurseId]) -> Result<Vec<NanoUsd>, Error> {
        let mut all = Vec::with_capacity(purses.len());
        for purse in purses {
            let row = sql(
                "SELECT spent FROM key_purses WHERE key_id = $1 AND period = $2 AND number = $3",
            )
            .bind(purse.key)
            .bind(purse.period.as_str())
            .bind(purse.number)
            .fetch_optional(self.reading())
            .await?;
            all.push(row.map_or(Ok(NanoUsd::ZERO), |row| row.money("spent"))?);
        }
        Ok(all)
    }
}

/// Writes the records of calls; of those that had none, purses and entries as well. Says which these are.
pub(crate) async fn post_calls(
    transaction: &mut Transaction,
    calls: &[PostedCall],
    pocket: Pocket,
    now: Timestamp,
) -> Result<BTreeSet<CallId>, Error> {
    let written: Vec<_> = calls.iter().map(|call| (&*call.record, call.paid())).collect();
    let Inserted { new, numbers } = insert_new(transaction, &written).await?;
    // A call that is told twice in one list is still one.
    let mut once = new.clone();
    let fresh: Vec<_> = calls.iter().filter(|call| once.remove(&call.record.call)).collect();
    let mut spent: BTreeMap<PurseId, NanoUsd> = BTreeMap::new();
    for call in &fresh {
        for purse in &call.purses {
            let sum = spent.entry(*purse).or_default();
            *sum = sum.plus(call.charge.at_least_zero());
        }
    }
    for (purse, amount) in spent {
        add_spent(transaction, purse, amount).await?;
    }
    let mut by_account: BTreeMap<AccountId, Sums> = BTreeMap::new();
    for call in fresh.iter().filter(|call| call.funding == Funding::Prepaid) {
        by_account.entry(call.account).or_default().add(call);
    }
    let posting = |(account, sums): (AccountId, Sums)| sums.posting((account, pocket), numbers);
    let postings: Vec<_> = by_account.into_iter().filter_map(posting).collect();
    post(transaction, &postings, now).await?;
    Ok(new)
}

async fn add_spent(
    transaction: &mut Transaction,
    purse: PurseId,
    amount: NanoUsd,
) -> Result<(), Error> {
    sql("INSERT INTO key_purses (key_id, period, number, spent) VALUES ($1, $2, $3, $4)
         ON CONFLICT (key_id, period, number) DO UPDATE SET spent = key_purses.spent + excluded.spent")
    .bind(purse.key)
    .bind(purse.period.as_str())
    .bind(purse.number)
    .bind(amount)
    .execute(transaction.on())
    .await?;
    Ok(())
}

/// What calls of one account come to that are posted together. What each of them was charged is in its record:
/// an entry for each as well would make up a third of what a paid call costs.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    calls: u64,
    paid: NanoUsd,
    excess: NanoUsd,
    house_cost: NanoUsd,
}

impl Sums {
    fn add(&mut self, call: &PostedCall) {
        self.calls = self.calls.saturating_add(1);
        self.paid = self.paid.plus(call.paid());
        self.excess = self.excess.plus(call.excess.at_least_zero());
        self.house_cost = self.house_cost.plus(call.record.house_cost.at_least_zero());
    }

    /// Its entries: what the account is charged, what the house loses of it, and what the house pays for what
    /// nobody is charged. `None` if no money is in it.
    fn posting(
        self,
        (account, pocket): (AccountId, Pocket),
        (first, last): (i64, i64),
    ) -> Option<Posting> {
        let pairs = [
            (pocket.of(account), HOUSE_REVENUE, self.paid),
            (HOUSE_LOSS.to_owned(), HOUSE_REVENUE, self.excess),
            (HOUSE_UPSTREAM_COST.to_owned(), HOUSE_PROVIDERS, self.house_cost),
        ];
        let mut entries = Vec::with_capacity(6);
        for (from, to, amount) in pairs {
            if amount > NanoUsd::ZERO {
                entries.extend([(from, negative(amount)), (to.to_owned(), amount)]);
            }
        }
        (!entries.is_empty()).then(|| Posting {
            kind: "charge",
            idempotency_key: format!("records:{first}-{last}:{account}"),
            subject: account,
            actor: "gateway".to_owned(),
            note: format!("calls: {}", self.calls),
            records: Some((first, last)),
            entries,
        })
    }
}
