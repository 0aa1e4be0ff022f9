//! The directory over one database: what it remembers, for how long, and what an outage does to it.

use std::time::Duration;

use sqlx::Connection;
use tokenroute_store::{Cached, Directory, Event, Unavailable};

use crate::redis_server::NEVER;
use crate::support::{Edge, FreshFile, T0, after, create_keys, eventually, hash, key_id, patient};

/// How often edges poll in tests that wait for a poll.
const OFTEN: Duration = Duration::from_millis(20);

fn unwatched(fresh: &FreshFile) -> Directory {
    Directory::new(fresh.database.clone(), None, patient(NEVER))
}

/// Makes every look-up in the database fail, until [`end_outage`].
async fn begin_outage(fresh: &FreshFile) {
    let mut other = fresh.other_program().await;
    sqlx::query("ALTER TABLE api_keys RENAME TO away").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
}

async fn end_outage(fresh: &FreshFile) {
    let mut other = fresh.other_program().await;
    sqlx::query("ALTER TABLE away RENAME TO api_keys").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_calls_with_one_key_are_one_read() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let directory = unwatched(&fresh);
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let directory = directory.clone();
            tokio::spawn(async move { directory.find(&hash(1), T0).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().unwrap().id, key_id(1));
    }
    assert_eq!(directory.counts().of(Event::SqlRead), 1);
}

#[tokio::test]
async fn a_key_is_read_again_after_thirty_seconds() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let directory = unwatched(&fresh);
    assert_eq!(directory.cached(&hash(1), T0), Cached::Missing);
    for (seconds, reads) in [(0, 1), (29, 1), (30, 2), (59, 2), (60, 3)] {
        let found = directory.find(&hash(1), after(seconds)).await.unwrap();
        assert_eq!(found.unwrap().id, key_id(1));
        assert_eq!(directory.counts().of(Event::SqlRead), reads, "after {seconds} s");
    }
    assert!(matches!(directory.cached(&hash(1), after(61)), Cached::Known(_)));
}

#[tokio::test]
async fn an_unknown_hash_is_read_once_in_thirty_seconds() {
    let fresh = FreshFile::with_account().await;
    let directory = unwatched(&fresh);
    for (seconds, reads) in [(0, 1), (29, 1), (30, 2)] {
        assert_eq!(directory.find(&hash(1), after(seconds)).await, Ok(None));
        assert_eq!(directory.counts().of(Event::SqlRead), reads, "after {seconds} s");
    }
    assert_eq!(directory.cached(&hash(1), after(31)), Cached::Unknown);
}

#[tokio::test]
async fn a_key_that_is_created_after_it_was_tried_works_at_once_where_it_is_forgotten() {
    let fresh = FreshFile::with_account().await;
    let directory = unwatched(&fresh);
    assert_eq!(directory.find(&hash(1), T0).await, Ok(None));
    create_keys(&fresh.database, 1..2).await;
    directory.forget(&hash(1));
    assert!(directory.find(&hash(1), T0).await.unwrap().is_some());
}

#[tokio::test]
async fn a_key_that_is_created_after_it_was_tried_works_elsewhere_with_the_next_poll() {
    let fresh = FreshFile::with_account().await;
    let edge = Edge::start(fresh.database.clone(), None, OFTEN);
    assert_eq!(edge.key(1).await, Ok(None));
    create_keys(&fresh.database, 1..2).await;
    eventually("the new key works", async || edge.key(1).await == Ok(Some(key_id(1)))).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_key_that_was_tried_and_created_before_the_first_poll_works_with_it() {
    let fresh = FreshFile::with_account().await;
    let directory = unwatched(&fresh);
    assert_eq!(directory.find(&hash(1), T0).await, Ok(None));
    create_keys(&fresh.database, 1..2).await;
    assert_eq!(directory.find(&hash(1), T0).await, Ok(None), "as it is remembered");
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let watched = directory.clone();
    let watching = tokio::spawn(async move { watched.watch(|| T0, stopping).await });
    eventually("the new key works", async || directory.find(&hash(1), T0).await.unwrap().is_some())
        .await;
    drop(stop);
    watching.await.unwrap();
}

#[tokio::test]
async fn an_expired_key_is_found_for_the_caller_to_judge() {
    let fresh = FreshFile::with_account().await;
    let key = tokenroute_store::NewKey { expires: Some(after(1)), ..crate::support::new_key(1) };
    fresh.database.acting("tester").create_key(&key).await.unwrap();
    let found = unwatched(&fresh).find(&hash(1), after(100)).await.unwrap();
    assert_eq!(found.unwrap().expires, Some(after(1)));
}

#[tokio::test]
async fn an_outage_is_never_an_unknown_key() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..3).await;
    let directory = unwatched(&fresh);
    assert!(directory.find(&hash(1), T0).await.unwrap().is_some());
    begin_outage(&fresh).await;
    for seconds in [29, 30, 150, 299] {
        let found = directory.find(&hash(1), after(seconds)).await.unwrap();
        assert_eq!(found.unwrap().id, key_id(1), "after {seconds} s");
    }
    assert_eq!(directory.counts().of(Event::StaleServed), 3);
    assert_eq!(directory.find(&hash(1), after(300)).await, Err(Unavailable));
    assert_eq!(directory.find(&hash(2), T0).await, Err(Unavailable), "valid, but never seen");
    assert_eq!(directory.find(&hash(3), T0).await, Err(Unavailable), "unknown, but who knows");
    assert_eq!(directory.cached(&hash(3), T0), Cached::Missing, "no outage is remembered as a no");
    end_outage(&fresh).await;
    assert!(directory.find(&hash(1), after(301)).await.unwrap().is_some());
    assert!(directory.find(&hash(2), after(301)).await.unwrap().is_some());
    assert_eq!(directory.find(&hash(3), after(301)).await, Ok(None));
}

