//! The journal's folder: how its files are named, and what is done with them. Behind a trait, so that tests
//! can make it fail.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenroute_domain::id::NodeId;

/// Only whoever runs the edge reads its journal: it says who calls, and what they pay.
pub(super) const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// What the name of a lock ends with.
const LOCK: &str = "lock";

/// A file that is being appended to.
pub(super) trait Handle: Send + Sync + fmt::Debug {
    /// Appends with one write; tells how much of it was taken.
    fn append(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts the file back to so many bytes.
    fn cut(&self, bytes: u64) -> io::Result<()>;
    /// Waits until what was appended outlives the machine.
    fn sync(&self) -> io::Result<()>;
}

/// The files of one run.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// Makes an empty file that outlives the machine.
    fn create(&self, number: u64) -> io::Result<Arc<dyn Handle>>;
    /// Reads a whole file.
    fn read(&self, number: u64) -> io::Result<Vec<u8>>;
    /// Removes a file.
    fn remove(&self, number: u64) -> io::Result<()>;
}

impl Handle for File {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self;
        loop {
            match file.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A folder with the files of several runs.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    node: NodeId,
}

impl Folder {
    /// The files of one run in a folder, which is made if it is not there.
    pub(super) fn new(path: &Path, node: NodeId) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
        Ok(Self::of(path, node))
    }

    /// The files of one run in a folder that is there.
    pub(super) fn of(path: &Path, node: NodeId) -> Self {
        Self { path: path.to_owned(), node }
    }

    /// The run's lock.
    pub(super) fn lock(&self) -> PathBuf {
        self.path.join(format!("{}.{LOCK}", self.node))
    }

    /// One of the run's segments.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.path.join(format!("{}.{number}", self.node))
    }

    /// The runs that have files in a folder, with the numbers of their segments, in order. A folder that
    /// is not there has none.
    pub(super) fn runs(path: &Path) -> io::Result<Vec<NodeId>> {
        let mut runs: Vec<NodeId> = Self::names(path)?.into_iter().map(|(node, _)| node).collect();
        runs.sort_unstable();
        runs.dedup();
        Ok(runs)
    }

    /// The numbers of the run's segments, in order.
    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        let names = Self::names(&self.path)?.into_iter();
        let mut numbers: Vec<u64> =
            names.filter(|(node, _)| *node == self.node).filter_map(|(_, number)| number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Every file that is named like ours: whose it is, and its number if it is a segment.
    fn names(path: &Path) -> io::Result<Vec<(NodeId, Option<u64>)>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some((node, rest)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let Some(node) = NodeId::parse(node) else { continue };
            match rest.parse::<u64>() {
                Ok(number) => names.push((node, Some(number))),
                Err(_) if rest == LOCK => names.push((node, None)),
                // Somebody else's.
                Err(_) => {}
            }
        }
        Ok(names)
    }
}

impl Disk for Folder {
    fn create(&self, number: u64) -> io::Result<Arc<dyn Handle>> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(self.segment(number))?;
        // Without its name in the folder it would be gone after a power cut.
        File::open(&self.path)?.sync_all()?;
        Ok(Arc::new(file))
    }

    fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        fs::read(self.segment(number))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.segment(number))
    }
}

/// The file before the first.
#[derive(Debug)]
pub(super) struct Nowhere;

impl Handle for Nowhere {
    fn append(&self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn cut(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}
