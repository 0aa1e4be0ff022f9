//! What is wrong with a configuration, in words for the person who wrote it.

use std::fmt;

/// Most problems that are told at once; more are not collected.
pub(crate) const PROBLEMS_MAX: usize = 500;

/// One thing to put right. It never repeats a value that may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where: `providers.openai.base_url`, `routes[0].targets[1].weight`, or `file` for all of it.
    pub path: String,
    /// What to do about it.
    pub message: String,
}

impl Problem {
    /// A problem of the setting at `path`.
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}
