//! The node's journal: what of a call must outlive the process that serves it, until the bank has it for
//! good.
//!
//! A run of an edge has files of its own in a folder that several runs may share: numbered segments, which
//! are only ever appended to, and a lock that is held for as long as the run lives. What a call writes is
//! with the system when the write returns, and so outlives the process; a thread begins to sync it within
//! 5 ms, so it mostly outlives the machine too. The next start reads what dead runs left
//! ([`Journal::orphans`]).
//!
//! **Invariant:** a call of which [`Journal::intend`] was `Ok` is in the files until it is forgotten. A frame
//! is whole or it is not read, nothing is ever written behind one that is torn, and after a sync has failed
//! nothing is believed to be on the disk that is not written again.
//!
//! A segment goes when no call needs it. Of one that few calls need, what they need is written again: a
//! stream of an hour does not keep what was written an hour ago.

mod batch;
mod debts;
mod disk;
mod entry;
mod frame;
mod keeper;
mod lock;
mod log;
pub(crate) mod orphan;
pub(crate) mod replay;
mod write;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokenroute_domain::id::{CallId, NodeId};
use tokenroute_domain::journal::{Ended, Intent, Mark};

use batch::{Batch, Kind};
use disk::Folder;
use keeper::Core;
use lock::Lock;

/// Bytes that are written with one write, about: other calls wait for it.
const BATCH_BYTES: usize = 64 << 10;
/// Most of an intent's bytes, so that its buffer seldom grows.
const INTENT_BYTES: usize = 512;
/// Most of what another entry has, likewise.
const ENTRY_BYTES: usize = 768;

/// The journal cannot be written: the disk is full, or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot be written")]
pub struct Unwritable;

/// How a journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// How long all segments together may get before no call is taken any more; calls under way may use an
    /// eighth more.
    pub bytes_max: u64,
    /// How long a segment gets before another one is begun.
    pub segment_bytes: u64,
    /// How old a segment gets before another one is begun.
    pub segment_age: Duration,
    /// How often it is tried whether a disk that has failed can be written again.
    pub probe_every: Duration,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            bytes_max: 1 << 30,
            segment_bytes: 8 << 20,
            segment_age: Duration::from_secs(10),
            probe_every: Duration::from_millis(500),
        }
    }
}

/// How a journal is doing, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalGauges {
    /// Whether calls that begin can be written down.
    pub is_writable: bool,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Files that are kept.
    pub segments: usize,
    /// Calls that are not forgotten.
    pub calls: usize,
    /// Bytes that a power cut would take.
    pub unsynced_bytes: usize,
    /// Calls of which something is to be written once that is possible.
    pub owed_calls: usize,
    /// Writes and syncs that failed, since the start.
    pub failures: u64,
}

/// The journal of this run. Dropping it is [`Journal::close`].
#[derive(Debug)]
pub struct Journal {
    core: Arc<Core>,
    open: Mutex<Option<Open>>,
}

/// What an open journal has.
#[derive(Debug)]
struct Open {
    keeper: JoinHandle<()>,
    lock: Lock,
}

impl Journal {
    /// Begins the journal of a run in a folder, and makes the folder if need be. If the disk is full the
    /// journal is not writable, and becomes so by itself.
    pub fn open(folder: &Path, node: NodeId, options: JournalOptions) -> io::Result<Self> {
        let folder = Folder::new(folder, node)?;
        let lock = Lock::take(&folder.lock())?;
        let core = Arc::new(Core::new(Box::new(folder), options));
        let keeping = Arc::clone(&core);
        let keeper =
            thread::Builder::new().name("journal".to_owned()).spawn(move || keeping.keep())?;
        Ok(Self { core, open: Mutex::new(Some(Open { keeper, lock })) })
    }

    /// Writes down that a call is about to go upstream. On return it outlives the process, and within
    /// milliseconds the machine.
    pub fn intend(&self, intent: &Intent) -> Result<(), Unwritable> {
        self.core.intend(intent)
    }

    /// Writes down how far calls have come. What cannot be written is written as soon as it can be. Marks
    /// of calls that are over, or have no intent, are passed over.
    pub fn mark(&self, marks: &[Mark]) {
        self.core.mark(marks);
    }

    /// Writes down calls that are over. What cannot be written is written as soon as it can be.
    pub fn ended(&self, ended: &[Arc<Ended>]) -> Result<(), Unwritable> {
        self.core.ended(ended)
    }

    /// These calls need not be kept any more.
    pub fn forget(&self, calls: &[CallId]) {
        self.core.forget(calls);
    }

    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        self.core.is_writable()
    }

    /// How it is doing.
    pub fn gauges(&self) -> JournalGauges {
        self.core.with(|log, options| log.gauges(options))
    }

    /// Syncs what was written, and ends. If no call needs the files they are removed; else whoever looks
    /// for orphans finds them. From now on it is not writable.
    pub fn close(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Open { keeper, lock }) = open else { return };
        self.core.with(|log, _| log.stopping = true);
        if keeper.join().is_err() {
            tracing::error!("the journal's thread has panicked");
            return;
        }
        if self.core.with(|log, _| log.has_failed()) {
            self.core.recover();
        }
        match self.core.clear() {
            Ok(false) => {}
            Ok(true) => {
                if let Err(failure) = lock.remove() {
                    tracing::warn!(%failure, "the lock of the journal cannot be removed");
                }
            }
            Err(failure) => tracing::warn!(%failure, "the journal cannot be removed"),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Core {
    fn intend(&self, intent: &Intent) -> Result<(), Unwritable> {
        if !self.is_writable() {
            return Err(Unwritable);
        }
        let mut batch = Batch::with_capacity(INTENT_BYTES, 1);
        batch
            .add(intent.call, Kind::Intent, |out| entry::intent(intent, out))
            .map_err(|_| Unwritable)?;
        self.with(|log, options| log.begin(&batch, options))
    }

    fn mark(&self, marks: &[Mark]) {
        let mark = |batch: &mut Batch, mark: &Mark| {
            batch.add(mark.call, Kind::Mark, |out| entry::mark(mark, out))
        };
        // They are owed then.
        let _unwritable = self.write_all(marks, mark);
    }

    fn ended(&self, ended: &[Arc<Ended>]) -> Result<(), Unwritable> {
        self.write_all(ended, |batch, ended| {
            batch.add(ended.record.call, Kind::Ended, |out| entry::ended(ended, out))
        })
    }

    fn forget(&self, calls: &[CallId]) {
        self.with(|log, options| {
            let forgotten = log.forget(calls);
            log.write_forgotten(&forgotten, options);
        });
    }

    /// Writes what calls under way leave, in as few writes as is fair to others.
    fn write_all<T>(
        &self,
        all: &[T],
        add: impl Fn(&mut Batch, &T) -> Result<(), entry::Unwritten>,
    ) -> Result<(), Unwritable> {
        let mut result = Ok(());
        let expected = all.len().saturating_mul(ENTRY_BYTES).min(BATCH_BYTES + ENTRY_BYTES);
        let mut batch = Batch::with_capacity(expected, all.len());
        for one in all {
            if add(&mut batch, one).is_err() {
                tracing::error!("what a call has come to is too long for the journal");
                result = Err(Unwritable);
            }
            if batch.bytes().len() >= BATCH_BYTES {
                let full = std::mem::take(&mut batch);
                result = self.with(|log, options| log.write_or_owe(full, options)).and(result);
            }
        }
        self.with(|log, options| log.write_or_owe(batch, options)).and(result)
    }
}
