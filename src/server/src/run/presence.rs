//! How a running process is found from outside: by its process ID in a file of the state folder, which
//! it holds locked for as long as it lives, and by what it wrote about its last upgrade.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

/// Name of the file with the process ID.
const PID_FILE: &str = "tokenrouted.pid";
/// Name of the file that says how the last upgrade ended.
const OUTCOME_FILE: &str = "tokenrouted.upgrade";
/// What stands before the reason in it. Without this a reason could read like a process ID.
const FAILED: &str = "failed: ";
/// The longest process ID with its line end, and more.
const PID_BYTES_MAX: u64 = 32;

/// This process's entry in the state folder.
#[derive(Debug)]
pub(crate) struct Presence {
    folder: PathBuf,
    /// The lock. `None` if another process of this state folder has the entry.
    held: Option<File>,
}

impl Presence {
    /// Enters this process, in the place of its parent if that is entered.
    pub(super) fn enter(folder: &Path) -> io::Result<Self> {
        let held = match find(folder)? {
            Some(process) if process != parent_id() => {
                tracing::warn!(
                    process,
                    "another process has this state folder: upgrade reaches that one"
                );
                None
            }
            Some(_) | None => Some(write(folder)?),
        };
        Ok(Self { folder: folder.to_owned(), held })
    }

    /// Takes the entry back from a successor that failed after all.
    pub(super) fn restore(&mut self) -> io::Result<()> {
        let entered = read(&self.folder.join(PID_FILE)).ok().flatten();
        if self.held.is_some() && entered != Some(std::process::id()) {
            self.held = Some(write(&self.folder)?);
        }
        Ok(())
    }

    /// Tells whoever asked for an upgrade how it ended: by the process ID of the successor, or why not.
    pub(super) fn tell(&self, outcome: &Result<u32, String>) -> io::Result<()> {
        let text = match outcome {
            Ok(process) => format!("{process}\n"),
            Err(why) => format!("{FAILED}{why}\n"),
        };
        replace(&self.folder.join(OUTCOME_FILE), &text).map(drop)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let path = self.folder.join(PID_FILE);
        if self.held.is_some()
            && read(&path).is_ok_and(|entered| entered == Some(std::process::id()))
        {
            // It stays, unlocked: that says the same.
            fs::remove_file(path).unwrap_or_default();
        }
    }
}

/// The process of a state folder, if one runs.
pub(crate) fn find(folder: &Path) -> io::Result<Option<u32>> {
    let path = folder.join(PID_FILE);
    match File::open(&path).map(|file| file.try_lock_shared()) {
        Ok(Err(TryLockError::WouldBlock)) => read(&path),
        Ok(Err(TryLockError::Error(error))) => Err(error),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(Ok(())) | Err(_) => Ok(None),
    }
}

/// How the last upgrade ended, if there is something new to read since [`forget_outcome`].
pub(crate) fn read_outcome(folder: &Path) -> io::Result<Option<Result<u32, String>>> {
    let text = match fs::read_to_string(folder.join(OUTCOME_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = text.trim_end();
    let why = || text.strip_prefix(FAILED).unwrap_or(text).to_owned();
    Ok(Some(text.parse().map_err(|_| why())))
}

/// Forgets how an earlier upgrade ended.
pub(crate) fn forget_outcome(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(OUTCOME_FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Err(_) | Ok(()) => Ok(()),
    }
}

fn read(path: &Path) -> io::Result<Option<u32>> {
    let mut text = String::new();
    File::open(path)?.take(PID_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim_end().parse().ok())
}

/// Enters this process and locks its entry.
fn write(folder: &Path) -> io::Result<File> {
    replace(&folder.join(PID_FILE), &format!("{}\n", std::process::id()))
}

/// Puts a new, locked file in the place of `path`, whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<File> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.try_lock()?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn it_is_found_while_it_lives() {
        let folder = TempDir::new().unwrap();
        assert_eq!(find(folder.path()).unwrap(), None);
        let presence = Presence::enter(folder.path()).unwrap();
        assert_eq!(find(folder.path()).unwrap(), Some(std::process::id()));
        drop(presence);
        assert_eq!(find(folder.path()).unwrap(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_entry_that_nobody_holds_is_nobodys() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join(PID_FILE), "1\n").unwrap();
        assert_eq!(find(folder.path()).unwrap(), None);
        let _presence = Presence::enter(folder.path()).unwrap();
        assert_eq!(find(folder.path()).unwrap(), Some(std::process::id()));
    }

    #[test]
    fn an_entry_that_another_holds_stays() {
        let folder = TempDir::new().unwrap();
        let other = replace(&folder.path().join(PID_FILE), "1\n").unwrap();
        let mut second = Presence::enter(folder.path()).unwrap();
        second.restore().unwrap();
        drop(second);
        assert_eq!(find(folder.path()).unwrap(), Some(1));
        drop(other);
    }

    #[test]
    fn an_entry_is_passed_to_a_child_and_taken_back() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(PID_FILE);
        // As if this process's parent had entered itself.
        let parent = replace(&path, &format!("{}\n", parent_id())).unwrap();
        let mut presence = Presence::enter(folder.path()).unwrap();
        assert_eq!(find(folder.path()).unwrap(), Some(std::process::id()));
        drop(parent);
        // As if a child had, and failed afterwards.
        let child = replace(&path, "1\n").unwrap();
        drop(child);
        presence.restore().unwrap();
        assert_eq!(find(folder.path()).unwrap(), Some(std::process::id()));
    }

    #[test]
    fn outcomes_are_read_as_they_were_told() {
        let folder = TempDir::new().unwrap();
        let presence = Presence::enter(folder.path()).unwrap();
        assert_eq!(read_outcome(folder.path()).unwrap(), None);
        for outcome in [Ok(7), Err("listen.address: 1\nadmin: 2".to_owned()), Err("8".to_owned())] {
            presence.tell(&outcome).unwrap();
            assert_eq!(read_outcome(folder.path()).unwrap(), Some(outcome));
        }
        forget_outcome(folder.path()).unwrap();
        forget_outcome(folder.path()).unwrap();
        assert_eq!(read_outcome(folder.path()).unwrap(), None);
    }
}
