//! Request records in SQL: written in batches, read in the order in which they were written.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use sqlx::query::Query;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::{Attempt, Record};
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};

use super::{Database, column, timestamp, unsigned};
use crate::Error;

/// One try at one target, as it is kept. Older rows have no reason, no output and no costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAttempt {
    /// `provider/upstream-model`.
    pub target: String,
    /// Why it was this target's turn; empty if nobody has said.
    #[serde(default)]
    pub why: String,
    /// `ok`, or the stable word of the failure.
    pub result: String,
    /// The provider's HTTP status, where there was one.
    pub status: Option<u16>,
    /// From the start of the try to its result, in microseconds.
    pub micros: u64,
    /// Output tokens of it that reached the client.
    #[serde(default)]
    pub output_tokens: u64,
    /// Its part of what the call cost, in nano-USD.
    #[serde(default, with = "nano_usd")]
    pub cost: NanoUsd,
    /// What the house bears of it, in nano-USD.
    #[serde(default, with = "nano_usd")]
    pub house_cost: NanoUsd,
}

/// An amount as a plain number.
mod nano_usd {
    use serde::{Deserialize, Deserializer, Serializer};
    use tokenroute_domain::money::NanoUsd;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
    pub(super) fn serialize<S: Serializer>(amount: &NanoUsd, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(amount.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NanoUsd, D::Error> {
        i64::deserialize(from).map(NanoUsd)
    }
}

impl From<&Attempt> for StoredAttempt {
    fn from(attempt: &Attempt) -> Self {
        Self {
            target: attempt.target.to_string(),
            why: attempt.why.as_str().to_owned(),
            result: attempt.result.to_owned(),
            status: attempt.status,
            micros: attempt.micros,
            output_tokens: attempt.output_tokens,
            cost: attempt.cost,
            house_cost: attempt.house_cost,
        }
    }
}

/// A record as it is kept. Its words may come from a newer or older program, so they are text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place in the order of writing; reading goes on after it.
    pub sequence: i64,
    /// Which call.
    pub call: String,
    /// When its head had been read.
    pub started: Timestamp,
    /// Which endpoint.
    pub endpoint: String,
    /// Whose key, if it was known.
    pub key: Option<String>,
    /// Who pays, if it was known.
    pub account: Option<String>,
    /// The model's name in the route table.
    pub model: Option<String>,
    /// The target that answered.
    pub target: Option<String>,
    /// Every try, in order.
    pub attempts: Vec<StoredAttempt>,
    /// The HTTP status that the client was sent; 0 if it left before any.
    pub status: u16,
    /// How it ended.
    pub outcome: String,
    /// What went wrong, if anything.
    pub error: Option<String>,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// Tokens by kind.
    pub usage: Usage,
    /// Who counted them.
    pub usage_source: UsageSource,
    /// What the call cost.
    pub cost: NanoUsd,
    /// What the house bears of it; not in `cost`.
    pub house_cost: NanoUsd,
    /// From the head of the request to the end of the answer, in microseconds.
    pub latency_micros: u64,
    /// From the head of the request to the first semantic token, in microseconds.
    pub first_token_micros: Option<u64>,
}

impl Database {
    /// Writes all of `batch` or, on an error, none of it. A call that has a record keeps that one,
    /// so a batch whose commit was not confirmed can be written again.
    pub async fn insert_records(&self, batch: &[Record]) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let count = i64::try_from(batch.len()).unwrap_or(i64::MAX);
        let mut transaction = self.begin().await?;
        let last: i64 = sqlx::query_scalar(
            "UPDATE counters SET value = value + $1 WHERE name = 'record_sequence' RETURNING value",
        )
        .bind(count)
        .fetch_one(&mut *transaction)
        .await?;
        let mut sequence = last.saturating_sub(count);
        let mut left = batch;
        while let Some((insert, rows)) = next_insert(left.len()) {
            let (now, later) = left.split_at(rows);
            let mut statement = sqlx::query(insert);
            for record in now {
                sequence = sequence.saturating_add(1);
                statement = bind(statement, record, sequence)?;
            }
            statement.execute(&mut *transaction).await?;
            left = later;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// At most `limit` records that were written after the one with `sequence` (0 for the first).
    pub async fn records_after(
        &self,
        sequence: i64,
        limit: u32,
    ) -> Result<Vec<StoredRecord>, Error> {
        let rows =
            sqlx::query("SELECT * FROM records WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                .bind(sequence)
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(stored).collect()
    }

    /// The sequence number of the last record, 0 if there is none: where following begins.
    pub async fn last_record(&self) -> Result<i64, Error> {
        let last: Option<i64> = sqlx::query_scalar("SELECT max(sequence) FROM records")
            .fetch_one(&self.readers)
            .await?;
        Ok(last.unwrap_or_default())
    }
}

/// What is written of a record, in the order in which [`bind`] binds it.
const COLUMNS: [&str; 28] = [
    "call",
    "sequence",
    "started",
    "endpoint",
    "key_id",
    "account",
    "model",
    "target",
    "attempts",
    "status",
    "outcome",
    "error",
    "streamed",
    "input",
    "input_cache_read",
    "input_cache_write",
    "input_cache_write_long",
    "input_audio",
    "input_image",
    "output",
    "output_reasoning",
    "output_audio",
    "output_image",
    "usage_source",
    "cost_nano_usd",
    "house_cost",
    "latency_micros",
    "first_token_micros",
];

/// How many rows a statement inserts. Most of the cost of a row is that of its statement, so a full
/// batch goes in few; what is left over goes in smaller ones.
const ROWS: [usize; 3] = [64, 8, 1];

/// The statements for [`ROWS`]. They are put together of constants alone, once.
static INSERTS: LazyLock<[&'static str; ROWS.len()]> =
    LazyLock::new(|| ROWS.map(|rows| &*Box::leak(insert(rows).into_boxed_str())));

fn insert(rows: usize) -> String {
    // Places without a name: SQLite looks a named one up among all others, for each value.
    let row = format!("({})", ["?"; COLUMNS.len()].join(", "));
    let rows = vec![row; rows];
    format!(
        "INSERT INTO records ({}) VALUES {} ON CONFLICT (call) DO NOTHING",
        COLUMNS.join(", "),
        rows.join(", ")
    )
}

/// The statement for as many of `left` rows as fit in one, and their number.
fn next_insert(left: usize) -> Option<(&'static str, usize)> {
    INSERTS.iter().copied().zip(ROWS).find(|(_, rows)| *rows <= left)
}

type Insert<'q> = Query<'q, Sqlite, <Sqlite as sqlx::Database>::Arguments>;

fn bind<'q>(statement: Insert<'q>, record: &'q Record, sequence: i64) -> Result<Insert<'q>, Error> {
    let attempts: Vec<StoredAttempt> = record.attempts.iter().map(StoredAttempt::from).collect();
    let attempts = serde_json::to_string(&attempts)
        .map_err(|_error| Error::unreadable("attempts of a record"))?;
    let usage = &record.usage;
    Ok(statement
        .bind(record.call.to_string())
        .bind(sequence)
        .bind(column(record.started.micros()))
        .bind(record.endpoint.as_str())
        .bind(record.key.map(|id| id.to_string()))
        .bind(record.account.map(|id| id.to_string()))
        .bind(record.model.as_deref())
        .bind(record.target.as_deref())
        .bind(attempts)
        .bind(i64::from(record.status))
        .bind(record.outcome.as_str())
        .bind(record.error)
        .bind(i64::from(record.streamed))
        .bind(column(usage.input))
        .bind(column(usage.input_cache_read))
        .bind(column(usage.input_cache_write))
        .bind(column(usage.input_cache_write_long))
        .bind(column(usage.input_audio))
        .bind(column(usage.input_image))
        .bind(column(usage.output))
        .bind(column(usage.output_reasoning))
        .bind(column(usage.output_audio))
        .bind(column(usage.output_image))
        .bind(record.usage_source.as_str())
        .bind(record.cost.0)
        .bind(record.house_cost.0)
        .bind(column(record.latency_micros))
        .bind(record.first_token_micros.map(column)))
}

fn stored(row: &SqliteRow) -> Result<StoredRecord, Error> {
    let attempts: String = row.try_get("attempts")?;
    let status: i64 = row.try_get("status")?;
    let streamed: i64 = row.try_get("streamed")?;
    let source: String = row.try_get("usage_source")?;
    let first_token: Option<i64> = row.try_get("first_token_micros")?;
    Ok(StoredRecord {
        sequence: row.try_get("sequence")?,
        call: row.try_get("call")?,
        started: timestamp(row.try_get("started")?, "records.started")?,
        endpoint: row.try_get("endpoint")?,
        key: row.try_get("key_id")?,
        account: row.try_get("account")?,
        model: row.try_get("model")?,
        target: row.try_get("target")?,
        attempts: serde_json::from_str(&attempts)
            .map_err(|_error| Error::unreadable("records.attempts"))?,
        status: u16::try_from(status).map_err(|_range| Error::unreadable("records.status"))?,
        outcome: row.try_get("outcome")?,
        error: row.try_get("error")?,
        streamed: streamed != 0,
        usage: usage(row)?,
        usage_source: UsageSource::parse(&source)
            .ok_or(Error::unreadable("records.usage_source"))?,
        cost: NanoUsd(row.try_get("cost_nano_usd")?),
        house_cost: NanoUsd(row.try_get("house_cost")?),
        latency_micros: count(row, "latency_micros")?,
        first_token_micros: first_token
            .map(|micros| unsigned(micros, "records.first_token_micros"))
            .transpose()?,
    })
}

fn usage(row: &SqliteRow) -> Result<Usage, Error> {
    Ok(Usage {
        input: count(row, "input")?,
        input_cache_read: count(row, "input_cache_read")?,
        input_cache_write: count(row, "input_cache_write")?,
        input_cache_write_long: count(row, "input_cache_write_long")?,
        input_audio: count(row, "input_audio")?,
        input_image: count(row, "input_image")?,
        output: count(row, "output")?,
        output_reasoning: count(row, "output_reasoning")?,
        output_audio: count(row, "output_audio")?,
        output_image: count(row, "output_image")?,
    })
}

fn count(row: &SqliteRow, name: &'static str) -> Result<u64, Error> {
    unsigned(row.try_get(name)?, name)
}
