//! The journal over a disk that fails on command, tells lies after that as real ones do, and loses power.
//! There is no thread here: each duty of the keeper is called by name.

mod broken_disk;
mod chance;
mod world;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokenroute_domain::id::{AccountId, CallId, KeyId};
use tokenroute_domain::journal::{Due, Ended, Intent, Mark};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::{Endpoint, Outcome, Record};
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};

use self::broken_disk::{BrokenDisk, Fault};
use super::keeper::Core;
use super::lock::Lock;
use super::replay::Replay;
use super::{JournalOptions, Unwritable};

const T0: Timestamp = Timestamp(1_800_000_000_000_000);

fn call(number: u64) -> CallId {
    CallId::new(T0, u128::from(number))
}

fn intent(number: u64) -> Intent {
    Intent {
        call: call(number),
        started: T0,
        endpoint: Endpoint::ChatCompletions,
        key: KeyId::new(T0, 1),
        account: AccountId::new(T0, 1),
        prepaid: true,
        model: Arc::from("gpt-x"),
        hold: NanoUsd(1_000_000),
        purses: Vec::new(),
    }
}

fn mark(number: u64, cost: i64) -> Mark {
    let usage = Usage { output: 1, ..Usage::default() };
    let (target, cost) = (Arc::from("demo/echo"), NanoUsd(cost));
    Mark { call: call(number), usage, cost, target, streamed: true, reported: false }
}

fn ended(number: u64, cost: i64) -> Arc<Ended> {
    let record = Record {
        call: call(number),
        started: T0,
        endpoint: Endpoint::ChatCompletions,
        key: Some(KeyId::new(T0, 1)),
        account: Some(AccountId::new(T0, 1)),
        model: Some(Arc::from("gpt-x")),
        target: Some(Arc::from("demo/echo")),
        attempts: Vec::new(),
        status: 200,
        outcome: Outcome::Answered,
        error: None,
        streamed: true,
        usage: Usage::default(),
        usage_source: UsageSource::Provider,
        cost: NanoUsd(cost),
        charge: NanoUsd(cost),
        price_version: None,
        house_cost: NanoUsd::ZERO,
        latency_micros: 1,
        first_token_micros: None,
    };
    let due = Some(Due { charge: NanoUsd(cost), purses: Vec::new() });
    Arc::new(Ended { record: Arc::new(record), due })
}

/// A journal and its disk.
struct Bench {
    core: Core,
    disk: BrokenDisk,
}

impl Bench {
    fn new(options: JournalOptions) -> Self {
        Self::with(options, &[])
    }

    fn with(options: JournalOptions, faults: &[Fault]) -> Self {
        let disk = BrokenDisk::default();
        for fault in faults {
            disk.set(Some(*fault));
        }
        let core = Core::new(Box::new(disk.clone()), options);
        Self { core, disk }
    }

    /// What a restart finds after the process was killed.
    fn killed(&self) -> Vec<(CallId, Outcome, i64)> {
        summary(&self.disk.contents())
    }

    /// What a restart finds after the power was cut, and not more than what was synced was saved.
    fn cut_off(&self) -> Vec<(CallId, Outcome, i64)> {
        summary(&self.disk.synced())
    }
}

/// Each call, how it ended and what it cost.
fn summary(files: &[Vec<u8>]) -> Vec<(CallId, Outcome, i64)> {
    let mut replay = Replay::default();
    for file in files {
        replay.read(file.as_slice(), u64::try_from(file.len()).unwrap()).unwrap();
    }
    assert_eq!(replay.unreadable(), 0);
    let all = replay.into_ended();
    all.iter().map(|one| (one.record.call, one.record.outcome, one.record.cost.0)).collect()
}

fn options() -> JournalOptions {
    JournalOptions {
        bytes_max: 1 << 20,
        segment_bytes: 4 << 10,
        segment_age: Duration::from_secs(10),
        probe_every: Duration::from_millis(1),
    }
}

const CUT: Outcome = Outcome::Cut;
const ANSWERED: Outcome = Outcome::Answered;

