//! The operator's commands. Each writes to a [`Terminal`] and ends in an [`End`]; none serves calls.

pub(crate) mod check;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::{self, Environment, Plan};
use crate::run;

/// How a command ended, as its exit code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// 0: it did what it was asked.
    Done,
    /// 1: what it was asked, or its configuration, is wrong.
    Mistaken,
    /// 2: something around it, such as the database or the disk, does not work.
    Unable,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        match end {
            End::Done => Self::SUCCESS,
            End::Mistaken => Self::from(1),
            End::Unable => Self::from(2),
        }
    }
}

/// Where a command writes.
pub(crate) struct Terminal<'a> {
    /// What was asked for, for people and for pipes.
    pub out: Box<dyn Write + 'a>,
    /// Everything else that a person should know.
    pub err: Box<dyn Write + 'a>,
}

impl std::fmt::Debug for Terminal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Terminal")
    }
}

impl Terminal<'static> {
    /// The process's own.
    pub(crate) fn of_process() -> Self {
        Self { out: Box::new(io::stdout()), err: Box::new(io::stderr()) }
    }
}

impl Terminal<'_> {
    /// Tells a person something. A terminal that is gone hears nothing, which is no error.
    fn tell(&mut self, message: impl std::fmt::Display) {
        writeln!(self.err, "{message}").unwrap_or_default();
    }
}

/// Loads the configuration, or tells what is wrong with it.
fn load(
    path: Option<&Path>,
    environment: Environment<'_>,
    terminal: &mut Terminal<'_>,
) -> Result<Plan, End> {
    config::load(path, environment).map_err(|problems| {
        for problem in &problems {
            terminal.tell(problem);
        }
        End::Mistaken
    })
}

/// `tokenrouted run`
pub(crate) fn run(path: Option<&Path>, terminal: &mut Terminal<'_>) -> End {
    let plan = match load(path, &config::environment, terminal) {
        Ok(plan) => plan,
        Err(end) => return end,
    };
    match run::run(plan, path) {
        Ok(()) => End::Done,
        Err(error) => {
            terminal.tell(format_args!("{error:#}"));
            End::Unable
        }
    }
}
