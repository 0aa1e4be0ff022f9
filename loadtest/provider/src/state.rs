//! What the connections of one provider share.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::observe::Log;
use crate::recorded::{self, Recording};
use crate::{Options, load};

/// Most model names that `first-N-PART` counts for.
const COUNTED_NAMES_MAX: usize = 10_000;
/// Most outages at once.
const OUTAGES_MAX: usize = 1_000;
/// Most sizes of precomputed answers kept.
const LOAD_SIZES_MAX: usize = 16;

/// Shared state. No lock is held across an await.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) expect_key: Option<String>,
    log: Mutex<Log>,
    truth: Option<Mutex<File>>,
    counts: Mutex<HashMap<String, u64>>,
    outages: Mutex<HashMap<String, String>>,
    recordings: HashMap<String, Recording>,
    load_answers: Mutex<HashMap<usize, Bytes>>,
    connections: AtomicU64,
    answers: AtomicU64,
}

impl State {
    pub(crate) fn open(options: &Options) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let truth = options.truth.as_ref().map(open).transpose()?.map(Mutex::new);
        let recordings = options.recorded.as_deref().map(recorded::read_folder).transpose()?;
        Ok(Self {
            expect_key: options.expect_key.clone(),
            log: Mutex::default(),
            truth,
            counts: Mutex::default(),
            outages: Mutex::default(),
            recordings: recordings.unwrap_or_default(),
            load_answers: Mutex::default(),
            connections: AtomicU64::new(0),
            answers: AtomicU64::new(0),
        })
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    /// Forgets what was observed and counted.
    pub(crate) fn clear(&self) {
        self.log().clear();
        lock(&self.counts).clear();
    }

    /// The number of a new connection, from 1.
    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// The number of a new answer, from 1.
    pub(crate) fn next_answer(&self) -> u64 {
        self.answers.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// How often `name` was asked for before, and counts this time.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let mut counts = lock(&self.counts);
        if counts.len() >= COUNTED_NAMES_MAX && !counts.contains_key(name) {
            return u64::MAX;
        }
        let count = counts.entry(name.to_owned()).or_insert(0);
        let before = *count;
        *count = before.saturating_add(1);
        before
    }

    /// Begins an outage: what each request subject to it gets instead. False when there are too many.
    pub(crate) fn begin_outage(&self, name: &str, part: &str) -> bool {
        let mut outages = lock(&self.outages);
        let room = outages.len() < OUTAGES_MAX || outages.contains_key(name);
        if room {
            outages.insert(name.to_owned(), part.to_owned());
        }
        room
    }

    /// Ends an outage; false when there was none.
    pub(crate) fn end_outage(&self, name: &str) -> bool {
        lock(&self.outages).remove(name).is_some()
    }

    /// What the first of these outages that is under way does.
    pub(crate) fn outage(&self, names: &[String]) -> Option<String> {
        let outages = lock(&self.outages);
        names.iter().find_map(|name| outages.get(name).cloned())
    }

    pub(crate) fn recording(&self, name: &str) -> Option<&Recording> {
        self.recordings.get(name)
    }

    /// The precomputed answer with a JSON body of `bytes`, head included.
    pub(crate) fn load_answer(&self, bytes: usize) -> Bytes {
        let mut answers = lock(&self.load_answers);
        if let Some(answer) = answers.get(&bytes) {
            return answer.clone();
        }
        let answer = load::json_answer(bytes);
        if answers.len() < LOAD_SIZES_MAX {
            answers.insert(bytes, answer.clone());
        }
        answer
    }

    /// Whether a truth file is written.
    pub(crate) fn has_truth(&self) -> bool {
        self.truth.is_some()
    }

    /// Adds a line to the truth file, if there is one. It is the kernel's on return, whoever is killed.
    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        let Some(truth) = &self.truth else { return };
        // One write a line: lines of several exchanges stay whole. A full disk must not stop the fake.
        drop(lock(truth).write_all(line().as_bytes()));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
