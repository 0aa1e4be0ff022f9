//! What the journal knows of its segments: which calls need which frames of them, what is not synced yet, and
//! what could not be written. It syncs nothing and makes no files; [`super::keeper`] does.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokenroute_domain::id::CallId;

use super::batch::{Batch, Kind};
use super::debts::Debts;
use super::disk::{Handle, Nowhere};
use super::{BATCH_BYTES, JournalGauges, JournalOptions, Unwritable, entry};

/// Bytes that are written and not synced. A disk that stands still for long is one that cannot be written.
const UNSYNCED_BYTES_MAX: usize = 16 << 20;
/// What is left for calls under way, as a part of all, when no new ones are taken any more.
const RESERVE_PART: u64 = 8;

/// Where a frame stands that is still needed.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: u64,
    bytes: u64,
}

/// The frames that a call needs.
#[derive(Clone, Copy, Debug, Default)]
struct Live {
    intent: Option<Place>,
    mark: Option<Place>,
    ended: Option<Place>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    bytes: u64,
    /// Of frames that are needed.
    live_bytes: u64,
    /// Not all that is needed of it can be read, so it stays.
    stuck: bool,
}

/// The segment that is being written.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) number: u64,
    pub(super) handle: Arc<dyn Handle>,
    /// When it was begun.
    pub(super) since: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Log {
    current: Current,
    segments: BTreeMap<u64, Segment>,
    calls: HashMap<CallId, Live>,
    /// All that was written since the last sync, in case that it has to be written again.
    unsynced: Vec<u8>,
    unsynced_since: Option<Instant>,
    /// Being synced now; part of what is not synced.
    syncing_bytes: usize,
    debts: Debts,
    total_bytes: u64,
    /// Nothing is written until another segment is begun.
    failed: bool,
    /// A sync has failed: what is not synced has to be written again.
    unsure: bool,
    failures: u64,
    pub(super) stopping: bool,
    next_number: u64,
}

impl Log {
    /// Nothing yet, and nowhere to write it: [`Log::go_on_in`] comes next.
    pub(super) fn new(now: Instant) -> Self {
        let current = Current { number: 0, handle: Arc::new(Nowhere), since: now };
        Self {
            current,
            segments: BTreeMap::new(),
            calls: HashMap::new(),
            unsynced: Vec::new(),
            unsynced_since: None,
            syncing_bytes: 0,
            debts: Debts::default(),
            total_bytes: 0,
            failed: true,
            unsure: false,
            failures: 0,
            stopping: false,
            next_number: 1,
        }
    }

    /// Whether calls that begin can be written down.
    pub(super) fn is_writable(&self, options: &JournalOptions) -> bool {
        !self.failed
            && !self.stopping
            && self.total_bytes < options.bytes_max
            && self.unsynced_bytes() < UNSYNCED_BYTES_MAX
    }

    /// Writes down that a call begins.
    pub(super) fn begin(
        &mut self,
        intent: &Batch,
        options: &JournalOptions,
    ) -> Result<(), Unwritable> {
        if self.is_writable(options) {
            self.write(intent, reserve(options))
        } else {
            Err(Unwritable)
        }
    }

    /// Writes a batch, or nothing of it. No segment is written any more if all have so many bytes.
    fn write(&mut self, batch: &Batch, bytes_max: u64) -> Result<(), Unwritable> {
        if batch.is_empty() {
            return Ok(());
        }
        self.append(batch.bytes(), bytes_max)?;
        self.placed(batch);
        Ok(())
    }

    /// Writes a batch now, or as soon as it can be. Marks of calls that are over or unknown are left out.
    pub(super) fn write_or_owe(
        &mut self,
        batch: Batch,
        options: &JournalOptions,
    ) -> Result<(), Unwritable> {
        let batch = batch.only(|part, _| part.kind != Kind::Mark || self.is_under_way(part.call));
        let result = self.write(&batch, reserve(options));
        if result.is_ok() {
            self.paid(&batch);
        } else {
            batch.parts().for_each(|(part, frame)| self.debts.add(part.call, part.kind, frame));
        }
        result
    }

