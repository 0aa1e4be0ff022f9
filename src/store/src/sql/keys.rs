//! Accounts and API keys in SQL, and the epoch by which other processes notice changes.

mod acting;

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
    /// Who pays.
    pub account: AccountId,
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

/// What came of a key that was to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It works.
    Done,
    /// Its account, or the key that it is to follow, is not there; or its identifier or hash is taken.
    Refused,
    /// The account has as many keys as it may have.
    Full,
}

/// How many keys an account may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// That are not revoked.
    pub live_max: u32,
    /// That were created from `since` on, revoked ones among them: what is revoked stays in the table.
    pub new_max: u32,
    /// Since when.
    pub since: Timestamp,
}

/// A key that takes over from another one: with its name, terms and end, and with what it has spent.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// The key that is taken over.
    pub old: KeyId,
    /// Whose it is.
    pub account: AccountId,
    /// The new key's name in records and listings.
    pub id: KeyId,
    /// The keyed hash of the whole new key.
    pub hash: KeyHash,
    /// The part of it that listings may show.
    pub shown: &'a str,
    /// When the old key stops working, if it does not before. Not later than now: it is revoked.
    pub old_until: Timestamp,
}

/// What is read of a key for a listing.
macro_rules! listing {
    ($rest:literal) => {
        concat!(
            "SELECT api_keys.id, api_keys.account, accounts.name AS account_name, api_keys.name,
                 api_keys.shown, api_keys.created, api_keys.expires, api_keys.revoked, api_keys.terms
             FROM api_keys JOIN accounts ON accounts.id = api_keys.account ",
            $rest
        )
    };
}

/// What an edge has to know of a key.
macro_rules! known {
    ($rest:literal) => {
        concat!(
            "SELECT api_keys.id, api_keys.account, accounts.funding, api_keys.expires, api_keys.terms,
                    accounts.tier, accounts.policy, accounts.requests_per_second, accounts.requests_per_minute,
                    accounts.tokens_per_minute, accounts.concurrency
             FROM api_keys JOIN accounts ON accounts.id = api_keys.account ",
            $rest
        )
    };
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
    /// The key with that hash, unless it is unknown or revoked. Expired keys are found:
    /// whether a key's time is over is the caller's to say.
    pub async fn find_key(&self, hash: &KeyHash) -> Result<Option<ApiKey>, Error> {
        let row = sql(known!("WHERE api_keys.hash = $1 AND api_keys.revoked IS NULL"))
            .bind(hash.0.as_slice())
            .fetch_optional(self.reading())
            .await?;
        row.map(|row| api_key(&row)).transpose()
    }

    /// The same by the key's identifier.
    pub async fn find_key_by_id(&self, id: KeyId) -> Result<Option<ApiKey>, Error> {
        let row = sql(known!("WHERE api_keys.id = $1 AND api_keys.revoked IS NULL"))
            .bind(id)
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
        let rows = sql(listing!("WHERE api_keys.id > $1 ORDER BY api_keys.id LIMIT $2"))
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(limit)
            .fetch_all(self.reading())
            .await?;
        rows.iter().map(listing).collect()
    }

    /// The same of one account's keys alone.
    pub async fn keys_of(
        &self,
        account: AccountId,
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<KeyListing>, Error> {
        let rows = sql(listing!(
            "WHERE api_keys.account = $1 AND api_keys.id > $2 ORDER BY api_keys.id LIMIT $3"
        ))
        .bind(account)
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(limit)
        .fetch_all(self.reading())
        .await?;
        rows.iter().map(listing).collect()
    }

    /// A key as a listing shows it.
    pub async fn key(&self, id: KeyId) -> Result<Option<KeyListing>, Error> {
        let row =
            sql(listing!("WHERE api_keys.id = $1")).bind(id).fetch_optional(self.reading()).await?;
        row.as_ref().map(listing).transpose()
    }

    /// A key's hash, revoked or not.
    pub async fn find_key_hash(&self, id: KeyId) -> Result<Option<KeyHash>, Error> {
        let row = sql("SELECT hash FROM api_keys WHERE id = $1")
            .bind(id)
            .fetch_optional(self.reading())
            .await?;
        row.map(|row| key_hash(row.bytes("hash")?)).transpose()
    }

    /// What a key may do, without what is said of its account; `None` if there is no such key.
    pub async fn key_terms(&self, id: KeyId) -> Result<Option<Terms>, Error> {
        let row = sql("SELECT terms FROM api_keys WHERE id = $1")
            .bind(id)
            .fetch_optional(self.reading())
            .await?;
        row.map(|row| row.word("terms", terms::read)).transpose()
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
        account_policy: row.text_if_any("policy")?.map(Arc::from),
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
        account: row.word("account", AccountId::parse)?,
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
