//! Whether the edge takes calls, how many it has, and when they must end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::watch;

/// Shared by the gateway, the admin pages and whoever handles signals.
#[derive(Clone, Debug)]
pub struct Lifecycle(Arc<State>);

#[derive(Debug)]
struct State {
    ready: AtomicBool,
    /// Whether new calls are refused.
    closed: AtomicBool,
    calls: AtomicUsize,
    /// Turns true once, when calls in flight must end.
    end: watch::Sender<bool>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self(Arc::new(State {
            ready: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            end: watch::Sender::new(false),
        }))
    }
}

impl Lifecycle {
    /// Whether `/readyz` says yes: true until [`Self::drain`].
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Acquire)
    }

    /// Stops asking for traffic; calls go on.
    pub fn drain(&self) {
        self.0.ready.store(false, Ordering::Release);
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

    /// Counts a call until the guard is dropped.
    pub(crate) fn enter(&self) -> InFlight {
        self.0.calls.fetch_add(1, Ordering::AcqRel);
        InFlight(self.clone())
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

/// Waits for the end of all calls.
#[derive(Clone, Debug)]
pub(crate) struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Returns when calls must end; never before.
    pub(crate) async fn wait(&mut self) {
        if self.0.wait_for(|ended| *ended).await.is_err() {
            // The sender is gone with the process: there is nobody left to end the call.
            std::future::pending::<()>().await;
        }
    }
}
