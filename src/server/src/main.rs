//! `tokenrouted`, the gateway: reads the command line and does one command. Rules live in the crates.

mod commands;
mod config;
mod process;
mod run;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokenroute_proxy::clock;

use crate::commands::{End, Surroundings, Terminal};

/// glibc's allocator keeps what a wave of streams has used; this one gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// An OpenAI-compatible gateway to many model providers.
#[derive(Debug, Parser)]
#[command(name = "tokenrouted", version)]
struct CommandLine {
    /// Configuration file; else the one that `TOKENROUTE_CONFIG` names, else built-in defaults.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    if process::shield().is_err() {
        return End::Unable.into();
    }
    let CommandLine { config, command } = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(usage) => {
            // Help and version are asked for and come here too.
            let end = if usage.use_stderr() { End::Mistaken } else { End::Done };
            return if usage.print().is_ok() { end.into() } else { End::Unable.into() };
        }
    };
    let surroundings = Surroundings {
        config: config.as_deref(),
        environment: &config::environment,
        now: clock::now(),
    };
    commands::perform(command, surroundings, &mut Terminal::of_process()).into()
}
