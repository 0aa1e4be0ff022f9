//! `tokenrouted reconcile`: whether the books are what they must be, asked by an operator.

use serde_json::json;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Finding, audit};

use super::{End, Stores, Terminal, cell};

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

fn as_text(found: &Finding) -> String {
    format!("{} {}: {}", found.kind, cell(&found.subject), cell(&found.detail))
}

fn as_json(found: &Finding) -> String {
    json!({ "kind": found.kind, "subject": found.subject, "detail": found.detail }).to_string()
}
