//! A disk in memory with faults on command, which knows what a power cut would leave of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::super::disk::{Disk, Handle};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Of a write, so many bytes are taken, and if that is none an error is told.
    Full(usize),
    /// A file cannot be cut back.
    Cut,
    /// A sync fails, and what it was to sync is lost, although a later one says that all is well.
    Sync,
    /// No file can be made.
    Create,
    /// No file can be read.
    Read,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    files: BTreeMap<u64, Content>,
    /// What was synced of files that were removed: their removal may not outlive a power cut.
    removed: BTreeMap<u64, Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: usize,
    /// What is not synced never will be.
    lost: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct BrokenDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct BrokenFile {
    disk: BrokenDisk,
    number: u64,
}

impl BrokenDisk {
    /// Adds a fault; `None` mends all.
    pub(super) fn set(&self, fault: Option<Fault>) {
        let mut state = self.0.lock().unwrap();
        match fault {
            Some(fault) => state.faults.push(fault),
            None => state.faults.clear(),
        }
    }

    fn fails(&self, fault: Fault) -> io::Result<()> {
        let fails = self.0.lock().unwrap().faults.contains(&fault);
        if fails { Err(io::Error::other(format!("{fault:?}"))) } else { Ok(()) }
    }

    /// How many files there are.
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap().files.len()
    }

    /// All files, in order.
    pub(super) fn contents(&self) -> Vec<Vec<u8>> {
        let state = self.0.lock().unwrap();
        state.files.values().map(|file| file.bytes.clone()).collect()
    }

    /// Of all files, what was synced.
    pub(super) fn synced(&self) -> Vec<Vec<u8>> {
        self.after_a_cut(|_| (0, false))
    }

    /// Of all files what was synced and, as it is chosen for each with so many bytes more, a part of those;
    /// and, of those that were removed, the ones that are chosen to be there again.
    pub(super) fn after_a_cut(
        &self,
        mut choose: impl FnMut(usize) -> (usize, bool),
    ) -> Vec<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let mut all = BTreeMap::new();
        for (number, file) in &state.files {
            let (more, _) = choose(file.bytes.len() - file.synced);
            let more = if file.lost { 0 } else { more };
            all.insert(*number, file.bytes.split_at(file.synced + more).0.to_vec());
        }
        for (number, bytes) in &state.removed {
            if choose(0).1 {
                all.insert(*number, bytes.clone());
            }
        }
        all.into_values().collect()
    }
}

impl Disk for BrokenDisk {
    fn create(&self, number: u64) -> io::Result<Arc<dyn Handle>> {
        self.fails(Fault::Create)?;
        let before = self.0.lock().unwrap().files.insert(number, Content::default());
        assert!(before.is_none(), "segment {number} is made again");
        Ok(Arc::new(BrokenFile { disk: self.clone(), number }))
    }

    fn read(&self, number: u64) -> io::Result<Vec<u8>> {
        self.fails(Fault::Read)?;
        Ok(self.0.lock().unwrap().files[&number].bytes.clone())
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let mut file = state.files.remove(&number).unwrap();
        file.bytes.truncate(file.synced);
        state.removed.insert(number, file.bytes);
        Ok(())
    }
}

impl BrokenFile {
    fn with<T>(&self, act: impl FnOnce(&mut Content) -> T) -> T {
        act(self.disk.0.lock().unwrap().files.get_mut(&self.number).unwrap())
    }
}

impl Handle for BrokenFile {
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let faults = self.disk.0.lock().unwrap().faults.clone();
        let full = faults.iter().find_map(|fault| match fault {
            Fault::Full(taken) => Some(*taken),
            Fault::Cut | Fault::Sync | Fault::Create | Fault::Read => None,
        });
        let taken = full.unwrap_or(bytes.len()).min(bytes.len());
        self.with(|file| file.bytes.extend_from_slice(bytes.split_at(taken).0));
        if full == Some(0) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.disk.fails(Fault::Cut)?;
        self.with(|file| file.bytes.truncate(usize::try_from(bytes).unwrap()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let fails = self.disk.fails(Fault::Sync);
        self.with(|file| match &fails {
            Err(_) => file.lost = true,
            Ok(()) if file.lost => {}
            Ok(()) => file.synced = file.bytes.len(),
        });
        fails
    }
}
