//! Edges that share one database and one Redis.

use std::time::Duration;

use tokenroute_store::{Cached, Event, RedisCache, RedisFailure};

use crate::redis_server::{NEVER, RedisServer};
use crate::support::{Edge, FreshFile, T0, after, create_keys, eventually, hash, hex, key_id};

/// How often edges poll in tests that wait for a poll.
const OFTEN: Duration = Duration::from_millis(20);

/// The name and the value of the key that Redis holds, once it does.
async fn filled(redis: &RedisServer) -> (String, String) {
    let mut names: Vec<String> = Vec::new();
    eventually("Redis is filled", async || {
        names = redis.ask(&["KEYS", "tr:key:*"]).await.unwrap();
        !names.is_empty()
    })
    .await;
    let name = names.remove(0);
    let value = redis.ask(&["GET", &name]).await.unwrap();
    (name, value)
}

/// Waits until so many edges hear what is published.
async fn listening(redis: &RedisServer, edges: u64) {
    eventually("the edges listen", async || {
        let listeners: (String, u64) =
            redis.ask(&["PUBSUB", "NUMSUB", "tr:keys:revoked"]).await.unwrap();
        listeners.1 == edges
    })
    .await;
}

#[tokio::test]
async fn what_one_edge_read_the_other_finds_in_redis() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..2).await;
    let one = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    let two = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    assert_eq!(one.key(1).await, Ok(Some(key_id(1))));
    let (name, _value) = filled(&redis).await;
    assert_eq!(two.key(1).await, Ok(Some(key_id(1))));
    assert_eq!((two.count(Event::RedisHit), two.count(Event::SqlRead)), (1, 0));
    let seconds: i64 = redis.ask(&["TTL", &name]).await.unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    let reads = two.count(Event::SqlRead);
    two.key_at(1, after(29)).await.unwrap();
    assert_eq!(two.count(Event::SqlRead), reads);
    two.key_at(1, after(30)).await.unwrap();
    assert_eq!(two.count(Event::SqlRead), reads + 1, "30 s after the database confirmed it");
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_revocation_on_one_edge_is_heard_by_the_other() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..3).await;
    let one = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    let two = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    listening(&redis, 2).await;
    for edge in [&one, &two] {
        assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    }
    assert!(one.directory.revoke(key_id(1), "tester", T0).await.unwrap());
    assert_eq!(one.key(1).await, Ok(None));
    eventually("the other one heard", async || two.key(1).await == Ok(None)).await;
    assert_eq!(two.count(Event::RevocationHeard), 1);
    assert_eq!(two.count(Event::RevocationRead), 0);
    assert_eq!(two.key(2).await, Ok(Some(key_id(2))));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_program_that_only_revokes_is_heard_too() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..2).await;
    let edge = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    listening(&redis, 1).await;
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    let hash = fresh.database.acting("tester").revoke_key(key_id(1), T0).await.unwrap().unwrap();
    RedisCache::new(&redis.address()).unwrap().announce_revocation(&hash).await.unwrap();
    eventually("the edge heard", async || edge.key(1).await == Ok(None)).await;
    edge.stop().await;
}

#[tokio::test]
async fn a_key_revoked_while_redis_is_down_is_refused_everywhere_and_stays_refused() {
    let (fresh, mut redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..2).await;
    let one = Edge::connected(fresh.database.clone(), &redis.address(), OFTEN).await;
    let two = Edge::connected(fresh.database.clone(), &redis.address(), OFTEN).await;
    assert_eq!(one.key(1).await, Ok(Some(key_id(1))));
    let (name, old) = filled(&redis).await;
    assert_eq!(two.key(1).await, Ok(Some(key_id(1))));
    redis.kill();
    assert!(
        one.directory.revoke(key_id(1), "tester", T0).await.unwrap(),
        "the database is what counts"
    );
    eventually("the poll brought it", async || two.key(1).await == Ok(None)).await;

    redis.start_again().await;
    let _: () = redis.ask(&["SET", &name, &old, "EX", "30"]).await.unwrap();
    eventually("an edge marks it again", async || {
        let now: String = redis.ask(&["GET", &name]).await.unwrap();
        now.starts_with("revoked:")
    })
    .await;
    assert_eq!((one.key(1).await, two.key(1).await), (Ok(None), Ok(None)));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_cold_edge_does_not_believe_an_old_value_of_a_revoked_key() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..2).await;
    let warm = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    assert_eq!(warm.key(1).await, Ok(Some(key_id(1))));
    let (name, old) = filled(&redis).await;
    warm.stop().await;

    // Revoked by a program that cannot reach Redis, and Redis comes back with what it had.
    fresh.database.acting("tester").revoke_key(key_id(1), T0).await.unwrap();
    let _: () = redis.ask(&["SET", &name, &old, "EX", "30"]).await.unwrap();
    let cold = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    assert_eq!(cold.key(1).await, Ok(None));
    assert_eq!(cold.count(Event::RedisHit), 0);
    cold.stop().await;
}