#[tokio::test]
async fn a_database_that_is_away_is_tried_once_a_second() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let directory = unwatched(&fresh);
    assert!(directory.find(&hash(1), T0).await.unwrap().is_some());
    fresh.database.close().await;
    for millis in 0..2_000 {
        let now = after(40).plus(Duration::from_millis(millis));
        assert!(directory.find(&hash(1), now).await.unwrap().is_some());
        assert_eq!(directory.find(&hash(2), now).await, Err(Unavailable));
    }
    assert_eq!(directory.counts().of(Event::SqlRead), 1 + 2);
    assert!(matches!(directory.cached(&hash(1), after(41)), Cached::Known(_)), "without a wait");
}

#[tokio::test]
async fn a_revocation_takes_effect_here_at_once_and_there_with_the_next_poll() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..3).await;
    let here = Edge::start(fresh.database.clone(), None, NEVER);
    let there = Edge::start(fresh.database.clone(), None, OFTEN);
    for edge in [&here, &there] {
        edge.caught_up().await;
        assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
        assert_eq!(edge.key(2).await, Ok(Some(key_id(2))));
    }
    assert!(here.directory.revoke(key_id(1), "tester", T0).await.unwrap());
    assert!(!here.directory.revoke(key_id(99), "tester", T0).await.unwrap());
    assert_eq!(here.directory.cached(&hash(1), T0), Cached::Unknown);
    eventually("the poll brought it", async || there.key(1).await == Ok(None)).await;
    assert_eq!(there.count(Event::RevocationRead), 1);
    assert_eq!(there.key(2).await, Ok(Some(key_id(2))), "nobody else is touched");
    let reads = there.count(Event::SqlRead);
    for seconds in 0..120 {
        assert_eq!(there.key_at(1, after(seconds)).await, Ok(None));
    }
    assert_eq!(there.count(Event::SqlRead), reads, "a revoked key costs no more reads");
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_revocation_while_polls_fail_is_read_after_it() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let edge = Edge::start(fresh.database.clone(), None, OFTEN);
    edge.caught_up().await;
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    begin_outage(&fresh).await;
    eventually("a poll has failed", async || edge.count(Event::PollFailed) > 0).await;
    let mut other = fresh.other_program().await;
    sqlx::query("UPDATE counters SET value = 100 WHERE name = 'key_epoch'")
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::query("UPDATE away SET revoked = 1, epoch = 100").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))), "nobody could know");
    end_outage(&fresh).await;
    eventually("the revocation is read", async || edge.key(1).await == Ok(None)).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_keep_a_key_fresh() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let directory = unwatched(&fresh);
    directory.find(&hash(1), after(3_600)).await.unwrap();
    directory.find(&hash(1), T0).await.unwrap();
    assert_eq!(directory.counts().of(Event::SqlRead), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_ends_nobody_elses_look_up() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let directory = unwatched(&fresh);
    let (first, second) = (directory.clone(), directory.clone());
    let leaving = tokio::spawn(async move { first.find(&hash(1), T0).await });
    let staying = tokio::spawn(async move { second.find(&hash(1), T0).await });
    leaving.abort();
    assert_eq!(staying.await.unwrap().unwrap().unwrap().id, key_id(1));
    assert!(directory.counts().of(Event::SqlRead) <= 1);
}
