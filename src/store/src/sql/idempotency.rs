//! Answers to requests that may be repeated. Whoever asks first under a key has a claim on it, does what is
//! asked, and leaves the answer, encrypted: some answers hold a key.

use tokenroute_domain::time::Timestamp;

use super::Database;
use super::statement::sql;
use crate::Error;

/// What makes a request this one and no other.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks: everybody has keys of its own.
    pub scope: &'a str,
    /// What the asker calls the request.
    pub key: &'a str,
    /// The hash of what is asked.
    pub request: [u8; 32],
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has done it, and nobody else will now.
    Ours,
    /// Somebody is doing it.
    Theirs,
    /// It was done.
    Done {
        /// The HTTP status that was answered.
        status: u16,
        /// The answer, sealed.
        answer: Vec<u8>,
    },
    /// Its key was used for another one.
    Other,
}

impl Database {
    /// Claims a request. A claim from before `lapsed` without an answer counts no more: who had it died.
    pub async fn claim(
        &self,
        ask: &Ask<'_>,
        lapsed: Timestamp,
        now: Timestamp,
    ) -> Result<Claim, Error> {
        let ours = sql("INSERT INTO idempotency (scope, key, request, status, answer, created)
             VALUES ($1, $2, $3, 0, $4, $5)
             ON CONFLICT (scope, key) DO UPDATE SET created = excluded.created
                 WHERE idempotency.status = 0 AND idempotency.created < $6
                     AND idempotency.request = excluded.request")
        .bind(ask.scope)
        .bind(ask.key)
        .bind(ask.request.as_slice())
        .bind(b"".as_slice())
        .bind(now)
        .bind(lapsed)
        .execute(self.writing())
        .await?;
        if ours == 1 {
            return Ok(Claim::Ours);
        }
        let row =
            sql("SELECT request, status, answer FROM idempotency WHERE scope = $1 AND key = $2")
                .bind(ask.scope)
                .bind(ask.key)
                .fetch_optional(self.reading())
                .await?;
        // It was given up between the two.
        let Some(row) = row else { return Ok(Claim::Theirs) };
        if row.bytes("request")? != ask.request {
            return Ok(Claim::Other);
        }
        let status = u16::try_from(row.int("status")?)
            .map_err(|_range| Error::unreadable("idempotency.status"))?;
        Ok(match status {
            0 => Claim::Theirs,
            status => Claim::Done { status, answer: row.bytes("answer")?.to_vec() },
        })
    }

    /// Leaves the answer to a request that was claimed.
    pub async fn answer(&self, ask: &Ask<'_>, status: u16, answer: &[u8]) -> Result<(), Error> {
        sql("UPDATE idempotency SET status = $3, answer = $4 WHERE scope = $1 AND key = $2")
            .bind(ask.scope)
            .bind(ask.key)
            .bind(u32::from(status))
            .bind(answer)
            .execute(self.writing())
            .await?;
        Ok(())
    }

    /// Gives a claim up: nothing was done, and the next one may.
    pub async fn give_up(&self, ask: &Ask<'_>) -> Result<(), Error> {
        sql("DELETE FROM idempotency WHERE scope = $1 AND key = $2 AND status = 0")
            .bind(ask.scope)
            .bind(ask.key)
            .execute(self.writing())
            .await?;
        Ok(())
    }

    /// Forgets all requests from before `since`.
    pub async fn forget_answers(&self, since: Timestamp) -> Result<u64, Error> {
        sql("DELETE FROM idempotency WHERE created < $1").bind(since).execute(self.writing()).await
    }
}
