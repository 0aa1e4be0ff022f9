//! `tokenrouted migrate`: brings the schema of the database up to date, and says from which version.

use std::cmp::Ordering;

use secrecy::ExposeSecret;
use tokenroute_store::{Database, SchemaVersion};

use super::{End, Terminal, in_runtime};
use crate::config::{DatabasePlan, StatePlan};
use crate::state;

/// Migrates, or only says whether that is needed.
pub(super) fn migrate(plan: &StatePlan, check: bool, terminal: &mut Terminal<'_>) -> End {
    in_runtime(terminal, async |terminal| {
        let end = if check { tell_need(plan, terminal).await } else { bring(plan, terminal).await };
        end.unwrap_or_else(|error| terminal.unable(&format_args!("{error:#}")))
    })
}

async fn tell_need(plan: &StatePlan, terminal: &mut Terminal<'_>) -> anyhow::Result<End> {
    let version = version(plan).await?;
    let end = terminal.say(words(version, false));
    let is_right = version.present == Some(version.wanted);
    Ok(if end == End::Done && !is_right { End::Mistaken } else { end })
}

async fn bring(plan: &StatePlan, terminal: &mut Terminal<'_>) -> anyhow::Result<End> {
    // The folder and its pepper are made with the file, as every command does that works with it.
    if let DatabasePlan::Sqlite = plan.database {
        state::open(plan)?;
    }
    let before = version(plan).await?;
    if before.present.is_some_and(|present| present > before.wanted) {
        terminal.tell(words(before, false));
        return Ok(End::Unable);
    }
    state::open_database(plan).await?.close().await;
    Ok(terminal.say(words(before, true)))
}

async fn version(plan: &StatePlan) -> anyhow::Result<SchemaVersion> {
    Ok(match &plan.database {
        DatabasePlan::Sqlite => Database::version_of_file(&state::database(plan)).await?,
        DatabasePlan::Postgres(url, ca_file) => {
            Database::version_at(url.expose_secret(), ca_file.as_deref()).await?
        }
    })
}

/// How the schema stands, or what was done to it.
fn words(SchemaVersion { present, wanted }: SchemaVersion, done: bool) -> String {
    match (present.map(|present| (present, present.cmp(&wanted))), done) {
        (None, true) => format!("the schema is made: version {wanted}"),
        (None, false) => format!("there is no schema yet; `migrate` makes version {wanted}"),
        (Some((_, Ordering::Equal)), _) => format!("the schema is up to date: version {wanted}"),
        (Some((present, Ordering::Less)), true) => {
            format!("the schema is brought from version {present} to {wanted}")
        }
        (Some((present, Ordering::Less)), false) => {
            format!("the schema is version {present}; `migrate` brings it to {wanted}")
        }
        (Some((present, Ordering::Greater)), _) => format!(
            "the schema is version {present}, of a newer program: this one knows {wanted}; \
             install the newer one"
        ),
    }
}
