//! Tells whether a run of an edge lives: it holds a lock on a file of its own, which the system lets go of
//! when the process ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often a new run tries to get its own lock: one that looks for orphans may hold it for a moment.
const TRIES: usize = 100;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// A lock that is held for as long as this lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of a run that begins.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
            thread::sleep(PAUSE);
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has the journal's lock"))
    }

    /// Takes the lock if nobody holds it, and makes its file if there is none.
    pub(super) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(super::disk::FILE_MODE)
            .open(path)?;
        Self::hold(file, path)
    }

    /// Takes the lock with a file that was opened by this path.
    pub(super) fn hold(file: File, path: &Path) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever held it may have removed the file in between: then this is a lock on nothing.
        let ours = file.metadata()?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                Ok(Some(Self { _file: file, path: path.to_owned() }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the file while the lock is still held, so that nobody takes it for another's.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
