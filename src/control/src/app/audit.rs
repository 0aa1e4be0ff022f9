//! Who has changed what.

use tokenroute_api::audit::{Audit, Entry};
use tokenroute_domain::time::utc;
use tokenroute_store::AuditLine;

use super::Problem;
use super::page::{Page, number};
use crate::Parts;

/// A page of the audit log, the latest first.
pub(crate) async fn list(parts: &Parts, page: Page<'_>) -> Result<Audit, Problem> {
    let limit = page.limit()?;
    let before = page.after(number::<u64>)?;
    let mut lines = parts.database.audit_log(before, limit.saturating_add(1)).await?;
    let next_cursor = Page::next(&mut lines, limit, |line| line.sequence.to_string());
    Ok(Audit { data: lines.into_iter().map(entry).collect(), next_cursor })
}

fn entry(line: AuditLine) -> Entry {
    Entry {
        sequence: line.sequence,
        time: utc::micros(line.time),
        actor: line.actor,
        action: line.action,
        subject: line.subject,
        detail: line.detail,
    }
}
