//! Accounts and API keys in SQL, and the epoch by which other processes notice changes.

use std::sync::Arc;

use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::key::{ApiKey, Funding, KeyHash, Terms};
use tokenroute_domain::time::Timestamp;

use super::Database;
use super::accounts::limits;
use super::statement::{Row, Transaction, sql};
use crate::{Error, terms};

/// A key to be created: what is kept of it, and never the key itself.
#[derive(Clone, Debug)]
pub struct NewKey<'a> {
    /// Its name in records and listings.
    pub id: KeyId,
    /// Who pays; the account must exist.
    pub account: AccountId,
    /// What its owner calls it.
    pub name: &'a str,
    /// The keyed hash of the whole key.
    pub hash: KeyHash,
    /// The part that listings may show.
    pub shown: &'a str,
    /// When it was created.
    pub created: Timestamp,
    /// When it stops working, if ever.
    pub expires: Option<Timestamp>,
    /// What it may do; what is said of the account is not kept with the key.
    pub terms: Terms,
}

/// A key as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyListing {
    /// Its name in records.
    pub id: KeyId,
    /// The name of the account that pays.
    pub account_name: String,
    /// What its owner calls it.
    pub name: String,
    /// The first characters of the key.
    pub shown: String,
    /// When it was created.
    pub created: Timestamp,
    /// When it stops working, if ever.
    pub expires: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked: Option<Timestamp>,
    /// What it may do, without what is said of the account.
    pub terms: Terms,
}

/// A key that was created or revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// The number of the change; later ones are greater.
    pub epoch: i64,
    /// Which key.
    pub hash: KeyHash,
    /// Whether the key is revoked now. A revoked key never comes back.
    pub revoked: bool,
}

impl Database {
    /// Creates a key; `false` if its account does not exist or its identifier or hash is taken.
    /// Once this has returned, the key works wherever it is looked up.
    pub async fn create_key(&self, key: &NewKey<'_>) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        let epoch = next_epoch(&mut transaction).await?;
        let done = sql(
            "INSERT INTO api_keys (id, account, name, hash, shown, created, expires, epoch, terms)
             SELECT $1, accounts.id, $3, $4, $5, $6, $7, $8, $9 FROM accounts WHERE accounts.id = $2
             ON CONFLICT DO NOTHING",
        )
        .bind(key.id)
        .bind(key.account)
        .bind(key.name)
        .bind(key.hash.0.as_slice())
        .bind(key.shown)
        .bind(key.created)
        .bind(key.expires)
        .bind(epoch)
        .bind(terms::write(&key.terms))
        .execute(transaction.on())
        .await?;
        transaction.commit().await?;
        Ok(done == 1)
    }

    /// The key with that hash, unless it is unknown or revoked. Expired keys are found:
    /// whether a key's time is over is the caller's to say.
    pub async fn find_key(&self, hash: &KeyHash) -> Result<Option<ApiKey>, Error> {
        let row = sql(
            "SELECT api_keys.id, api_keys.account, accounts.funding, api_keys.expires, api_keys.terms,
                    accounts.tier, accounts.requests_per_second, accounts.requests_per_minute,
                    accounts.tokens_per_minute, accounts.concurrency
             FROM api_keys JOIN accounts ON accounts.id = api_keys.account
             WHERE api_keys.hash = $1 AND api_keys.revoked IS NULL",
        )
        .bind(hash.0.as_slice())
        .fetch_optional(self.reading())
        .await?;
        row.map(|row| api_key(&row)).transpose()
    }

