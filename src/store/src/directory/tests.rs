//! Look-ups that are held up on the way: what meets them there, and what they must not undo.

use std::time::Duration;

use tempfile::TempDir;
use tokenroute_domain::id::AccountId;
use tokenroute_domain::key::{Funding, KeyHash};
use tokio::task::JoinHandle;

use super::*;
use crate::NewKey;

const T0: Timestamp = Timestamp(1_800_000_000_000_000);
const HASH: KeyHash = KeyHash([1; 32]);
/// How long what must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Every turn at the database.
const ALL: u32 = 16;

/// A directory over a database with one key.
async fn directory() -> (TempDir, Directory) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("state.db")).await.unwrap();
    let (account, id) = (AccountId::new(T0, 1), KeyId::new(T0, 1));
    database
        .acting("tester")
        .create_account(account, "acme", Funding::Unmetered, T0)
        .await
        .unwrap();
    let (name, shown, created) = ("laptop", "sk-tr-abcd", T0);
    let terms = tokenroute_domain::key::Terms::default();
    let key = NewKey { id, account, name, hash: HASH, shown, created, expires: None, terms };
    assert!(database.acting("tester").create_key(&key).await.unwrap());
    // The hold-ups are ours to end, so nothing gives up on them.
    let options = DirectoryOptions { sql: PATIENCE, ..DirectoryOptions::default() };
    (folder, Directory::new(database, None, options))
}

type Call = JoinHandle<Result<Option<SharedKey>, Unavailable>>;

fn call(directory: &Directory, hash: KeyHash) -> Call {
    let directory = directory.clone();
    tokio::spawn(async move { directory.find(&hash, T0).await })
}

async fn under_way(directory: &Directory, flights: usize) {
    let waiting = async {
        while directory.board().flights() != flights {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test]
async fn a_revocation_overtakes_a_look_up_that_has_begun() {
    let (_folder, directory) = directory().await;
    let turns = directory.0.sql_reads.acquire_many(ALL).await.unwrap();
    let early = call(&directory, HASH);
    under_way(&directory, 1).await;
    // The database says yes to this look-up still, as one that was read a moment before would.
    directory.note_revoked(HASH, T0);
    directory.0.local.forget(&HASH);
    drop(turns);
    assert_eq!(early.await.unwrap(), Ok(None));
    assert_eq!(directory.cached(&HASH, T0), Cached::Unknown);
}

#[tokio::test]
async fn what_was_forgotten_during_its_look_up_is_not_remembered_from_it() {
    let (_folder, directory) = directory().await;
    let turns = directory.0.sql_reads.acquire_many(ALL).await.unwrap();
    let early = call(&directory, HASH);
    under_way(&directory, 1).await;
    directory.forget(&HASH);
    let late = call(&directory, HASH);
    under_way(&directory, 1).await;
    drop(turns);
    assert!(early.await.unwrap().unwrap().is_some());
    assert!(late.await.unwrap().unwrap().is_some());
    assert_eq!(directory.counts().of(Event::SqlRead), 2, "the late one did not join the early one");
}

#[tokio::test]
async fn a_call_with_a_stale_key_does_not_wait_for_a_slow_database() {
    let (_folder, directory) = directory().await;
    directory.find(&HASH, T0).await.unwrap();
    let turns = directory.0.sql_reads.acquire_many(ALL).await.unwrap();
    let found = directory.find(&HASH, T0.plus(Duration::from_secs(40))).await.unwrap();
    assert!(found.is_some());
    assert_eq!(directory.counts().of(Event::StaleServed), 1);
    assert_eq!(directory.board().flights(), 1, "it is still being confirmed");
    drop(turns);
    under_way(&directory, 0).await;
    let later = T0.plus(Duration::from_secs(69));
    assert!(matches!(directory.cached(&HASH, later), Cached::Known(_)));
}

#[tokio::test]
async fn more_look_ups_than_there_is_room_for_are_told_to_come_back() {
    let (_folder, directory) = directory().await;
    let turns = directory.0.sql_reads.acquire_many(ALL).await.unwrap();
    let hashes = (0..flights::FLIGHTS_MAX).map(|number| {
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        KeyHash(hash)
    });
    let calls: Vec<Call> = hashes.map(|hash| call(&directory, hash)).collect();
    under_way(&directory, flights::FLIGHTS_MAX).await;
    assert_eq!(directory.find(&HASH, T0).await, Err(Unavailable));
    calls.iter().for_each(JoinHandle::abort);
    drop(turns);
    under_way(&directory, 0).await;
    assert!(directory.find(&HASH, T0).await.unwrap().is_some());
}

#[tokio::test]
async fn a_look_up_whose_runtime_ends_leaves_nobody_waiting() {
    let (_folder, directory) = directory().await;
    let turns = directory.0.sql_reads.acquire_many(ALL).await.unwrap();
    let other = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let remote = directory.clone();
    other.spawn(async move { remote.find(&HASH, T0).await });
    under_way(&directory, 1).await;
    let joined = call(&directory, HASH);
    while directory.counts().of(Event::Joined) == 0 {
        tokio::task::yield_now().await;
    }
    other.shutdown_background();
    assert_eq!(joined.await.unwrap(), Err(Unavailable));
    under_way(&directory, 0).await;
    drop(turns);
    assert!(directory.find(&HASH, T0).await.unwrap().is_some());
}

#[tokio::test]
async fn a_look_up_that_cannot_even_begin_leaves_nothing_behind() {
    let (_folder, directory) = directory().await;
    let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let handle = other.handle().clone();
    other.shutdown_background();
    let landing = {
        let _inside = handle.enter();
        directory.board_flight(&HASH, T0).unwrap()
    };
    assert!(landing.has_changed().is_err(), "nobody will ever answer");
    assert_eq!(directory.board().flights(), 0);
    assert!(directory.find(&HASH, T0).await.unwrap().is_some());
}

#[test]
fn every_event_has_a_word_and_a_counter_of_its_own() {
    let counts = Counts::default();
    for (times, event) in (1..).zip(Event::ALL) {
        (0..times).for_each(|_| counts.count(*event));
    }
    let words: std::collections::HashSet<_> = Event::ALL.iter().map(|one| one.as_str()).collect();
    assert_eq!(words.len(), Event::ALL.len());
    for (times, event) in (1..).zip(Event::ALL) {
        assert_eq!(counts.of(*event), times, "{event:?}");
    }
}