    fn is_under_way(&self, call: CallId) -> bool {
        !self.debts.has_end(call) && self.calls.get(&call).is_some_and(|live| live.ended.is_none())
    }

    fn append(&mut self, bytes: &[u8], bytes_max: u64) -> Result<(), Unwritable> {
        let is_full = self.total_bytes >= bytes_max || self.unsynced_bytes() >= UNSYNCED_BYTES_MAX;
        if self.failed || self.stopping || is_full {
            return Err(Unwritable);
        }
        self.append_anyway(bytes)?;
        self.unsynced.extend_from_slice(bytes);
        if self.unsynced_since.is_none() {
            self.unsynced_since = Some(Instant::now());
        }
        Ok(())
    }

    fn append_anyway(&mut self, bytes: &[u8]) -> Result<(), Unwritable> {
        let written = self.current.handle.append(bytes);
        if written.as_ref().is_ok_and(|written| *written == bytes.len()) {
            let segment = self.segments.entry(self.current.number).or_default();
            segment.bytes = segment.bytes.saturating_add(size(bytes));
            self.total_bytes = self.total_bytes.saturating_add(size(bytes));
            return Ok(());
        }
        // Whether this helps or not, nothing is written behind it: another segment is begun.
        let whole = self.segments.get(&self.current.number).map_or(0, |segment| segment.bytes);
        let cut = self.current.handle.cut(whole);
        let short = || io::Error::from(io::ErrorKind::WriteZero);
        self.fail("written", &written.err().unwrap_or_else(short));
        if let Err(failure) = cut {
            tracing::error!(%failure, "a torn entry stays at the end of a journal's segment");
        }
        Err(Unwritable)
    }

    /// From now on nothing is written until another segment is begun.
    pub(super) fn fail(&mut self, what: &str, failure: &io::Error) {
        if !self.failed {
            tracing::error!(%failure, "the journal cannot be {what}: calls with money in them are refused");
        }
        self.failed = true;
        self.failures = self.failures.saturating_add(1);
    }

    /// Takes note of where a batch's frames stand now.
    fn placed(&mut self, batch: &Batch) {
        let number = self.current.number;
        for (part, frame) in batch.parts() {
            let place = Place { segment: number, bytes: size(frame) };
            let live = self.calls.entry(part.call).or_default();
            let before = match part.kind {
                Kind::Intent => [live.intent.replace(place), None],
                Kind::Mark => [live.mark.replace(place), None],
                // How far it had come does not matter any more.
                Kind::Ended => [live.ended.replace(place), live.mark.take()],
            };
            let segment = self.segments.entry(number).or_default();
            segment.live_bytes = segment.live_bytes.saturating_add(place.bytes);
            before.into_iter().flatten().for_each(|place| self.release(place));
        }
    }

