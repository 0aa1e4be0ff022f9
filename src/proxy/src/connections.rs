//! A bound on client connections, around Pingora's application, and their end: the frame would cut
//! loose what is idle the moment it stops listening.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;
use tokio::sync::Semaphore;

use crate::lifecycle::Lifecycle;

/// Serves at most so many connections at once; a further one is closed before anything is read.
pub struct Connections<A> {
    app: Arc<A>,
    free: Semaphore,
    lifecycle: Lifecycle,
    /// Never read here, so that each connection's copy notices the change.
    leaving: ShutdownWatch,
}

impl<A> Connections<A> {
    /// Bounds the connections of `app`, and lets them end as `lifecycle` says.
    pub fn new(app: A, connections_max: usize, lifecycle: Lifecycle) -> Self {
        let free = Semaphore::new(connections_max.clamp(1, Semaphore::MAX_PERMITS));
        let leaving = lifecycle.leaving();
        Self { app: Arc::new(app), free, lifecycle, leaving }
    }
}

impl<A> fmt::Debug for Connections<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("free", &self.free.available_permits())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Connections<A> {
    /// The listener's own signal is not passed on: a connection outlives its listener.
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let _place = self.free.try_acquire().ok()?;
        let _open = self.lifecycle.connect();
        self.app.process_new(stream, &self.leaving).await
    }

    /// Called when nothing is accepted any more. What it does in `app` is to close what is idle.
    async fn cleanup(&self) {
        self.lifecycle.idle_closed().await;
        self.app.cleanup().await;
    }
}
