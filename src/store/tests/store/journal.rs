//! The journal in a real folder: what is read back, what damage costs, who may read whose.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokenroute_domain::id::{CallId, NodeId};
use tokenroute_domain::journal::{Due, Ended, Intent, Mark};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{Period, PurseId};
use tokenroute_domain::record::{Attempt, Endpoint, Outcome, Record};
use tokenroute_domain::routing::{Failure, Why};
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};
use tokenroute_store::{Journal, JournalOptions, Orphan, Replay, Unwritable};

use crate::support::{PATIENCE, T0, account, key_id, record};

pub(crate) fn node(number: u128) -> NodeId {
    NodeId::new(T0, number)
}

pub(crate) fn call(number: u128) -> CallId {
    CallId::new(T0, number)
}

pub(crate) fn open(folder: &Path, number: u128) -> Journal {
    Journal::open(folder, node(number), JournalOptions::default()).unwrap()
}

fn purse() -> PurseId {
    PurseId { key: key_id(1), period: Period::Week, number: 2_900 }
}

pub(crate) fn intent(number: u128) -> Intent {
    Intent {
        call: call(number),
        started: T0,
        endpoint: Endpoint::Completions,
        key: key_id(1),
        account: account(),
        prepaid: true,
        model: Arc::from("gpt-x"),
        hold: NanoUsd(1_000),
        purses: vec![purse()],
    }
}

pub(crate) fn mark(number: u128, cost: i64) -> Mark {
    let usage = Usage { input: 3, output: 4, output_reasoning: 5, ..Usage::default() };
    let (target, cost) = (Arc::from("demo/echo"), NanoUsd(cost));
    Mark { call: call(number), usage, cost, target, streamed: true, reported: false }
}

pub(crate) fn ended(number: u128, cost: i64) -> Arc<Ended> {
    let record = Record { cost: NanoUsd(cost), ..record(number) };
    let due = Some(Due { charge: NanoUsd(cost), purses: vec![purse()] });
    Arc::new(Ended { record: Arc::new(record), due })
}

