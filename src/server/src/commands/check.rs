//! `tokenrouted check FILE`: whether `run` would accept a configuration. Starts and writes nothing.

use std::path::Path;

use super::{End, Terminal, load};
use crate::config::Environment;

/// Prints `FILE: ok (N providers, M routes)`, or every problem as `path: message`.
pub(crate) fn check(file: &Path, environment: Environment<'_>, terminal: &mut Terminal<'_>) -> End {
    let plan = match load(Some(file), environment, terminal) {
        Ok(plan) => plan,
        Err(end) => return end,
    };
    for warning in &plan.warnings {
        terminal.tell(format_args!("warning: {warning}"));
    }
    let (providers, routes) = (plan.providers.len(), plan.catalog.patterns().count());
    let written =
        writeln!(terminal.out, "{}: ok ({providers} providers, {routes} routes)", file.display());
    if written.is_err() { End::Unable } else { End::Done }
}
