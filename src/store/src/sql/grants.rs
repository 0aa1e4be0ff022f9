//! What the embedded issuer has granted, or is asked to: device codes (RFC 8628) and refresh tokens, by the
//! hash of each. Every one of them works once.

use std::time::Duration;

use tokenroute_domain::time::Timestamp;

use super::Database;
use super::issuer::Digest;
use super::statement::sql;
use crate::Error;

/// By how much a device that asks too soon has to slow down (RFC 8628, section 3.5), in seconds.
const SLOWER_SECONDS: i64 = 5;

/// A device that asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDevice<'a> {
    /// What the device code hashes to.
    pub device: Digest,
    /// What a person types.
    pub user_code: &'a str,
    /// Which client.
    pub client: &'a str,
    /// What it may do, if it is let in.
    pub scope: &'a str,
    /// The pause between two questions, in seconds.
    pub pause_seconds: u32,
    /// When it asked.
    pub created: Timestamp,
    /// When it is too late.
    pub expires: Timestamp,
}

/// What a device is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// It is let in, this once: for whom, and what it may do.
    Approved {
        /// What the issuer calls the user.
        subject: String,
        /// What it may do.
        scope: String,
    },
    /// Nobody has decided yet.
    Pending,
    /// Nobody has, and it asks too often: the pause is longer from now on.
    TooSoon,
    /// The person said no.
    Declined,
    /// It is too late.
    Expired,
    /// There is no such code, or it has been used.
    Unknown,
}

/// A refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRefresh<'a> {
    /// What it hashes to.
    pub token: Digest,
    /// All that came of one login.
    pub family: &'a str,
    /// What the issuer calls the user.
    pub subject: &'a str,
    /// Whose it is.
    pub client: &'a str,
    /// What it may do.
    pub scope: &'a str,
    /// When it was made.
    pub created: Timestamp,
    /// When it stops working.
    pub expires: Timestamp,
}

/// What came of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// Another is in its place.
    Done {
        /// What the issuer calls the user.
        subject: String,
        /// What it may do.
        scope: String,
    },
    /// It was used before, so somebody has a copy: its whole family is ended.
    Reused,
    /// There is none such, or its time is over.
    Unknown,
}

