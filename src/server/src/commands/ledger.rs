//! `tokenrouted ledger`: shows entries of the ledger, the latest last.

use serde_json::json;
use tokenroute_store::{Database, LedgerLine};

use super::{End, Terminal, accounts, cell, clock};

/// Entries read from the database at once.
const PAGE: u32 = 500;
/// Entries that one command shows.
pub(crate) const LINES_MAX: u32 = 100_000;

/// What to show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice<'a> {
    /// Of which account, by its name; of all, and of the house, without.
    pub account: Option<&'a str>,
    /// How many entries.
    pub limit: u32,
    /// One JSON object a line instead of a table.
    pub json: bool,
}

/// Shows it.
pub(crate) async fn show(
    database: &Database,
    choice: Choice<'_>,
    terminal: &mut Terminal<'_>,
) -> End {
    let account = match choice.account {
        None => None,
        Some(name) => match accounts::find(database, name, terminal).await {
            Ok(account) => Some(account.id),
            Err(end) => return end,
        },
    };
    // They are read from the latest on, and shown the other way round.
    let mut lines: Vec<LedgerLine> = Vec::new();
    let mut left = choice.limit.min(LINES_MAX);
    while left > 0 {
        let page = match database.ledger(account, lines.last(), left.min(PAGE)).await {
            Ok(page) => page,
            Err(error) => return terminal.unable(&error),
        };
        let Some(count) = u32::try_from(page.len()).ok().filter(|count| *count > 0) else { break };
        left = left.saturating_sub(count);
        lines.extend(page);
    }
    let heads = ["TIME", "KIND", "LEDGER ACCOUNT", "AMOUNT", "AFTER", "FOR", "NOTE"];
    if !choice.json && terminal.say(row(&heads.map(str::to_owned))) != End::Done {
        return End::Unable;
    }
    for line in lines.iter().rev() {
        let text = if choice.json { as_json(line) } else { row(&as_row(line)) };
        if terminal.say(text) != End::Done {
            return End::Unable;
        }
    }
    End::Done
}

fn row([time, kind, account, amount, after, key, note]: &[String; 7]) -> String {
    let line = format!(
        "{time:<20}  {kind:<10}  {account:<39}  {amount:>15}  {after:>15}  {key:<31}  {note}"
    );
    line.trim_end().to_owned()
}

fn as_row(line: &LedgerLine) -> [String; 7] {
    [
        clock::seconds(line.created),
        line.kind.clone(),
        cell(&line.account),
        line.amount.to_string(),
        line.balance_after.to_string(),
        cell(&line.idempotency_key),
        cell(&line.note),
    ]
}

fn as_json(line: &LedgerLine) -> String {
    json!({
        "transaction": line.transaction,
        "seq": line.seq,
        "kind": line.kind,
        "idempotency_key": line.idempotency_key,
        "subject": line.subject,
        "actor": line.actor,
        "note": line.note,
        "created": clock::micros(line.created),
        "account": line.account,
        "amount": line.amount.to_string(),
        "balance_after": line.balance_after.to_string(),
    })
    .to_string()
}
