//! Accounts in SQL: who pays, how, and under which limits.

use std::sync::Arc;

use tokenroute_domain::id::AccountId;
use tokenroute_domain::key::{Funding, KeyHash};
use tokenroute_domain::limit::Limits;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;

use super::Database;
use super::audit::{Acting, Fact, note};
use super::keys::{key_hash, next_epoch};
use super::statement::{Row, sql, unsigned};
use crate::Error;

/// An account as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name in records and in the ledger.
    pub id: AccountId,
    /// What its owner calls it.
    pub name: String,
    /// How it pays.
    pub funding: Funding,
    /// When it was created.
    pub created: Timestamp,
    /// What its keys may do together.
    pub terms: AccountTerms,
    /// What it has: what is free, lent and escrowed, less what is charged and posted.
    pub balance: NanoUsd,
    /// Its keys that are not revoked.
    pub keys: u64,
}

/// What an account's keys may do together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountTerms {
    /// The tier that says what the limits leave open.
    pub tier: Option<Arc<str>>,
    /// The policy that says which models and providers may be used; without one, all.
    pub policy: Option<Arc<str>>,
    /// Its own limits, which all its keys share.
    pub limits: Limits,
}

/// What is read of an account; the balance is that of its two ledger accounts.
macro_rules! account {
    ($rest:literal) => {
        concat!(
            "SELECT accounts.*,
                 (SELECT COALESCE(CAST(sum(balance) AS BIGINT), 0) FROM ledger_accounts
                  WHERE ledger_accounts.id IN ('customer:' || accounts.id, 'escrow:' || accounts.id))
                 AS balance,
                 (SELECT count(*) FROM api_keys
                  WHERE api_keys.account = accounts.id AND api_keys.revoked IS NULL) AS keys
             FROM accounts ",
            $rest
        )
    };
}

impl Database {
    /// The account of that name.
    pub async fn account_by_name(&self, name: &str) -> Result<Option<AccountId>, Error> {
        let row = sql("SELECT id FROM accounts WHERE name = $1")
            .bind(name)
            .fetch_optional(self.reading())
            .await?;
        row.map(|row| row.word("id", AccountId::parse)).transpose()
    }

    /// The account of that name, whole.
    pub async fn account(&self, name: &str) -> Result<Option<Account>, Error> {
        let row =
            sql(account!("WHERE name = $1")).bind(name).fetch_optional(self.reading()).await?;
        row.as_ref().map(account).transpose()
    }

    /// At most `limit` accounts in the order of their creation, from the one after `after` on.
    pub async fn accounts(
        &self,
        after: Option<AccountId>,
        limit: u32,
    ) -> Result<Vec<Account>, Error> {
        let rows = sql(account!("WHERE id > $1 ORDER BY id LIMIT $2"))
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(limit)
            .fetch_all(self.reading())
            .await?;
        rows.iter().map(account).collect()
    }

    /// The account with that identifier, whole.
    pub async fn account_by_id(&self, id: AccountId) -> Result<Option<Account>, Error> {
        let row = sql(account!("WHERE id = $1")).bind(id).fetch_optional(self.reading()).await?;
        row.as_ref().map(account).transpose()
    }
}

