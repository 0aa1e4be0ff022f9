//! What could not be written, until it can: of each call its last mark, or its end.

use std::collections::HashMap;

use tokenroute_domain::id::CallId;

use super::batch::{Batch, Kind};

/// Bytes of all debts. Beyond it, what a call has come to is known to the process alone.
const BYTES_MAX: usize = 64 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Debts {
    calls: HashMap<CallId, (Kind, Vec<u8>)>,
    bytes: usize,
}

impl Debts {
    /// Keeps a frame in place of an earlier one of its call, which is not over. An intent that cannot be
    /// written is none.
    pub(super) fn add(&mut self, call: CallId, kind: Kind, frame: &[u8]) {
        if kind == Kind::Intent {
            return;
        }
        self.remove(call);
        if self.bytes.saturating_add(frame.len()) > BYTES_MAX {
            tracing::error!(%call, "what a call has come to is known to this process alone");
            return;
        }
        self.bytes = self.bytes.saturating_add(frame.len());
        self.calls.insert(call, (kind, frame.to_vec()));
    }

    /// A call is forgotten, or a newer frame of it has been written.
    pub(super) fn remove(&mut self, call: CallId) {
        if let Some((_, frame)) = self.calls.remove(&call) {
            self.bytes = self.bytes.saturating_sub(frame.len());
        }
    }

    /// Whether a call is over by what is kept here.
    pub(super) fn has_end(&self, call: CallId) -> bool {
        self.calls.get(&call).is_some_and(|(kind, _)| *kind == Kind::Ended)
    }

    pub(super) fn count(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// All of it.
    pub(super) fn batch(&self) -> Batch {
        let mut batch = Batch::default();
        for (call, (kind, frame)) in &self.calls {
            batch.add_frame(*call, *kind, frame);
        }
        batch
    }
}
