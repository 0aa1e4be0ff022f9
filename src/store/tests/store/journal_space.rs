//! The journal on a disk that is really full: a small file system of its own, in a mount namespace of a
//! process of its own, so that nothing is left of it whatever happens.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokenroute_domain::record::Outcome;
use tokenroute_store::{Journal, JournalOptions, Replay, Unwritable};

use crate::journal::{call, dead, ended, intent, left, mark, node};
use crate::support::PATIENCE;

/// A process in whose folder this is, is the one with the small disk.
const MARKER: &str = "small-disk";
/// Mounts the small disk and becomes the test's executable.
const MOUNT: &str = r#"mkdir disk && mount -t tmpfs -o size=256k tmpfs disk && exec "$0" "$@""#;

#[test]
fn a_full_disk_is_told_and_is_written_again_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(MARKER), b"").unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", MOUNT])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "journal_space::the_process_with_a_small_disk"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let words = [output.stdout, output.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    assert!(output.status.success() && words.contains("1 passed"), "{words}");
}

/// Is a test of its own only in name: it runs in the process that the other test starts.
#[test]
fn the_process_with_a_small_disk() {
    if !Path::new(MARKER).exists() {
        return;
    }
    let folder = Path::new("disk/journal");
    let options =
        JournalOptions { probe_every: Duration::from_millis(50), ..JournalOptions::default() };
    let journal = Journal::open(folder, node(1), options).unwrap();
    for number in 1..=3 {
        journal.intend(&intent(number)).unwrap();
    }
    fill();
    let more = (4..10_000).take_while(|number| journal.intend(&intent(*number)).is_ok()).count();
    assert!(!journal.is_writable());
    let more = u128::try_from(more).unwrap();
    journal.mark(&[mark(1, 7)]);
    assert_eq!(journal.ended(&[ended(2, 9), ended(3, 9)]), Err(Unwritable));
    // Nothing torn is left, however often it is tried.
    std::thread::sleep(Duration::from_millis(300));
    assert!(!journal.is_writable());
    assert_eq!(journal.intend(&intent(99_999)), Err(Unwritable));
    assert_eq!(torn(folder), 0);
    assert!(journal.gauges().failures >= 2, "{:?}", journal.gauges());
    assert_eq!(journal.gauges().owed_calls, 3);

    fs::remove_file("disk/fill").unwrap();
    until_writable(&journal);
    assert_eq!(journal.gauges().owed_calls, 0);
    journal.intend(&intent(20_000)).unwrap();
    drop(journal);
    let left = left(folder);
    let expected = (1..=3 + more).chain([20_000]).map(call);
    assert!(expected.eq(left.iter().map(|one| one.record.call)));
    let costs: Vec<_> =
        left.iter().take(3).map(|one| (one.record.cost.0, one.record.outcome)).collect();
    let answered = Outcome::Answered;
    assert_eq!(costs, [(7, Outcome::Cut), (9, answered), (9, answered)]);

    // One that begins on a full disk.
    fill();
    let journal = Journal::open(folder, node(2), options).unwrap();
    assert!(!journal.is_writable());
    fs::remove_file("disk/fill").unwrap();
    until_writable(&journal);
    journal.intend(&intent(1)).unwrap();
    drop(journal);
    let orphans = dead(folder);
    assert_eq!(orphans.len(), 2);
    for orphan in orphans {
        orphan.finish().unwrap();
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}

fn fill() {
    let mut file = File::create("disk/fill").unwrap();
    while file.write(&[1; 512]).is_ok_and(|written| written > 0) {}
}

fn until_writable(journal: &Journal) {
    let start = Instant::now();
    while !journal.is_writable() {
        assert!(start.elapsed() < PATIENCE, "{:?}", journal.gauges());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes of all segments that are no whole entries.
fn torn(folder: &Path) -> u64 {
    let mut replay = Replay::default();
    for entry in fs::read_dir(folder).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        replay.read(bytes.as_slice(), u64::try_from(bytes.len()).unwrap()).unwrap();
    }
    replay.dropped_bytes()
}
