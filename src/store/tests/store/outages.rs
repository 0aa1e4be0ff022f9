//! Redis absent, slow, dying, read-only and lying: never a no for a good key, and no wait twice.

use tokenroute_store::{Event, RedisCache, Unavailable};

use crate::fake_redis::{FakeRedis, Reply};
use crate::redis_server::{NEVER, RedisServer};
use crate::support::{Edge, FreshFile, T0, create_keys, eventually, hash, key_id};

#[tokio::test]
async fn redis_that_was_never_there_is_not_missed() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let nowhere = RedisCache::new("redis://127.0.0.1:1").unwrap();
    let edge = Edge::start(fresh.database.clone(), Some(nowhere), NEVER);
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    assert_eq!(edge.key(2).await, Ok(None));
    assert_eq!(edge.directory.redis_connected(), Some(false));
    assert_eq!(edge.count(Event::RedisSkipped), 2);
    edge.stop().await;
}

#[tokio::test]
async fn a_stalled_redis_costs_one_budget_and_is_used_again_when_it_goes_on() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 0..200).await;
    let edge = Edge::hasty(fresh.database.clone(), &redis.address()).await;
    redis.stall();
    for number in 0..100 {
        assert_eq!(edge.key(number).await, Ok(Some(key_id(number))));
    }
    assert!(edge.count(Event::RedisSkipped) >= 90, "{:?}", edge.directory.counts());
    assert_eq!(edge.count(Event::SqlRead), 100);
    redis.go_on();
    eventually("Redis is connected", async || edge.directory.redis_connected() == Some(true)).await;
    let asked = edge.count(Event::RedisMiss);
    let mut numbers = 100..200;
    eventually("Redis is asked again", async || {
        let number = numbers.next().unwrap();
        assert_eq!(edge.key(number).await, Ok(Some(key_id(number))));
        edge.count(Event::RedisMiss) > asked
    })
    .await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_stall_and_go_on_under_load_and_every_key_stays_itself() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 0..250).await;
    let edge = Edge::hasty(fresh.database.clone(), &redis.address()).await;
    for round in 0..6 {
        let calls: Vec<_> = (0..250_u8)
            .map(|number| {
                let directory = edge.directory.clone();
                tokio::spawn(async move { (number, directory.find(&hash(number), T0).await) })
            })
            .collect();
        if round % 2 == 0 {
            redis.stall();
        } else {
            redis.go_on();
        }
        for (place, call) in calls.into_iter().enumerate() {
            if place % 7 == 0 {
                call.abort();
            } else {
                let (number, found) = call.await.unwrap();
                assert_eq!(found.unwrap().unwrap().id, key_id(number));
            }
        }
        (0..250).for_each(|number| edge.directory.forget(&hash(number)));
    }
    assert_eq!(edge.count(Event::RedisForeign), 0);
    edge.stop().await;
}

#[tokio::test]
async fn redis_that_dies_in_use_is_left_alone_and_found_again() {
    let (fresh, mut redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 0..20).await;
    let edge = Edge::hasty(fresh.database.clone(), &redis.address()).await;
    assert_eq!(edge.key(0).await, Ok(Some(key_id(0))));
    redis.kill();
    for number in 1..20 {
        assert_eq!(edge.key(number).await, Ok(Some(key_id(number))));
    }
    assert_eq!(edge.key(99).await, Ok(None));
    redis.start_again().await;
    eventually("Redis is connected", async || edge.directory.redis_connected() == Some(true)).await;
    edge.stop().await;
}

#[tokio::test]
async fn with_both_stores_away_an_unseen_key_is_no_unknown_key() {
    let (fresh, mut redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..3).await;
    let edge = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    redis.kill();
    fresh.database.close().await;
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    assert_eq!(edge.key(2).await, Err(Unavailable));
    assert_eq!(edge.key_at(1, crate::support::after(299)).await, Ok(Some(key_id(1))));
    assert_eq!(edge.key_at(1, crate::support::after(300)).await, Err(Unavailable));
    edge.stop().await;
}

#[tokio::test]
async fn with_the_database_away_redis_still_knows_what_another_edge_read() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..2).await;
    let one = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    let own = tokenroute_store::Database::open(&fresh.path()).await.unwrap();
    let two = Edge::connected(own.clone(), &redis.address(), NEVER).await;
    assert_eq!(two.key(9).await, Ok(None));
    assert_eq!(one.key(1).await, Ok(Some(key_id(1))));
    eventually("Redis is filled", async || {
        !redis.ask::<Vec<String>>(&["KEYS", "tr:key:*"]).await.unwrap().is_empty()
    })
    .await;
    own.close().await;
    assert_eq!(two.key(1).await, Ok(Some(key_id(1))));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn every_way_to_answer_badly_ends_in_the_database() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let bad: [fn() -> Reply; 6] = [
        || Reply::Cut(b"$300\r\n{\"version\":1,".to_vec()),
        || Reply::Cut(Vec::new()),
        || Reply::Bytes(b"-READONLY You can't write against a read only replica.\r\n".to_vec()),
        || Reply::Bytes(b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()),
        || Reply::Bytes(b":7\r\n".to_vec()),
        || Reply::Bytes(b"!!!\r\n".to_vec()),
    ];
    for (way, reply) in bad.into_iter().enumerate() {
        let fake = FakeRedis::start(move |_| reply()).await;
        let edge = Edge::connected(fresh.database.clone(), &fake.address, NEVER).await;
        assert_eq!(edge.key(1).await, Ok(Some(key_id(1))), "way {way}");
        assert_eq!(edge.key(2).await, Ok(None), "way {way}");
        assert!(!fake.heard("GETRANGE").is_empty(), "way {way}");
        assert_eq!(edge.count(Event::RedisHit), 0, "way {way}");
        assert_eq!(edge.count(Event::Unavailable), 0, "way {way}");
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_fill_never_replaces_a_tombstone_and_a_tombstone_replaces_a_fill() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let fake = FakeRedis::start(|words| match words[0].as_str() {
        "GETRANGE" => Reply::Bytes(b"$0\r\n\r\n".to_vec()),
        "PUBLISH" => Reply::Bytes(b":0\r\n".to_vec()),
        _ => Reply::Bytes(b"+OK\r\n".to_vec()),
    })
    .await;
    let edge = Edge::connected(fresh.database.clone(), &fake.address, NEVER).await;
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    eventually("Redis is filled", async || !fake.heard("SET").is_empty()).await;
    assert_eq!(fake.heard("SET")[0][3..], ["NX", "EX", "30"]);
    edge.directory.revoke(key_id(1), "tester", T0).await.unwrap();
    let sets = fake.heard("SET");
    let tombstone = sets.last().unwrap();
    assert!(tombstone[2].starts_with("revoked:"));
    assert_eq!(tombstone[3..], ["EX", "600"]);
    assert_eq!(fake.heard("PUBLISH").len(), 1);
    edge.stop().await;
}
