//! Keeps the journal on the disk, on a thread of its own: syncs what was written, begins new segments,
//! removes those that nobody needs, and tries again when the disk has failed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::disk::Disk;
use super::log::{Current, Log};
use super::{BATCH_BYTES, JournalOptions, entry};

/// From the first write that is not synced to its sync: with the sync's own start it stays below 5 ms.
const SYNC_WAIT: Duration = Duration::from_millis(4);
/// From one look for segments that are not needed to the next.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// What is written to see whether the disk takes anything: enough for calls that wait to be let in.
const PAD_BYTES: usize = 4_096;

/// The journal without its thread: what callers and the thread share.
#[derive(Debug)]
pub(super) struct Core {
    log: Mutex<Log>,
    wake: Condvar,
    writable: AtomicBool,
    disk: Box<dyn Disk>,
    pub(super) options: JournalOptions,
}

/// What the thread does next.
enum Duty {
    Wait(Duration),
    Sync,
    Rotate,
    Recover,
    Tidy,
    Stop,
}

/// When the thread did what it does at times.
struct Rounds {
    tidied: Instant,
    probed: Instant,
}

impl Core {
    /// Begins a journal. If the disk does not take it now, it is one that cannot be written yet.
    pub(super) fn new(disk: Box<dyn Disk>, options: JournalOptions) -> Self {
        let log = Mutex::new(Log::new(Instant::now()));
        let core =
            Self { log, wake: Condvar::new(), writable: AtomicBool::new(false), disk, options };
        core.recover();
        core
    }

