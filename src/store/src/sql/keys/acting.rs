//! What is done to keys, and written down with who did it.

use std::sync::Arc;

use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::key::{KeyHash, Terms};
use tokenroute_domain::pool::{Ceiling, Period};
use tokenroute_domain::time::Timestamp;

use super::super::accounts::limit_facts;
use super::super::audit::{Acting, Fact, note};
use super::super::statement::{Transaction, sql};
use super::{Added, NewKey, Room, Rotation, key_hash, next_epoch};
use crate::{Error, terms};

impl Acting<'_> {
    /// Creates a key; `false` if its account does not exist or its identifier or hash is taken.
    /// Once this has returned, the key works wherever it is looked up.
    pub async fn create_key(&self, key: &NewKey<'_>) -> Result<bool, Error> {
        let mut transaction = self.database.begin().await?;
        Ok(self.add(&mut transaction, key).await? && {
            transaction.commit().await?;
            true
        })
    }

    /// Creates a key if its account has room for it.
    pub async fn create_key_within(&self, key: &NewKey<'_>, room: Room) -> Result<Added, Error> {
        let mut transaction = self.database.begin().await?;
        // It locks, so that whoever else creates a key counts this one.
        next_epoch(&mut transaction).await?;
        if !has_room(&mut transaction, key.account, room).await? {
            return Ok(Added::Full);
        }
        if !self.add(&mut transaction, key).await? {
            return Ok(Added::Refused);
        }
        transaction.commit().await?;
        Ok(Added::Done)
    }

    async fn add(&self, transaction: &mut Transaction, key: &NewKey<'_>) -> Result<bool, Error> {
        let epoch = next_epoch(transaction).await?;
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
        if done != 1 {
            return Ok(false);
        }
        let mut facts = facts(&key.terms, key.expires);
        facts.push(("account", Fact::Name(key.account.to_string())));
        note(transaction, &self.deed("key.create", key.id, facts), key.created).await?;
        Ok(true)
    }

    /// Puts a new key in the place of one that works.
    pub async fn rotate_key(
        &self,
        rotation: &Rotation<'_>,
        room: Room,
        now: Timestamp,
    ) -> Result<Added, Error> {
        let mut transaction = self.database.begin().await?;
        let (epoch, old_epoch) =
            (next_epoch(&mut transaction).await?, next_epoch(&mut transaction).await?);
        if !has_room(&mut transaction, rotation.account, room).await? {
            return Ok(Added::Full);
        }
        let added = sql(
            "INSERT INTO api_keys (id, account, name, hash, shown, created, expires, epoch, terms)
             SELECT $1, account, name, $2, $3, $4, expires, $5, terms FROM api_keys
             WHERE id = $6 AND account = $7 AND revoked IS NULL
             ON CONFLICT DO NOTHING",
        )
        .bind(rotation.id)
        .bind(rotation.hash.0.as_slice())
        .bind(rotation.shown)
        .bind(now)
        .bind(epoch)
        .bind(rotation.old)
        .bind(rotation.account)
        .execute(transaction.on())
        .await?;
        if added != 1 {
            return Ok(Added::Refused);
        }
        // A ceiling does not begin anew because the key does.
        sql("INSERT INTO key_purses (key_id, period, number, spent)
             SELECT $1, period, number, spent FROM key_purses WHERE key_id = $2")
        .bind(rotation.id)
        .bind(rotation.old)
        .execute(transaction.on())
        .await?;
        let is_over = rotation.old_until <= now;
        sql("UPDATE api_keys SET epoch = $2, revoked = $3,
                 expires = CASE WHEN expires < $4 THEN expires ELSE $4 END
             WHERE id = $1")
        .bind(rotation.old)
        .bind(old_epoch)
        .bind(is_over.then_some(now))
        .bind(rotation.old_until)
        .execute(transaction.on())
        .await?;
        let facts = vec![
            ("new", Fact::Name(rotation.id.to_string())),
            ("old_until", Fact::Time(rotation.old_until.max(now))),
        ];
        note(&mut transaction, &self.deed("key.rotate", rotation.old, facts), now).await?;
        transaction.commit().await?;
        Ok(Added::Done)
    }

    /// Revokes a key for good and returns its hash; `None` if there is no such key. Revoking it
    /// again changes nothing, and returns the hash so that others can be told again.
    pub async fn revoke_key(&self, id: KeyId, now: Timestamp) -> Result<Option<KeyHash>, Error> {
        self.revoke(id, None, now).await
    }

    /// The same for a key of one account: another's is as good as none.
    pub async fn revoke_key_of(
        &self,
        account: AccountId,
        id: KeyId,
        now: Timestamp,
    ) -> Result<Option<KeyHash>, Error> {
        self.revoke(id, Some(account), now).await
    }

    async fn revoke(
        &self,
        id: KeyId,
        account: Option<AccountId>,
        now: Timestamp,
    ) -> Result<Option<KeyHash>, Error> {
        let mut transaction = self.database.begin().await?;
        let epoch = next_epoch(&mut transaction).await?;
        let row =
            sql("SELECT hash, revoked FROM api_keys WHERE id = $1 AND (account = $2 OR $2 = '')")
                .bind(id)
                .bind(account.map(|id| id.to_string()).unwrap_or_default())
                .fetch_optional(transaction.on())
                .await?;
        let Some(row) = row else { return Ok(None) };
        sql("UPDATE api_keys SET revoked = COALESCE(revoked, $2), epoch = $3 WHERE id = $1")
            .bind(id)
            .bind(now)
            .bind(epoch)
            .execute(transaction.on())
            .await?;
        if row.int_if_any("revoked")?.is_none() {
            note(&mut transaction, &self.deed("key.revoke", id, Vec::new()), now).await?;
        }
        transaction.commit().await?;
        key_hash(row.bytes("hash")?).map(Some)
    }

    /// Changes what a key may do and when it stops working, and returns its hash; `None` if there is no such
    /// key, or it is revoked. Every edge looks the key up again within a moment.
    pub async fn change_key(
        &self,
        id: KeyId,
        change: impl FnOnce(&mut Terms, &mut Option<Timestamp>) + Send,
        now: Timestamp,
    ) -> Result<Option<KeyHash>, Error> {
        let mut transaction = self.database.begin().await?;
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
        let deed = self.deed("key.change", id, facts(&own, expires));
        note(&mut transaction, &deed, now).await?;
        transaction.commit().await?;
        key_hash(row.bytes("hash")?).map(Some)
    }
}

/// Whether an account may have one more key.
async fn has_room(
    transaction: &mut Transaction,
    account: AccountId,
    room: Room,
) -> Result<bool, Error> {
    let row = sql("SELECT
             (SELECT count(*) FROM api_keys WHERE account = $1 AND revoked IS NULL) AS live,
             (SELECT count(*) FROM api_keys WHERE account = $1 AND created >= $2) AS new")
    .bind(account)
    .bind(room.since)
    .fetch_one(transaction.on())
    .await?;
    let (live, new) = (row.count("live")?, row.count("new")?);
    Ok(live < room.live_max.into() && new < room.new_max.into())
}

/// What is written down of a key's terms: how many models and providers it names, not which.
fn facts(terms: &Terms, expires: Option<Timestamp>) -> Vec<(&'static str, Fact)> {
    let count = |all: &Option<Vec<Arc<str>>>| {
        let all = all.as_ref()?;
        Some(Fact::Count(u64::try_from(all.len()).unwrap_or(u64::MAX)))
    };
    let mut facts: Vec<_> = terms.ceilings.iter().map(ceiling_fact).collect();
    facts.extend(limit_facts(terms.limits));
    facts.extend(terms.tier.as_ref().map(|tier| ("tier", Fact::Name(tier.to_string()))));
    facts.extend(count(&terms.models).map(|count| ("models", count)));
    facts.extend(count(&terms.providers).map(|count| ("providers", count)));
    facts.extend(expires.map(|time| ("expires", Fact::Time(time))));
    facts
}

fn ceiling_fact(ceiling: &Ceiling) -> (&'static str, Fact) {
    let name = match ceiling.period {
        Period::Total => "ceiling_usd",
        Period::Day => "ceiling_usd_a_day",
        Period::Week => "ceiling_usd_a_week",
        Period::Month => "ceiling_usd_a_month",
    };
    (name, Fact::Money(ceiling.limit))
}
