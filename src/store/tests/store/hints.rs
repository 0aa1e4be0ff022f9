//! What edges tell each other of targets, over a real Redis that comes and goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokenroute_store::{Event, RedisCache, TargetHints};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::fake_redis::{FakeRedis, Reply};
use crate::redis_server::RedisServer;
use crate::support::{Edge, FreshFile, PATIENCE, create_keys, eventually, key_id};

const MINUTE: Duration = Duration::from_mins(1);

/// An edge that remembers what it was told.
struct Listener {
    hints: TargetHints,
    heard: Arc<Mutex<BTreeMap<String, Vec<Duration>>>>,
    stop: watch::Sender<bool>,
    watching: JoinHandle<()>,
}

impl Listener {
    fn start(address: &str, edge: u64) -> Self {
        let hints = TargetHints::new(RedisCache::new(address).unwrap(), edge);
        let heard: Arc<Mutex<BTreeMap<String, Vec<Duration>>>> = Arc::default();
        let (stop, stopping) = watch::channel(false);
        let (watched, ears) = (hints.clone(), Arc::clone(&heard));
        let tell = move |target: &str, off_for| {
            ears.lock().unwrap().entry(target.to_owned()).or_default().push(off_for);
        };
        let watching = tokio::spawn(async move { watched.watch(tell, stopping).await });
        Self { hints, heard, stop, watching }
    }

    fn heard(&self, target: &str) -> Vec<Duration> {
        self.heard.lock().unwrap().get(target).cloned().unwrap_or_default()
    }

    /// Waits until the last that was heard of a target is this.
    async fn hears(&self, target: &str, off_for: Duration) {
        eventually(target, async || self.heard(target).last() == Some(&off_for)).await;
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.watching).await.unwrap().unwrap();
    }
}

/// Waits until so many edges hear hints.
async fn listening(redis: &RedisServer, edges: u64) {
    eventually("the edges listen", async || {
        let listeners: (String, u64) =
            redis.ask(&["PUBSUB", "NUMSUB", "tr:targets:off"]).await.unwrap();
        listeners.1 == edges
    })
    .await;
}

