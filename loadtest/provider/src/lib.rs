//! A provider in a box: an HTTP/1.1 server that speaks OpenAI's wire format exactly and misbehaves on command.
//!
//! It is the demo provider built into the gateway, the fake upstream of the tests, and the load that the
//! proxies are measured with. It holds no model and does not check requests the way a real provider would.
//!
//! What it does is told by the *model name*: parts joined by `+`, one of which may say what is answered and the
//! others how. `echo+crlf+cut-after-3` echoes the last user message as SSE with CRLF line ends and resets the
//! connection after the third event. The same names work as the first segment of the path
//! (`/early-429/v1/chat/completions`), for faults that come before the body is read. An unknown name is answered
//! with 404 `model_not_found`. `loadtest/README.md` has the table of names; [`names`] lists an example of each.

mod answer;
mod ask;
mod connection;
mod embeddings;
mod faults;
mod frame;
mod gzip;
mod head;
mod load;
mod observe;
mod play;
mod recorded;
mod reply;
mod schema;
mod script;
mod state;
mod stream;
pub mod tokens;
mod usage;
mod wire;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use observe::fnv64;
pub use script::names;

/// Connections held open at once; further ones wait in the listen queue.
pub const CONNECTIONS_MAX: usize = 20_000;

/// Wait after a failed `accept` (no file descriptors left, say), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// How the provider is set up.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The only bearer credential that is accepted; any is when this is `None`.
    pub expect_key: Option<String>,
    /// A file that gets JSON lines: one when a request arrives, one before each piece of its answer is sent,
    /// one when the exchange has ended.
    pub truth: Option<PathBuf>,
    /// A folder of recorded streams, `NAME.sse`, for `replay-NAME` and `said-NAME`.
    pub recorded: Option<PathBuf>,
}

/// Serves connections of `listener` until `shutdown` resolves, then drops those that are still open.
///
/// Fails when the truth file or the recordings cannot be opened; faults of single connections end those alone.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let state = Arc::new(state::State::open(&options)?);
    let mut tasks = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= CONNECTIONS_MAX {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                _ = tasks.join_next() => {}
            }
            continue;
        }
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(connection::run(stream, Arc::clone(&state)));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds: the stamp in `load-sse` events, comparable across processes of one host.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
