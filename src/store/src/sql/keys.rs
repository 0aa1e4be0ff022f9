//! Accounts and API keys in SQL, and the epoch by which other processes notice changes.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::key::{ApiKey, Funding, KeyHash};
use tokenroute_domain::time::Timestamp;

use super::{Database, column, timestamp};
use crate::Error;

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
    /// Creates an account; `false` if the identifier or the name is taken.
    pub async fn create_account(
        &self,
        id: AccountId,
        name: &str,
        funding: Funding,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO accounts (id, name, funding, created) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
        )
        .bind(id.to_string())
        .bind(name)
        .bind(funding.as_str())
        .bind(column(now.micros()))
        .execute(&self.writers)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The account of that name.
    pub async fn account_by_name(&self, name: &str) -> Result<Option<AccountId>, Error> {
        let id: Option<String> = sqlx::query_scalar("SELECT id FROM accounts WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        id.map(|id| AccountId::parse(&id).ok_or(Error::unreadable("accounts.id"))).transpose()
    }

    /// Creates a key; `false` if its account does not exist or its identifier or hash is taken.
    /// Once this has returned, the key works wherever it is looked up.
    pub async fn create_key(&self, key: &NewKey<'_>) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        let epoch = next_epoch(&mut transaction).await?;
        let done = sqlx::query(
            "INSERT INTO api_keys (id, account, name, hash, shown, created, expires, epoch)
             SELECT $1, accounts.id, $3, $4, $5, $6, $7, $8 FROM accounts WHERE accounts.id = $2
             ON CONFLICT DO NOTHING",
        )
        .bind(key.id.to_string())
        .bind(key.account.to_string())
        .bind(key.name)
        .bind(key.hash.0.as_slice())
        .bind(key.shown)
        .bind(column(key.created.micros()))
        .bind(key.expires.map(|expires| column(expires.micros())))
        .bind(epoch)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// The key with that hash, unless it is unknown or revoked. Expired keys are found:
    /// whether a key's time is over is the caller's to say.
    pub async fn find_key(&self, hash: &KeyHash) -> Result<Option<ApiKey>, Error> {
        let row = sqlx::query(
            "SELECT api_keys.id, api_keys.account, accounts.funding, api_keys.expires
             FROM api_keys JOIN accounts ON accounts.id = api_keys.account
             WHERE api_keys.hash = $1 AND api_keys.revoked IS NULL",
        )
        .bind(hash.0.as_slice())
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| api_key(&row)).transpose()
    }

    /// At most `limit` keys in the order of their creation, from the one after `after` on.
    pub async fn list_keys(
        &self,
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<KeyListing>, Error> {
        let rows = sqlx::query(
            "SELECT api_keys.id, accounts.name AS account_name, api_keys.name, api_keys.shown,
                    api_keys.created, api_keys.expires, api_keys.revoked
             FROM api_keys JOIN accounts ON accounts.id = api_keys.account
             WHERE api_keys.id > $1 ORDER BY api_keys.id LIMIT $2",
        )
        .bind(after.map(|id| id.to_string()).unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(listing).collect()
    }

    /// Revokes a key for good and returns its hash; `None` if there is no such key. Revoking it
    /// again changes nothing, and returns the hash so that others can be told again.
    pub async fn revoke_key(&self, id: KeyId, now: Timestamp) -> Result<Option<KeyHash>, Error> {
        let mut transaction = self.begin().await?;
        let epoch = next_epoch(&mut transaction).await?;
        let hash: Option<Vec<u8>> = sqlx::query_scalar(
            "UPDATE api_keys SET revoked = COALESCE(revoked, $2), epoch = $3 WHERE id = $1
             RETURNING hash",
        )
        .bind(id.to_string())
        .bind(column(now.micros()))
        .bind(epoch)
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        hash.as_deref().map(key_hash).transpose()
    }

    /// Whether any key was ever created.
    pub async fn any_key(&self) -> Result<bool, Error> {
        let one: Option<i64> = sqlx::query_scalar("SELECT 1 FROM api_keys LIMIT 1")
            .fetch_optional(&self.readers)
            .await?;
        Ok(one.is_some())
    }

    /// The number of the last change to any key.
    pub async fn key_epoch(&self) -> Result<i64, Error> {
        Ok(sqlx::query_scalar("SELECT value FROM counters WHERE name = 'key_epoch'")
            .fetch_one(&self.readers)
            .await?)
    }

    /// At most `limit` changes after `epoch`, the oldest first. Commits are numbered in their order,
    /// so whoever goes on from the last epoch that it saw misses none.
    pub async fn key_changes(&self, epoch: i64, limit: u32) -> Result<Vec<KeyChange>, Error> {
        let rows = sqlx::query(
            "SELECT epoch, hash, CASE WHEN revoked IS NULL THEN 0 ELSE 1 END AS is_revoked
             FROM api_keys WHERE epoch > $1 ORDER BY epoch LIMIT $2",
        )
        .bind(epoch)
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(change).collect()
    }

    /// At most `limit` hashes of keys that were revoked at `since` or later, the latest first.
    pub async fn revoked_since(&self, since: Timestamp, limit: u32) -> Result<Vec<KeyHash>, Error> {
        let hashes: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT hash FROM api_keys WHERE revoked >= $1 ORDER BY revoked DESC LIMIT $2",
        )
        .bind(column(since.micros()))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        hashes.iter().map(|hash| key_hash(hash)).collect()
    }
}

/// Numbers a change. The row stays locked to the end of the transaction, so changes commit in order.
async fn next_epoch(transaction: &mut sqlx::SqliteConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "UPDATE counters SET value = value + 1 WHERE name = 'key_epoch' RETURNING value",
    )
    .fetch_one(transaction)
    .await?)
}

fn api_key(row: &SqliteRow) -> Result<ApiKey, Error> {
    let (id, account): (String, String) = (row.try_get("id")?, row.try_get("account")?);
    let funding: String = row.try_get("funding")?;
    Ok(ApiKey {
        id: KeyId::parse(&id).ok_or(Error::unreadable("api_keys.id"))?,
        account: AccountId::parse(&account).ok_or(Error::unreadable("api_keys.account"))?,
        funding: Funding::parse(&funding).ok_or(Error::unreadable("accounts.funding"))?,
        expires: optional_time(row, "expires")?,
        terms: std::sync::Arc::default(),
    })
}

fn listing(row: &SqliteRow) -> Result<KeyListing, Error> {
    let id: String = row.try_get("id")?;
    Ok(KeyListing {
        id: KeyId::parse(&id).ok_or(Error::unreadable("api_keys.id"))?,
        account_name: row.try_get("account_name")?,
        name: row.try_get("name")?,
        shown: row.try_get("shown")?,
        created: timestamp(row.try_get("created")?, "api_keys.created")?,
        expires: optional_time(row, "expires")?,
        revoked: optional_time(row, "revoked")?,
    })
}

fn change(row: &SqliteRow) -> Result<KeyChange, Error> {
    let revoked: i64 = row.try_get("is_revoked")?;
    Ok(KeyChange {
        epoch: row.try_get("epoch")?,
        hash: key_hash(row.try_get("hash")?)?,
        revoked: revoked != 0,
    })
}

fn optional_time(row: &SqliteRow, name: &'static str) -> Result<Option<Timestamp>, Error> {
    let value: Option<i64> = row.try_get(name)?;
    value.map(|value| timestamp(value, name)).transpose()
}

fn key_hash(bytes: &[u8]) -> Result<KeyHash, Error> {
    bytes.try_into().map(KeyHash).map_err(|_length| Error::unreadable("api_keys.hash"))
}
