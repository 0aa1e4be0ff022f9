//! What an operator should look at: findings, kept until they are seen to be no more; and which prices
//! calls were reckoned by.

use tokenroute_domain::time::Timestamp;

use super::Database;
use super::statement::{On, Row, sql};
use crate::Error;

/// The kind of a loan whose edge was not heard of again while calls were holding some of it.
pub(crate) const ABANDONED: &str = "abandoned";

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The stable word of what it is.
    pub kind: String,
    /// Of what; a kind has one finding of each subject.
    pub subject: String,
    /// What was seen, for people.
    pub detail: String,
}

/// A finding as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFinding {
    /// What it is.
    pub finding: Finding,
    /// When it was seen first.
    pub first_seen: Timestamp,
    /// When it was seen last.
    pub last_seen: Timestamp,
    /// Whether it still stands.
    pub is_open: bool,
}

impl Database {
    /// Keeps a finding; one that is known is seen again.
    pub async fn note_finding(&self, finding: &Finding, now: Timestamp) -> Result<(), Error> {
        note(self.writing(), finding, now).await
    }

    /// Closes the findings of a kind that were not seen at `since` or later.
    pub async fn close_findings(&self, kind: &str, since: Timestamp) -> Result<u64, Error> {
        sql("UPDATE findings SET state = 'closed'
             WHERE kind = $1 AND last_seen < $2 AND state = 'open'")
        .bind(kind)
        .bind(since)
        .execute(self.writing())
        .await
    }

    /// At most `limit` findings, the latest first; closed ones only if asked for.
    pub async fn findings(
        &self,
        with_closed: bool,
        limit: u32,
    ) -> Result<Vec<StoredFinding>, Error> {
        let rows = sql("SELECT kind, subject, detail, first_seen, last_seen, state FROM findings
             WHERE state = 'open' OR state = $1 ORDER BY last_seen DESC, id LIMIT $2")
        .bind(if with_closed { "closed" } else { "open" })
        .bind(limit)
        .fetch_all(self.reading())
        .await?;
        rows.iter().map(stored).collect()
    }

    /// Keeps what a version of a price says, if nobody has before.
    pub async fn note_price(
        &self,
        version: &str,
        target: &str,
        content: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        sql("INSERT INTO price_versions (version, target, content, first_seen)
             VALUES ($1, $2, $3, $4) ON CONFLICT (version) DO NOTHING")
        .bind(version)
        .bind(target)
        .bind(content)
        .bind(now)
        .execute(self.writing())
        .await?;
        Ok(())
    }
}

/// Keeps a finding; one that is known is seen again, and open again.
pub(crate) async fn note(on: On<'_>, finding: &Finding, now: Timestamp) -> Result<(), Error> {
    sql("INSERT INTO findings (id, kind, subject, detail, first_seen, last_seen, state)
         VALUES ($1, $2, $3, $4, $5, $5, 'open')
         ON CONFLICT (kind, subject) DO UPDATE SET
             detail = excluded.detail, last_seen = excluded.last_seen, state = 'open'")
    .bind(format!("{}:{}", finding.kind, finding.subject))
    .bind(&finding.kind)
    .bind(&finding.subject)
    .bind(&finding.detail)
    .bind(now)
    .execute(on)
    .await?;
    Ok(())
}

fn stored(row: &Row) -> Result<StoredFinding, Error> {
    Ok(StoredFinding {
        finding: Finding {
            kind: row.text("kind")?,
            subject: row.text("subject")?,
            detail: row.text("detail")?,
        },
        first_seen: row.time("first_seen")?,
        last_seen: row.time("last_seen")?,
        is_open: row.text("state")? == "open",
    })
}