#[test]
fn what_a_call_wrote_is_found_by_the_last_of_it() {
    let bench = Bench::new(options());
    for number in 1..=4 {
        bench.core.intend(&intent(number)).unwrap();
    }
    bench.core.mark(&[mark(2, 5), mark(3, 6)]);
    bench.core.mark(&[mark(2, 7)]);
    bench.core.ended(&[ended(3, 9)]).unwrap();
    bench.core.ended(&[ended(4, 2)]).unwrap();
    bench.core.forget(&[call(4)]);
    let found = vec![(call(1), CUT, 0), (call(2), CUT, 7), (call(3), ANSWERED, 9)];
    assert_eq!(bench.killed(), found);
    assert_eq!(bench.cut_off(), [], "nothing was synced yet");
    assert!(bench.core.sync());
    assert_eq!(bench.cut_off(), found);
}

#[test]
fn marks_that_come_too_late_or_of_nowhere_are_passed_over() {
    let bench = Bench::new(options());
    bench.core.intend(&intent(1)).unwrap();
    bench.core.ended(&[ended(1, 9)]).unwrap();
    let before = bench.disk.contents();
    bench.core.mark(&[mark(1, 5), mark(2, 5)]);
    bench.core.forget(&[call(2)]);
    assert_eq!(bench.disk.contents(), before);
}

#[test]
fn a_short_write_is_cut_back_and_nothing_is_written_until_the_disk_takes_it() {
    for taken in [0, 1, 7, 8, 9, 100] {
        let bench = Bench::new(options());
        bench.core.intend(&intent(1)).unwrap();
        let before = bench.disk.contents();
        bench.disk.set(Some(Fault::Full(taken)));
        assert_eq!(bench.core.intend(&intent(2)), Err(Unwritable));
        assert!(!bench.core.is_writable());
        assert_eq!(bench.disk.contents(), before, "after {taken} bytes");
        assert_eq!(bench.core.intend(&intent(3)), Err(Unwritable));
        bench.core.recover();
        assert!(!bench.core.is_writable());
        bench.disk.set(None);
        bench.core.recover();
        assert!(bench.core.is_writable());
        bench.core.intend(&intent(4)).unwrap();
        assert!(bench.core.sync());
        assert_eq!(bench.cut_off(), [(call(1), CUT, 0), (call(4), CUT, 0)]);
        assert_eq!(bench.killed(), bench.cut_off());
    }
}

#[test]
fn behind_a_torn_entry_that_cannot_be_cut_off_nothing_is_written() {
    let bench = Bench::new(options());
    bench.core.intend(&intent(1)).unwrap();
    bench.disk.set(Some(Fault::Full(20)));
    bench.disk.set(Some(Fault::Cut));
    assert_eq!(bench.core.intend(&intent(2)), Err(Unwritable));
    bench.disk.set(None);
    bench.core.recover();
    bench.core.intend(&intent(3)).unwrap();
    assert_eq!(bench.killed(), [(call(1), CUT, 0), (call(3), CUT, 0)]);
}

#[test]
fn what_a_failed_sync_may_have_lost_is_written_again() {
    let bench = Bench::new(options());
    bench.core.intend(&intent(1)).unwrap();
    assert!(bench.core.sync());
    bench.core.intend(&intent(2)).unwrap();
    bench.core.mark(&[mark(1, 4), mark(2, 5)]);
    bench.disk.set(Some(Fault::Sync));
    assert!(!bench.core.sync());
    assert!(!bench.core.is_writable());
    // The disk says that all is well again, and has lost what it was to sync.
    bench.disk.set(None);
    assert_eq!(bench.cut_off(), [(call(1), CUT, 0)]);
    bench.core.recover();
    assert!(bench.core.is_writable());
    assert_eq!(bench.cut_off(), [(call(1), CUT, 4), (call(2), CUT, 5)]);
}

#[test]
fn a_sync_that_fails_as_a_segment_is_closed_is_one_that_failed() {
    let bench = Bench::new(options());
    bench.core.intend(&intent(1)).unwrap();
    bench.disk.set(Some(Fault::Sync));
    bench.core.rotate();
    assert!(!bench.core.is_writable());
    bench.disk.set(None);
    bench.core.recover();
    assert!(bench.core.is_writable());
    assert_eq!(bench.cut_off(), [(call(1), CUT, 0)]);
}

