//! Request records in SQL: written in batches, read in the order in which they were written.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use tokenroute_domain::id::CallId;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::{Attempt, Record};
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};

use super::Database;
use super::statement::{Lists, Row, Statement, Transaction, lists, parts, sql, unsigned};
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
    /// What the account was charged of the cost.
    pub charge: NanoUsd,
    /// The version of the price that the first target's part was reckoned by, where it has one.
    pub price_version: Option<String>,
    /// What the house bears of it; not in `cost`.
    pub house_cost: NanoUsd,
    /// From the head of the request to the end of the answer, in microseconds.
    pub latency_micros: u64,
    /// From the head of the request to the first semantic token, in microseconds.
    pub first_token_micros: Option<u64>,
}

impl Database {
    /// Writes all of `batch`, in which no money is, or, on an error, none of it. A call that has a record
    /// keeps that one, so a batch whose commit was not confirmed can be written again.
    pub async fn insert_records(&self, batch: &[Record]) -> Result<(), Error> {
        let records: Vec<_> = batch.iter().map(|record| (record, record.charge)).collect();
        self.insert_all(&records).await
    }

    /// The same for records that others share.
    pub async fn write_records(&self, batch: &[Arc<Record>]) -> Result<(), Error> {
        let records: Vec<_> = batch.iter().map(|record| (&**record, record.charge)).collect();
        self.insert_all(&records).await
    }

    async fn insert_all(&self, records: &[(&Record, NanoUsd)]) -> Result<(), Error> {
        if records.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        insert(&mut transaction, records).await?;
        transaction.commit().await
    }

    /// At most `limit` records that were written after the one with `sequence` (0 for the first).
    pub async fn records_after(
        &self,
        sequence: i64,
        limit: u32,
    ) -> Result<Vec<StoredRecord>, Error> {
        let rows = sql("SELECT * FROM records WHERE sequence > $1 ORDER BY sequence LIMIT $2")
            .bind(sequence)
            .bind(limit)
            .fetch_all(self.reading())
            .await?;
        rows.iter().map(stored).collect()
    }

    /// The sequence number of the last record, 0 if there is none: where following begins.
    pub async fn last_record(&self) -> Result<i64, Error> {
        sql("SELECT COALESCE(max(sequence), 0) AS last FROM records")
            .fetch_one(self.reading())
            .await?
            .int("last")
    }

    /// Which of these calls have a record.
    pub async fn recorded(&self, calls: &[CallId]) -> Result<Vec<CallId>, Error> {
        let mut found = Vec::new();
        for (part, statement) in parts(calls, &CALLS) {
            let statement = part.iter().fold(statement, |statement, call| statement.bind(*call));
            for row in statement.fetch_all(self.reading()).await? {
                found.push(row.word("call", CallId::parse)?);
            }
        }
        Ok(found)
    }
}

/// Which of these calls have a record, as a transaction sees it.
pub(crate) async fn recorded(
    transaction: &mut Transaction,
    calls: &[CallId],
) -> Result<BTreeSet<CallId>, Error> {
    let mut found = BTreeSet::new();
    for (part, statement) in parts(calls, &CALLS) {
        let statement = part.iter().fold(statement, |statement, call| statement.bind(*call));
        for row in statement.fetch_all(transaction.on()).await? {
            found.insert(row.word("call", CallId::parse)?);
        }
    }
    Ok(found)
}

/// Says which calls of a list have a record.
static CALLS: LazyLock<Lists> =
    LazyLock::new(|| lists("SELECT call FROM records WHERE call IN (", ")"));

/// Writes records, each with what it was charged. Of calls that have a record already, that one stays.
pub(super) async fn insert(
    transaction: &mut Transaction,
    records: &[(&Record, NanoUsd)],
) -> Result<(), Error> {
    let mut sequence = number(transaction, records.len()).await?;
    let mut left = records;
    while let Some((text, rows)) = next_insert(transaction.is_postgres(), false, left.len()) {
        let (now, later) = left.split_at(rows);
        fill(text, now, &mut sequence)?.execute(transaction.on()).await?;
        left = later;
    }
    Ok(())
}

/// Records that were just written.
#[derive(Debug)]
pub(crate) struct Inserted {
    /// The calls that had none before.
    pub(crate) new: BTreeSet<CallId>,
    /// The numbers of the first and the last; nobody else has one between them.
    pub(crate) numbers: (i64, i64),
}

/// Writes records, and says which calls had none before. Another transaction that writes one of them is
/// waited for, so each call is new to one of them alone.
pub(crate) async fn insert_new(
    transaction: &mut Transaction,
    records: &[(&Record, NanoUsd)],
) -> Result<Inserted, Error> {
    let mut sequence = number(transaction, records.len()).await?;
    let first = sequence.saturating_add(1);
    let (mut left, mut new) = (records, BTreeSet::new());
    while let Some((text, rows)) = next_insert(transaction.is_postgres(), true, left.len()) {
        let (now, later) = left.split_at(rows);
        for row in fill(text, now, &mut sequence)?.fetch_all(transaction.on()).await? {
            new.insert(row.word("call", CallId::parse)?);
        }
        left = later;
    }
    Ok(Inserted { new, numbers: (first, sequence) })
}

/// Takes `count` numbers and returns the one before them. The row stays locked to the end, so that
/// records are committed in the order of their numbers.
async fn number(transaction: &mut Transaction, count: usize) -> Result<i64, Error> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let last = sql(
        "UPDATE counters SET value = value + $1 WHERE name = 'record_sequence' RETURNING value",
    )
    .bind(count)
    .fetch_one(transaction.on())
    .await?
    .int("value")?;
    Ok(last.saturating_sub(count))
}