/// The runs that have died in a folder in which one has. A process that another test is just starting has
/// our lock until it has become a program of its own.
pub(crate) fn dead(folder: &Path) -> Vec<Orphan> {
    for _ in 0..200 {
        let orphans = Journal::orphans(folder).unwrap();
        if !orphans.is_empty() {
            return orphans;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Vec::new()
}

/// What a restart finds in a folder in which nobody lives and one run has died.
pub(crate) fn left(folder: &Path) -> Vec<Arc<Ended>> {
    let orphans = dead(folder);
    assert_eq!(orphans.len(), 1);
    assert_eq!((orphans[0].dropped_bytes(), orphans[0].unreadable()), (0, 0));
    orphans[0].calls().to_vec()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The only segment in a folder.
fn segment(folder: &Path) -> Vec<u8> {
    let names = names(folder);
    let segments: Vec<_> = names.iter().filter(|name| !name.ends_with("lock")).collect();
    assert_eq!(segments.len(), 1, "{segments:?}");
    fs::read(folder.join(segments[0])).unwrap()
}

/// Records with every word and every shape that there is.
fn many() -> Vec<Arc<Ended>> {
    let words = ["ok", "insufficient_quota", "a_word_of_next_year"];
    let words: Vec<&'static str> =
        words.into_iter().chain(Failure::ALL.map(Failure::as_str)).collect();
    let sources = [UsageSource::None, UsageSource::Provider, UsageSource::Estimated];
    let mut all = Vec::new();
    for number in 0_u8..40 {
        let at = usize::from(number);
        let attempt = Attempt {
            target: Arc::from("p/\"\\\u{1f600}\n"),
            why: Why::ALL[at % Why::ALL.len()],
            result: words[at % words.len()],
            status: (at % 2 == 0).then_some(u16::MAX),
            micros: u64::MAX,
            output_tokens: u64::MAX - 1,
            cost: NanoUsd(i64::MAX),
            house_cost: NanoUsd(i64::MIN),
        };
        let some = at % 3 != 0;
        let record = Record {
            call: call(u128::from(number) + 1),
            started: Timestamp(u64::MAX - 1),
            endpoint: Endpoint::ALL[at % Endpoint::ALL.len()],
            key: some.then(|| key_id(number)),
            account: some.then(account),
            model: some.then(|| Arc::from("modèle/\u{0}\"")),
            target: some.then(|| Arc::from("p/m")),
            attempts: vec![attempt; at % 4],
            status: u16::from(number),
            outcome: Outcome::ALL[at % Outcome::ALL.len()],
            error: some.then(|| words[(at + 1) % words.len()]),
            streamed: some,
            usage: Usage {
                input: u64::MAX,
                input_cache_read: 1,
                input_cache_write: 2,
                input_cache_write_long: 3,
                input_audio: 4,
                input_image: 5,
                output: 6,
                output_reasoning: 7,
                output_audio: 8,
                output_image: 9,
            },
            usage_source: sources[at % 3],
            cost: NanoUsd(i64::MAX),
            charge: NanoUsd(i64::from(number)),
            price_version: some.then(|| Arc::from("v1-2")),
            house_cost: NanoUsd(-1),
            latency_micros: u64::MAX,
            first_token_micros: some.then_some(0),
        };
        let purses: Vec<PurseId> = Period::ALL
            .into_iter()
            .take(at % 5)
            .map(|period| PurseId { key: key_id(number), period, number: u32::MAX })
            .collect();
        let due = some.then(|| Due { charge: NanoUsd(i64::from(number)), purses });
        all.push(Arc::new(Ended { record: Arc::new(record), due }));
    }
    all
}

#[test]
fn what_is_read_back_is_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 1);
    let all = many();
    journal.ended(&all).unwrap();
    drop(journal);
    let left = left(folder.path());
    for (written, read) in all.iter().zip(&left) {
        assert_eq!(written, read);
    }
    assert_eq!(left.len(), all.len());
}

#[test]
fn a_call_without_an_end_is_settled_by_its_last_mark() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 1);
    for number in 1..=4 {
        journal.intend(&intent(number)).unwrap();
    }
    let unmetered = Intent { prepaid: false, purses: Vec::new(), ..intent(5) };
    journal.intend(&unmetered).unwrap();
    journal.mark(&[mark(2, 10), mark(3, 10), mark(4, 10), mark(5, 10)]);
    journal.mark(&[mark(2, 999), Mark { reported: true, ..mark(3, 1_001) }]);
    drop(journal);
    let left = left(folder.path());
    let lost = |number: u128, cost: i64, charge: i64| Record {
        call: call(number),
        started: T0,
        endpoint: Endpoint::Completions,
        key: Some(key_id(1)),
        account: Some(account()),
        model: Some(Arc::from("gpt-x")),
        target: Some(Arc::from("demo/echo")),
        attempts: Vec::new(),
        status: 200,
        outcome: Outcome::Cut,
        error: Some("edge_lost"),
        streamed: true,
        usage: mark(number, cost).usage,
        usage_source: UsageSource::Estimated,
        cost: NanoUsd(cost),
        charge: NanoUsd(charge),
        price_version: None,
        house_cost: NanoUsd::ZERO,
        latency_micros: 0,
        first_token_micros: None,
    };
    let silent = Record {
        target: None,
        status: 0,
        streamed: false,
        usage: Usage::default(),
        ..lost(1, 0, 0)
    };
    let reported = Record { usage_source: UsageSource::Provider, ..lost(3, 1_001, 1_000) };
    let records = [silent, lost(2, 999, 999), reported, lost(4, 10, 10), lost(5, 10, 0)];
    let dues = [0, 999, 1_000, 10]
        .map(|charge| Some(Due { charge: NanoUsd(charge), purses: vec![purse()] }));
    // It counts under its key's ceilings, and here there are none.
    let free = Some(Due { charge: NanoUsd(10), purses: Vec::new() });
    for ((record, due), read) in records.into_iter().zip(dues.into_iter().chain([free])).zip(&left)
    {
        assert_eq!(**read, Ended { record: Arc::new(record), due });
    }
    assert_eq!(left.len(), 5);
}

#[test]
fn nobody_else_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/journal");
    let journal = open(&path, 1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let names = names(&path);
    assert_eq!(names.len(), 2);
    for name in names {
        assert!(name.starts_with(&format!("{}.", node(1))), "{name}");
        assert_eq!(mode(&path.join(name)), 0o600);
    }
    drop(journal);
}

