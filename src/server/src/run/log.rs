//! Log lines: ours, as text or JSON, and of the frame only what carries no secret.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging to standard error.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let level = match log.level {
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // Pingora logs heads, raw requests and client addresses with its errors, so it is not heard;
    // RUST_LOG is not read, so nobody can turn it on.
    let targets = Targets::new()
        .with_default(level)
        .with_target("pingora", LevelFilter::OFF)
        .with_target("pingora_core", LevelFilter::OFF)
        .with_target("pingora_proxy", LevelFilter::OFF)
        .with_target("sqlx", LevelFilter::ERROR);
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(targets)).try_init()?;
    // Where a defect is, but not its message: that may quote what a client sent.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(place, "a defect ended a call");
    }));
    Ok(())
}
