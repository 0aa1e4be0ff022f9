//! What was used, by account and key, summed over records.

use std::time::Duration;

use tokenroute_domain::id::{AccountId, CallId, KeyId};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;

use super::Database;
use super::statement::{Row, sql};
use crate::Error;

/// How far the time in a call's identifier may be from that in its record.
const SLACK: Duration = Duration::from_mins(10);

/// What one key used. Only calls that somebody pays for are in it: those of a known key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// Who pays.
    pub account: String,
    /// What its owner calls it; `None` if there is no such account.
    pub account_name: Option<String>,
    /// Whose key.
    pub key: String,
    /// What its owner calls it; `None` if there is no such key.
    pub key_name: Option<String>,
    /// Calls whose client has a whole answer.
    pub calls: u64,
    /// Calls that ended otherwise.
    pub unanswered: u64,
    /// Input tokens of all kinds, of all of them.
    pub input_tokens: u64,
    /// Output tokens of all kinds, of all of them.
    pub output_tokens: u64,
    /// What they cost.
    pub cost: NanoUsd,
    /// What the account was charged of it.
    pub charge: NanoUsd,
    /// What the house bears beyond the cost.
    pub house_cost: NanoUsd,
}

impl Database {
    /// What was used by calls that began from `from` on and before `to`: of one account, or of all; by
    /// account and key.
    pub async fn usage(
        &self,
        (from, to): (Timestamp, Timestamp),
        account: Option<AccountId>,
    ) -> Result<Vec<UsageRow>, Error> {
        // Calls are sorted by their identifiers, and these by time: no index of its own for time.
        let first = Timestamp(from.micros().saturating_sub(Timestamp(0).plus(SLACK).micros()));
        let rows = sql(
            "SELECT sums.*, accounts.name AS account_name, api_keys.name AS key_name FROM (
                 SELECT account AS payer, key_id,
                     count(*) AS all_calls,
                     CAST(sum(CASE WHEN outcome = 'answered' THEN 1 ELSE 0 END) AS BIGINT) AS answered,
                     CAST(sum(input + input_cache_read + input_cache_write
                         + input_cache_write_long + input_audio + input_image) AS BIGINT) AS input_tokens,
                     CAST(sum(output + output_reasoning + output_audio + output_image) AS BIGINT)
                         AS output_tokens,
                     CAST(sum(cost_nano_usd) AS BIGINT) AS cost,
                     CAST(sum(charge) AS BIGINT) AS charge,
                     CAST(sum(house_cost) AS BIGINT) AS house_cost
                 FROM records
                 WHERE call >= $1 AND call < $2 AND started >= $3 AND started < $4
                     AND account IS NOT NULL AND key_id IS NOT NULL AND (account = $5 OR $5 = '')
                 GROUP BY account, key_id) AS sums
             LEFT JOIN accounts ON accounts.id = payer
             LEFT JOIN api_keys ON api_keys.id = key_id
             ORDER BY payer, key_id",
        )
        .bind(CallId::new(first, 0))
        .bind(CallId::new(to.plus(SLACK), 0))
        .bind(from)
        .bind(to)
        .bind(account.map(|id| id.to_string()).unwrap_or_default())
        .fetch_all(self.reading())
        .await?;
        rows.iter().map(read).collect()
    }
}

impl Database {
    /// What one account used by calls that began from `from` on and before `to` and whose client has a whole
    /// answer, by key; with `key`, of that one alone.
    pub async fn usage_of(
        &self,
        account: AccountId,
        key: Option<KeyId>,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<UsageRow>, Error> {
        let rows = sql(
            "SELECT sums.*, accounts.name AS account_name, api_keys.name AS key_name FROM (
                 SELECT account AS payer, key_id, count(*) AS all_calls, count(*) AS answered,
                     CAST(sum(input + input_cache_read + input_cache_write
                         + input_cache_write_long + input_audio + input_image) AS BIGINT) AS input_tokens,
                     CAST(sum(output + output_reasoning + output_audio + output_image) AS BIGINT)
                         AS output_tokens,
                     CAST(sum(cost_nano_usd) AS BIGINT) AS cost,
                     CAST(sum(charge) AS BIGINT) AS charge,
                     CAST(sum(house_cost) AS BIGINT) AS house_cost
                 FROM records
                 WHERE account = $1 AND started >= $2 AND started < $3 AND key_id IS NOT NULL
                     AND (key_id = $4 OR $4 = '') AND outcome = 'answered' AND status < 400
                 GROUP BY account, key_id) AS sums
             LEFT JOIN accounts ON accounts.id = payer
             LEFT JOIN api_keys ON api_keys.id = key_id
             ORDER BY key_id",
        )
        .bind(account)
        .bind(from)
        .bind(to)
        .bind(key.map(|id| id.to_string()).unwrap_or_default())
        .fetch_all(self.reading())
        .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<UsageRow, Error> {
    let answered = row.count("answered")?;
    Ok(UsageRow {
        account: row.text("payer")?,
        account_name: row.text_if_any("account_name")?,
        key: row.text("key_id")?,
        key_name: row.text_if_any("key_name")?,
        calls: answered,
        unanswered: row.count("all_calls")?.saturating_sub(answered),
        input_tokens: row.count("input_tokens")?,
        output_tokens: row.count("output_tokens")?,
        cost: row.money("cost")?,
        charge: row.money("charge")?,
        house_cost: row.money("house_cost")?,
    })
}
