//! `tokenrouted check FILE`: whether `run` would accept a configuration. Starts and writes nothing.

use std::path::Path;

use super::{End, Terminal};
use crate::config::{self, Environment};

/// Prints `FILE: ok (N providers, M routes)`, or every problem as `path: message`.
pub(super) fn check(file: &Path, environment: Environment<'_>, terminal: &mut Terminal<'_>) -> End {
    let plan = match config::load(Some(file), environment) {
        Ok(plan) => plan,
        Err(problems) => return terminal.mistaken(&problems),
    };
    for warning in &plan.warnings {
        terminal.tell(format_args!("warning: {warning}"));
    }
    terminal.tell(
        "only the file was looked at: settings in the database are checked with it at the start and at each reload",
    );
    let (providers, routes) = (plan.providers.len(), plan.catalog.patterns().count());
    terminal.say(format_args!("{}: ok ({providers} providers, {routes} routes)", file.display()))
}
