//! Whether the edge takes calls, how many it has, and when calls and connections must end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pingora_core::server::ShutdownWatch;
use tokio::sync::watch;

/// Shared by the gateway, the admin pages and whoever handles signals.
#[derive(Clone, Debug)]
pub struct Lifecycle(Arc<State>);

#[derive(Debug)]
struct State {
    ready: AtomicBool,
    wants_traffic: AtomicBool,
    /// Whether new calls are refused.
    closed: AtomicBool,
    calls: AtomicUsize,
    connections: AtomicUsize,
    /// Turns true once, when HTTP/2 clients are told to go elsewhere.
    leave: watch::Sender<bool>,
    /// Turns true once, when connections without a call are closed.
    close_idle: watch::Sender<bool>,
    /// Turns true once, when calls in flight must end.
    end: watch::Sender<bool>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self(Arc::new(State {
            ready: AtomicBool::new(true),
            wants_traffic: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            leave: watch::Sender::new(false),
            close_idle: watch::Sender::new(false),
            end: watch::Sender::new(false),
        }))
    }
}

impl Lifecycle {
    /// Whether this process asks for more calls. If not, each HTTP/1.1 answer is the last of its
    /// connection.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Acquire)
    }

    /// What `/readyz` says: whether traffic is wanted on its address, by this process or by another.
    pub fn wants_traffic(&self) -> bool {
        self.0.wants_traffic.load(Ordering::Acquire)
    }

    /// Stops asking for traffic. Calls go on.
    pub fn drain(&self) {
        self.0.wants_traffic.store(false, Ordering::Release);
        self.0.ready.store(false, Ordering::Release);
    }

    /// Leaves traffic to a successor on the same addresses. Calls go on.
    pub fn yield_traffic(&self) {
        self.0.ready.store(false, Ordering::Release);
    }

    /// Tells HTTP/2 clients to go elsewhere. Their streams go on, and so do those that they opened
    /// before they heard of it.
    pub fn leave(&self) {
        self.0.leave.send_replace(true);
    }

    /// Closes connections that are between two calls; others once their call has ended.
    pub fn close_idle(&self) {
        self.0.close_idle.send_replace(true);
    }

    /// Refuses new calls; those in flight go on.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
    }

    /// Whether new calls are refused.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// Ends every call in flight with an honest error.
    pub fn end_calls(&self) {
        self.0.end.send_replace(true);
    }

    /// Calls in flight.
    pub fn calls(&self) -> usize {
        self.0.calls.load(Ordering::Acquire)
    }

    /// Connections of clients, TLS handshakes not counted.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Acquire)
    }

    /// Counts a call until the guard is dropped.
    pub(crate) fn enter(&self) -> InFlight {
        self.0.calls.fetch_add(1, Ordering::AcqRel);
        InFlight(self.clone())
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connect(&self) -> Connected {
        self.0.connections.fetch_add(1, Ordering::AcqRel);
        Connected(self.clone())
    }

    /// A receiver that tells when HTTP/2 clients are to go.
    pub(crate) fn leaving(&self) -> ShutdownWatch {
        self.0.leave.subscribe()
    }

    /// Returns when idle connections are to be closed; never before.
    pub(crate) async fn idle_closed(&self) {
        wait(&mut self.0.close_idle.subscribe()).await;
    }

    /// A receiver that tells when idle connections are to be closed.
    pub(crate) fn closing(&self) -> Ending {
        Ending(self.0.close_idle.subscribe())
    }

    /// A receiver that tells when calls must end.
    pub(crate) fn ending(&self) -> Ending {
        Ending(self.0.end.subscribe())
    }
}

/// One call in flight.
#[derive(Debug)]
pub(crate) struct InFlight(Lifecycle);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Connected(Lifecycle);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits for the end of all calls, or of all connections without one.
#[derive(Clone, Debug)]
pub(crate) struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Returns when they must end; never before.
    pub(crate) async fn wait(&mut self) {
        wait(&mut self.0).await;
    }
}

async fn wait(told: &mut watch::Receiver<bool>) {
    if told.wait_for(|told| *told).await.is_err() {
        // The sender is gone with the process: there is nobody left to be told.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn each_step_is_its_own() {
        let lifecycle = Lifecycle::default();
        let mut leaving = lifecycle.leaving();
        lifecycle.yield_traffic();
        assert!(!lifecycle.is_ready() && lifecycle.wants_traffic());
        lifecycle.drain();
        assert!(!lifecycle.is_ready() && !lifecycle.wants_traffic() && !lifecycle.is_closed());
        assert!(leaving.changed().now_or_never().is_none());
        lifecycle.leave();
        // Pingora's connections wait for the change, each on a copy.
        assert!(leaving.clone().changed().now_or_never().is_some());
        assert!(leaving.changed().now_or_never().is_some() && *leaving.borrow());
        assert!(lifecycle.idle_closed().now_or_never().is_none());
        lifecycle.close_idle();
        assert!(lifecycle.idle_closed().now_or_never().is_some());
        assert!(lifecycle.ending().wait().now_or_never().is_none());
        lifecycle.end_calls();
        assert!(lifecycle.ending().wait().now_or_never().is_some());
        assert!(!lifecycle.is_closed());
    }

    #[test]
    fn calls_and_connections_are_counted_apart() {
        let lifecycle = Lifecycle::default();
        let (call, connection) = (lifecycle.enter(), lifecycle.connect());
        drop(call);
        assert_eq!((lifecycle.calls(), lifecycle.connections()), (0, 1));
        drop(connection);
        assert_eq!((lifecycle.calls(), lifecycle.connections()), (0, 0));
    }
}
