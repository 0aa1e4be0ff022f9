//! The end of client connections, around Pingora's application: the frame would cut loose what is idle the
//! moment it stops listening.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;

use crate::lifecycle::Lifecycle;

/// Counts connections, and lets them end when their calls have.
pub struct Connections<A> {
    app: Arc<A>,
    lifecycle: Lifecycle,
    /// Never read here, so that each connection's copy notices the change.
    leaving: ShutdownWatch,
}

impl<A> Connections<A> {
    /// Lets the connections of `app` end as `lifecycle` says.
    pub fn new(app: A, lifecycle: Lifecycle) -> Self {
        let leaving = lifecycle.leaving();
        Self { app: Arc::new(app), lifecycle, leaving }
    }
}

impl<A> fmt::Debug for Connections<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("open", &self.lifecycle.connections())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Connections<A> {
    /// The listener's own signal is not passed on: a connection outlives its listener.
    async fn process_new(self: &Arc<Self>, stream: Stream, _: &ShutdownWatch) -> Option<Stream> {
        let _open = self.lifecycle.connect();
        self.app.process_new(stream, &self.leaving).await
    }

    /// Called when nothing is accepted any more. What it does in `app` is to close what is idle.
    async fn cleanup(&self) {
        self.lifecycle.idle_closed().await;
        self.app.cleanup().await;
    }
}
