//! Limits that edges share, over a real Redis that comes and goes.

use std::time::Duration;

use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::limit::Subject;
use tokenroute_domain::limit::allowance::{Ask, Told};
use tokenroute_domain::limit::gcra::{Gcra, Rate};
use tokenroute_domain::limit::shared::{Leases, draw};
use tokenroute_domain::limit::{slice, slots};
use tokenroute_domain::time::{Tick, Timestamp};
use tokenroute_store::{LimitStore, RedisCache};

use crate::redis_server::RedisServer;
use crate::support::eventually;

fn store(redis: &RedisServer, edge: u64) -> LimitStore {
    LimitStore::new(RedisCache::new(&redis.address()).unwrap(), edge)
}

fn account(number: u128) -> AccountId {
    AccountId::new(Timestamp(0), number)
}

fn rate_ask(rate: Rate, correction: i64, need: u64, ahead: u64) -> slice::Ask {
    slice::Ask { rate, correction, need, least: need.min(1), ahead }
}

/// A question about one rate that hardly anything comes back of while a test runs.
fn slow(subject: Subject, limit: u64, (correction, need, ahead): (i64, u64, u64)) -> Ask {
    let rate = rate_ask(Rate::per_minute(limit), correction, need, ahead);
    Ask { subject, rates: [None, Some(rate), None], slots: None }
}

fn slots_ask(subject: Subject, limit: u32, (in_use, need): (u32, u32)) -> Ask {
    let slots = slots::Ask { limit, in_use, need, ahead: 0 };
    Ask { subject, rates: [None; 3], slots: Some(slots) }
}