    /// The log, for a moment: nothing slow is done with it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Log, &JournalOptions) -> T) -> T {
        let mut log = self.lock();
        let idle = log.unsynced_since().is_none() && !log.has_failed();
        let done = act(&mut log, &self.options);
        self.writable.store(log.is_writable(&self.options), Ordering::Release);
        let wake = (idle && log.unsynced_since().is_some()) || log.has_failed() || log.stopping;
        drop(log);
        if wake {
            self.wake.notify_one();
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Acquire)
    }

    /// The thread: until it is told to stop and all is synced that can be.
    pub(super) fn keep(&self) {
        let now = Instant::now();
        let mut rounds = Rounds { tidied: now, probed: now };
        loop {
            let log = self.lock();
            let duty = self.duty(&log, &rounds, Instant::now());
            if let Duty::Wait(time) = duty {
                drop(self.wake.wait_timeout(log, time).unwrap_or_else(PoisonError::into_inner));
            } else {
                drop(log);
                if !self.act(duty, &mut rounds) {
                    return;
                }
            }
        }
    }

    fn duty(&self, log: &Log, rounds: &Rounds, now: Instant) -> Duty {
        let left =
            |since: Instant, every: Duration| every.saturating_sub(now.duration_since(since));
        if log.has_failed() {
            let probe = left(rounds.probed, self.options.probe_every);
            return match (log.stopping, probe.is_zero()) {
                (true, _) => Duty::Stop,
                (false, true) => Duty::Recover,
                (false, false) => Duty::Wait(probe),
            };
        }
        let sync = log.unsynced_since().map(|since| left(since, SYNC_WAIT));
        if log.stopping {
            return if sync.is_some() { Duty::Sync } else { Duty::Stop };
        }
        if sync.is_some_and(|wait| wait.is_zero()) {
            return Duty::Sync;
        }
        let age =
            (log.current_bytes() > 0).then(|| left(log.current().since, self.options.segment_age));
        if log.current_bytes() >= self.options.segment_bytes
            || age.is_some_and(|wait| wait.is_zero())
        {
            return Duty::Rotate;
        }
        let tidy = (log.has_closed() || log.has_debts()).then(|| left(rounds.tidied, TIDY_EVERY));
        if tidy.is_some_and(|wait| wait.is_zero()) {
            return Duty::Tidy;
        }
        let next = [sync, age, tidy].into_iter().flatten().min();
        Duty::Wait(next.unwrap_or(TIDY_EVERY))
    }

    /// `false` if there is nothing more to do.
    fn act(&self, duty: Duty, rounds: &mut Rounds) -> bool {
        match duty {
            Duty::Sync => {
                self.sync();
            }
            Duty::Rotate => self.rotate(),
            Duty::Recover => {
                self.recover();
                rounds.probed = Instant::now();
            }
            Duty::Tidy => {
                self.tidy();
                rounds.tidied = Instant::now();
            }
            Duty::Wait(_) => {}
            Duty::Stop => return false,
        }
        true
    }

    /// Waits until all that was written before is on the disk; `false` if it may not be.
    pub(super) fn sync(&self) -> bool {
        !self.with(|log, _| log.has_failed()) && self.flush()
    }

    fn flush(&self) -> bool {
        let (taken, handle) =
            self.with(|log, _| (log.take_unsynced(), log.current().handle.clone()));
        taken.is_empty() || self.conclude(taken, handle.sync())
    }

    fn conclude(&self, taken: Vec<u8>, result: io::Result<()>) -> bool {
        self.with(|log, _| match &result {
            Ok(()) => log.synced(),
            Err(failure) => log.not_synced(taken, failure),
        });
        result.is_ok()
    }

    /// Goes on in a new segment.
    pub(super) fn rotate(&self) {
        let number = self.with(|log, _| (!log.has_failed()).then(|| log.number()));
        let Some(number) = number else { return };
        let handle = match self.disk.create(number) {
            Ok(handle) => handle,
            Err(failure) => return self.with(|log, _| log.fail("begun anew", &failure)),
        };
        let current = Current { number, handle, since: Instant::now() };
        let (taken, before) = self.with(|log, _| (log.take_unsynced(), log.go_on_in(current)));
        if !taken.is_empty() {
            self.conclude(taken, before.handle.sync());
        }
    }

    /// Tries whether the disk takes a new segment, with all in it that may not be on the disk yet.
    pub(super) fn recover(&self) {
        // A write has failed: what was written before can be synced where it is.
        if self.with(|log, _| log.is_sure()) {
            self.flush();
        }
        // It may be our own segments that the disk is full of.
        if self.with(|log, _| log.is_safe()) {
            self.remove(&self.with(|log, _| log.dead()));
        }
        let number = self.with(|log, _| log.number());
        let handle = match self.disk.create(number) {
            Ok(handle) => handle,
            Err(failure) => return self.with(|log, _| log.fail("begun", &failure)),
        };
        let mut pad = Vec::new();
        // It is far from too long.
        let _short = entry::pad(PAD_BYTES, &mut pad);
        let current = Current { number, handle: handle.clone(), since: Instant::now() };
        let rewritten = self.with(|log, _| {
            log.go_on_in(current);
            log.rewrite(&pad)
        });
        if rewritten.is_err() {
            return;
        }
        let synced = handle.sync();
        self.with(|log, _| match &synced {
            Ok(()) => log.healed(),
            Err(failure) => log.not_healed(failure),
        });
    }

    /// Removes segments that nobody needs, after writing again what is needed of one that is hardly needed,
    /// and pays debts.
    pub(super) fn tidy(&self) {
        self.with(Log::pay);
        if let Some(number) = self.with(|log, options| log.sparse(options)) {
            self.carry(number);
        }
        let dead = self.with(|log, _| log.dead());
        // What took the place of that which is removed has to be on the disk first.
        if !dead.is_empty() && self.sync() {
            self.remove(&dead);
        }
    }

    fn remove(&self, dead: &[u64]) {
        for number in dead {
            match self.disk.remove(*number) {
                Err(failure) if failure.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%failure, number, "a segment of the journal cannot be removed");
                }
                Ok(()) | Err(_) => self.with(|log, _| log.removed(*number)),
            }
        }
    }

    fn carry(&self, number: u64) {
        let bytes = match self.disk.read(number) {
            Ok(bytes) => bytes,
            Err(failure) => {
                tracing::error!(%failure, number, "a segment of the journal cannot be read");
                Vec::new()
            }
        };
        for batch in Batch::last_of(&bytes).split(BATCH_BYTES) {
            if self.with(|log, _| log.carry(number, batch)).is_err() {
                return;
            }
        }
        self.with(|log, _| log.carried(number));
    }

    /// Removes every file, if no call needs them.
    pub(super) fn clear(&self) -> io::Result<bool> {
        let numbers = self.with(|log, _| log.is_empty().then(|| log.numbers()));
        let Some(numbers) = numbers else { return Ok(false) };
        for number in numbers {
            match self.disk.remove(number) {
                Err(failure) if failure.kind() != io::ErrorKind::NotFound => return Err(failure),
                Ok(()) | Err(_) => self.with(|log, _| log.removed(number)),
            }
        }
        Ok(true)
    }
}
