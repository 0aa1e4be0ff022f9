//! What was used.

use std::time::Duration;

use tokenroute_api::usage::{KeyUsage, Usage};
use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::UsageRow;

use super::Problem;
use super::text::invalid;
use crate::Parts;
use crate::identity::caller::Holder;

/// Days, where nothing is said.
const DAYS: u32 = 30;
/// Most days.
const DAYS_MAX: u32 = 365;
/// Seconds of a day.
const DAY: u64 = 86_400;
/// How far the clock of an edge may be ahead of ours: calls that it has seen begin are ours too.
const AHEAD_MAX: Duration = Duration::from_mins(5);

/// What was used in the last days: by a person's account, with each key; by a key itself.
pub(crate) async fn of_holder(
    parts: &Parts,
    holder: &Holder,
    days: Option<u32>,
) -> Result<Usage, Problem> {
    match holder {
        Holder::Person(person) => of(parts, person.account, None, days).await,
        Holder::Key { account, key } => {
            let usage = of(parts, *account, Some(*key), days).await?;
            Ok(Usage { keys: Vec::new(), ..usage })
        }
    }
}

/// What was used in the last days of one account, or of one of its keys.
pub(crate) async fn of(
    parts: &Parts,
    account: AccountId,
    key: Option<KeyId>,
    days: Option<u32>,
) -> Result<Usage, Problem> {
    let days = days.unwrap_or(DAYS);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(invalid("days_invalid", "days", format!("days: write 1 to {DAYS_MAX}")));
    }
    let now = (parts.now)();
    let back = Duration::from_secs(u64::from(days).saturating_mul(DAY));
    let from = Timestamp(now.micros().saturating_sub(Timestamp(0).plus(back).micros()));
    let rows = parts.database.usage_of(account, key, (from, now.plus(AHEAD_MAX))).await?;
    Ok(sum(days, &rows))
}

fn sum(range_days: u32, rows: &[UsageRow]) -> Usage {
    let total = |read: fn(&UsageRow) -> u64| rows.iter().map(read).fold(0, u64::saturating_add);
    let cost = rows.iter().map(|row| row.cost).fold(NanoUsd::ZERO, NanoUsd::plus);
    Usage {
        range_days,
        total_requests: total(|row| row.calls),
        total_tokens_in: total(|row| row.input_tokens),
        total_tokens_out: total(|row| row.output_tokens),
        total_cost_usd: cost.to_string(),
        keys: rows.iter().map(of_key).collect(),
    }
}

fn of_key(row: &UsageRow) -> KeyUsage {
    KeyUsage {
        key_id: row.key.clone(),
        requests: row.calls,
        tokens_in: row.input_tokens,
        tokens_out: row.output_tokens,
        cost_usd: row.cost.to_string(),
    }
}
