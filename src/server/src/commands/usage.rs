//! `tokenrouted usage`: shows what was used, by account and key.

use std::time::Duration;

use serde_json::json;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Database, UsageRow};

use super::table::{Side, Table};
use super::{DAY, End, Terminal, accounts, cell};

/// How far the clock of an edge may be ahead of ours: calls that it has seen begin are ours too.
const AHEAD_MAX: Duration = Duration::from_mins(5);

/// What to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    /// How many days back.
    pub days: u32,
    /// Whose, by name; `None` is everybody's.
    pub account: Option<&'a str>,
    /// One JSON object a line instead of a table.
    pub json: bool,
}

/// Shows what was used in the last days.
pub(super) async fn show(
    database: &Database,
    choice: Choice<'_>,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    match read(database, choice, (now, &mut *terminal)).await {
        Ok(Some(rows)) if choice.json => terminal.say_all(rows.iter().map(as_json)),
        Ok(Some(rows)) => terminal.say_all(table(&rows).lines()),
        Ok(None) => End::Mistaken,
        Err(error) => terminal.unable(&error),
    }
}

/// `None` if there is no such account, which has been told.
async fn read(
    database: &Database,
    choice: Choice<'_>,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> Result<Option<Vec<UsageRow>>, tokenroute_store::Error> {
    let account = match choice.account {
        None => None,
        Some(name) => match accounts::find(database, name, terminal).await? {
            Some(account) => Some(account.id),
            None => return Ok(None),
        },
    };
    let back = Duration::from_secs(u64::from(choice.days).saturating_mul(DAY));
    let from = Timestamp(now.micros().saturating_sub(Timestamp(0).plus(back).micros()));
    database.usage((from, now.plus(AHEAD_MAX)), account).await.map(Some)
}

/// The rows, and below them what they come to, if there is more than one.
fn table(rows: &[UsageRow]) -> Table<8> {
    let mut table = Table::new([
        ("ACCOUNT", Side::Left),
        ("KEY", Side::Left),
        ("NAME", Side::Left),
        ("CALLS", Side::Right),
        ("IN", Side::Right),
        ("OUT", Side::Right),
        ("COST", Side::Right),
        ("CHARGE", Side::Right),
    ]);
    let mut sums = ([0_u64; 3], [NanoUsd::ZERO; 2]);
    for row in rows {
        let counts = [row.calls, row.input_tokens, row.output_tokens];
        let amounts = [row.cost, row.charge];
        for (sum, count) in sums.0.iter_mut().zip(counts) {
            *sum = sum.saturating_add(count);
        }
        for (sum, amount) in sums.1.iter_mut().zip(amounts) {
            *sum = sum.plus(amount);
        }
        let names = [
            cell(row.account_name.as_deref().unwrap_or(&row.account)),
            row.key.clone(),
            cell(row.key_name.as_deref().unwrap_or("-")),
        ];
        table.push(cells(names, counts, amounts));
    }
    if rows.len() > 1 {
        let names = ["all".to_owned(), String::new(), String::new()];
        table.push(cells(names, sums.0, sums.1));
    }
    table
}

fn cells(
    [account, key, name]: [String; 3],
    counts: [u64; 3],
    amounts: [NanoUsd; 2],
) -> [String; 8] {
    let [calls, input, output] = counts.map(|count| count.to_string());
    let [cost, charge] = amounts.map(|amount| amount.to_string());
    [account, key, name, calls, input, output, cost, charge]
}

fn as_json(row: &UsageRow) -> String {
    json!({
        "account": row.account_name,
        "account_id": row.account,
        "key": row.key_name,
        "key_id": row.key,
        "calls": row.calls,
        "unanswered": row.unanswered,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cost_usd": row.cost.to_string(),
        "charge_usd": row.charge.to_string(),
        "house_cost_usd": row.house_cost.to_string(),
    })
    .to_string()
}