#[tokio::test]
async fn what_one_edge_says_the_others_hear_and_it_does_not() {
    let redis = RedisServer::start().await;
    let one = Listener::start(&redis.address(), 1);
    let two = Listener::start(&redis.address(), 2);
    listening(&redis, 2).await;
    one.hints.publish("p/m", MINUTE);
    two.hears("p/m", MINUTE).await;
    one.hints.publish("p/m", Duration::ZERO);
    two.hears("p/m", Duration::ZERO).await;
    two.hints.publish("q/m", MINUTE);
    one.hears("q/m", MINUTE).await;
    assert_eq!((one.heard("p/m"), two.heard("q/m")), (vec![], vec![]));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_starting_edge_learns_what_holds_and_only_that() {
    let redis = RedisServer::start().await;
    let one = Listener::start(&redis.address(), 1);
    for number in 0..600 {
        one.hints.publish(&format!("p/{number}"), MINUTE);
    }
    one.hints.publish("well/again", MINUTE);
    one.hints.publish("for/a-moment", Duration::from_millis(1));
    eventually("all is sent", async || redis.ask(&["SCARD", "tr:targets"]).await == Ok(602)).await;
    one.hints.publish("well/again", Duration::ZERO);
    eventually("it is forgotten", async || {
        redis.ask(&["EXISTS", "tr:target:well/again", "tr:target:for/a-moment"]).await == Ok(0)
    })
    .await;
    let foreign =
        [("SET", "tr:target:no/end", "0000000000000001"), ("SADD", "tr:targets", "no/end")];
    for (command, key, value) in foreign {
        redis.ask::<redis::Value>(&[command, key, value]).await.unwrap();
    }

    let same = Listener::start(&redis.address(), 1);
    let two = Listener::start(&redis.address(), 2);
    eventually("it has learnt", async || two.heard.lock().unwrap().len() == 600).await;
    let left = two.heard("p/599")[0];
    assert!(left > Duration::ZERO && left <= MINUTE, "{left:?}");
    for gone in ["well/again", "for/a-moment", "no/end"] {
        assert!(two.heard(gone).is_empty(), "{gone}");
    }
    listening(&redis, 3).await;
    two.hints.publish("q/m", MINUTE);
    same.hears("q/m", MINUTE).await;
    assert_eq!(same.heard.lock().unwrap().len(), 1, "nothing of its own");
    let seconds: i64 = redis.ask(&["TTL", "tr:targets"]).await.unwrap();
    assert!(seconds > 0, "the names go too");
    for edge in [one, same, two] {
        edge.stop().await;
    }
}

#[tokio::test]
async fn without_redis_nothing_waits_and_nothing_is_told_until_it_is_back() {
    let mut redis = RedisServer::start().await;
    let one = Listener::start(&redis.address(), 1);
    let two = Listener::start(&redis.address(), 2);
    listening(&redis, 2).await;
    one.hints.publish("p/m", MINUTE);
    two.hears("p/m", MINUTE).await;
    redis.kill();
    one.hints.publish("p/lost", MINUTE);
    redis.start_again().await;
    listening(&redis, 2).await;
    // The one that was lost may have been held back until now; this one must come.
    eventually("it is heard again", async || {
        one.hints.publish("p/back", MINUTE);
        two.heard("p/back").contains(&MINUTE)
    })
    .await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_hint() {
    let redis = RedisServer::start().await;
    let one = Listener::start(&redis.address(), 1);
    let two = Listener::start(&redis.address(), 2);
    listening(&redis, 2).await;
    for round in 1..4 {
        let killed: u64 = redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
        assert!(round == 1 || killed > 0);
        let off_for = Duration::from_secs(round);
        one.hints.publish("p/m", off_for);
        two.hears("p/m", off_for).await;
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_stalled_redis_does_not_keep_an_edge_from_ending() {
    let redis = RedisServer::start().await;
    let one = Listener::start(&redis.address(), 1);
    listening(&redis, 1).await;
    redis.stall();
    one.hints.publish("p/m", MINUTE);
    one.stop().await;
    redis.go_on();
}

#[tokio::test]
async fn nonsense_from_elsewhere_is_not_told() {
    let redis = RedisServer::start().await;
    let two = Listener::start(&redis.address(), 2);
    listening(&redis, 1).await;
    for text in ["", "off", "0000000000000001 x p/m", "0000000000000001 5 p m"] {
        let _: u64 = redis.ask(&["PUBLISH", "tr:targets:off", text]).await.unwrap();
    }
    let _: u64 =
        redis.ask(&["PUBLISH", "tr:targets:off", "0000000000000001 60000 p/m"]).await.unwrap();
    two.hears("p/m", MINUTE).await;
    assert_eq!(two.heard.lock().unwrap().len(), 1);
    two.stop().await;
}

#[tokio::test]
async fn a_redis_that_refuses_hints_still_gives_keys() {
    let fresh = FreshFile::with_account().await;
    create_keys(&fresh.database, 1..2).await;
    let fake = FakeRedis::start(|words| match (words[0].as_str(), words.get(1)) {
        ("GETRANGE", _) => Reply::Bytes(b"$0\r\n\r\n".to_vec()),
        (_, Some(key)) if key.starts_with("tr:key:") => Reply::Bytes(b"+OK\r\n".to_vec()),
        _ => Reply::Bytes(b"-NOPERM No permissions to access a key\r\n".to_vec()),
    })
    .await;
    let edge = Edge::hasty(fresh.database.clone(), &fake.address).await;
    let one = Listener::start(&fake.address, 1);
    eventually("the hint was refused", async || {
        one.hints.publish("p/m", MINUTE);
        !fake.heard("PUBLISH").is_empty()
    })
    .await;
    assert_eq!(edge.key(1).await, Ok(Some(key_id(1))));
    assert_eq!(edge.directory.redis_connected(), Some(true));
    assert_eq!(edge.count(Event::RedisFailed), 0);
    one.stop().await;
    edge.stop().await;
}
