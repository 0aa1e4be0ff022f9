//! `tokenrouted findings`: what was found to be wrong with the books, and who has seen to it.

use serde_json::json;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Database, Finding, StoredFinding};

use super::line::FindingsCommand;
use super::{End, Terminal, actor, cell, clock};

/// Findings that are listed.
const FINDINGS_MAX: u32 = 1_000;

/// Does what is asked with findings.
pub(super) async fn manage(
    database: &Database,
    command: &FindingsCommand,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    match command {
        FindingsCommand::List { all, json } => list(database, (*all, *json), terminal).await,
        FindingsCommand::Close { id, note } => {
            match database.accept_finding(id, (&actor(), note), now).await {
                Ok(true) => terminal.say(format_args!("{} is closed", cell(id))),
                Ok(false) => {
                    let id = cell(id);
                    terminal.tell(format_args!("no finding \"{id}\" is open: see `findings list`"));
                    End::Mistaken
                }
                Err(error) => terminal.unable(&error),
            }
        }
    }
}

async fn list(database: &Database, (all, json): (bool, bool), terminal: &mut Terminal<'_>) -> End {
    match database.findings(all, FINDINGS_MAX).await {
        Ok(found) => terminal.say_all(found.iter().map(if json { as_json } else { as_text })),
        Err(error) => terminal.unable(&error),
    }
}

fn as_text(stored: &StoredFinding) -> String {
    let (id, detail) = (cell(&stored.id), cell(&stored.finding.detail));
    let (first, last) = (clock::seconds(stored.first_seen), clock::seconds(stored.last_seen));
    let state = if stored.is_open { "" } else { "closed: " };
    format!("{state}\"{id}\", seen from {first} to {last}: {detail}")
}

fn as_json(stored: &StoredFinding) -> String {
    let Finding { kind, subject, detail, amount } = &stored.finding;
    json!({
        "id": stored.id,
        "kind": kind,
        "subject": subject,
        "detail": detail,
        "amount_usd": amount.to_string(),
        "state": if stored.is_open { "open" } else { "closed" },
        "first_seen": clock::micros(stored.first_seen),
        "last_seen": clock::micros(stored.last_seen),
    })
    .to_string()
}
