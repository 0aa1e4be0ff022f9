//! How far the calls with money in them have come, so that a process that does not live to settle them
//! leaves word of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokenroute_domain::id::CallId;
use tokenroute_domain::journal::Mark;

use crate::bank::Journal;

/// The calls in flight.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<HashMap<CallId, Arc<Progress>>>);

/// How far one call has come.
#[derive(Debug)]
pub(crate) struct Progress {
    journal: Arc<dyn Journal>,
    latest: Mutex<Latest>,
}

#[derive(Debug, Default)]
struct Latest {
    mark: Option<Mark>,
    /// The journal has the mark.
    written: bool,
}

impl Progress {
    /// Takes note of how far the call has come; the journal gets it with the next round of marks. What the
    /// provider has reported does not wait: the client must not have a whole answer that a dead process
    /// knows only a part of.
    pub(crate) fn advance(&self, mark: Mark) {
        let mut latest = self.lock();
        if latest.mark.as_ref() == Some(&mark) {
            return;
        }
        let urgent = mark.reported;
        if urgent {
            self.journal.mark(std::slice::from_ref(&mark));
        }
        *latest = Latest { mark: Some(mark), written: urgent };
    }

    fn unwritten(&self) -> Option<Mark> {
        let mut latest = self.lock();
        if latest.written {
            return None;
        }
        latest.written = true;
        latest.mark.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    pub(super) fn begin(&self, call: CallId, journal: &Arc<dyn Journal>) -> Arc<Progress> {
        let (journal, latest) = (Arc::clone(journal), Mutex::default());
        let progress = Arc::new(Progress { journal, latest });
        self.lock().insert(call, Arc::clone(&progress));
        progress
    }

    /// The call is over.
    pub(super) fn end(&self, call: CallId) {
        self.lock().remove(&call);
    }

    /// What has changed since the last time.
    pub(super) fn unwritten(&self) -> Vec<Mark> {
        let calls: Vec<_> = self.lock().values().cloned().collect();
        calls.iter().filter_map(|progress| progress.unwritten()).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<CallId, Arc<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
