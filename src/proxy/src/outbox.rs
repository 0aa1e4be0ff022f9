//! The bounded way of calls that are over out of the data plane.
//!
//! A slot is reserved before a call is taken on and filled when it ends, so no record is lost and
//! no call waits for the store: with no slot free the call is refused.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokenroute_domain::journal::Ended;
use tokio::sync::mpsc;

/// Room for one call that is over.
#[derive(Debug)]
pub struct Slot(mpsc::OwnedPermit<Ended>);

impl Slot {
    /// Puts the call on its way; never waits and never fails.
    pub fn send(self, ended: Ended) {
        let _sender = self.0.send(ended);
    }
}

/// The data plane's end of the outbox.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// None once closed.
    sender: Arc<ArcSwapOption<mpsc::Sender<Ended>>>,
}

impl Outbox {
    /// An outbox of `slots_max` records and the end that the store reads.
    pub fn new(slots_max: usize) -> (Self, mpsc::Receiver<Ended>) {
        let (sender, receiver) = mpsc::channel(slots_max.max(1));
        (Self { sender: Arc::new(ArcSwapOption::from_pointee(sender)) }, receiver)
    }

    /// Reserves room for one record.
    pub fn reserve(&self) -> Option<Slot> {
        let sender = mpsc::Sender::clone(self.sender.load().as_ref()?);
        sender.try_reserve_owned().ok().map(Slot)
    }

    /// Reserves room for the record of a caller that nobody knows. Such callers may fill no more
    /// than half of the outbox, so that a flood of them does not turn known callers away.
    pub fn reserve_unknown(&self) -> Option<Slot> {
        if self.free() > self.slots_max() / 2 { self.reserve() } else { None }
    }

    /// Slots that are free.
    pub fn free(&self) -> usize {
        self.sender.load().as_ref().map_or(0, |sender| sender.capacity())
    }

    /// Slots in all.
    pub fn slots_max(&self) -> usize {
        self.sender.load().as_ref().map_or(0, |sender| sender.max_capacity())
    }

    /// Takes no new calls. Those that have a slot still fill it; then the store's end is told that
    /// nothing more will come.
    pub fn close(&self) {
        self.sender.store(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_callers_leave_half_to_the_known() {
        let (outbox, _receiver) = Outbox::new(4);
        let unknown: Vec<_> = std::iter::from_fn(|| outbox.reserve_unknown()).collect();
        assert_eq!(unknown.len(), 2);
        let known: Vec<_> = std::iter::from_fn(|| outbox.reserve()).collect();
        assert_eq!(known.len(), 2);
        assert!(outbox.reserve().is_none());
        drop(known);
        assert!(outbox.reserve().is_some());
    }

    #[test]
    fn a_closed_outbox_takes_no_new_call() {
        let (outbox, mut receiver) = Outbox::new(4);
        let slot = outbox.reserve();
        outbox.close();
        assert!(outbox.reserve().is_none());
        assert_eq!(receiver.try_recv(), Err(mpsc::error::TryRecvError::Empty));
        drop(slot);
        assert_eq!(receiver.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }
}
