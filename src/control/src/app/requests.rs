//! Records of calls, for whose calls they were.

use tokenroute_api::requests::{Request, Requests};
use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::time::utc;
use tokenroute_store::{RecordFilter, StoredRecord};

use super::Problem;
use super::page::{Page, number};
use super::text::{invalid, time};
use crate::Parts;

/// Microseconds in a millisecond.
const MILLI: u64 = 1_000;

/// Which records, as it was typed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'a> {
    /// Whose; only administrators may say so.
    pub(crate) account: Option<&'a str>,
    /// With which key.
    pub(crate) key: Option<&'a str>,
    /// For which model.
    pub(crate) model: Option<&'a str>,
    /// `2xx`, `4xx`, `5xx`, or a status.
    pub(crate) status: Option<&'a str>,
    /// Not before.
    pub(crate) from: Option<&'a str>,
    /// Before.
    pub(crate) to: Option<&'a str>,
}

/// A page of an account's records, the latest first.
pub(crate) async fn of_account(
    parts: &Parts,
    account: AccountId,
    (wish, page): (Wish<'_>, Page<'_>),
) -> Result<Requests, Problem> {
    let filter = RecordFilter { account: Some(account), ..wish.read()? };
    find(parts, &filter, (page, false)).await
}

/// A page of all records, the latest first.
pub(crate) async fn of_all(
    parts: &Parts,
    (wish, page): (Wish<'_>, Page<'_>),
) -> Result<Requests, Problem> {
    find(parts, &wish.read()?, (page, true)).await
}

async fn find(
    parts: &Parts,
    filter: &RecordFilter<'_>,
    (page, with_account): (Page<'_>, bool),
) -> Result<Requests, Problem> {
    let limit = page.limit()?;
    let before = page.after(number::<i64>)?;
    let mut records = parts.database.find_records(filter, before, limit.saturating_add(1)).await?;
    let next_cursor = Page::next(&mut records, limit, |record| record.sequence.to_string());
    let data = records.into_iter().map(|record| request(record, with_account)).collect();
    Ok(Requests { data, next_cursor })
}

impl<'a> Wish<'a> {
    fn read(self) -> Result<RecordFilter<'a>, Problem> {
        // An identifier that cannot be one is nobody's: it is a mistake, and no look-up.
        let account = self.account.map(|id| {
            let message = "account: write an account's ID, such as acc_01ARZ3…";
            AccountId::parse(id).ok_or_else(|| invalid("id_invalid", "account", message))
        });
        let key = self.key.map(|id| {
            let message = "key: write a key's ID, such as key_01ARZ3…";
            KeyId::parse(id).ok_or_else(|| invalid("id_invalid", "key", message))
        });
        Ok(RecordFilter {
            account: account.transpose()?,
            key: key.transpose()?,
            model: self.model,
            status: self.status.map(status).transpose()?,
            from: self.from.map(|text| time("from", text)).transpose()?,
            to: self.to.map(|text| time("to", text)).transpose()?,
        })
    }
}

/// A class of statuses, or one.
fn status(text: &str) -> Result<(u16, u16), Problem> {
    let read = || {
        if let Some(class) = text.strip_suffix("xx") {
            let first = class.parse::<u16>().ok().filter(|one| (1..=5).contains(one))?;
            let first = first.saturating_mul(100);
            return Some((first, first.saturating_add(99)));
        }
        let one = number::<u16>(text).filter(|one| (0..=599).contains(one))?;
        Some((one, one))
    };
    read().ok_or_else(|| {
        let message = "status: write a status such as 429, or a class such as 5xx";
        invalid("status_invalid", "status", message)
    })
}

fn request(record: StoredRecord, with_account: bool) -> Request {
    let usage = &record.usage;
    let input = [
        usage.input,
        usage.input_cache_read,
        usage.input_cache_write,
        usage.input_cache_write_long,
        usage.input_audio,
        usage.input_image,
    ];
    let output = [usage.output, usage.output_reasoning, usage.output_audio, usage.output_image];
    let sum = |all: &[u64]| all.iter().copied().fold(0, u64::saturating_add);
    Request {
        id: record.call,
        started_at: utc::micros(record.started),
        endpoint: record.endpoint,
        account_id: record.account.filter(|_| with_account),
        key_id: record.key,
        model: record.model,
        status: record.status,
        outcome: record.outcome,
        error: record.error,
        streamed: record.streamed,
        tokens_in: sum(&input),
        tokens_out: sum(&output),
        cost_usd: record.cost.to_string(),
        latency_ms: record.latency_micros / MILLI,
        first_token_ms: record.first_token_micros.map(|micros| micros / MILLI),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_or_a_class() {
        for (text, wanted) in
            [("2xx", (200, 299)), ("5xx", (500, 599)), ("429", (429, 429)), ("0", (0, 0))]
        {
            assert_eq!(status(text).unwrap(), wanted, "{text}");
        }
        for bad in ["", "xx", "6xx", "0xx", "600", "+200", "2XX", "ok"] {
            assert!(status(bad).is_err(), "{bad}");
        }
    }
}