    fn release(&mut self, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.live_bytes = segment.live_bytes.saturating_sub(place.bytes);
        }
    }

    /// These calls need not be kept. Those that were are told.
    pub(super) fn forget(&mut self, calls: &[CallId]) -> Vec<CallId> {
        let mut forgotten = Vec::with_capacity(calls.len());
        for call in calls {
            self.debts.remove(*call);
            let Some(live) = self.calls.remove(call) else { continue };
            let places = [live.intent, live.mark, live.ended];
            places.into_iter().flatten().for_each(|place| self.release(place));
            forgotten.push(*call);
        }
        forgotten
    }

    /// Says so for whoever reads it again. It is no harm if nobody does: the bank knows these calls.
    pub(super) fn write_forgotten(&mut self, calls: &[CallId], options: &JournalOptions) {
        let mut bytes = Vec::new();
        if !calls.is_empty() && entry::forgotten(calls, &mut bytes).is_ok() {
            // A full disk is noticed by those who need it.
            let _refused = self.append(&bytes, reserve(options));
        }
    }

    pub(super) const fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.debts.is_empty()
    }

    pub(super) const fn current(&self) -> &Current {
        &self.current
    }

    /// Bytes of the current segment.
    pub(super) fn current_bytes(&self) -> u64 {
        self.segments.get(&self.current.number).map_or(0, |segment| segment.bytes)
    }

    /// Since when there is something to be synced.
    pub(super) const fn unsynced_since(&self) -> Option<Instant> {
        self.unsynced_since
    }

    fn unsynced_bytes(&self) -> usize {
        self.unsynced.len().saturating_add(self.syncing_bytes)
    }

    /// Takes what is to be synced.
    pub(super) fn take_unsynced(&mut self) -> Vec<u8> {
        let unsynced = std::mem::take(&mut self.unsynced);
        self.unsynced_since = None;
        self.syncing_bytes = unsynced.len();
        unsynced
    }

    /// It is synced.
    pub(super) fn synced(&mut self) {
        self.syncing_bytes = 0;
    }

    /// It may not be on the disk, and what the system's memory says of it is no proof that it is.
    pub(super) fn not_synced(&mut self, mut taken: Vec<u8>, failure: &io::Error) {
        self.syncing_bytes = 0;
        taken.extend_from_slice(&self.unsynced);
        self.unsynced = taken;
        self.unsure = true;
        self.fail("synced", failure);
    }

    /// The number of a segment that is to be made.
    pub(super) fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        number
    }

    /// Goes on in another segment.
    pub(super) fn go_on_in(&mut self, current: Current) -> Current {
        self.segments.insert(current.number, Segment::default());
        std::mem::replace(&mut self.current, current)
    }

    /// Writes again, into a segment that was begun for it, what may not be on the disk, and what is owed.
    /// What it adds has to be synced before [`Log::healed`].
    pub(super) fn rewrite(&mut self, pad: &[u8]) -> Result<(), Unwritable> {
        self.append_anyway(pad)?;
        let unsynced = self.unsynced_and_needed();
        if !unsynced.is_empty() {
            self.append_anyway(unsynced.bytes())?;
            self.placed(&unsynced);
        }
        let owed = self.debts.batch();
        if !owed.is_empty() {
            self.append_anyway(owed.bytes())?;
            self.unsynced.extend_from_slice(owed.bytes());
            self.placed(&owed);
            self.paid(&owed);
        }
        Ok(())
    }

    fn unsynced_and_needed(&self) -> Batch {
        Batch::last_of(&self.unsynced).only(|part, _| self.place(part.call, part.kind).is_some())
    }

    fn place(&self, call: CallId, kind: Kind) -> Option<Place> {
        let live = self.calls.get(&call)?;
        match kind {
            Kind::Intent => live.intent,
            Kind::Mark => live.mark,
            Kind::Ended => live.ended,
        }
    }

    /// Writes what could not be written before, if it can be now.
    pub(super) fn pay(&mut self, options: &JournalOptions) {
        if self.debts.is_empty() || self.failed {
            return;
        }
        for batch in self.debts.batch().split(BATCH_BYTES) {
            if self.write(&batch, reserve(options)).is_err() {
                return;
            }
            self.paid(&batch);
        }
    }

    /// What was written is newer than what was owed, or the same.
    fn paid(&mut self, batch: &Batch) {
        if !self.debts.is_empty() {
            batch.parts().for_each(|(part, _)| self.debts.remove(part.call));
        }
    }

    pub(super) fn has_debts(&self) -> bool {
        !self.debts.is_empty()
    }

    /// All that was written is on the disk.
    pub(super) fn healed(&mut self) {
        self.unsynced.clear();
        self.unsynced_since = None;
        if self.failed && self.failures > 0 {
            tracing::info!("the journal can be written again");
        }
        (self.failed, self.unsure) = (false, false);
    }

    /// A sync has failed of what was written anew.
    pub(super) fn not_healed(&mut self, failure: &io::Error) {
        self.unsure = true;
        self.fail("synced", failure);
    }

    /// Whether what is not synced can still be by syncing the segment that it is in.
    pub(super) const fn is_sure(&self) -> bool {
        !self.unsure
    }

    /// Whether nothing that a call needs would be lost with all that is not synced.
    pub(super) fn is_safe(&self) -> bool {
        self.unsynced_and_needed().is_empty()
    }

    fn is_closed(&self, number: u64) -> bool {
        number != self.current.number
    }

    pub(super) fn has_closed(&self) -> bool {
        self.segments.len() > 1
    }

    /// Segments that nobody needs any more.
    pub(super) fn dead(&self) -> Vec<u64> {
        let dead = |(number, segment): (&u64, &Segment)| {
            (self.is_closed(*number) && segment.live_bytes == 0).then_some(*number)
        };
        self.segments.iter().filter_map(dead).collect()
    }

    /// The numbers of all segments.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.segments.keys().copied().collect()
    }

    /// The file of a segment is gone.
    pub(super) fn removed(&mut self, number: u64) {
        if let Some(segment) = self.segments.remove(&number) {
            self.total_bytes = self.total_bytes.saturating_sub(segment.bytes);
        }
    }

    /// The oldest segment of which so little is needed that it is better written again: a quarter, or half
    /// if space is getting scarce.
    pub(super) fn sparse(&self, options: &JournalOptions) -> Option<u64> {
        let scarce = self.total_bytes > options.bytes_max / 2;
        let times = if scarce { 2 } else { 4 };
        let is_sparse = |number: u64, segment: &Segment| {
            let few = segment.live_bytes.saturating_mul(times) <= segment.bytes;
            self.is_closed(number) && !segment.stuck && segment.live_bytes > 0 && few
        };
        let mut segments = self.segments.iter();
        segments.find(|(number, segment)| is_sparse(**number, segment)).map(|(number, _)| *number)
    }

    /// Writes again what is needed of a batch that was read from a segment.
    pub(super) fn carry(&mut self, number: u64, batch: Batch) -> Result<(), Unwritable> {
        let mut over = Vec::new();
        let batch = batch.only(|part, _| {
            let here = self.place(part.call, part.kind).is_some_and(|at| at.segment == number);
            let ended = self.calls.get(&part.call).is_some_and(|live| live.ended.is_some());
            if here && ended && part.kind == Kind::Intent {
                over.push(part.call);
                return false;
            }
            here
        });
        // In the end this frees more than it takes.
        self.write(&batch, u64::MAX)?;
        // An end says all that its call's intent said, and it is synced before this segment is removed.
        for call in over {
            if let Some(place) = self.calls.get_mut(&call).and_then(|live| live.intent.take()) {
                self.release(place);
            }
        }
        Ok(())
    }

    /// A segment has been carried over. If something is needed of it still, that cannot be read.
    pub(super) fn carried(&mut self, number: u64) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        if segment.live_bytes > 0 {
            segment.stuck = true;
            tracing::error!(segment = number, "a part of the journal cannot be read again");
        }
    }

    pub(super) fn gauges(&self, options: &JournalOptions) -> JournalGauges {
        JournalGauges {
            is_writable: self.is_writable(options),
            bytes: self.total_bytes,
            segments: self.segments.len(),
            calls: self.calls.len(),
            unsynced_bytes: self.unsynced_bytes(),
            owed_calls: self.debts.count(),
            failures: self.failures,
        }
    }
}

/// How long the journal may get by what calls under way write.
fn reserve(options: &JournalOptions) -> u64 {
    options.bytes_max.saturating_add(options.bytes_max / RESERVE_PART)
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
