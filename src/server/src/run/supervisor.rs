//! How a process goes down. Told once, it stops asking for traffic, lets calls end, ends the rest
//! honestly, and leaves. With a successor it is the same, but nobody is turned away meanwhile.

use std::pin::pin;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokenroute_proxy::lifecycle::Lifecycle;

use super::frame::Frame;
use super::presence::Presence;
use super::signals::{Request, Signals};
use super::successor::{Program, READY_WITHIN, Successor};
use crate::config::Shutdown;

/// For calls that were told to end: to write their last event.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For what a call said last to leave its connection, and for connections without a call to close.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// How often it is looked whether calls have ended.
const LOOK: Duration = Duration::from_millis(20);
/// The first process of a container takes the container with it when it leaves.
const CONTAINER_PROCESS: u32 = 1;

/// What listens, and how it goes down.
pub(super) struct Edge {
    pub(super) frame: Frame,
    pub(super) lifecycle: Lifecycle,
    pub(super) shutdown: Shutdown,
}

/// Watches over a running process.
pub(super) struct Supervisor {
    pub(super) edge: Edge,
    pub(super) signals: Signals,
    pub(super) program: Program,
    /// `None` if the state folder cannot be written.
    pub(super) presence: Option<Presence>,
}

/// How a process is to go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Descent {
    /// Calls are ended at once.
    Now,
    /// Calls have their time, and so have load balancers: nobody takes this process's place.
    Calm,
    /// Calls have their time. A successor accepts on the same sockets already.
    Succeeded,
}

impl Supervisor {
    /// Waits for the end, and for the calls in flight. The frame may be dropped then, and after that
    /// only records are left to write.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        let descent = loop {
            let request = tokio::select! {
                request = self.signals.next() => request,
                () = self.edge.frame.broken() => anyhow::bail!("the edge does not accept any more"),
            };
            let descent = match request {
                Request::Terminate => Some(Descent::Calm),
                Request::Interrupt => Some(Descent::Now),
                Request::Upgrade => self.upgrade().await,
            };
            if let Some(descent) = descent {
                break descent;
            }
        };
        let calls = self.edge.lifecycle.calls();
        tracing::info!(calls, succeeded = descent == Descent::Succeeded, "going down");
        tokio::select! {
            () = self.edge.go_down(descent) => {}
            () = impatience(&mut self.signals, self.presence.as_ref(), descent) => {}
        }
        self.edge.end().await;
        Ok(())
    }

    /// Starts a successor and waits until it serves. `None` if it does not: then this one goes on.
    async fn upgrade(&mut self) -> Option<Descent> {
        let outcome = match self.start_successor() {
            Ok(successor) => {
                let mut serving = pin!(successor.serve(READY_WITHIN));
                loop {
                    let request = tokio::select! {
                        outcome = &mut serving => break outcome,
                        request = self.signals.next() => request,
                    };
                    let descent = match request {
                        Request::Upgrade => {
                            tracing::warn!("an upgrade is under way already");
                            continue;
                        }
                        Request::Terminate => Descent::Calm,
                        Request::Interrupt => Descent::Now,
                    };
                    tell(self.presence.as_ref(), &Err("the process was told to end".to_owned()));
                    return Some(descent);
                }
            }
            Err(why) => Err(why),
        };
        tell(self.presence.as_ref(), &outcome);
        match outcome {
            Ok(process) => {
                notify(&[NotifyState::MainPid(process)]);
                tracing::info!(process, "the successor serves");
                Some(Descent::Succeeded)
            }
            Err(why) => {
                tracing::error!(why, "the upgrade failed; this process goes on");
                if let Some(Err(error)) = self.presence.as_mut().map(Presence::restore) {
                    tracing::warn!(%error, "the process ID cannot be written");
                }
                None
            }
        }
    }

    fn start_successor(&self) -> Result<Successor, String> {
        if std::process::id() == CONTAINER_PROCESS {
            return Err("its process is the first of a container: replace the container".to_owned());
        }
        let Some(sockets) = self.edge.frame.sockets() else {
            return Err("the process does not accept calls any more".to_owned());
        };
        tracing::info!("starting a successor");
        Successor::start(&self.program, sockets)
            .map_err(|error| format!("it cannot be started: {error}"))
    }
}

impl Edge {
    /// The unhurried way down: returns when the calls have ended, or their time is over.
    async fn go_down(&mut self, descent: Descent) {
        match descent {
            Descent::Now => {
                self.lifecycle.drain();
                return notify(&[NotifyState::Stopping]);
            }
            Descent::Calm => {
                self.lifecycle.drain();
                notify(&[NotifyState::Stopping]);
            }
            Descent::Succeeded => {
                self.lifecycle.yield_traffic();
                self.frame.stop_accepting();
                self.frame.yield_pages();
                // A client that is told so loses nothing, unlike one whose idle connection is closed
                // while its next request is on the way.
                self.lifecycle.leave();
            }
        }
        // Time for load balancers to leave, and for busy connections to end with an answer.
        tokio::time::sleep(self.shutdown.delay).await;
        self.let_go();
        self.await_calls(self.shutdown.streams).await;
        self.await_connections(LAST_BYTES).await;
    }

    /// Accepts nothing and keeps nothing open but calls.
    fn let_go(&mut self) {
        self.frame.stop_accepting();
        self.lifecycle.leave();
        self.lifecycle.close_idle();
    }

    /// Ends what is left.
    async fn end(&mut self) {
        self.lifecycle.yield_traffic();
        self.frame.stop_accepting();
        self.lifecycle.close();
        self.lifecycle.end_calls();
        self.await_calls(LAST_WORDS).await;
        self.let_go();
        self.await_connections(LAST_BYTES).await;
    }

    /// Waits for the calls to end, so long at most.
    async fn await_calls(&self, within: Duration) {
        let start = Instant::now();
        while self.lifecycle.calls() > 0 && start.elapsed() < within {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits, so long at most, for connections to close once there are no calls.
    async fn await_connections(&self, within: Duration) {
        let start = Instant::now();
        while self.lifecycle.calls() == 0
            && self.lifecycle.connections() > 0
            && start.elapsed() < within
        {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Returns when somebody does not want to wait any longer.
async fn impatience(signals: &mut Signals, presence: Option<&Presence>, descent: Descent) {
    // A service manager that stops a unit tells all its processes, also one that is on its way out.
    let mut told = descent != Descent::Succeeded;
    loop {
        match signals.next().await {
            Request::Interrupt => return,
            Request::Terminate if told => return,
            Request::Terminate => told = true,
            Request::Upgrade if descent == Descent::Succeeded => {
                tracing::warn!("this process has a successor already");
            }
            Request::Upgrade => tell(presence, &Err("the process is going down".to_owned())),
        }
    }
}

/// Tells whoever asked for an upgrade how it ended.
fn tell(presence: Option<&Presence>, outcome: &Result<u32, String>) {
    if let Some(Err(error)) = presence.map(|presence| presence.tell(outcome)) {
        tracing::warn!(%error, "the outcome of the upgrade cannot be written");
    }
}

/// Tells the service manager, if there is one.
pub(super) fn notify(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
