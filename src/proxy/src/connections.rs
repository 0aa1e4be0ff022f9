//! A bound on client connections, around Pingora's application: the frame has none.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;
use tokio::sync::Semaphore;

/// Serves at most so many connections at once; a further one is closed before anything is read.
pub struct Connections<A> {
    app: Arc<A>,
    free: Semaphore,
}

impl<A> Connections<A> {
    /// Bounds the connections of `app`.
    pub fn new(app: A, connections_max: usize) -> Self {
        let free = Semaphore::new(connections_max.clamp(1, Semaphore::MAX_PERMITS));
        Self { app: Arc::new(app), free }
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
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let _place = self.free.try_acquire().ok()?;
        self.app.process_new(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.app.cleanup().await;
    }
}