/// A number below `below`, the next of a row that is always the same.
fn draw_number(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// The script against the pure rule, with a bucket so slow that no time passes for it: what it holds after
/// each step decides about the next.
#[tokio::test]
async fn the_script_does_what_the_rule_says() {
    let redis = RedisServer::start().await;
    let edges: Vec<_> = (0..3).map(|edge| store(&redis, edge)).collect();
    let mut chance = 42;
    for round in 0..40 {
        // Nothing comes back of a limit this small in a period this long; the larger ones see to the rest.
        let limit = [1, 5, 16, 100][round % 4];
        let subject = Subject::Account(account(u128::try_from(round).unwrap()));
        let (mut bucket, mut leases, rate) =
            (Gcra::default(), Leases::default(), Rate::per_minute(limit));
        let (mut given, mut taken) = (0, 0);
        for step in 0..50 {
            let edge = draw_number(&mut chance, 3);
            let ask = slice::Ask {
                rate,
                correction: i64::try_from(draw_number(&mut chance, 7)).unwrap() - 4,
                need: draw_number(&mut chance, 6),
                least: draw_number(&mut chance, 3),
                ahead: draw_number(&mut chance, 30),
            };
            let in_use = u32::try_from(draw_number(&mut chance, 3)).unwrap();
            let need = in_use + u32::try_from(draw_number(&mut chance, 3)).unwrap();
            let ahead = u32::try_from(draw_number(&mut chance, 4)).unwrap();
            let held = slots::Ask { limit: u32::try_from(limit).unwrap(), in_use, need, ahead };
            let ask = Ask { subject, rates: [None, Some(ask), None], slots: Some(held) };
            let told = edges[usize::try_from(edge).unwrap()].exchange(&[ask]).await.unwrap()[0];
            let lease = Duration::from_secs(5);
            assert_eq!(
                told.slots,
                leases.hold(edge, &held, lease, Tick(1)),
                "{round} {step} {ask:?}"
            );
            // A little has come back since in Redis, so its level is taken over where it decides.
            let rule = draw(&mut bucket, &ask.rates[1].unwrap(), Tick(1));
            let off = told.rates[1].granted.abs_diff(rule.granted);
            assert!(off <= 1, "{round} {step} {ask:?} {told:?} {rule:?}");
            (given, taken) = (given + told.rates[1].granted, taken + rule.granted);
            bucket = Gcra::with_taken(rate, told.rates[1].taken_milli, Tick(1));
        }
        assert!(given.abs_diff(taken) <= 3, "{round}: {given} {taken}");
    }
}

#[tokio::test]
async fn subjects_do_not_mix_and_answers_come_in_their_order() {
    let redis = RedisServer::start().await;
    let edge = store(&redis, 1);
    let key = |number| Subject::Key(KeyId::new(Timestamp(0), number), account(1));
    let asks = [
        slow(key(1), 10, (0, 4, 0)),
        slow(key(2), 10, (0, 20, 0)),
        slow(Subject::Account(account(1)), 10, (0, 1, 0)),
        slow(Subject::Account(account(2)), 10, (0, 2, 0)),
        slow(key(1), 10, (0, 20, 0)),
    ];
    let granted = |told: &[Told]| told.iter().map(|told| told.rates[1].granted).collect::<Vec<_>>();
    assert_eq!(granted(&edge.exchange(&asks).await.unwrap()), [4, 10, 1, 2, 6]);
    let seconds: i64 =
        redis.ask(&["PTTL", &format!("tr:limit:{{{}}}:{}", account(2), account(2))]).await.unwrap();
    assert!((10_000..14_000).contains(&seconds), "what is full again is forgotten: {seconds}");
}

#[tokio::test]
async fn a_bucket_fills_at_its_rate_by_the_servers_time() {
    let redis = RedisServer::start().await;
    let edge = store(&redis, 1);
    let subject = Subject::Account(account(1));
    let ask = |need| {
        let rate = rate_ask(Rate::per_second(1_000), 0, need, 0);
        [Ask { subject, rates: [Some(rate), None, None], slots: None }]
    };
    let clock = async || -> u64 {
        let time: (u64, u64) = redis.ask(&["TIME"]).await.unwrap();
        time.0 * 1_000_000 + time.1
    };
    let start = clock().await;
    let mut granted = 0;
    for _ in 0..300 {
        granted += edge.exchange(&ask(5_000)).await.unwrap()[0].rates[0].granted;
    }
    let passed = clock().await - start;
    assert!(granted >= 1_000, "{granted}");
    assert!((granted - 1_000) * 1_000 <= passed, "{granted} in {passed} µs");
}

#[tokio::test]
async fn slots_of_an_edge_that_is_gone_come_back() {
    let redis = RedisServer::start().await;
    let (one, two) = (store(&redis, 1), store(&redis, 2));
    let subject = Subject::Account(account(1));
    assert_eq!(one.exchange(&[slots_ask(subject, 3, (2, 3))]).await.unwrap()[0].slots.held, 3);
    assert_eq!(two.exchange(&[slots_ask(subject, 3, (0, 1))]).await.unwrap()[0].slots.held, 0);
    // As if its lease had been over for long.
    let key = format!("tr:slots:{{{}}}:{}", account(1), account(1));
    let _: u64 = redis.ask(&["HSET", &key, "0000000000000001", "3 1000"]).await.unwrap();
    assert_eq!(two.exchange(&[slots_ask(subject, 3, (0, 1))]).await.unwrap()[0].slots.held, 1);
    assert_eq!(one.exchange(&[slots_ask(subject, 3, (2, 3))]).await.unwrap()[0].slots.held, 2);
    let left: i64 = redis.ask(&["PTTL", &key]).await.unwrap();
    assert!(left > 5_000, "{left}");
}

#[tokio::test]
async fn edges_count_each_other() {
    let redis = RedisServer::start().await;
    let (one, two) = (store(&redis, 1), store(&redis, 2));
    assert_eq!(one.count_edges().await.unwrap(), 1);
    assert_eq!(two.count_edges().await.unwrap(), 2);
    assert_eq!(one.count_edges().await.unwrap(), 2);
    // As if one had not been heard of for long.
    let _: u64 = redis.ask(&["ZADD", "tr:limits:edges", "1", "0000000000000001"]).await.unwrap();
    assert_eq!(two.count_edges().await.unwrap(), 1);
}

#[tokio::test]
async fn a_server_that_stalls_dies_or_forgets_is_asked_again() {
    let mut redis = RedisServer::start().await;
    let edge = store(&redis, 1);
    let ask = [slow(Subject::Account(account(1)), 10, (0, 4, 0))];
    assert_eq!(edge.exchange(&ask).await.unwrap()[0].rates[1].granted, 4);
    let _: String = redis.ask(&["SCRIPT", "FLUSH"]).await.unwrap();
    assert_eq!(edge.exchange(&ask).await.unwrap()[0].rates[1].granted, 4, "the script came again");
    redis.stall();
    assert!(edge.exchange(&ask).await.is_err());
    redis.go_on();
    eventually("it answers again", async || edge.exchange(&ask).await.is_ok()).await;
    redis.kill();
    assert!(edge.exchange(&ask).await.is_err());
    assert!(edge.count_edges().await.is_err());
    redis.start_again().await;
    eventually("it answers again", async || edge.exchange(&ask).await.is_ok()).await;
}
