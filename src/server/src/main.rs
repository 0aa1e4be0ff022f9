//! `tokenrouted`, the gateway: reads the command line and does one command. Rules live in the crates.

mod commands;
mod config;
mod run;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// glibc's allocator keeps what a wave of streams has used; this one gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// An OpenAI-compatible gateway to many model providers.
#[derive(Debug, Parser)]
#[command(name = "tokenrouted", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Run(ConfigArgument),
    /// Check a configuration file and print every problem in it.
    Check {
        /// The file to check.
        file: PathBuf,
    },
}

/// Which configuration to use.
#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// Configuration file; without one the built-in defaults hold.
    #[arg(long, env = "TOKENROUTE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let CommandLine { command } = CommandLine::parse();
    let mut terminal = commands::Terminal::of_process();
    let done = match command {
        Command::Run(ConfigArgument { config }) => commands::run(config.as_deref(), &mut terminal),
        Command::Check { file } => {
            commands::check::check(&file, &config::environment, &mut terminal)
        }
    };
    done.into()
}
