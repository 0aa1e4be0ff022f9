//! The audit log: who has changed what. A row is written in the transaction of the change itself, last before
//! its commit: there is no change without its row, and no row without its change.
//!
//! What it says is made of closed words, identifiers, names of the configuration, amounts and times. No text
//! that somebody typed gets into it, so no secret does.

use serde_json::{Map, Value};
use tokenroute_domain::audit::{Entry, HASH_BYTES, START};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::{Timestamp, utc};

use super::Database;
use super::statement::{Row, Transaction, sql};
use crate::Error;

/// Rows that are read at once when the chain is checked.
const PAGE: u32 = 1_000;

/// The database in the hands of somebody: what is changed through it is written down with that name.
#[derive(Clone, Copy, Debug)]
pub struct Acting<'a> {
    pub(crate) database: &'a Database,
    pub(crate) actor: &'a str,
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// Its place, from 1 on without a gap.
    pub sequence: u64,
    /// When it was done.
    pub time: Timestamp,
    /// Who did it, such as `user usr_…`, `partner NAME` or `uid 1000`.
    pub actor: String,
    /// What was done, such as `key.create`.
    pub action: String,
    /// To what, by its identifier.
    pub subject: String,
    /// What else is to be known of it: a JSON object.
    pub detail: String,
}

/// What a check of the log came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Nothing was changed or taken out. Whoever keeps the last hash elsewhere sees as well if all of the
    /// log was written anew.
    Sound {
        /// How many rows there are.
        rows: u64,
        /// The last row's hash.
        head: [u8; HASH_BYTES],
    },
    /// This row was changed, or one before it is missing; or those from here on are.
    Broken {
        /// Its place.
        sequence: u64,
    },
}

/// What is written down of a change.
#[derive(Debug)]
pub(crate) struct Deed<'a> {
    pub(crate) actor: &'a str,
    pub(crate) action: &'static str,
    /// An identifier, or a kind and a name of the configuration.
    pub(crate) subject: String,
    pub(crate) facts: Vec<(&'static str, Fact)>,
}

/// What can be said of a change.
#[derive(Debug)]
pub(crate) enum Fact {
    Word(&'static str),
    Count(u64),
    Money(NanoUsd),
    Time(Timestamp),
    /// An identifier, or a name of the configuration. Nothing else that was typed.
    Name(String),
}

impl From<&Fact> for Value {
    fn from(fact: &Fact) -> Self {
        match fact {
            Fact::Word(word) => Self::from(*word),
            Fact::Count(count) => Self::from(*count),
            Fact::Money(amount) => Self::from(amount.to_string()),
            Fact::Time(time) => Self::from(utc::seconds(*time)),
            Fact::Name(name) => Self::from(name.as_str()),
        }
    }
}

impl Deed<'_> {
    fn detail(&self) -> String {
        let facts = self.facts.iter().map(|(name, fact)| ((*name).to_owned(), fact.into()));
        Value::Object(facts.collect::<Map<_, _>>()).to_string()
    }
}

/// Writes a change down. It is the last thing before the commit: the log's number is locked after everything
/// else, by everybody.
pub(crate) async fn note(
    transaction: &mut Transaction,
    deed: &Deed<'_>,
    now: Timestamp,
) -> Result<(), Error> {
    let sequence =
        sql("UPDATE counters SET value = value + 1 WHERE name = 'audit_sequence' RETURNING value")
            .fetch_one(transaction.on())
            .await?
            .count("value")?;
    let before = sql("SELECT hash FROM audit_log WHERE sequence = $1")
        .bind(sequence.saturating_sub(1))
        .fetch_optional(transaction.on())
        .await?;
    // If it is missing the check will say so; the change is not to wait for it.
    let previous = before.map_or(Ok(START), |row| hash(&row, "hash"))?;
    let detail = deed.detail();
    let entry = Entry {
        sequence,
        time: now,
        actor: deed.actor,
        action: deed.action,
        subject: &deed.subject,
        detail: &detail,
    };
    sql("INSERT INTO audit_log (sequence, time, actor, action, subject, detail, previous, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
    .bind(sequence)
    .bind(now)
    .bind(deed.actor)
    .bind(deed.action)
    .bind(&deed.subject)
    .bind(&detail)
    .bind(previous.as_slice())
    .bind(entry.hash(&previous).as_slice())
    .execute(transaction.on())
    .await?;
    Ok(())
}

impl Database {
    /// The database in the hands of `actor`: `user usr_…`, `partner NAME`, `uid 1000`.
    pub const fn acting<'a>(&'a self, actor: &'a str) -> Acting<'a> {
        Acting { database: self, actor }
    }

    /// At most `limit` rows of the log, the latest first, from the one before `before` on.
    pub async fn audit_log(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditLine>, Error> {
        let rows =
            sql("SELECT * FROM audit_log WHERE sequence < $1 ORDER BY sequence DESC LIMIT $2")
                .bind(before.unwrap_or(u64::MAX))
                .bind(limit)
                .fetch_all(self.reading())
                .await?;
        rows.iter().map(line).collect()
    }

    /// Checks the whole log.
    pub async fn verify_audit_log(&self) -> Result<Chain, Error> {
        // Before the rows: those that come meanwhile are more than these.
        let written = sql("SELECT value FROM counters WHERE name = 'audit_sequence'")
            .fetch_one(self.reading())
            .await?
            .count("value")?;
        let (mut last, mut head) = (0_u64, START);
        loop {
            let rows =
                sql("SELECT * FROM audit_log WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                    .bind(last)
                    .bind(PAGE)
                    .fetch_all(self.reading())
                    .await?;
            for row in &rows {
                let next = last.saturating_add(1);
                let Some(hash) = follows(row, next, &head)? else {
                    return Ok(Chain::Broken { sequence: next });
                };
                (last, head) = (next, hash);
            }
            if rows.is_empty() {
                break;
            }
        }
        Ok(if last < written {
            Chain::Broken { sequence: last.saturating_add(1) }
        } else {
            Chain::Sound { rows: last, head }
        })
    }
}

impl<'a> Acting<'a> {
    /// The database, to read from.
    pub const fn database(&self) -> &'a Database {
        self.database
    }

    /// What is written down of a change of this hand.
    pub(crate) fn deed(
        &self,
        action: &'static str,
        subject: impl ToString,
        facts: Vec<(&'static str, Fact)>,
    ) -> Deed<'_> {
        Deed { actor: self.actor, action, subject: subject.to_string(), facts }
    }
}

/// The row's hash, if it is the row that comes after `previous`.
fn follows(
    row: &Row,
    sequence: u64,
    previous: &[u8; HASH_BYTES],
) -> Result<Option<[u8; HASH_BYTES]>, Error> {
    let line = line(row)?;
    let entry = Entry {
        sequence: line.sequence,
        time: line.time,
        actor: &line.actor,
        action: &line.action,
        subject: &line.subject,
        detail: &line.detail,
    };
    let kept = hash(row, "hash")?;
    let sound = line.sequence == sequence
        && hash(row, "previous")? == *previous
        && entry.hash(previous) == kept;
    Ok(sound.then_some(kept))
}

fn hash(row: &Row, name: &'static str) -> Result<[u8; HASH_BYTES], Error> {
    row.bytes(name)?.try_into().map_err(|_length| Error::unreadable(name))
}

fn line(row: &Row) -> Result<AuditLine, Error> {
    Ok(AuditLine {
        sequence: row.count("sequence")?,
        time: row.time("time")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        subject: row.text("subject")?,
        detail: row.text("detail")?,
    })
}
