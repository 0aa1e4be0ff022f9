//! `tokenrouted audit`: shows who has changed what, and checks that the log is whole.

use serde_json::{Value, json};
use tokenroute_store::{AuditLine, Chain, Database};

use super::{End, Terminal, cell, clock};

/// Shows the last changes, the latest first.
pub(super) async fn show(
    database: &Database,
    (limit, json): (u32, bool),
    terminal: &mut Terminal<'_>,
) -> End {
    match database.audit_log(None, limit).await {
        Ok(lines) if json => terminal.say_all(lines.iter().map(as_json)),
        Ok(lines) => terminal.say_all(lines.iter().map(as_text)),
        Err(error) => terminal.unable(&error),
    }
}

/// Checks the whole log.
pub(super) async fn verify(database: &Database, terminal: &mut Terminal<'_>) -> End {
    match database.verify_audit_log().await {
        Ok(Chain::Sound { rows, head }) => {
            let (high, low) = head.split_at(head.len() / 2);
            let word = |half: &[u8]| half.try_into().map_or(0, u128::from_be_bytes);
            let head = format!("{:032x}{:032x}", word(high), word(low));
            terminal.say(format_args!(
                "the audit log is whole: {rows} rows, the last one's hash is {head}"
            ))
        }
        Ok(Chain::Broken { sequence }) => terminal.refuse(format_args!(
            "the audit log is NOT whole: row {sequence} was changed, or is missing"
        )),
        Err(error) => terminal.unable(&error),
    }
}

fn as_text(line: &AuditLine) -> String {
    let AuditLine { sequence, time, actor, action, subject, detail } = line;
    let (time, actor, subject) = (clock::seconds(*time), cell(actor), cell(subject));
    format!("{sequence:>6}  {time}  {actor:<36}  {action:<16}  {subject}  {}", cell(detail))
}

fn as_json(line: &AuditLine) -> Value {
    json!({
        "sequence": line.sequence,
        "time": clock::micros(line.time),
        "actor": line.actor,
        "action": line.action,
        "subject": line.subject,
        "detail": serde_json::from_str::<Value>(&line.detail).unwrap_or_default(),
    })
}