#[test]
fn what_could_not_be_written_is_written_as_soon_as_it_can_be() {
    let bench = Bench::new(options());
    for number in 1..=4 {
        bench.core.intend(&intent(number)).unwrap();
    }
    assert!(bench.core.sync());
    bench.disk.set(Some(Fault::Full(0)));
    bench.core.mark(&[mark(1, 3), mark(2, 3)]);
    bench.core.mark(&[mark(1, 4)]);
    assert_eq!(bench.core.ended(&[ended(2, 9), ended(3, 8)]), Err(Unwritable));
    bench.core.mark(&[mark(3, 1)]);
    assert_eq!(bench.core.ended(&[ended(4, 8)]), Err(Unwritable));
    bench.core.forget(&[call(4)]);
    let owed = bench.core.with(|log, options| log.gauges(options)).owed_calls;
    assert_eq!(owed, 3);
    bench.disk.set(None);
    bench.core.recover();
    let found = [(call(1), CUT, 4), (call(2), ANSWERED, 9), (call(3), ANSWERED, 8)];
    assert_eq!(bench.cut_off().get(..3), Some(&found[..]));
    // That the fourth is forgotten was not written, so it is found; the bank knows it.
    assert_eq!(bench.cut_off().len(), 4);
    assert_eq!(bench.core.with(|log, options| log.gauges(options)).owed_calls, 0);
}

#[test]
fn a_journal_that_begins_on_a_full_disk_is_written_once_there_is_room() {
    for fault in [Fault::Full(0), Fault::Create, Fault::Sync] {
        let bench = Bench::with(options(), &[fault]);
        assert!(!bench.core.is_writable(), "{fault:?}");
        assert_eq!(bench.core.intend(&intent(1)), Err(Unwritable));
        bench.disk.set(None);
        bench.core.recover();
        bench.core.intend(&intent(1)).unwrap();
        assert_eq!(bench.killed(), [(call(1), CUT, 0)]);
    }
}

#[test]
fn a_segment_goes_when_no_call_needs_it() {
    let bench = Bench::new(options());
    bench.core.rotate();
    bench.core.intend(&intent(1)).unwrap();
    bench.core.intend(&intent(2)).unwrap();
    bench.core.rotate();
    bench.core.tidy();
    bench.core.ended(&[ended(1, 3), ended(2, 3)]).unwrap();
    bench.core.rotate();
    bench.core.tidy();
    assert_eq!(bench.disk.count(), 3, "both have calls");
    bench.core.forget(&[call(1)]);
    bench.core.tidy();
    assert_eq!(bench.disk.count(), 3, "one of them still");
    bench.core.forget(&[call(2)]);
    bench.core.tidy();
    assert_eq!(bench.disk.count(), 1);
    assert_eq!(bench.killed(), []);
}

#[test]
fn how_far_a_call_had_come_is_not_kept_once_it_is_over() {
    let bench = Bench::new(options());
    bench.core.rotate();
    bench.core.intend(&intent(1)).unwrap();
    bench.core.rotate();
    bench.core.mark(&[mark(1, 3)]);
    bench.core.rotate();
    bench.core.tidy();
    assert_eq!(bench.disk.count(), 3);
    bench.core.ended(&[ended(1, 3)]).unwrap();
    bench.core.tidy();
    assert_eq!(bench.disk.count(), 2);
    assert_eq!(bench.killed(), [(call(1), ANSWERED, 3)]);
}

#[test]
fn a_disk_that_is_full_of_our_own_segments_gets_room_by_them() {
    let bench = Bench::new(options());
    bench.core.intend(&intent(1)).unwrap();
    bench.core.rotate();
    bench.core.intend(&intent(2)).unwrap();
    assert!(bench.core.sync());
    bench.disk.set(Some(Fault::Full(0)));
    assert_eq!(bench.core.intend(&intent(3)), Err(Unwritable));
    bench.core.forget(&[call(1)]);
    let before = bench.disk.contents().concat().len();
    bench.core.recover();
    assert!(bench.disk.contents().concat().len() < before);
    assert_eq!(bench.cut_off(), [(call(2), CUT, 0)]);
}

/// Who opens a lock's file before it is removed has a lock on nothing, and must not take it for one.
#[test]
fn a_lock_on_a_file_that_was_removed_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let first = Lock::try_take(&path).unwrap().unwrap();
    let [early, earlier] = [(); 2].map(|()| File::open(&path).unwrap());
    first.remove().unwrap();
    assert!(Lock::hold(early, &path).unwrap().is_none(), "nobody has it");
    let second = Lock::try_take(&path).unwrap();
    assert!(second.is_some());
    assert!(Lock::hold(earlier, &path).unwrap().is_none(), "somebody else has it");
    assert!(Lock::try_take(&path).unwrap().is_none());
}

