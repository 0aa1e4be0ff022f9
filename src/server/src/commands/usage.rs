//! `tokenrouted usage`: what was used, by account and key.

use std::time::Duration;

use serde_json::json;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Database, UsageRow};

use super::{End, Terminal, accounts, cell};

const DAY: Duration = Duration::from_hours(24);
/// How far the clocks of edges may be ahead of this one: calls of the last moment count.
const AHEAD: Duration = Duration::from_mins(1);

/// What to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<'a> {
    /// Of so many days up to now.
    pub days: u32,
    /// Of which account, by its name; of all without.
    pub account: Option<&'a str>,
    /// One JSON object a line instead of a table.
    pub json: bool,
}

/// Shows it.
pub(crate) async fn show(
    database: &Database,
    choice: Choice<'_>,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let account = match choice.account {
        None => None,
        Some(name) => match accounts::find(database, name, terminal).await {
            Ok(account) => Some(account.id),
            Err(end) => return end,
        },
    };
    let span = u64::try_from(DAY.saturating_mul(choice.days).as_micros()).unwrap_or(u64::MAX);
    let from = Timestamp(now.micros().saturating_sub(span));
    let rows = match database.usage((from, now.plus(AHEAD)), account).await {
        Ok(rows) => rows,
        Err(error) => return terminal.unable(&error),
    };
    let mut lines = Vec::with_capacity(rows.len().saturating_add(2));
    if choice.json {
        lines.extend(rows.iter().map(as_json));
    } else {
        let heads = ["ACCOUNT", "KEY", "CALLS", "OTHER", "IN", "OUT", "COST", "CHARGE", "HOUSE"];
        lines.push(row(&heads.map(str::to_owned)));
        lines.extend(rows.iter().map(|one| row(&as_row(one))));
        lines.push(row(&as_row(&total(&rows))));
    }
    for line in lines {
        if terminal.say(line) != End::Done {
            return End::Unable;
        }
    }
    End::Done
}

fn total(rows: &[UsageRow]) -> UsageRow {
    let sum = |count: fn(&UsageRow) -> u64| rows.iter().map(count).fold(0_u64, u64::saturating_add);
    let money = |amount: fn(&UsageRow) -> NanoUsd| {
        rows.iter().map(amount).fold(NanoUsd::ZERO, NanoUsd::plus)
    };
    UsageRow {
        account: "all".to_owned(),
        account_name: None,
        key: String::new(),
        key_name: None,
        calls: sum(|one| one.calls),
        unanswered: sum(|one| one.unanswered),
        input_tokens: sum(|one| one.input_tokens),
        output_tokens: sum(|one| one.output_tokens),
        cost: money(|one| one.cost),
        charge: money(|one| one.charge),
        house_cost: money(|one| one.house_cost),
    }
}

fn row(columns: &[String; 9]) -> String {
    let [account, key, calls, other, input, output, cost, charge, house] = columns;
    format!(
        "{account:<20}  {key:<20}  {calls:>9}  {other:>7}  {input:>12}  {output:>12}  {cost:>14}  \
         {charge:>14}  {house:>12}"
    )
}

fn as_row(one: &UsageRow) -> [String; 9] {
    [
        cell(one.account_name.as_deref().unwrap_or(&one.account)),
        cell(one.key_name.as_deref().unwrap_or(&one.key)),
        one.calls.to_string(),
        one.unanswered.to_string(),
        one.input_tokens.to_string(),
        one.output_tokens.to_string(),
        one.cost.to_string(),
        one.charge.to_string(),
        one.house_cost.to_string(),
    ]
}

fn as_json(one: &UsageRow) -> String {
    json!({
        "account": one.account,
        "account_name": one.account_name,
        "key": one.key,
        "key_name": one.key_name,
        "calls": one.calls,
        "unanswered": one.unanswered,
        "input_tokens": one.input_tokens,
        "output_tokens": one.output_tokens,
        "cost": one.cost.to_string(),
        "charge": one.charge.to_string(),
        "house_cost": one.house_cost.to_string(),
    })
    .to_string()
}
