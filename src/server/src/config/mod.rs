//! Configuration: what was typed ([`file::File`]) becomes what it means ([`Plan`]), or every problem.
//!
//! **Invariant:** past a [`Plan`] nothing checks a setting again, and nothing but this module reads
//! the process's environment. It starts nothing and writes nothing: it only reads files.

mod base;
mod check;
mod control;
mod credential;
mod deadlines;
mod file;
mod limits;
mod money;
mod plan;
mod policies;
mod policy;
mod preset;
mod price;
mod problem;
mod providers;
mod read;
mod routes;
mod server;
mod stored;
mod watch;

#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use base::Base;
pub(crate) use plan::{
    ControlPlan, DatabasePlan, Log, LogFormat, LogLevel, MoneyPlan, Names, Plan, ProviderPlan,
    RoutesPlan, Shutdown, StatePlan, Tls,
};
pub(crate) use policy::words;
pub(crate) use problem::Problem;
pub(crate) use stored::{Kept, Unsound, Whole};
pub(crate) use watch::Watch;

/// Looks up a variable of the environment; tests pass their own.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of this process's environment, or `None` if it is unset or no UTF-8.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the file at `path` (none: the built-in defaults), and the credentials that it names.
/// Errors are all problems that were found, in the order of the file's sections.
pub(crate) fn load(
    path: Option<&Path>,
    environment: Environment<'_>,
) -> Result<Plan, Vec<Problem>> {
    check::check(typed(path)?, folder(path), environment)
}

/// The same, with what is kept in the database: one generation of both.
pub(crate) fn load_with(
    path: Option<&Path>,
    environment: Environment<'_>,
    kept: &Kept,
) -> Result<Plan, Vec<Problem>> {
    let mut written = typed(path)?;
    stored::merge(&mut written, kept);
    check::check(written, folder(path), environment)
}

/// What the file and what is kept come to, for who is about to change what is kept.
pub(crate) fn judge(
    path: Option<&Path>,
    environment: Environment<'_>,
    kept: &Kept,
) -> Result<Whole, Unsound> {
    stored::judge(typed(path)?, (folder(path), environment), kept)
}

/// Where a node's state is, whatever is wrong with the rest of its file: the operator's shell does
/// not have the credentials that the node has.
pub(crate) fn load_state(
    path: Option<&Path>,
    environment: Environment<'_>,
) -> Result<StatePlan, Vec<Problem>> {
    let plan = check::check_state(typed(path)?, folder(path), environment)?;
    let names = plan.names.filter(|_| path.is_some());
    Ok(StatePlan { names, ..plan })
}

/// Where the management plane is and whom it believes, whatever is wrong with the rest of the file.
pub(crate) fn load_control(
    path: Option<&Path>,
    environment: Environment<'_>,
) -> Result<ControlPlan, Vec<Problem>> {
    check::check_control(typed(path)?, folder(path), environment)
}

/// Which model leads where, without the credentials that the node has.
pub(crate) fn load_routes(
    path: Option<&Path>,
    environment: Environment<'_>,
    kept: Option<&Kept>,
) -> Result<RoutesPlan, Vec<Problem>> {
    let mut written = typed(path)?;
    if let Some(kept) = kept {
        stored::merge(&mut written, kept);
    }
    check::check_routes(written, folder(path), environment)
}

fn typed(path: Option<&Path>) -> Result<read::Written, Vec<Problem>> {
    path.map_or_else(|| Ok(read::Written::default()), read::path)
}

/// The folder that relative paths are taken from.
fn folder(path: Option<&Path>) -> &Path {
    path.and_then(Path::parent).unwrap_or(Path::new(""))
}
