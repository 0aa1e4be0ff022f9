//! `provider`: the provider in a box as a program of its own.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tokenroute_provider::{Options, serve};

const USAGE: &str =
    "usage: provider --listen ADDRESS [--expect-key KEY] [--truth FILE] [--recorded FOLDER]";

fn main() -> ExitCode {
    let (address, options) = match read_arguments(std::env::args().skip(1)) {
        Ok(read) => read,
        Err(message) => {
            eprintln!("provider: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(address, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("provider: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read_arguments(
    mut arguments: impl Iterator<Item = String>,
) -> Result<(SocketAddr, Options), String> {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 9100));
    let mut options = Options::default();
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--listen" => address = value.parse().map_err(|error| format!("{value}: {error}"))?,
            "--expect-key" => options.expect_key = Some(value),
            "--truth" => options.truth = Some(PathBuf::from(value)),
            "--recorded" => options.recorded = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    Ok((address, options))
}

fn run(address: SocketAddr, options: Options) -> io::Result<()> {
    // One thread: it shares a core with the load driver, and needs no other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let mut out = io::stdout().lock();
        writeln!(out, "listening on {}", listener.local_addr()?)?;
        out.flush()?;
        serve(listener, options, stop()).await
    })
}

/// Resolves at SIGINT or SIGTERM.
async fn stop() {
    let mut term = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(term) => term,
        Err(error) => {
            eprintln!("provider: no signal handler: {error}");
            return;
        }
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