#[test]
fn a_run_that_has_settled_everything_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 1);
    journal.intend(&intent(1)).unwrap();
    journal.ended(&[ended(1, 5)]).unwrap();
    journal.forget(&[call(1)]);
    journal.close();
    assert_eq!(names(folder.path()), [""; 0]);
    assert_eq!(journal.intend(&intent(2)), Err(Unwritable));
    assert_eq!(journal.ended(&[ended(2, 1)]), Err(Unwritable));
    assert!(!journal.is_writable());
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn the_journal_of_a_run_that_lives_is_no_orphan_and_neither_is_one_that_is_being_settled() {
    let folder = tempfile::tempdir().unwrap();
    let (living, dying) = (open(folder.path(), 1), open(folder.path(), 2));
    living.intend(&intent(1)).unwrap();
    dying.intend(&intent(2)).unwrap();
    assert_eq!(Journal::orphans(folder.path()).unwrap().len(), 0);
    drop(dying);
    let mut orphans = dead(folder.path());
    assert_eq!(orphans.len(), 1);
    let orphan = orphans.pop().unwrap();
    assert_eq!((orphan.node(), orphan.calls()[0].record.call), (node(2), call(2)));
    assert_eq!(Journal::orphans(folder.path()).unwrap().len(), 0);
    // It was not settled: the next one finds it.
    drop(orphan);
    let orphan = dead(folder.path()).pop().unwrap();
    orphan.finish().unwrap();
    assert_eq!(Journal::orphans(folder.path()).unwrap().len(), 0);
    assert!(names(folder.path()).iter().all(|name| name.starts_with(&node(1).to_string())));
    living.mark(&[mark(1, 7)]);
    drop(living);
    assert_eq!(left(folder.path())[0].record.cost, NanoUsd(7));
}

#[test]
fn of_many_that_race_for_an_orphan_one_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let journal = open(folder.path(), round);
        journal.intend(&intent(round)).unwrap();
        drop(journal);
        let path = folder.path();
        let settled: usize = std::thread::scope(|scope| {
            let race = || {
                let orphans = Journal::orphans(path).unwrap();
                let with_calls = orphans.iter().filter(|orphan| !orphan.calls().is_empty()).count();
                for orphan in orphans {
                    orphan.finish().unwrap();
                }
                with_calls
            };
            let racers: Vec<_> = (0..4).map(|_| scope.spawn(race)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(settled, 1);
        assert_eq!(names(path), [""; 0]);
    }
}

/// One that looks for orphans may have a lock in the moment in which its owner comes.
#[test]
fn runs_begin_while_others_look_for_orphans() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for orphan in Journal::orphans(path).unwrap() {
                    assert_eq!(orphan.calls(), []);
                    orphan.finish().unwrap();
                }
            }
        });
        for round in 0..60 {
            let journal = open(path, round);
            journal.intend(&intent(round)).unwrap();
            let ours = |name: &&String| name.starts_with(&node(round).to_string());
            assert_eq!(names(path).iter().filter(ours).count(), 2);
            journal.forget(&[call(round)]);
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn files_of_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let others = ["fill", "node_x.1", "note.txt", &format!("{}.txt", node(1))];
    for name in others {
        fs::write(folder.path().join(name), b"x").unwrap();
    }
    drop(open(folder.path(), 1));
    assert_eq!(Journal::orphans(folder.path()).unwrap().len(), 0);
    assert_eq!(names(folder.path()).len(), others.len());
    assert_eq!(Journal::orphans(&folder.path().join("nowhere")).unwrap().len(), 0);
}

/// A journal of three calls, and what it says at each of its frames.
fn small() -> (TempDir, Vec<u8>, Vec<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let journal = open(folder.path(), 1);
    let mut ends = vec![0, segment(folder.path()).len()];
    let mut note = || ends.push(segment(folder.path()).len());
    journal.intend(&intent(1)).unwrap();
    note();
    journal.intend(&intent(2)).unwrap();
    note();
    journal.mark(&[mark(1, 5)]);
    note();
    journal.ended(&[ended(1, 9)]).unwrap();
    note();
    journal.intend(&intent(3)).unwrap();
    note();
    journal.forget(&[call(1)]);
    note();
    let bytes = segment(folder.path());
    drop(journal);
    (folder, bytes, ends)
}

fn read(bytes: &[u8]) -> (u64, BTreeMap<CallId, Arc<Ended>>) {
    let mut replay = Replay::default();
    replay.read(bytes, u64::try_from(bytes.len()).unwrap()).unwrap();
    assert_eq!(replay.unreadable(), 0);
    let dropped = replay.dropped_bytes();
    (dropped, replay.into_ended().into_iter().map(|one| (one.record.call, one)).collect())
}

