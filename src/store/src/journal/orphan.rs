//! What a run of an edge left that did not live to settle it.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokenroute_domain::id::NodeId;
use tokenroute_domain::journal::Ended;

use super::Journal;
use super::disk::Folder;
use super::lock::Lock;
use super::replay::Replay;

/// The journal of a run that is no more. Nobody else can have it for as long as this lives; if this is
/// dropped without [`Orphan::finish`], the next that looks finds it again.
#[derive(Debug)]
#[must_use = "the calls of a dead edge are to be settled"]
pub struct Orphan {
    node: NodeId,
    calls: Vec<Arc<Ended>>,
    dropped_bytes: u64,
    unreadable: u64,
    folder: Folder,
    lock: Lock,
}

impl Journal {
    /// The journals in a folder whose runs are no more. One that cannot be read now is left for later, and
    /// logged.
    pub fn orphans(folder: &Path) -> io::Result<Vec<Orphan>> {
        let mut orphans = Vec::new();
        for node in Folder::runs(folder)? {
            match Orphan::take(folder, node) {
                Ok(orphan) => orphans.extend(orphan),
                Err(failure) => {
                    tracing::error!(%node, %failure, "the journal of a dead edge cannot be read");
                }
            }
        }
        Ok(orphans)
    }
}

impl Orphan {
    /// Takes the journal of a run, unless it lives or somebody else has taken it.
    fn take(path: &Path, node: NodeId) -> io::Result<Option<Self>> {
        let folder = Folder::of(path, node);
        let Some(lock) = Lock::try_take(&folder.lock())? else { return Ok(None) };
        let mut replay = Replay::default();
        for number in folder.segments()? {
            let file = File::open(folder.segment(number))?;
            let bytes = file.metadata()?.len();
            replay.read(io::BufReader::new(file), bytes)?;
        }
        let (dropped_bytes, unreadable) = (replay.dropped_bytes(), replay.unreadable());
        if dropped_bytes > 0 || unreadable > 0 {
            tracing::warn!(%node, dropped_bytes, unreadable, "a part of a journal is not readable");
        }
        let calls = replay.into_ended();
        Ok(Some(Self { node, calls, dropped_bytes, unreadable, folder, lock }))
    }

    /// Which run it was.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Its calls that may not be settled. Some may be: the bank knows.
    pub fn calls(&self) -> &[Arc<Ended>] {
        &self.calls
    }

    /// Bytes that were torn or damaged.
    pub const fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Whole entries that this program does not understand.
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Removes the journal: everything is settled.
    pub fn finish(self) -> io::Result<()> {
        for number in self.folder.segments()? {
            fs::remove_file(self.folder.segment(number))?;
        }
        self.lock.remove()
    }
}
