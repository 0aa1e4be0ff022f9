//! The folder in the user's home: 0700, its files 0600 and each written in one step, so that nobody reads half a
//! file and a crash leaves the old one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::brand;
use crate::failure::Failure;
use crate::surroundings::Clock;

/// Longest file of ours, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How long another process may hold the lock: longer than a refresh takes.
const LOCK_WAIT: Duration = Duration::from_secs(90);
/// How often it is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Whoever holds the lock is alone in changing credentials.
const LOCK: &str = "credentials.lock";

/// The folder, which need not be there yet.
#[derive(Clone, Debug)]
pub(crate) struct Files(Option<PathBuf>);

/// The lock, until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file gives it back all the same.
        drop(self.0.unlock());
    }
}

impl Files {
    /// The folder in `home`.
    pub(crate) fn of(home: Option<&Path>) -> Self {
        Self(home.map(|home| home.join(brand::FOLDER)))
    }

    fn folder(&self) -> Result<&Path, Failure> {
        self.0.as_deref().ok_or_else(|| Failure::file("there is no home folder: set HOME"))
    }

    /// Where the file `name` is.
    pub(crate) fn path(&self, name: &str) -> Result<PathBuf, Failure> {
        Ok(self.folder()?.join(name))
    }

    /// What is in the file; `None` if it is not there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, Failure> {
        let Some(folder) = &self.0 else { return Ok(None) };
        let path = folder.join(name);
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => {
                close(&file).and_then(|()| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        }
        .map(|_| Some(text))
        .map_err(|error| failed("read", &path, &error))
    }

    /// Replaces the file, in one step.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let folder = self.open()?;
        let path = folder.join(name);
        // Such a file is its owner's alone from the beginning.
        tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(folder)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.as_file().sync_all()?;
                file.persist(&path).map_err(|error| error.error)
            })
            .map_err(|error| failed("written", &path, &error))?;
        Ok(path)
    }

    /// Removes the file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removed", &path, &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Waits until no other process changes credentials.
    pub(crate) fn lock(&self, clock: &dyn Clock) -> Result<Lock, Failure> {
        let path = self.open()?.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(|error| failed("opened", &path, &error))?;
        let begun = clock.elapsed();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::Error(error)) => return Err(failed("locked", &path, &error)),
                Err(TryLockError::WouldBlock)
                    if clock.elapsed().saturating_sub(begun) > LOCK_WAIT =>
                {
                    let shown = path.display();
                    let message = format!("another process does not give {shown} back: end it");
                    return Err(Failure::file(message));
                }
                Err(TryLockError::WouldBlock) => clock.sleep(LOCK_PAUSE),
            }
        }
    }

    /// The folder, made if need be, and nobody else's.
    fn open(&self) -> Result<&Path, Failure> {
        let folder = self.folder()?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(folder)
            .and_then(|()| close_folder(folder))
            .map_err(|error| failed("made", folder, &error))?;
        Ok(folder)
    }
}

/// Takes a file away from everybody but its owner.
#[cfg(unix)]
fn close(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(unix)]
fn close_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// A home folder is its owner's there.
#[cfg(not(unix))]
fn close(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn close_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::file(format!("{} cannot be {what}: {error}", path.display()))
}
