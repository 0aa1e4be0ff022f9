//! `tokenrouted reconcile`: checks the books, and tells what else waits for an operator.

use serde_json::json;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Database, Finding};

use super::{End, Terminal, cell, clock};

/// Findings of earlier that one command tells.
const EARLIER_MAX: u32 = 100;

/// Checks everything. `Mistaken` if something is found; what stands from earlier, such as an edge that was
/// not heard of again, is told and changes nothing.
pub(crate) async fn reconcile(
    database: &Database,
    json: bool,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let found = match database.reconcile(None, now).await {
        Ok(found) => found,
        Err(error) => return terminal.unable(&error),
    };
    let earlier = match database.findings(false, EARLIER_MAX).await {
        Ok(earlier) => earlier,
        Err(error) => return terminal.unable(&error),
    };
    let mut lines: Vec<String> = found.iter().map(|one| line(one, None, json)).collect();
    let known = |finding: &Finding| {
        found.iter().any(|one| (&one.kind, &one.subject) == (&finding.kind, &finding.subject))
    };
    let earlier = earlier.iter().filter(|one| !known(&one.finding));
    lines.extend(earlier.map(|one| line(&one.finding, Some(one.last_seen), json)));
    if lines.is_empty() && !json {
        lines.push("the books are right".to_owned());
    }
    for line in lines {
        if terminal.say(line) != End::Done {
            return End::Unable;
        }
    }
    if found.is_empty() { End::Done } else { End::Mistaken }
}

fn line(finding: &Finding, seen: Option<Timestamp>, json: bool) -> String {
    let Finding { kind, subject, detail } = finding;
    if json {
        let seen = seen.map(clock::micros);
        let line = json!({"kind": kind, "subject": subject, "detail": detail, "seen_before": seen});
        return line.to_string();
    }
    let seen = seen.map_or_else(String::new, |seen| format!(" (seen {})", clock::seconds(seen)));
    format!("{}  {}  {}{seen}", cell(kind), cell(subject), cell(detail))
}
