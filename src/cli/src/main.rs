//! `tokenroute`, the command line: gets a person or an agent from nothing to a working key.

use std::process::ExitCode;

use clap::Parser;

/// Keys, credit and usage of a tokenroute gateway.
#[derive(Debug, Parser)]
#[command(name = "tokenroute", version)]
struct CommandLine {}

fn main() -> ExitCode {
    let CommandLine {} = CommandLine::parse();
    ExitCode::SUCCESS
}
