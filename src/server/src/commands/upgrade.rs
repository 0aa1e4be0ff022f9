//! `tokenrouted upgrade`: asks the running process for a successor, and waits until one serves.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{End, Terminal};
use crate::run::{READY_WITHIN, presence};

/// How often it is looked for the outcome.
const LOOK: Duration = Duration::from_millis(20);
/// For the running process to hear the signal, and to write what came of it.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Upgrades the process whose state is in `folder`.
pub(super) fn upgrade(folder: &Path, terminal: &mut Terminal<'_>) -> End {
    match ask(folder) {
        Ok(process) => terminal.say(format_args!("process {process} serves")),
        Err(error) => terminal.unable(&format_args!("the upgrade failed: {error:#}")),
    }
}

/// The process ID of the successor.
fn ask(folder: &Path) -> anyhow::Result<u32> {
    let process = find(folder)?;
    presence::forget_outcome(folder)?;
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).context("no process ID")?;
    kill_process(pid, Signal::USR2)?;
    let start = Instant::now();
    loop {
        if let Some(outcome) = presence::read_outcome(folder)? {
            return outcome.map_err(anyhow::Error::msg);
        }
        // Who leaves at once after a success is told about by the successor's entry.
        find(folder)?;
        ensure!(
            start.elapsed() < READY_WITHIN.saturating_add(ANSWER_MAX),
            "process {process} does not answer"
        );
        thread::sleep(LOOK);
    }
}

fn find(folder: &Path) -> anyhow::Result<u32> {
    presence::find(folder)?
        .with_context(|| format!("no tokenrouted runs with the state folder {}", folder.display()))
}
