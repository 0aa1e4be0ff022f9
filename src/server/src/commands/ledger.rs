//! `tokenrouted ledger`: shows the entries of the ledger, the latest last.

use serde_json::json;
use tokenroute_store::{Database, LedgerLine};

use super::table::{Side, Table};
use super::{End, Terminal, accounts, cell, clock};

/// Entries read from the database at once.
const PAGE: u32 = 500;

/// What to show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    /// Whose entries, by name; `None` is everybody's.
    pub account: Option<&'a str>,
    /// How many, the latest ones.
    pub limit: u32,
    /// One JSON object a line instead of a table.
    pub json: bool,
}

/// Shows entries.
pub(super) async fn show(
    database: &Database,
    choice: Choice<'_>,
    terminal: &mut Terminal<'_>,
) -> End {
    match read(database, choice, terminal).await {
        Ok(Some(lines)) if choice.json => terminal.say_all(lines.iter().map(as_json)),
        Ok(Some(lines)) => terminal.say_all(table(&lines).lines()),
        Ok(None) => End::Mistaken,
        Err(error) => terminal.unable(&error),
    }
}

/// The latest entries, the latest last; `None` if there is no such account, which has been told.
async fn read(
    database: &Database,
    choice: Choice<'_>,
    terminal: &mut Terminal<'_>,
) -> Result<Option<Vec<LedgerLine>>, tokenroute_store::Error> {
    let account = match choice.account {
        None => None,
        Some(name) => match accounts::find(database, name, terminal).await? {
            Some(account) => Some(account.id),
            None => return Ok(None),
        },
    };
    let mut lines: Vec<LedgerLine> = Vec::new();
    loop {
        let read = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let wanted = choice.limit.saturating_sub(read).min(PAGE);
        let page = database.ledger(account, lines.last(), wanted).await?;
        if page.is_empty() {
            break;
        }
        lines.extend(page);
    }
    // They come the latest first, those of one transaction in its own order.
    lines.sort_by(|one, other| (&one.transaction, one.seq).cmp(&(&other.transaction, other.seq)));
    Ok(Some(lines))
}

fn table(lines: &[LedgerLine]) -> Table<7> {
    let mut table = Table::new([
        ("TIME", Side::Left),
        ("KIND", Side::Left),
        ("ACCOUNT", Side::Left),
        ("USD", Side::Right),
        ("BALANCE", Side::Right),
        ("ID", Side::Left),
        ("NOTE", Side::Left),
    ]);
    for line in lines {
        table.push([
            clock::seconds(line.created),
            line.kind.clone(),
            line.account.clone(),
            line.amount.to_string(),
            line.balance_after.to_string(),
            cell(&line.idempotency_key),
            cell(&line.note),
        ]);
    }
    table
}

fn as_json(line: &LedgerLine) -> String {
    json!({
        "transaction": line.transaction,
        "seq": line.seq,
        "kind": line.kind,
        "id": line.idempotency_key,
        "subject": line.subject,
        "actor": line.actor,
        "note": line.note,
        "created": clock::micros(line.created),
        "account": line.account,
        "amount_usd": line.amount.to_string(),
        "balance_after_usd": line.balance_after.to_string(),
    })
    .to_string()
}