/// The end is in the newer segment: with the older one its intent would be gone, but not how it ended.
#[test]
fn nothing_is_removed_before_that_which_takes_its_place_is_on_the_disk() {
    let bench = Bench::new(options());
    bench.core.intend(&intent(1)).unwrap();
    for cost in 0..40 {
        bench.core.mark(&[mark(1, cost)]);
    }
    bench.core.rotate();
    bench.disk.set(Some(Fault::Sync));
    bench.core.tidy();
    assert_eq!(bench.cut_off(), [(call(1), CUT, 39)]);
    assert_eq!(bench.disk.count(), 2);
    // Nor to make room on a disk that is full, for what else would be nowhere.
    bench.disk.set(Some(Fault::Full(0)));
    bench.core.recover();
    assert_eq!(bench.cut_off(), [(call(1), CUT, 39)]);
    bench.disk.set(None);
    bench.core.recover();
    bench.core.tidy();
    assert_eq!(bench.disk.count(), 1, "but the newest");
    assert_eq!(bench.cut_off(), [(call(1), CUT, 39)]);
}

#[test]
fn a_long_stream_does_not_keep_what_was_written_long_ago() {
    let bench = Bench::new(options());
    bench.core.intend(&intent(1)).unwrap();
    for round in 0..100 {
        for cost in 0..40 {
            bench.core.mark(&[mark(1, round * 40 + cost)]);
        }
        bench.core.rotate();
        bench.core.tidy();
        assert!(bench.disk.count() <= 3, "{} segments", bench.disk.count());
        assert_eq!(bench.killed(), [(call(1), CUT, round * 40 + 39)]);
    }
    bench.core.ended(&[ended(1, 4_000)]).unwrap();
    bench.core.forget(&[call(1)]);
    bench.core.rotate();
    bench.core.tidy();
    assert_eq!(bench.disk.count(), 1);
}

#[test]
fn a_segment_that_cannot_be_read_again_stays() {
    let bench = Bench::new(options());
    bench.core.intend(&intent(1)).unwrap();
    for cost in 0..40 {
        bench.core.mark(&[mark(1, cost)]);
    }
    bench.core.rotate();
    bench.disk.set(Some(Fault::Read));
    bench.core.tidy();
    bench.disk.set(None);
    bench.core.tidy();
    assert_eq!(bench.disk.count(), 2);
    assert_eq!(bench.killed(), [(call(1), CUT, 39)]);
    bench.core.forget(&[call(1)]);
    bench.core.tidy();
    assert_eq!(bench.disk.count(), 1, "until nobody needs it");
}

#[test]
fn a_journal_that_has_got_too_long_takes_no_new_calls_but_what_calls_under_way_leave() {
    let bench = Bench::new(JournalOptions { bytes_max: 16 << 10, ..options() });
    let taken = (1..1_000).take_while(|number| bench.core.intend(&intent(*number)).is_ok()).count();
    assert!(taken > 10 && !bench.core.is_writable());
    let taken = u64::try_from(taken).unwrap();
    bench.core.ended(&[ended(1, 3), ended(2, 3)]).unwrap();
    assert_eq!(bench.core.with(|log, options| log.gauges(options)).failures, 0);
    bench.core.rotate();
    bench.core.forget(&(1..=taken).map(call).collect::<Vec<_>>());
    bench.core.tidy();
    assert!(bench.core.is_writable());
    bench.core.intend(&intent(9_999)).unwrap();
}

/// As an end is owed since the journal is too long, not since the disk is broken, nothing probes.
#[test]
fn a_debt_is_paid_when_there_is_room_again() {
    let bench = Bench::new(JournalOptions { bytes_max: 16 << 10, ..options() });
    let taken = (1..1_000).take_while(|number| bench.core.intend(&intent(*number)).is_ok()).count();
    let taken = u64::try_from(taken).unwrap();
    let ends: Vec<_> = (1..=taken).map(|number| ended(number, 3)).collect();
    let unwritten = ends.iter().filter(|end| bench.core.ended(&[Arc::clone(end)]).is_err()).count();
    assert!(unwritten > 1, "{unwritten} of {taken}");
    bench.core.rotate();
    let last = call(taken);
    bench.core.forget(&(1..taken).map(call).collect::<Vec<_>>());
    bench.core.tidy();
    bench.core.tidy();
    assert_eq!(bench.core.with(|log, options| log.gauges(options)).owed_calls, 0);
    assert!(bench.killed().contains(&(last, ANSWERED, 3)));
}

#[test]
fn steps_by_chance_lose_nothing_and_bring_nothing_back() {
    for seed in 0..30 {
        world::World::new(seed).run(400);
    }
}
