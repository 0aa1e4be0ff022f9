//! `tokenrouted records`: shows the records of calls, the latest last, and follows them.

use std::time::Duration;

use serde_json::json;
use tokenroute_domain::money::NanoUsd;
use tokenroute_store::{Database, StoredAttempt, StoredRecord};

use super::{End, Terminal, cell, clock};

/// Records read from the database at once.
const PAGE: u32 = 500;
/// How often new records are looked for.
pub(crate) const POLL: Duration = Duration::from_millis(200);

/// What to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// How many of the records that are there.
    pub limit: u32,
    /// Whether to go on with new ones, looking for them so often.
    pub follow: Option<Duration>,
    /// One JSON object a line instead of a table.
    pub json: bool,
}

/// Shows records. Following ends when nobody reads any more.
pub(crate) async fn show(database: &Database, choice: Choice, terminal: &mut Terminal<'_>) -> End {
    let mut sequence = match database.last_record().await {
        Ok(last) => last.saturating_sub(i64::from(choice.limit)).max(0),
        Err(error) => return terminal.unable(&error),
    };
    if !choice.json && terminal.say(format_args!("{}", row(&HEADS.map(str::to_owned)))) != End::Done
    {
        return End::Unable;
    }
    loop {
        let page = match database.records_after(sequence, PAGE).await {
            Ok(page) => page,
            Err(error) => return terminal.unable(&error),
        };
        for record in &page {
            sequence = record.sequence;
            let line = if choice.json { as_json(record) } else { as_text(record) };
            if terminal.say(format_args!("{line}")) != End::Done {
                return End::Unable;
            }
        }
        let more = page.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
        match choice.follow {
            _ if more => {}
            Some(pause) => tokio::time::sleep(pause).await,
            None => return End::Done,
        }
    }
}

const HEADS: [&str; 9] =
    ["TIME", "STATUS", "OUTCOME", "MODEL", "IN", "OUT", "USD", "SECONDS", "FIRST"];

fn row(cells: &[String; 9]) -> String {
    let [time, status, outcome, model, input, output, cost, latency, first] = cells;
    let line = format!(
        "{time:<20}  {status:>6}  {outcome:<11}  {model:<32}  {input:>7}  {output:>7}  {cost:>11}  \
         {latency:>8}  {first:>8}"
    );
    line.trim_end().to_owned()
}

/// Its row, and below it what was tried where there is something to tell of it.
fn as_text(record: &StoredRecord) -> String {
    let mut lines = vec![row(&as_row(record))];
    if record.attempts.len() > 1 || record.house_cost != NanoUsd::ZERO {
        lines.extend((1_usize..).zip(&record.attempts).map(|(place, one)| attempt(place, one)));
    }
    if record.house_cost != NanoUsd::ZERO {
        lines.push(format!("    the house bears {} USD", record.house_cost));
    }
    lines.join("\n")
}

/// `1. target  why  result  status  time  cost`, as far as it is known.
fn attempt(place: usize, attempt: &StoredAttempt) -> String {
    let status = attempt.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let milliseconds = attempt.micros / 1_000;
    let cost = match (attempt.cost, attempt.house_cost) {
        (NanoUsd::ZERO, NanoUsd::ZERO) => String::new(),
        (cost, NanoUsd::ZERO) => format!("{cost} USD"),
        (cost, house) => format!("{cost} USD + {house} USD the house's"),
    };
    let line = format!(
        "    {place}. {:<32}  {:<9}  {:<19}  {status:>3}  {milliseconds:>6} ms  {cost}",
        cell(&attempt.target),
        cell(&attempt.why),
        cell(&attempt.result),
    );
    line.trim_end().to_owned()
}

fn seconds(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000_000, micros / 1_000 % 1_000)
}

fn as_row(record: &StoredRecord) -> [String; 9] {
    [
        clock::seconds(record.started),
        if record.status == 0 { "-".to_owned() } else { record.status.to_string() },
        cell(record.error.as_deref().unwrap_or(&record.outcome)),
        record.model.as_deref().map_or_else(|| "-".to_owned(), cell),
        record.usage.input_total().to_string(),
        record.usage.output_total().to_string(),
        record.cost.to_string(),
        seconds(record.latency_micros),
        record.first_token_micros.map_or_else(|| "-".to_owned(), seconds),
    ]
}

fn as_json(record: &StoredRecord) -> String {
    let usage = &record.usage;
    json!({
        "sequence": record.sequence,
        "call": record.call,
        "started": clock::micros(record.started),
        "endpoint": record.endpoint,
        "key": record.key,
        "account": record.account,
        "model": record.model,
        "target": record.target,
        "attempts": record.attempts,
        "status": record.status,
        "outcome": record.outcome,
        "error": record.error,
        "streamed": record.streamed,
        "usage": {
            "input": usage.input,
            "input_cache_read": usage.input_cache_read,
            "input_cache_write": usage.input_cache_write,
            "input_cache_write_long": usage.input_cache_write_long,
            "input_audio": usage.input_audio,
            "input_image": usage.input_image,
            "output": usage.output,
            "output_reasoning": usage.output_reasoning,
            "output_audio": usage.output_audio,
            "output_image": usage.output_image,
        },
        "usage_source": record.usage_source.as_str(),
        "cost_nano_usd": record.cost.0,
        "house_cost_nano_usd": record.house_cost.0,
        "latency_micros": record.latency_micros,
        "first_token_micros": record.first_token_micros,
    })
    .to_string()
}
