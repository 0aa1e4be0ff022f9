//! What the process is told from outside.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request that came as a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// SIGTERM: go when the calls have ended.
    Terminate,
    /// SIGINT: go now.
    Interrupt,
    /// SIGUSR2: start a successor and leave the sockets to it.
    Upgrade,
}

/// The signals, heard from the time when this was made.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
    quit: Signal,
    /// SIGHUP, until somebody takes it: read the configuration again.
    pub(super) hangup: Option<Signal>,
}

impl Signals {
    /// Listens to them. To be called in a runtime, and early: SIGUSR2 and SIGHUP would end a process that
    /// does not.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
            quit: signal(SignalKind::quit())?,
            hangup: Some(signal(SignalKind::hangup())?),
        })
    }

    /// The next request. One that comes twice before it is heard is heard once.
    pub(super) async fn next(&mut self) -> Request {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Request::Terminate,
                _ = self.interrupt.recv() => return Request::Interrupt,
                _ = self.upgrade.recv() => return Request::Upgrade,
                _ = self.quit.recv() => {
                    tracing::warn!("SIGQUIT is not used; send SIGTERM, SIGINT or SIGUSR2");
                }
            }
        }
    }
}
