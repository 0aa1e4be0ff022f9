//! `tokenrouted settings`: what administrators have stored, and the way out where it keeps a node from
//! starting. Stored settings are made and changed by the management API, which checks them.

use serde_json::json;
use tokenroute_domain::time::{Timestamp, utc};
use tokenroute_store::{Database, Setting, SettingChange, SettingKind};

use super::line::SettingsCommand;
use super::table::{Side, Table};
use super::{End, Terminal, actor, cell};

/// Does what is asked with settings.
pub(super) async fn manage(
    database: &Database,
    command: &SettingsCommand,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let done = match command {
        SettingsCommand::List { json } => list(database, *json, terminal).await,
        SettingsCommand::Remove { kind, name } => {
            remove(database, ((*kind).into(), name), (now, &mut *terminal)).await
        }
    };
    done.unwrap_or_else(|error| terminal.unable(&error))
}

async fn list(
    database: &Database,
    json: bool,
    terminal: &mut Terminal<'_>,
) -> Result<End, tokenroute_store::Error> {
    let stored = database.settings().await?;
    if json {
        return Ok(terminal.say_all(stored.settings.iter().map(as_json)));
    }
    let left = Side::Left;
    let mut table =
        Table::new([("VERSION", Side::Right), ("KIND", left), ("CHANGED", left), ("NAME", left)]);
    for one in &stored.settings {
        let (version, kind) = (one.version.to_string(), one.kind.as_str().to_owned());
        table.push([version, kind, utc::seconds(one.changed), cell(&one.name)]);
    }
    Ok(terminal.say_all(table.lines()))
}

fn as_json(one: &Setting) -> String {
    let content: serde_json::Value = serde_json::from_str(&one.content).unwrap_or_default();
    json!({
        "kind": one.kind.as_str(),
        "name": one.name,
        "version": one.version,
        "changed": utc::micros(one.changed),
        "content": content,
    })
    .to_string()
}

/// Takes a setting away, whatever refers to it: what no longer fits then is told at the next start.
async fn remove(
    database: &Database,
    (kind, name): (SettingKind, &str),
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> Result<End, tokenroute_store::Error> {
    let stored = database.settings().await?;
    let word = kind.as_str();
    if !stored.settings.iter().any(|one| one.kind == kind && one.name == name) {
        let message = format!("no {word} \"{}\" is stored: see `settings list`", cell(name));
        return Ok(terminal.refuse(message));
    }
    let change = [SettingChange::Remove { kind, name }];
    let actor = actor();
    let done = database.acting(&actor).change_settings(stored.version, &change, now).await?;
    Ok(match done {
        Ok(_) => terminal.say(format_args!("the {word} \"{}\" is no longer stored", cell(name))),
        Err(_) => terminal.refuse("somebody else changed settings at the same time: try again"),
    })
}
