//! Keeps allowances stocked from the shared side, for many calls with one exchange.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokenroute_domain::limit::slice::{Mode, POLL};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Limiter, Payer, Shared};
use crate::clock;

/// Subjects that are asked about in one exchange.
const ASKS_MAX: usize = 256;
/// How often allowances are looked through for what lies unused, and how often a shared side that is away is
/// tried.
const SWEEP: Duration = Duration::from_millis(500);
/// Sweeps between two words that this edge is there.
const PRESENCE_SWEEPS: u32 = 4;

impl Limiter {
    /// Asks the shared side for what calls will need, and gives back what they do not, until `stop` says so.
    /// Without a shared side it only forgets who does not call any more.
    pub async fn run(self, shared: Option<Arc<dyn Shared>>, mut stop: watch::Receiver<bool>) {
        let work = async {
            match &shared {
                Some(shared) => self.refill(&**shared).await,
                None => self.sweep_alone().await,
            }
        };
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn sweep_alone(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.sweep();
        }
    }

    async fn refill(&self, shared: &dyn Shared) {
        let mut sweep = Instant::now();
        let mut last = sweep;
        let mut sweeps = 0_u32;
        loop {
            if Instant::now() >= sweep {
                if self.is_alone() || sweeps.is_multiple_of(PRESENCE_SWEEPS) {
                    self.count(shared).await;
                }
                sweeps = sweeps.wrapping_add(1);
                self.sweep();
                sweep = Instant::now() + SWEEP;
            }
            let due = self.is_queued().then_some(last + POLL);
            tokio::select! {
                () = sleep_until(due.map_or(sweep, |due| due.min(sweep))) => {}
                () = self.0.wake.notified() => {}
            }
            let urgent = self.0.urgent.swap(false, Ordering::AcqRel);
            if urgent || (self.is_queued() && Instant::now() >= last + POLL) {
                last = Instant::now();
                self.exchange(shared).await;
            }
        }
    }

    /// Says that this edge is there; who answers is not away.
    async fn count(&self, shared: &dyn Shared) {
        match shared.count_edges().await {
            Ok(edges) => {
                self.0.edges.store(edges.max(1), Ordering::Relaxed);
                if self.0.alone.swap(false, Ordering::AcqRel) {
                    tracing::info!(edges, "limits are shared with the other edges");
                }
            }
            Err(_unavailable) => self.away(),
        }
    }

    fn away(&self) {
        if !self.0.alone.swap(true, Ordering::AcqRel) {
            let edges = self.edges();
            tracing::warn!(edges, "limits cannot be shared: each edge keeps to its part");
        }
    }

    /// Asks about those on the list.
    async fn exchange(&self, shared: &dyn Shared) {
        let some = self.take_queued();
        if some.is_empty() {
            return;
        }
        let asks: Vec<_> = some
            .iter()
            .map(|account| {
                let mut state = account.lock();
                (state.queued, state.asking) = (false, true);
                state.allowance.ask(account.subject, clock::tick())
            })
            .collect();
        let answers = shared.exchange(&asks).await;
        let now = clock::tick();
        match answers {
            Ok(told) => {
                for ((account, ask), told) in some.iter().zip(&asks).zip(&told) {
                    let mut state = account.lock();
                    state.allowance.told(ask, told, now);
                    state.answered();
                }
            }
            Err(_unavailable) => {
                self.away();
                for account in &some {
                    let mut state = account.lock();
                    state.allowance.unanswered(self.edges(), now);
                    state.answered();
                }
            }
        }
        self.0.rounds.send_modify(|rounds| *rounds = rounds.wrapping_add(1));
    }

    fn is_queued(&self) -> bool {
        !self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The oldest on the list, those of an account side by side.
    fn take_queued(&self) -> Vec<Arc<Payer>> {
        let mut some = {
            let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let count = queue.len().min(ASKS_MAX);
            queue.drain(..count).collect::<Vec<_>>()
        };
        if self.is_queued() {
            // Somebody may wait for those that are left.
            self.0.urgent.store(true, Ordering::Release);
            self.0.wake.notify_one();
        }
        some.sort_by_key(|account| account.subject.account());
        some
    }

    /// Forgets who does not call any more, and has asked what nobody asks on a call's behalf.
    fn sweep(&self) {
        let now = clock::tick();
        for part in &self.0.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            part.retain(|_, account| {
                let mut state = account.lock();
                let due = state.allowance.is_due(now);
                let alone = matches!(state.allowance.mode(), Mode::Alone(_)) && self.is_alone();
                if due && !alone {
                    self.enqueue(account, &mut state);
                }
                // A call that holds it keeps it in any case.
                state.queued || Arc::strong_count(account) > 1 || !state.allowance.is_idle(now)
            });
        }
    }
}
