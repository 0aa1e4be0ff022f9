//! Configuration: what was typed ([`file::File`]) becomes what it means ([`Plan`]), or every problem.
//!
//! **Invariant:** past a [`Plan`] nothing checks a setting again, and nothing but this module reads
//! the process's environment. It starts nothing and writes nothing: it only reads files.

mod base;
mod check;
mod credential;
mod file;
mod plan;
mod preset;
mod price;
mod problem;
mod providers;
mod read;
mod routes;
mod server;
mod watch;

#[cfg(test)]
mod tests;

use std::path::Path;

pub(crate) use base::{Base, Origin};
pub(crate) use plan::{
    Deadlines, Dialect, Limits, Listen, Log, LogFormat, LogLevel, ModelPlan, OnDisconnect, Plan,
    ProviderPlan, Quirks, Reasoning, Shutdown, Tls,
};
pub(crate) use problem::Problem;
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
    let written = match path {
        Some(path) => read::path(path)?,
        None => read::Written::default(),
    };
    let folder = path.and_then(Path::parent).unwrap_or(Path::new(""));
    check::check(written, folder, environment)
}
