//! A record as JSON, on its way from the hot store into SQL.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokenroute_domain::id::{AccountId, CallId, KeyId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{Period, PurseId};
use tokenroute_domain::record::{Attempt, Endpoint, Outcome, Record};
use tokenroute_domain::routing::Why;
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};

/// Words that are read back beyond those known at first; there are a few dozen, and no more are learnt.
const WORDS_MAX: usize = 256;
/// The longest word that is learnt.
const WORD_BYTES_MAX: usize = 64;
/// What stands for a word that is not learnt.
const UNKNOWN: &str = "unknown";

/// What an event carries of a call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Body {
    record: RecordText,
    #[serde(default, skip_serializing_if = "is_false")]
    prepaid: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    purses: Vec<PurseText>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PurseText(String, String, u32);

#[derive(Debug, Serialize, Deserialize)]
struct RecordText {
    call: String,
    started: u64,
    endpoint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    attempts: Vec<AttemptText>,
    status: u16,
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    streamed: bool,
    /// In the order of [`counts`].
    usage: [u64; 10],
    usage_source: String,
    cost: i64,
    charge: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price_version: Option<String>,
    house_cost: i64,
    latency_micros: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_token_micros: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AttemptText {
    target: String,
    why: String,
    result: String,
    status: Option<u16>,
    micros: u64,
    output_tokens: u64,
    cost: i64,
    house_cost: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The text of an event's body.
pub(crate) fn write(record: &Record, prepaid: bool, purses: &[PurseId]) -> String {
    let purse =
        |id: &PurseId| PurseText(id.key.to_string(), id.period.as_str().to_owned(), id.number);
    let purses = purses.iter().map(purse).collect();
    let body = Body { record: RecordText::from(record), prepaid, purses };
    // Maps with names for keys, numbers and texts: nothing in it can fail.
    serde_json::to_string(&body).unwrap_or_default()
}

/// Reads what [`write`] wrote: the record, whether money is in it, and the ceilings.
pub(crate) fn read(text: &str) -> Option<(Record, bool, Vec<PurseId>)> {
    let body: Body = serde_json::from_str(text).ok()?;
    let purse = |PurseText(key, period, number): &PurseText| {
        let (key, period) = (KeyId::parse(key)?, Period::parse(period)?);
        Some(PurseId { key, period, number: *number })
    };
    let purses = body.purses.iter().map(purse).collect::<Option<Vec<_>>>()?;
    Some((record(body.record)?, body.prepaid, purses))
}

impl From<&Record> for RecordText {
    fn from(record: &Record) -> Self {
        Self {
            call: record.call.to_string(),
            started: record.started.micros(),
            endpoint: record.endpoint.as_str().to_owned(),
            key: record.key.map(|id| id.to_string()),
            account: record.account.map(|id| id.to_string()),
            model: record.model.as_deref().map(str::to_owned),
            target: record.target.as_deref().map(str::to_owned),
            attempts: record.attempts.iter().map(AttemptText::from).collect(),
            status: record.status,
            outcome: record.outcome.as_str().to_owned(),
            error: record.error.map(str::to_owned),
            streamed: record.streamed,
            usage: counts(&record.usage),
            usage_source: record.usage_source.as_str().to_owned(),
            cost: record.cost.0,
            charge: record.charge.0,
            price_version: record.price_version.as_deref().map(str::to_owned),
            house_cost: record.house_cost.0,
            latency_micros: record.latency_micros,
            first_token_micros: record.first_token_micros,
        }
    }
}

impl From<&Attempt> for AttemptText {
    fn from(attempt: &Attempt) -> Self {
        Self {
            target: attempt.target.to_string(),
            why: attempt.why.as_str().to_owned(),
            result: attempt.result.to_owned(),
            status: attempt.status,
            micros: attempt.micros,
            output_tokens: attempt.output_tokens,
            cost: attempt.cost.0,
            house_cost: attempt.house_cost.0,
        }
    }
}

fn record(text: RecordText) -> Option<Record> {
    let endpoint = Endpoint::ALL.into_iter().find(|one| one.as_str() == text.endpoint)?;
    let outcome = Outcome::ALL.into_iter().find(|one| one.as_str() == text.outcome)?;
    Some(Record {
        call: CallId::parse(&text.call)?,
        started: Timestamp(text.started),
        endpoint,
        key: known(text.key.as_deref(), KeyId::parse)?,
        account: known(text.account.as_deref(), AccountId::parse)?,
        model: text.model.map(Arc::from),
        target: text.target.map(Arc::from),
        attempts: text.attempts.into_iter().map(attempt).collect::<Option<_>>()?,
        status: text.status,
        outcome,
        error: text.error.as_deref().map(word),
        streamed: text.streamed,
        usage: usage(text.usage),
        usage_source: UsageSource::parse(&text.usage_source)?,
        cost: NanoUsd(text.cost),
        charge: NanoUsd(text.charge),
        price_version: text.price_version.map(Arc::from),
        house_cost: NanoUsd(text.house_cost),
        latency_micros: text.latency_micros,
        first_token_micros: text.first_token_micros,
    })
}

fn attempt(text: AttemptText) -> Option<Attempt> {
    Some(Attempt {
        target: Arc::from(text.target),
        why: why(&text.why)?,
        result: word(&text.result),
        status: text.status,
        micros: text.micros,
        output_tokens: text.output_tokens,
        cost: NanoUsd(text.cost),
        house_cost: NanoUsd(text.house_cost),
    })
}

/// Nothing stays nothing; something has to be read.
#[expect(clippy::option_option, reason = "the outer one says whether it could be read")]
fn known<T>(text: Option<&str>, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text {
        None => Some(None),
        Some(text) => parse(text).map(Some),
    }
}

fn why(text: &str) -> Option<Why> {
    let all = [
        Why::Chosen,
        Why::Affinity,
        Why::Probe,
        Why::Reconnect,
        Why::Retry,
        Why::Fallback,
        Why::Hedge,
        Why::Continue,
    ];
    all.into_iter().find(|one| one.as_str() == text)
}

const fn counts(usage: &Usage) -> [u64; 10] {
    [
        usage.input,
        usage.input_cache_read,
        usage.input_cache_write,
        usage.input_cache_write_long,
        usage.input_audio,
        usage.input_image,
        usage.output,
        usage.output_reasoning,
        usage.output_audio,
        usage.output_image,
    ]
}

const fn usage(counts: [u64; 10]) -> Usage {
    let [
        input,
        input_cache_read,
        input_cache_write,
        input_cache_write_long,
        input_audio,
        input_image,
        output,
        output_reasoning,
        output_audio,
        output_image,
    ] = counts;
    Usage {
        input,
        input_cache_read,
        input_cache_write,
        input_cache_write_long,
        input_audio,
        input_image,
        output,
        output_reasoning,
        output_audio,
        output_image,
    }
}

/// A word that lasts. Records hold stable words of this program, and each is kept once for all time.
fn word(text: &str) -> &'static str {
    static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = words.get(text) {
        return known;
    }
    if words.len() >= WORDS_MAX || text.len() > WORD_BYTES_MAX {
        return UNKNOWN;
    }
    let learnt: &'static str = Box::leak(text.to_owned().into_boxed_str());
    words.insert(learnt);
    learnt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Record {
        let now = Timestamp(1_800_000_000_000_000);
        Record {
            call: CallId::new(now, 1),
            started: now,
            endpoint: Endpoint::Embeddings,
            key: Some(KeyId::new(now, 2)),
            account: Some(AccountId::new(now, 3)),
            model: Some(Arc::from("gpt-\"x\"")),
            target: Some(Arc::from("demo/echo")),
            attempts: vec![Attempt {
                target: Arc::from("demo/echo"),
                why: Why::Hedge,
                result: "timeout",
                status: Some(504),
                micros: 4,
                output_tokens: 5,
                cost: NanoUsd(6),
                house_cost: NanoUsd(7),
            }],
            status: 200,
            outcome: Outcome::Cut,
            error: Some("edge_lost"),
            streamed: true,
            usage: usage([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
            usage_source: UsageSource::Estimated,
            cost: NanoUsd(i64::MAX),
            charge: NanoUsd(12),
            price_version: Some(Arc::from("v1")),
            house_cost: NanoUsd(13),
            latency_micros: 14,
            first_token_micros: Some(15),
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let full = full();
        let key = KeyId::new(Timestamp(1_000), 4);
        let purses = vec![PurseId { key, period: Period::Week, number: 7 }];
        let text = write(&full, true, &purses);
        assert_eq!(read(&text), Some((full.clone(), true, purses)));
        let bare = Record {
            key: None,
            account: None,
            model: None,
            target: None,
            attempts: Vec::new(),
            error: None,
            price_version: None,
            first_token_micros: None,
            ..full
        };
        assert_eq!(read(&write(&bare, false, &[])), Some((bare, false, Vec::new())));
    }

    #[test]
    fn what_is_cut_is_not_read() {
        let text = write(&full(), true, &[]);
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            assert_eq!(read(text.get(..end).unwrap()), None);
        }
        assert_eq!(read(&text.replace("\"cut\"", "\"torn\"")), None);
    }

    #[test]
    fn learns_short_words_only() {
        assert_eq!(word("refused"), "refused");
        assert_eq!(word(&"x".repeat(WORD_BYTES_MAX + 1)), UNKNOWN);
    }
}
