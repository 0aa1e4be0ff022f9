//! `tokenrouted reconcile`: whether the books are what they must be, asked by an operator or now and then.

use std::time::Duration;

use serde_json::json;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Database, Error, Finding, StoredFinding};

use super::{End, Stores, Terminal, cell, clock};

/// How much of the past a check that is made now and then reads again.
const RECENT: Duration = Duration::from_hours(1);
/// Findings that are listed, and counted.
const FINDINGS_MAX: u32 = 1_000;

/// Checks the books as far as they may have changed of late, logs what is wrong with them, and says how
/// many findings stand. Nothing is repaired.
#[cfg_attr(not(test), expect(dead_code, reason = "the node is to call it every five minutes"))]
pub(crate) async fn reconcile(database: &Database, now: Timestamp) -> Result<usize, Error> {
    let recent = Timestamp(0).plus(RECENT).micros();
    let since = Timestamp(now.micros().saturating_sub(recent));
    for found in database.reconcile(Some(since), now).await? {
        let Finding { kind, subject, detail } = found;
        tracing::warn!(%kind, %subject, %detail, "the books are not what they must be");
    }
    Ok(database.findings(false, FINDINGS_MAX).await?.len())
}

/// `reconcile`: checks everything.
pub(super) async fn check(
    stores: &Stores,
    json: bool,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let found = match stores.database.reconcile(None, now).await {
        Ok(found) => found,
        Err(error) => return terminal.unable(&error),
    };
    if found.is_empty() {
        return if json { End::Done } else { terminal.say("nothing found: the books are right") };
    }
    let lines = found.iter().map(|one| if json { as_json(one) } else { as_text(one) });
    if terminal.say_all(lines) == End::Done { End::Mistaken } else { End::Unable }
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