#[tokio::test]
async fn a_flushed_redis_costs_one_read_a_key_and_refuses_nobody() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 0..100).await;
    let edge = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    let _: () = redis.ask(&["FLUSHALL"]).await.unwrap();
    let calls: Vec<_> = (0..1_000_u16)
        .map(|call| {
            let directory = edge.directory.clone();
            let number = u8::try_from(call % 100).unwrap();
            tokio::spawn(async move { (number, directory.find(&hash(number), T0).await) })
        })
        .collect();
    for call in calls {
        let (number, found) = call.await.unwrap();
        assert_eq!(found.unwrap().unwrap().id, key_id(number));
    }
    let _: () = redis.ask(&["FLUSHALL"]).await.unwrap();
    assert!(matches!(edge.directory.cached(&hash(1), T0), Cached::Known(_)));
    assert_eq!(edge.count(Event::SqlRead), 100);
    edge.stop().await;
}

#[tokio::test]
async fn what_was_not_written_for_this_hash_is_ignored() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..3).await;
    let edge = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    let (_name, foreign) = filled(&redis).await;
    edge.stop().await;

    let cold = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    for (number, value) in
        [(2, foreign), (3, "x".repeat(5_000)), (4, format!("revoked:{}", hex(9)))]
    {
        let name = format!("tr:key:{}", hex(number));
        let _: () = redis.ask(&["SET", &name, &value]).await.unwrap();
    }
    assert_eq!(cold.key(2).await, Ok(Some(key_id(2))), "its own, not the other's");
    assert_eq!(cold.key(3).await, Ok(None), "as the database says");
    assert_eq!(cold.key(4).await, Ok(None));
    assert_eq!(cold.count(Event::RedisForeign), 3);
    assert_eq!(cold.count(Event::SqlRead), 3);
    assert_eq!(cold.directory.redis_connected(), Some(true), "and Redis is still used");
    cold.stop().await;
}

#[tokio::test]
async fn nonsense_on_the_channel_revokes_nobody() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..2).await;
    let edge = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    eventually("the nonsense is heard", async || {
        let _: () = redis.ask(&["PUBLISH", "tr:keys:revoked", "*"]).await.unwrap();
        edge.count(Event::RedisForeign) > 0
    })
    .await;
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    edge.stop().await;
}

#[tokio::test]
async fn an_address_that_is_none_is_not_repeated() {
    for bad in ["", "127.0.0.1", "http://hunter2@host", "redis://user:hunter2@:x/y"] {
        let refused = RedisCache::new(bad).unwrap_err();
        assert!(!refused.to_string().contains("hunter2"), "{bad}");
    }
    let silent = RedisCache::new("redis://user:hunter2@127.0.0.1:1").unwrap();
    assert!(!format!("{silent:?}").contains("hunter2"));
    let failure = silent.announce_revocation(&hash(1)).await.unwrap_err();
    assert!(matches!(failure, RedisFailure::Refused(_)), "{failure}");
    assert!(!failure.to_string().contains("hunter2"), "{failure}");
}

#[tokio::test]
async fn what_a_key_may_do_is_not_taken_from_an_old_value() {
    let (fresh, redis) = (FreshFile::with_account().await, RedisServer::start().await);
    create_keys(&fresh.database, 1..2).await;
    let one = Edge::connected(fresh.database.clone(), &redis.address(), OFTEN).await;
    assert_eq!(one.key(1).await, Ok(Some(key_id(1))));
    let (name, old) = filled(&redis).await;
    fresh
        .database
        .acting("tester")
        .change_key(key_id(1), |_, expires| *expires = Some(after(1)), T0)
        .await
        .unwrap();
    let expires =
        async |edge: &Edge| edge.directory.find(&hash(1), T0).await.unwrap().unwrap().expires;
    // The old value is there for half a minute; who has seen the change does not believe it.
    eventually("the poll brought it", async || expires(&one).await == Some(after(1))).await;
    assert_eq!(redis.ask::<String>(&["GET", &name]).await.unwrap(), old);
    assert!(one.count(Event::RedisDoubted) > 0);

    // Who begins now has not seen it, and does not find the old value.
    let cache = RedisCache::new(&redis.address()).unwrap();
    cache.drop_cached(&[hash(1)]).await.unwrap();
    let cold = Edge::connected(fresh.database.clone(), &redis.address(), NEVER).await;
    assert_eq!(expires(&cold).await, Some(after(1)));

    fresh.database.acting("tester").revoke_key(key_id(1), T0).await.unwrap();
    cache.announce_revocation(&hash(1)).await.unwrap();
    cache.drop_cached(&[hash(1)]).await.unwrap();
    let kept: String = redis.ask(&["GET", &name]).await.unwrap();
    assert!(kept.starts_with("revoked:"), "a tombstone stays");
    one.stop().await;
    cold.stop().await;
}
