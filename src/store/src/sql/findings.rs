//! What an operator should look at: findings, kept until they are seen to be no more; and which prices
//! calls were reckoned by.

use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;

use super::audit::{Deed, Fact, note as note_deed};
use super::statement::{On, Row, sql};
use super::{Database, reconcile};
use crate::Error;

/// The state of a finding that an operator should look at.
const OPEN: &str = "open";
/// The kind of a loan whose edge was not heard of again while calls were holding some of it.
pub(crate) const ABANDONED: &str = "abandoned";
/// The kind of a hot store that may forget what it likes.
pub(crate) const EVICTION: &str = "eviction";
/// The kind of a pool that does not hold what SQL has put in escrow for it.
pub(crate) const ESCROW: &str = "escrow";
/// The kind of a move into escrow that waits for one before it.
pub(crate) const ESCROW_GAP: &str = "escrow_gap";
/// The kind of an event that SQL refuses.
pub(crate) const POISON: &str = "poison";

/// Every kind of finding there is.
pub fn finding_kinds() -> impl Iterator<Item = &'static str> {
    reconcile::kinds().chain([ABANDONED, ESCROW, ESCROW_GAP, EVICTION, POISON])
}

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The stable word of what it is.
    pub kind: String,
    /// Of what; a kind has one finding of each subject.
    pub subject: String,
    /// What was seen, for people.
    pub detail: String,
    /// How much is off. One that an operator has closed is open again only if this has grown.
    pub amount: NanoUsd,
}

/// A finding as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFinding {
    /// What it is called when it is to be closed.
    pub id: String,
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
    /// Keeps a finding; one that is known is seen again. Whether it is open now: an operator may have
    /// put up with it.
    pub async fn note_finding(&self, finding: &Finding, now: Timestamp) -> Result<bool, Error> {
        note(self.writing(), finding, now).await
    }

    /// Closes the findings of a kind that were not seen at `since` or later, and forgets what of them an
    /// operator has put up with: should they come again, it is for another reason.
    pub async fn close_findings(&self, kind: &str, since: Timestamp) -> Result<u64, Error> {
        sql("UPDATE findings SET state = 'closed', accepted = NULL
             WHERE kind = $1 AND last_seen < $2 AND (state = 'open' OR accepted IS NOT NULL)")
        .bind(kind)
        .bind(since)
        .execute(self.writing())
        .await
    }

    /// Closes a finding because an operator says so, and writes down who and why. It stays closed for as
    /// long as no more is off than now. `false` if no such finding is open.
    pub async fn accept_finding(
        &self,
        id: &str,
        (actor, note): (&str, &str),
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        let row = sql("UPDATE findings SET state = 'closed', accepted = amount
             WHERE id = $1 AND state = 'open' RETURNING amount")
        .bind(id)
        .fetch_optional(transaction.on())
        .await?;
        let Some(row) = row else { return Ok(false) };
        sql("INSERT INTO finding_closings (finding, closed, amount, actor, note)
             VALUES ($1, $2, $3, $4, $5)")
        .bind(id)
        .bind(now)
        .bind(row.money("amount")?)
        .bind(actor)
        .bind(note)
        .execute(transaction.on())
        .await?;
        let facts = vec![("amount_usd", Fact::Money(row.money("amount")?))];
        let deed = Deed { actor, action: "finding.close", subject: id.to_owned(), facts };
        note_deed(&mut transaction, &deed, now).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// How many findings of each kind are open; a kind that has none is left out.
    pub async fn count_findings(&self) -> Result<Vec<(String, u64)>, Error> {
        let rows = sql("SELECT kind, count(*) AS found FROM findings WHERE state = 'open'
             GROUP BY kind ORDER BY kind")
        .fetch_all(self.reading())
        .await?;
        rows.iter().map(|row| Ok((row.text("kind")?, row.count("found")?))).collect()
    }

    /// At most `limit` findings, the latest first; closed ones only if asked for.
    pub async fn findings(
        &self,
        with_closed: bool,
        limit: u32,
    ) -> Result<Vec<StoredFinding>, Error> {
        let rows = sql("SELECT * FROM findings
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

/// Keeps a finding; one that is known is seen again, and open again if no operator has put up with as much.
/// Whether it is open now.
pub(crate) async fn note(on: On<'_>, finding: &Finding, now: Timestamp) -> Result<bool, Error> {
    let row = sql(
        "INSERT INTO findings (id, kind, subject, detail, first_seen, last_seen, state, amount)
         VALUES ($1, $2, $3, $4, $5, $5, 'open', $6)
         ON CONFLICT (kind, subject) DO UPDATE SET
             detail = excluded.detail, last_seen = excluded.last_seen, amount = excluded.amount,
             state = CASE WHEN excluded.amount <= findings.accepted THEN 'closed' ELSE 'open' END
         RETURNING state",
    )
    .bind(format!("{}:{}", finding.kind, finding.subject))
    .bind(&finding.kind)
    .bind(&finding.subject)
    .bind(&finding.detail)
    .bind(now)
    .bind(finding.amount)
    .fetch_one(on)
    .await?;
    Ok(row.text("state")? == OPEN)
}

fn stored(row: &Row) -> Result<StoredFinding, Error> {
    Ok(StoredFinding {
        id: row.text("id")?,
        finding: Finding {
            kind: row.text("kind")?,
            subject: row.text("subject")?,
            detail: row.text("detail")?,
            amount: row.money("amount")?,
        },
        first_seen: row.time("first_seen")?,
        last_seen: row.time("last_seen")?,
        is_open: row.text("state")? == OPEN,
    })
}
