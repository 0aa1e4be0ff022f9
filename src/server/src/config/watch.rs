//! Notices that a configuration changed: the file itself, or a file that it names. Loads nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file::File;
use super::read;

/// What tells two states of a file apart. Links are followed, so a link that was turned to another
/// file is noticed. `None`: it is not there, or may not be looked at.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// Watches a configuration file and the files that it names.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    named: Vec<PathBuf>,
    stamps: Vec<Stamp>,
}

impl Watch {
    /// Starts to watch. To miss nothing, start before the file is loaded for the first time.
    pub(crate) fn new(path: &Path) -> Self {
        let mut watch = Self { path: path.to_owned(), named: Vec::new(), stamps: Vec::new() };
        watch.changed();
        watch
    }

    /// Whether anything changed since the last time this was asked. Load after it said so: what
    /// changes in between is noticed the next time.
    pub(crate) fn changed(&mut self) -> bool {
        let own = stamp(&self.path);
        if self.stamps.first() != Some(&own) {
            self.named = named_files(&self.path);
        }
        let mut stamps = vec![own];
        stamps.extend(self.named.iter().map(|path| stamp(path)));
        let changed = stamps != self.stamps;
        self.stamps = stamps;
        changed
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.len(),
        found.mtime(),
        found.mtime_nsec(),
        // A file that is replaced within the same instant has another change time or inode.
        found.ctime(),
        found.ctime_nsec(),
    ))
}

/// Every file that the configuration names, as far as it can be read.
fn named_files(path: &Path) -> Vec<PathBuf> {
    let Ok(text) = read::file(path, read::FILE_BYTES_MAX) else { return Vec::new() };
    let text = String::from_utf8_lossy(&text);
    let Ok(written) = read::toml::<File>(&text) else { return Vec::new() };
    let File { listen, redis, providers, .. } = written.file;
    let credentials = providers.into_values().filter_map(|provider| provider.credential_file);
    let others = [listen.tls.certificate, listen.tls.key, redis.url_file].into_iter().flatten();
    let folder = path.parent().unwrap_or(Path::new(""));
    credentials.chain(others).map(|typed| folder.join(typed)).collect()
}
