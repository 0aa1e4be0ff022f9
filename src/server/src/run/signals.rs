//! How an edge goes down: told once, it stops asking for traffic, lets calls end, ends the rest
//! honestly, and leaves when every record is written.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokenroute_proxy::lifecycle::Lifecycle;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Shutdown;

/// For calls that were told to end: to write their last event.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often it is looked whether calls have ended.
const LOOK: Duration = Duration::from_millis(20);

/// Waits for the signal to go down.
pub(crate) struct Signals {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) shutdown: Shutdown,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    /// SIGTERM: not ready at once, accepting for a short delay, then until the calls have ended.
    /// SIGINT, or a second signal: calls are ended now. Returns when no call is left to wait for.
    async fn recv(&self) -> ShutdownSignal {
        let urgent = self.first_signal().await;
        self.lifecycle.drain();
        if !urgent {
            tracing::info!(calls = self.lifecycle.calls(), "going down when calls have ended");
            tokio::select! {
                () = self.calm() => {}
                _ = self.first_signal() => {}
            }
        }
        self.lifecycle.close();
        self.lifecycle.end_calls();
        self.calls_end(LAST_WORDS).await;
        ShutdownSignal::GracefulTerminate
    }
}

impl Signals {
    /// Waits for a signal; tells whether it wants an end now.
    async fn first_signal(&self) -> bool {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
        let [terminate, interrupt, quit] = kinds.map(signal);
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut quit)) = (terminate, interrupt, quit)
        else {
            tracing::error!("signals cannot be received; only SIGKILL will end this process");
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => return false,
                _ = interrupt.recv() => return true,
                // Pingora would hand its sockets over to a successor that is not there.
                _ = quit.recv() => tracing::warn!("SIGQUIT is not used; send SIGTERM or SIGINT"),
            }
        }
    }

    /// The unhurried way: the delay for load balancers, then the calls' own time.
    async fn calm(&self) {
        tokio::time::sleep(self.shutdown.delay).await;
        self.lifecycle.close();
        self.calls_end(self.shutdown.streams).await;
    }

    async fn calls_end(&self, within: Duration) {
        let start = Instant::now();
        while self.lifecycle.calls() > 0 && start.elapsed() < within {
            tokio::time::sleep(LOOK).await;
        }
    }
}