impl Acting<'_> {
    /// Creates an account; `false` if the identifier or the name is taken.
    pub async fn create_account(
        &self,
        id: AccountId,
        name: &str,
        funding: Funding,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut transaction = self.database.begin().await?;
        let done = sql("INSERT INTO accounts (id, name, funding, created) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(name)
        .bind(funding.as_str())
        .bind(now)
        .execute(transaction.on())
        .await?;
        if done == 1 {
            let facts = vec![("funding", Fact::Word(funding.as_str()))];
            note(&mut transaction, &self.deed("account.create", id, facts), now).await?;
            transaction.commit().await?;
        }
        Ok(done == 1)
    }

    /// Changes what an account's keys may do together, and returns the hashes of its keys; `None` if there is
    /// none. Every edge looks the keys up again within a moment.
    pub async fn change_account(
        &self,
        id: AccountId,
        change: impl FnOnce(&mut AccountTerms) + Send,
        now: Timestamp,
    ) -> Result<Option<Vec<KeyHash>>, Error> {
        let mut transaction = self.database.begin().await?;
        // It locks, so that who changes something else of the account waits.
        next_epoch(&mut transaction).await?;
        let row = sql("SELECT * FROM accounts WHERE id = $1")
            .bind(id)
            .fetch_optional(transaction.on())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let mut own = terms(&row)?;
        change(&mut own);
        sql("UPDATE accounts SET tier = $2, requests_per_second = $3, requests_per_minute = $4,
                 tokens_per_minute = $5, concurrency = $6, policy = $7
             WHERE id = $1")
        .bind(id)
        .bind(own.tier.as_deref())
        .bind(own.limits.requests_per_second)
        .bind(own.limits.requests_per_minute)
        .bind(own.limits.tokens_per_minute)
        .bind(own.limits.concurrency)
        .bind(own.policy.as_deref())
        .execute(transaction.on())
        .await?;
        let keys =
            sql("SELECT id, hash FROM api_keys WHERE account = $1 AND revoked IS NULL ORDER BY id")
                .bind(id)
                .fetch_all(transaction.on())
                .await?;
        // Each change has a number of its own: whoever reads them in pages would miss an equal one.
        for key in &keys {
            let epoch = next_epoch(&mut transaction).await?;
            sql("UPDATE api_keys SET epoch = $2 WHERE id = $1")
                .bind(key.text("id")?)
                .bind(epoch)
                .execute(transaction.on())
                .await?;
        }
        note(&mut transaction, &self.deed("account.change", id, own.facts()), now).await?;
        transaction.commit().await?;
        keys.iter().map(|key| key_hash(key.bytes("hash")?)).collect::<Result<_, _>>().map(Some)
    }
}

impl AccountTerms {
    /// What is written down of them.
    fn facts(&self) -> Vec<(&'static str, Fact)> {
        let named = [("tier", &self.tier), ("policy", &self.policy)];
        let named = named.into_iter().filter_map(|(what, name)| {
            name.as_ref().map(|name| (what, Fact::Name(name.to_string())))
        });
        named.chain(limit_facts(self.limits)).collect()
    }
}

/// What is written down of limits.
pub(super) fn limit_facts(limits: Limits) -> impl Iterator<Item = (&'static str, Fact)> {
    [
        ("requests_per_second", limits.requests_per_second.map(u64::from)),
        ("requests_per_minute", limits.requests_per_minute.map(u64::from)),
        ("tokens_per_minute", limits.tokens_per_minute),
        ("concurrency", limits.concurrency.map(u64::from)),
    ]
    .into_iter()
    .filter_map(|(what, count)| count.map(|count| (what, Fact::Count(count))))
}

fn account(row: &Row) -> Result<Account, Error> {
    Ok(Account {
        id: row.word("id", AccountId::parse)?,
        name: row.text("name")?,
        funding: row.word("funding", Funding::parse)?,
        created: row.time("created")?,
        terms: terms(row)?,
        balance: row.money("balance")?,
        keys: row.count("keys")?,
    })
}

fn terms(row: &Row) -> Result<AccountTerms, Error> {
    Ok(AccountTerms {
        tier: row.text_if_any("tier")?.map(Arc::from),
        policy: row.text_if_any("policy")?.map(Arc::from),
        limits: limits(row)?,
    })
}

/// The account's own limits.
pub(super) fn limits(row: &Row) -> Result<Limits, Error> {
    let small = |name| -> Result<Option<u32>, Error> {
        let value = row.int_if_any(name)?;
        value
            .map(|value| u32::try_from(value).map_err(|_range| Error::unreadable(name)))
            .transpose()
    };
    let tokens = row.int_if_any("tokens_per_minute")?;
    Ok(Limits {
        requests_per_second: small("requests_per_second")?,
        requests_per_minute: small("requests_per_minute")?,
        tokens_per_minute: tokens.map(|value| unsigned(value, "tokens_per_minute")).transpose()?,
        concurrency: small("concurrency")?,
    })
}
