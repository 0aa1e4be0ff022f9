//! The journal of a process that is killed at any instruction: whatever it has been told is written, is.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokenroute_domain::id::CallId;
use tokenroute_domain::record::Outcome;
use tokenroute_store::{Journal, JournalOptions, Replay};

use crate::journal::{call, dead, ended, intent, mark, node};
use crate::support::PATIENCE;

/// A process in whose folder this is, is the one that is to be killed.
const MARKER: &str = "to-be-killed";
const JOURNAL: &str = "journal";
/// What it has been told is written, a line each.
const TOLD: &str = "told";
const ROUNDS: u64 = 12;
/// A kill ends a write between two of the system's pages, if it ends one.
const PAGE_BYTES: u64 = 4_096;

/// Is a test of its own only in name: it is the process that the other test starts and kills.
#[test]
fn the_process_that_is_killed() {
    if !Path::new(MARKER).exists() {
        return;
    }
    let options = JournalOptions {
        segment_bytes: 16 << 10,
        segment_age: Duration::from_millis(20),
        ..JournalOptions::default()
    };
    let journal = Journal::open(Path::new(JOURNAL), node(1), options).unwrap();
    let mut told = OpenOptions::new().create(true).append(true).open(TOLD).unwrap();
    let mut tell = |line: String| told.write_all(line.as_bytes()).unwrap();
    for number in 1..1_000_000_u128 {
        journal.intend(&intent(number)).unwrap();
        tell(format!("{number} 0 begun\n"));
        let cost = i64::try_from(number).unwrap();
        journal.mark(&[mark(number, cost)]);
        tell(format!("{number} {cost} begun\n"));
        // Every third goes on for ever, and is marked again and again.
        if number % 3 == 0 {
            let early = number / 2 / 3 * 3;
            if early > 0 {
                journal.mark(&[mark(early, cost)]);
                tell(format!("{early} {cost} begun\n"));
            }
            continue;
        }
        journal.ended(&[ended(number, cost + 1)]).unwrap();
        tell(format!("{number} {} over\n", cost + 1));
        if number % 3 == 1 {
            tell(format!("{number} 0 forgotten\n"));
            journal.forget(&[call(number)]);
        }
    }
}

#[test]
fn what_was_said_to_be_written_outlives_a_kill() {
    let mut calls = 0;
    for round in 0..ROUNDS {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MARKER), b"").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal_kill::the_process_that_is_killed"])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let told = folder.path().join(TOLD);
        let start = Instant::now();
        while !told.exists() {
            assert!(start.elapsed() < PATIENCE, "it does not begin");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(5 * round * round));
        // It lives, so its journal is nobody else's.
        assert_eq!(Journal::orphans(&folder.path().join(JOURNAL)).unwrap().len(), 0);
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        calls += check(folder.path());
    }
    assert!(calls > 100, "only {calls} calls were under way or not forgotten");
}

fn check(folder: &Path) -> usize {
    let told = fs::read_to_string(folder.join(TOLD)).unwrap();
    let mut last: BTreeMap<CallId, (i64, &str)> = BTreeMap::new();
    for line in told.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = call(words[0].parse().unwrap());
        last.insert(number, (words[1].parse().unwrap(), words[2]));
    }
    let orphan = dead(&folder.join(JOURNAL)).pop().unwrap();
    assert_eq!(orphan.unreadable(), 0);
    check_torn(&folder.join(JOURNAL), orphan.dropped_bytes());
    let found: BTreeMap<_, _> = orphan
        .calls()
        .iter()
        .map(|one| (one.record.call, (one.record.cost.0, one.record.outcome)))
        .collect();
    for (id, (cost, state)) in &last {
        // It may have been forgotten, or have been about to be.
        if *state == "forgotten" {
            continue;
        }
        let (found, outcome) = found.get(id).expect("it was told and is lost");
        if *state == "over" {
            assert_eq!((found, *outcome), (cost, Outcome::Answered));
        }
        // What came after may have been written and not told.
        assert!(found >= cost, "{id}: {found} after {cost}");
    }
    let unknown = found.keys().filter(|id| !last.contains_key(id)).count();
    assert!(unknown <= 1, "{unknown} calls that were not told");
    found.len()
}

/// A write that the kill ended is not whole, and nobody was told that it was. It is the last.
fn check_torn(folder: &Path, dropped: u64) {
    let mut segments: Vec<(u64, u64, u64)> = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let Ok(number) = path.extension().unwrap().to_str().unwrap().parse() else { continue };
        let bytes = fs::read(path).unwrap();
        let length = u64::try_from(bytes.len()).unwrap();
        let mut replay = Replay::default();
        replay.read(bytes.as_slice(), length).unwrap();
        segments.push((number, length, replay.dropped_bytes()));
    }
    segments.sort_unstable();
    let (_, length, torn) = segments.pop().unwrap();
    assert_eq!(torn, dropped, "an older segment is torn: {segments:?}");
    assert!(torn == 0 || length % PAGE_BYTES == 0, "{torn} bytes of {length}");
}
