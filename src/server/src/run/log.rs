//! Log lines: ours, as text or JSON, and of the frame only what carries no secret.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogFormat, LogLevel};

/// Whose lines are written, by the beginnings of their targets. `RUST_LOG` is not read: nobody can turn
/// on what could show a secret.
fn heard(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        #[cfg(debug_assertions)]
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        // What others say in passing may be heads and statements.
        .with_default(ours.min(LevelFilter::WARN))
        .with_target("tokenroute", ours)
        // Its errors come with heads, raw requests and client addresses.
        .with_target("pingora", LevelFilter::OFF)
        // Slow statements are its warnings.
        .with_target("sqlx", LevelFilter::ERROR)
}

/// Starts logging to standard error.
pub(crate) fn start(log: &Log) -> anyhow::Result<()> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(heard(log.level))).try_init()?;
    // Where a defect is, but not its message: that may quote what a client sent.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(place, "a defect ended a call");
    }));
    Ok(())
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use tracing_subscriber::filter::LevelFilter as Filter;

    use super::*;

    #[test]
    fn nobody_else_is_heard_below_a_warning() {
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Trace] {
            let targets = heard(level);
            let most = |target: &str| {
                let levels =
                    [Filter::ERROR, Filter::WARN, Filter::INFO, Filter::DEBUG, Filter::TRACE];
                let heard = |one: &Filter| {
                    one.into_level().is_some_and(|level| targets.would_enable(target, &level))
                };
                levels.into_iter().filter(heard).max().unwrap_or(Filter::OFF)
            };
            for others in
                ["h2::codec", "hyper", "redis", "rustls::client", "tokio", "mio", "log", ""]
            {
                assert!(most(others) <= Filter::WARN, "{others} at {level:?}");
            }
            assert_eq!(most("sqlx::query"), Filter::ERROR);
            for frame in ["pingora", "pingora_core::protocols", "pingora_proxy", "pingora_http"] {
                assert_eq!(most(frame), Filter::OFF, "{frame} at {level:?}");
            }
        }
        let info = heard(LogLevel::Info);
        for ours in ["tokenrouted::run", "tokenroute_proxy::call", "tokenroute_store"] {
            assert!(info.would_enable(ours, &tracing::Level::INFO));
            assert!(!info.would_enable(ours, &tracing::Level::DEBUG));
            assert!(heard(LogLevel::Trace).would_enable(ours, &tracing::Level::TRACE));
        }
    }
}