fn fill<'q>(
    text: &'static str,
    records: &'q [(&'q Record, NanoUsd)],
    sequence: &mut i64,
) -> Result<Statement<'q>, Error> {
    let mut statement = sql(text);
    for (record, charge) in records {
        *sequence = sequence.saturating_add(1);
        statement = bind(statement, record, *charge, *sequence)?;
    }
    Ok(statement)
}

/// What is written of a record, in the order in which [`bind`] binds it.
const COLUMNS: [&str; 30] = [
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
    "charge",
    "price_version",
];

/// How many rows a statement inserts. Most of the cost of a row is that of its statement, so a full
/// batch goes in few; what is left over goes in smaller ones.
const ROWS: [usize; 3] = [64, 8, 1];

/// The statements for [`ROWS`], by whether they are those of PostgreSQL and whether they say what was new.
/// They are put together of constants alone, once.
static INSERTS: LazyLock<[[[&'static str; ROWS.len()]; 2]; 2]> = LazyLock::new(|| {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    [false, true].map(|postgres| {
        [false, true].map(|returning| ROWS.map(|rows| leak(insert_text(postgres, returning, rows))))
    })
});

fn insert_text(postgres: bool, returning: bool, rows: usize) -> String {
    let mut number = 0_usize;
    let mut place = || {
        number = number.saturating_add(1);
        // Places without a name: SQLite looks a named one up among all others, for each value.
        if postgres { format!("${number}") } else { "?".to_owned() }
    };
    let rows: Vec<_> =
        (0..rows).map(|_| format!("({})", COLUMNS.map(|_| place()).join(", "))).collect();
    format!(
        "INSERT INTO records ({}) VALUES {} ON CONFLICT (call) DO NOTHING{}",
        COLUMNS.join(", "),
        rows.join(", "),
        if returning { " RETURNING call" } else { "" }
    )
}

/// The statement for as many of `left` rows as fit in one, and their number.
fn next_insert(postgres: bool, returning: bool, left: usize) -> Option<(&'static str, usize)> {
    let pick = |two: &'static [[&'static str; ROWS.len()]; 2], second: bool| {
        let [no, yes] = two;
        if second { yes } else { no }
    };
    let [sqlite, other] = &*INSERTS;
    let inserts = pick(if postgres { other } else { sqlite }, returning);
    inserts.iter().copied().zip(ROWS).find(|(_, rows)| *rows <= left)
}

fn bind<'q>(
    statement: Statement<'q>,
    record: &'q Record,
    charge: NanoUsd,
    sequence: i64,
) -> Result<Statement<'q>, Error> {
    let attempts: Vec<StoredAttempt> = record.attempts.iter().map(StoredAttempt::from).collect();
    let attempts = serde_json::to_string(&attempts)
        .map_err(|_error| Error::unreadable("attempts of a record"))?;
    let usage = &record.usage;
    Ok(statement
        .bind(record.call)
        .bind(sequence)
        .bind(record.started)
        .bind(record.endpoint.as_str())
        .bind(record.key.map(|id| id.to_string()))
        .bind(record.account.map(|id| id.to_string()))
        .bind(record.model.as_deref())
        .bind(record.target.as_deref())
        .bind(attempts)
        .bind(u32::from(record.status))
        .bind(record.outcome.as_str())
        .bind(record.error)
        .bind(u32::from(record.streamed))
        .bind(usage.input)
        .bind(usage.input_cache_read)
        .bind(usage.input_cache_write)
        .bind(usage.input_cache_write_long)
        .bind(usage.input_audio)
        .bind(usage.input_image)
        .bind(usage.output)
        .bind(usage.output_reasoning)
        .bind(usage.output_audio)
        .bind(usage.output_image)
        .bind(record.usage_source.as_str())
        .bind(record.cost)
        .bind(record.house_cost)
        .bind(record.latency_micros)
        .bind(record.first_token_micros)
        .bind(charge)
        .bind(record.price_version.as_deref()))
}

pub(super) fn stored(row: &Row) -> Result<StoredRecord, Error> {
    let first_token = row.int_if_any("first_token_micros")?;
    Ok(StoredRecord {
        sequence: row.int("sequence")?,
        call: row.text("call")?,
        started: row.time("started")?,
        endpoint: row.text("endpoint")?,
        key: row.text_if_any("key_id")?,
        account: row.text_if_any("account")?,
        model: row.text_if_any("model")?,
        target: row.text_if_any("target")?,
        attempts: row.word("attempts", |text| serde_json::from_str(text).ok())?,
        status: u16::try_from(row.int("status")?)
            .map_err(|_range| Error::unreadable("records.status"))?,
        outcome: row.text("outcome")?,
        error: row.text_if_any("error")?,
        streamed: row.int("streamed")? != 0,
        usage: usage(row)?,
        usage_source: row.word("usage_source", UsageSource::parse)?,
        cost: row.money("cost_nano_usd")?,
        charge: row.money("charge")?,
        price_version: row.text_if_any("price_version")?,
        house_cost: row.money("house_cost")?,
        latency_micros: row.count("latency_micros")?,
        first_token_micros: first_token
            .map(|micros| unsigned(micros, "records.first_token_micros"))
            .transpose()?,
    })
}

fn usage(row: &Row) -> Result<Usage, Error> {
    Ok(Usage {
        input: row.count("input")?,
        input_cache_read: row.count("input_cache_read")?,
        input_cache_write: row.count("input_cache_write")?,
        input_cache_write_long: row.count("input_cache_write_long")?,
        input_audio: row.count("input_audio")?,
        input_image: row.count("input_image")?,
        output: row.count("output")?,
        output_reasoning: row.count("output_reasoning")?,
        output_audio: row.count("output_audio")?,
        output_image: row.count("output_image")?,
    })
}
