//! `tokenrouted reconcile`: whether the books are what they must be, asked by an operator.

use serde_json::json;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Database, Finding, StoredFinding, audit};

use super::{End, Stores, Terminal, cell, clock};

/// Findings that are listed.
const FINDINGS_MAX: u32 = 1_000;

/// `reconcile`: checks everything.
pub(super) async fn check(
    stores: &Stores,
    json: bool,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let Stores { database, redis, .. } = stores;
    let mut found = match database.reconcile(None, now).await {
        Ok(found) => found,
        Err(error) => return terminal.unable(&error),
    };
    let mut away = None;
    if let Some(redis) = redis.as_ref().filter(|_| database.is_shared()) {
        match audit(redis, database, now).await {
            Ok(more) => found.extend(more),
            Err(error) => away = Some(error),
        }
    }
    if terminal.say_all(found.iter().map(if json { as_json } else { as_text })) != End::Done {
        return End::Unable;
    }
    match away {
        Some(error) => terminal.unable(&format_args!("the hot store cannot be checked: {error}")),
        None if !found.is_empty() => End::Mistaken,
        None if json => End::Done,
        None => terminal.say("nothing found: the books are right"),
    }
}

/// `reconcile --open`: what was found before and still stands.
pub(super) async fn show_open(database: &Database, json: bool, terminal: &mut Terminal<'_>) -> End {
    let open = match database.findings(false, FINDINGS_MAX).await {
        Ok(open) => open,
        Err(error) => return terminal.unable(&error),
    };
    let line = |one: &StoredFinding| {
        if json {
            stored_as_json(one)
        } else {
            let (first, last) = (clock::seconds(one.first_seen), clock::seconds(one.last_seen));
            format!("{}, seen from {first} to {last}", as_text(&one.finding))
        }
    };
    let end = terminal.say_all(open.iter().map(line));
    if end == End::Done && !open.is_empty() { End::Mistaken } else { end }
}

fn as_text(found: &Finding) -> String {
    format!("{} {}: {}", found.kind, cell(&found.subject), cell(&found.detail))
}

fn as_json(found: &Finding) -> String {
    json!({ "kind": found.kind, "subject": found.subject, "detail": found.detail }).to_string()
}

fn stored_as_json(stored: &StoredFinding) -> String {
    let Finding { kind, subject, detail } = &stored.finding;
    json!({
        "kind": kind,
        "subject": subject,
        "detail": detail,
        "first_seen": clock::micros(stored.first_seen),
        "last_seen": clock::micros(stored.last_seen),
    })
    .to_string()
}