impl Database {
    /// Keeps a device's question; `false` if its code for people is taken.
    pub async fn create_device(&self, new: &NewDevice<'_>) -> Result<bool, Error> {
        let done = sql("INSERT INTO issuer_devices
                 (device, user_code, client, scope, state, pause_seconds, created, expires)
             VALUES ($1, $2, $3, $4, 'pending', $5, $6, $7) ON CONFLICT DO NOTHING")
        .bind(new.device.as_slice())
        .bind(new.user_code)
        .bind(new.client)
        .bind(new.scope)
        .bind(new.pause_seconds)
        .bind(new.created)
        .bind(new.expires)
        .execute(self.writing())
        .await?;
        Ok(done == 1)
    }

    /// Whether a code for people waits for somebody's decision.
    pub async fn is_device_pending(&self, user_code: &str, now: Timestamp) -> Result<bool, Error> {
        let row = sql("SELECT user_code FROM issuer_devices
             WHERE user_code = $1 AND state = 'pending' AND expires > $2")
        .bind(user_code)
        .bind(now)
        .fetch_optional(self.reading())
        .await?;
        Ok(row.is_some())
    }

    /// Lets a device in, or not, because `subject` says so; `false` if nobody waits for it.
    pub async fn decide_device(
        &self,
        user_code: &str,
        (subject, approves): (&str, bool),
        now: Timestamp,
    ) -> Result<bool, Error> {
        let done = sql("UPDATE issuer_devices SET state = $2, subject = $3
             WHERE user_code = $1 AND state = 'pending' AND expires > $4")
        .bind(user_code)
        .bind(if approves { "approved" } else { "declined" })
        .bind(subject)
        .bind(now)
        .execute(self.writing())
        .await?;
        Ok(done == 1)
    }

    /// What a client's device is told that asks for its answer now.
    pub async fn poll_device(
        &self,
        device: &Digest,
        client: &str,
        now: Timestamp,
    ) -> Result<Polled, Error> {
        let mut transaction = self.begin().await?;
        // Of two that ask at once one gets the answer, for it is used then.
        let used = sql("UPDATE issuer_devices SET state = 'used'
             WHERE device = $1 AND client = $2 AND state = 'approved' AND expires > $3
             RETURNING subject, scope")
        .bind(device.as_slice())
        .bind(client)
        .bind(now)
        .fetch_optional(transaction.on())
        .await?;
        if let Some(row) = used {
            let (subject, scope) = (row.text("subject")?, row.text("scope")?);
            transaction.commit().await?;
            return Ok(Polled::Approved { subject, scope });
        }
        let row = sql("SELECT state, polled, pause_seconds, expires FROM issuer_devices
             WHERE device = $1 AND client = $2 AND state <> 'used'")
        .bind(device.as_slice())
        .bind(client)
        .fetch_optional(transaction.on())
        .await?;
        let Some(row) = row else { return Ok(Polled::Unknown) };
        if row.time("expires")? <= now {
            return Ok(Polled::Expired);
        }
        if row.text("state")? == "declined" {
            return Ok(Polled::Declined);
        }
        let pause = Duration::from_secs(row.count("pause_seconds")?);
        let too_soon = row.time_if_any("polled")?.is_some_and(|polled| now.since(polled) < pause);
        sql("UPDATE issuer_devices SET polled = $2, pause_seconds = pause_seconds + $3
             WHERE device = $1")
        .bind(device.as_slice())
        .bind(now)
        .bind(if too_soon { SLOWER_SECONDS } else { 0 })
        .execute(transaction.on())
        .await?;
        transaction.commit().await?;
        Ok(if too_soon { Polled::TooSoon } else { Polled::Pending })
    }

    /// Keeps the first refresh token of a family.
    pub async fn create_refresh(&self, new: &NewRefresh<'_>) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        insert(&mut transaction, new).await?;
        transaction.commit().await
    }

    /// Uses a client's refresh token, and keeps `next` in its place: no more than its hash and its times.
    pub async fn rotate_refresh(
        &self,
        (token, client): (&Digest, &str),
        (next, expires): (&Digest, Timestamp),
        now: Timestamp,
    ) -> Result<Rotated, Error> {
        let mut transaction = self.begin().await?;
        let row = sql("UPDATE issuer_refreshes SET used = $3
             WHERE token = $1 AND client = $2 AND used IS NULL AND expires > $3
             RETURNING family, subject, scope")
        .bind(token.as_slice())
        .bind(client)
        .bind(now)
        .fetch_optional(transaction.on())
        .await?;
        let Some(row) = row else {
            let ended = sql("DELETE FROM issuer_refreshes WHERE family IN
                 (SELECT family FROM issuer_refreshes
                  WHERE token = $1 AND client = $2 AND used IS NOT NULL)")
            .bind(token.as_slice())
            .bind(client)
            .execute(transaction.on())
            .await?;
            transaction.commit().await?;
            return Ok(if ended > 0 { Rotated::Reused } else { Rotated::Unknown });
        };
        let (family, subject) = (row.text("family")?, row.text("subject")?);
        let scope = row.text("scope")?;
        let new = NewRefresh {
            token: *next,
            family: &family,
            subject: &subject,
            client,
            scope: &scope,
            created: now,
            expires,
        };
        insert(&mut transaction, &new).await?;
        transaction.commit().await?;
        Ok(Rotated::Done { subject, scope })
    }

    /// Ends the family of a client's refresh token (RFC 7009); of one that is unknown there is none.
    pub async fn revoke_refresh(&self, token: &Digest, client: &str) -> Result<(), Error> {
        sql("DELETE FROM issuer_refreshes WHERE family IN
             (SELECT family FROM issuer_refreshes WHERE token = $1 AND client = $2)")
        .bind(token.as_slice())
        .bind(client)
        .execute(self.writing())
        .await?;
        Ok(())
    }

    /// Ends every login of a local user.
    pub async fn revoke_refreshes_of(&self, subject: &str) -> Result<(), Error> {
        let delete = sql("DELETE FROM issuer_refreshes WHERE subject = $1").bind(subject);
        delete.execute(self.writing()).await?;
        Ok(())
    }
}

async fn insert(
    transaction: &mut super::statement::Transaction,
    new: &NewRefresh<'_>,
) -> Result<(), Error> {
    sql("INSERT INTO issuer_refreshes (token, family, subject, client, scope, created, expires)
         VALUES ($1, $2, $3, $4, $5, $6, $7)")
    .bind(new.token.as_slice())
    .bind(new.family)
    .bind(new.subject)
    .bind(new.client)
    .bind(new.scope)
    .bind(new.created)
    .bind(new.expires)
    .execute(transaction.on())
    .await?;
    Ok(())
}
