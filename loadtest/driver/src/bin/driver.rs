//! `driver`: loads an address with model calls and prints what it measured as one line of JSON.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokenroute_driver::{Mode, Plan, run};

/// Loads an HTTP/1.1 address with model calls, measures the calls and the processes behind it.
#[derive(Debug, Parser)]
#[command(name = "driver", version)]
struct CommandLine {
    /// Where to call: an address and port.
    #[arg(long)]
    address: SocketAddr,
    /// The address to call from: ports are counted for each.
    #[arg(long)]
    source: Option<IpAddr>,
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    #[arg(long)]
    model: String,
    #[arg(long, default_value = "sk-load")]
    key: String,
    /// JSON answers or event streams.
    #[arg(long, value_enum, default_value = "rps")]
    mode: ModeName,
    /// Calls at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    connections: u64,
    /// Milliseconds over which the connections start.
    #[arg(long, default_value_t = 0)]
    ramp_millis: u64,
    /// Milliseconds before the measuring begins.
    #[arg(long, default_value_t = 1_000)]
    warmup_millis: u64,
    /// Milliseconds of measuring, at most an hour.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    window_millis: u64,
    /// Length of the request bodies, about.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(..=32 * 1024 * 1024))]
    body_bytes: u32,
    /// Ask streams for their usage.
    #[arg(long)]
    include_usage: bool,
    /// Calls a second in all; latency then counts from when a call was due. Default: as many as can be.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Process whose CPU time and memory are read; can be given again.
    #[arg(long = "pid")]
    processes: Vec<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    Rps,
    Sse,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let plan = Plan {
        address: line.address,
        source: line.source,
        path: line.path,
        model: line.model,
        key: line.key,
        mode: match line.mode {
            ModeName::Rps => Mode::Rps,
            ModeName::Sse => Mode::Sse,
        },
        connections: line.connections,
        ramp: Duration::from_millis(line.ramp_millis),
        warmup: Duration::from_millis(line.warmup_millis),
        window: Duration::from_millis(line.window_millis),
        body_bytes: usize::try_from(line.body_bytes).unwrap_or(usize::MAX),
        include_usage: line.include_usage,
        rate: line.rate,
        processes: line.processes,
    };
    let printed = run(&plan).and_then(|report| writeln!(io::stdout(), "{report}"));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("driver: {error}");
            ExitCode::FAILURE
        }
    }
}