    /// At most `limit` keys in the order of their creation, from the one after `after` on.
    pub async fn list_keys(
        &self,
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<KeyListing>, Error> {
        let rows =
            sql("SELECT api_keys.id, accounts.name AS account_name, api_keys.name, api_keys.shown,
                    api_keys.created, api_keys.expires, api_keys.revoked, api_keys.terms
             FROM api_keys JOIN accounts ON accounts.id = api_keys.account
             WHERE api_keys.id > $1 ORDER BY api_keys.id LIMIT $2")
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(limit)
            .fetch_all(self.reading())
            .await?;
        rows.iter().map(listing).collect()
    }

    /// What a key may do, without what is said of its account; `None` if there is no such key.
    pub async fn key_terms(&self, id: KeyId) -> Result<Option<Terms>, Error> {
        let row = sql("SELECT terms FROM api_keys WHERE id = $1")
            .bind(id)
            .fetch_optional(self.reading())
            .await?;
        row.map(|row| row.word("terms", terms::read)).transpose()
    }

    /// Revokes a key for good and returns its hash; `None` if there is no such key. Revoking it
    /// again changes nothing, and returns the hash so that others can be told again.
    pub async fn revoke_key(&self, id: KeyId, now: Timestamp) -> Result<Option<KeyHash>, Error> {
        let mut transaction = self.begin().await?;
        let epoch = next_epoch(&mut transaction).await?;
        let row =
            sql("UPDATE api_keys SET revoked = COALESCE(revoked, $2), epoch = $3 WHERE id = $1
             RETURNING hash")
            .bind(id)
            .bind(now)
            .bind(epoch)
            .fetch_optional(transaction.on())
            .await?;
        transaction.commit().await?;
        row.map(|row| key_hash(row.bytes("hash")?)).transpose()
    }

    /// Changes what a key may do and when it stops working, and returns its hash; `None` if there is no such
    /// key, or it is revoked. Every edge looks the key up again within a moment.
    pub async fn change_key(
        &self,
        id: KeyId,
        change: impl FnOnce(&mut Terms, &mut Option<Timestamp>) + Send,
    ) -> Result<Option<KeyHash>, Error> {
        let mut transaction = self.begin().await?;
        // It locks, so that who changes something else of the key waits.
        let epoch = next_epoch(&mut transaction).await?;
        let row =
            sql("SELECT hash, terms, expires FROM api_keys WHERE id = $1 AND revoked IS NULL")
                .bind(id)
                .fetch_optional(transaction.on())
                .await?;
        let Some(row) = row else { return Ok(None) };
        let mut own = row.word("terms", terms::read)?;
        let mut expires = row.time_if_any("expires")?;
        change(&mut own, &mut expires);
        sql("UPDATE api_keys SET terms = $2, expires = $3, epoch = $4 WHERE id = $1")
            .bind(id)
            .bind(terms::write(&own))
            .bind(expires)
            .bind(epoch)
            .execute(transaction.on())
            .await?;
        transaction.commit().await?;
        key_hash(row.bytes("hash")?).map(Some)
    }

    /// Whether any key was ever created.
    pub async fn any_key(&self) -> Result<bool, Error> {
        let one = sql("SELECT id FROM api_keys LIMIT 1").fetch_optional(self.reading()).await?;
        Ok(one.is_some())
    }

    /// The number of the last change to any key.
    pub async fn key_epoch(&self) -> Result<i64, Error> {
        sql("SELECT value FROM counters WHERE name = 'key_epoch'")
            .fetch_one(self.reading())
            .await?
            .int("value")
    }

    /// At most `limit` changes after `epoch`, the oldest first. Commits are numbered in their order,
    /// so whoever goes on from the last epoch that it saw misses none.
    pub async fn key_changes(&self, epoch: i64, limit: u32) -> Result<Vec<KeyChange>, Error> {
        let rows = sql("SELECT epoch, hash, revoked FROM api_keys WHERE epoch > $1
             ORDER BY epoch LIMIT $2")
        .bind(epoch)
        .bind(limit)
        .fetch_all(self.reading())
        .await?;
        rows.iter().map(change).collect()
    }

    /// At most `limit` hashes of keys that were revoked at `since` or later, the latest first.
    pub async fn revoked_since(&self, since: Timestamp, limit: u32) -> Result<Vec<KeyHash>, Error> {
        let rows =
            sql("SELECT hash FROM api_keys WHERE revoked >= $1 ORDER BY revoked DESC LIMIT $2")
                .bind(since)
                .bind(limit)
                .fetch_all(self.reading())
                .await?;
        rows.iter().map(|row| key_hash(row.bytes("hash")?)).collect()
    }
}

/// Numbers a change. The row stays locked to the end of the transaction, so changes commit in order.
pub(super) async fn next_epoch(transaction: &mut Transaction) -> Result<i64, Error> {
    sql("UPDATE counters SET value = value + 1 WHERE name = 'key_epoch' RETURNING value")
        .fetch_one(transaction.on())
        .await?
        .int("value")
}

fn api_key(row: &Row) -> Result<ApiKey, Error> {
    let own = row.word("terms", terms::read)?;
    let terms = Terms {
        account_limits: limits(row)?,
        account_tier: row.text_if_any("tier")?.map(Arc::from),
        ..own
    };
    Ok(ApiKey {
        id: row.word("id", KeyId::parse)?,
        account: row.word("account", AccountId::parse)?,
        funding: row.word("funding", Funding::parse)?,
        expires: row.time_if_any("expires")?,
        terms: Arc::new(terms),
    })
}

fn listing(row: &Row) -> Result<KeyListing, Error> {
    Ok(KeyListing {
        id: row.word("id", KeyId::parse)?,
        account_name: row.text("account_name")?,
        name: row.text("name")?,
        shown: row.text("shown")?,
        created: row.time("created")?,
        expires: row.time_if_any("expires")?,
        revoked: row.time_if_any("revoked")?,
        terms: row.word("terms", terms::read)?,
    })
}

fn change(row: &Row) -> Result<KeyChange, Error> {
    Ok(KeyChange {
        epoch: row.int("epoch")?,
        hash: key_hash(row.bytes("hash")?)?,
        revoked: row.int_if_any("revoked")?.is_some(),
    })
}

pub(super) fn key_hash(bytes: &[u8]) -> Result<KeyHash, Error> {
    bytes.try_into().map(KeyHash).map_err(|_length| Error::unreadable("api_keys.hash"))
}