#[test]
fn wherever_it_is_torn_what_is_whole_before_is_read() {
    let (_folder, bytes, ends) = small();
    assert_eq!(read(&bytes).1.len(), 2);
    for length in 0..=bytes.len() {
        let whole = *ends.iter().filter(|end| **end <= length).max().unwrap();
        let (dropped, calls) = read(&bytes[..length]);
        assert_eq!(dropped, u64::try_from(length - whole).unwrap(), "{length} bytes");
        assert_eq!(calls, read(&bytes[..whole]).1, "{length} bytes");
        // What the disk had not got may be zeros.
        let mut zeros = bytes[..length].to_vec();
        zeros.resize(bytes.len() + 4_096, 0);
        let (_, calls) = read(&zeros);
        let kept = *ends.iter().filter(|end| bytes[..**end] == zeros[..**end]).max().unwrap();
        assert_eq!(calls, read(&bytes[..kept]).1, "{length} bytes and zeros");
    }
}

#[test]
fn whichever_bit_is_flipped_nothing_is_believed_from_there_on() {
    let (_folder, mut bytes, ends) = small();
    // Of the padding it begins with a part does.
    let places = (0..ends[1]).step_by(97).chain(ends[1] - 9..bytes.len());
    for place in places {
        let whole = *ends.iter().filter(|end| **end <= place).max().unwrap();
        let before = read(&bytes[..whole]).1;
        for bit in 0..8 {
            bytes[place] ^= 1 << bit;
            let (dropped, calls) = read(&bytes);
            assert_eq!(dropped, u64::try_from(bytes.len() - whole).unwrap(), "{place}.{bit}");
            assert_eq!(calls, before, "{place}.{bit}");
            bytes[place] ^= 1 << bit;
        }
    }
}

#[test]
fn segments_are_read_in_order_and_a_torn_one_does_not_hide_the_next() {
    let folder = tempfile::tempdir().unwrap();
    // By their numbers: as text ten would come before nine.
    for (number, cost) in [(9, 5), (10, 7)] {
        let other = tempfile::tempdir().unwrap();
        let journal = open(other.path(), 1);
        journal.intend(&intent(1)).unwrap();
        journal.mark(&[mark(1, cost)]);
        journal.intend(&intent(number)).unwrap();
        let mut bytes = segment(other.path());
        bytes.truncate(bytes.len() - 3);
        fs::write(folder.path().join(format!("{}.{number}", node(1))), bytes).unwrap();
    }
    let orphan = dead(folder.path()).pop().unwrap();
    let calls: Vec<_> =
        orphan.calls().iter().map(|one| (one.record.call, one.record.cost.0)).collect();
    assert_eq!(calls, [(call(1), 7)]);
    assert!(orphan.dropped_bytes() > 0);
}

/// The thread syncs, goes on in new segments, writes again what is needed, and removes the rest.
#[test]
fn it_stays_short_however_long_calls_take() {
    let folder = tempfile::tempdir().unwrap();
    let options = JournalOptions {
        segment_bytes: 64 << 10,
        segment_age: Duration::from_millis(50),
        ..JournalOptions::default()
    };
    let journal = Journal::open(folder.path(), node(1), options).unwrap();
    journal.intend(&intent(1)).unwrap();
    let start = std::time::Instant::now();
    let mut number = 1;
    let mut most = 0;
    let mut cost = 0;
    // Three of the thread's rounds.
    while start.elapsed() < Duration::from_millis(3_300) {
        for _ in 0..20 {
            number += 1;
            journal.intend(&intent(number)).unwrap();
            journal.ended(&[ended(number, 1)]).unwrap();
            journal.forget(&[call(number)]);
        }
        cost += 1;
        journal.mark(&[mark(1, cost)]);
        most = most.max(journal.gauges().bytes);
        std::thread::sleep(Duration::from_millis(2));
    }
    let gauges = journal.gauges();
    assert_eq!((gauges.calls, gauges.owed_calls, gauges.failures), (1, 0, 0));
    let deadline = std::time::Instant::now() + PATIENCE;
    while journal.gauges().segments > 3 || journal.gauges().unsynced_bytes > 0 {
        assert!(std::time::Instant::now() < deadline, "{:?}", journal.gauges());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(journal.gauges().bytes < most);
    drop(journal);
    let left = left(folder.path());
    let one = left.iter().find(|one| one.record.call == call(1)).unwrap();
    assert_eq!(one.record.cost, NanoUsd(cost));
}
