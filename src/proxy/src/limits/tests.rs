//! Limits over an edge that is alone, and over edges that share a place which answers, hangs or is away.

use std::sync::atomic::AtomicUsize;

use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::key::{Funding, Terms};
use tokenroute_domain::limit::gcra::Gcra;
use tokenroute_domain::limit::shared::{Leases, draw};
use tokenroute_domain::limit::slots::LEASE;
use tokenroute_domain::time::Timestamp;

use super::*;

fn key(number: u128, limits: Limits, account_limits: Limits) -> ApiKey {
    let now = Timestamp(0);
    let terms = Terms { limits, account_limits, ..Terms::default() };
    ApiKey {
        id: KeyId::new(now, number),
        account: AccountId::new(now, 1),
        funding: Funding::Unmetered,
        expires: None,
        terms: Arc::new(terms),
    }
}

/// So few that none comes back while a test runs.
fn per_minute(limit: u32) -> Limits {
    Limits { requests_per_minute: Some(limit), ..Limits::NONE }
}

async fn admit(limiter: &Limiter, key: &ApiKey) -> Result<Permit, Limited> {
    limiter.admit(key, &Tiers::new(), clock::tick(), 400).await
}

/// How many of so many calls are admitted; all end at once.
async fn count(limiter: &Limiter, key: &ApiKey, calls: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..calls {
        admitted += usize::from(admit(limiter, key).await.is_ok());
    }
    admitted
}

/// What the shared side does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Answers,
    Hangs,
    IsAway,
}

/// The shared side: the rules, in memory.
#[derive(Debug)]
struct Place {
    buckets: Mutex<HashMap<Subject, ([Gcra; 3], Leases)>>,
    manner: Mutex<Manner>,
    exchanges: AtomicUsize,
}

/// One edge's way to it.
#[derive(Clone, Debug)]
struct Way(Arc<Place>, u64);

impl Place {
    fn new(manner: Manner) -> Arc<Self> {
        let (buckets, exchanges) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { buckets, manner: Mutex::new(manner), exchanges })
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    async fn answers(&self) -> Result<(), Unavailable> {
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::Answers => Ok(()),
            Manner::Hangs => std::future::pending().await,
            Manner::IsAway => Err(Unavailable),
        }
    }

    fn edge(self: &Arc<Self>, number: u64) -> (Limiter, watch::Sender<bool>) {
        let (limiter, stop) = (Limiter::default(), watch::Sender::new(false));
        let way: Arc<dyn Shared> = Arc::new(Way(Arc::clone(self), number));
        tokio::spawn(limiter.clone().run(Some(way), stop.subscribe()));
        (limiter, stop)
    }
}

impl Shared for Way {
    fn exchange<'a>(&'a self, asks: &'a [Ask]) -> Later<'a, Result<Vec<Told>, Unavailable>> {
        Box::pin(async move {
            self.0.answers().await?;
            self.0.exchanges.fetch_add(1, Ordering::Relaxed);
            let mut buckets = self.0.buckets.lock().unwrap();
            let answer = |ask: &Ask| {
                let (rates, leases) = buckets.entry(ask.subject).or_default();
                let mut told = Told::default();
                for ((bucket, ask), told) in rates.iter_mut().zip(ask.rates).zip(&mut told.rates) {
                    *told = ask.map(|ask| draw(bucket, &ask, clock::tick())).unwrap_or_default();
                }
                let slots = ask.slots.map(|ask| leases.hold(self.1, &ask, LEASE, clock::tick()));
                told.slots = slots.unwrap_or_default();
                told
            };
            Ok(asks.iter().map(answer).collect())
        })
    }

    fn count_edges(&self) -> Later<'_, Result<u32, Unavailable>> {
        Box::pin(async move { self.0.answers().await.map(|()| 2) })
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not in time: {what}");
}

#[tokio::test]
async fn a_key_without_limits_leaves_no_trace() {
    let limiter = Limiter::default();
    let permit = admit(&limiter, &key(1, Limits::NONE, Limits::NONE)).await.unwrap();
    assert_eq!(permit.levels(), Levels::default());
    assert!(limiter.0.parts.iter().all(|part| part.lock().unwrap().is_empty()));
}

#[tokio::test]
async fn alone_a_limit_is_exact_and_says_how_it_stands() {
    let limiter = Limiter::default();
    let caller = key(1, per_minute(5), Limits::NONE);
    let first = admit(&limiter, &caller).await.unwrap();
    let level = first.levels().requests.unwrap();
    assert_eq!((level.limit, level.remaining, first.levels().tokens), (5, 4, None));
    assert!(level.reset > Duration::from_secs(11) && level.reset <= Duration::from_secs(12));
    assert_eq!(count(&limiter, &caller, 9).await, 4);
    let refused = admit(&limiter, &caller).await.unwrap_err();
    assert_eq!(refused.which, Kind::RequestsPerMinute);
    assert!(refused.retry_after > Duration::from_secs(11), "{refused:?}");
    assert_eq!(refused.levels.requests.unwrap().remaining, 0);
    assert_eq!(count(&limiter, &key(2, per_minute(5), Limits::NONE), 9).await, 5, "another key");
}

#[tokio::test]
async fn an_account_limits_its_keys_together_and_what_it_refuses_costs_the_key_nothing() {
    let limiter = Limiter::default();
    let (one, two) = (key(1, per_minute(4), per_minute(5)), key(2, Limits::NONE, per_minute(5)));
    assert_eq!(count(&limiter, &one, 2).await, 2);
    assert_eq!(count(&limiter, &two, 9).await, 3);
    assert_eq!(count(&limiter, &one, 9).await, 0);
    let richer = key(1, per_minute(4), per_minute(50));
    assert_eq!(count(&limiter, &richer, 9).await, 2, "it had 2 of its 4 left");
}

#[tokio::test]
async fn the_place_of_a_call_is_free_when_its_permit_is_dropped() {
    let limits = Limits { concurrency: Some(2), ..Limits::NONE };
    for shared in [false, true] {
        let place = Place::new(Manner::Answers);
        let (limiter, _stop) =
            if shared { place.edge(1) } else { (Limiter::default(), watch::Sender::new(false)) };
        let caller = key(1, limits, Limits::NONE);
        let one = admit(&limiter, &caller).await.unwrap();
        let two = admit(&limiter, &caller).await.unwrap();
        assert_eq!(admit(&limiter, &caller).await.unwrap_err().which, Kind::Concurrency);
        drop(one);
        let three = admit(&limiter, &caller).await.unwrap();
        assert!(admit(&limiter, &caller).await.is_err());
        two.settle(9);
        assert!(admit(&limiter, &caller).await.is_ok());
        drop(three);
    }
}

#[tokio::test]
async fn tokens_are_taken_for_the_prompt_and_put_right_at_the_end() {
    let limiter = Limiter::default();
    let limits = Limits { tokens_per_minute: Some(1_000), ..Limits::NONE };
    let caller = key(1, limits, Limits::NONE);
    let left = |permit: &Permit| permit.levels().tokens.unwrap().remaining;
    let first = admit(&limiter, &caller).await.unwrap();
    assert_eq!(left(&first), 900, "400 bytes are 100 tokens");
    first.settle(30);
    let second = admit(&limiter, &caller).await.unwrap();
    // A thousand a minute are less than twenty in the second that this may take.
    assert!((870..890).contains(&left(&second)), "{}", left(&second));
    second.settle(5_000);
    let refused = admit(&limiter, &caller).await.unwrap_err();
    assert_eq!(refused.which, Kind::TokensPerMinute);
    assert!(refused.retry_after > Duration::from_mins(4), "{refused:?}");
}

#[tokio::test]
async fn edges_share_a_limit_and_ask_seldom() {
    let place = Place::new(Manner::Answers);
    let ((one, _stop), (two, _stop_too)) = (place.edge(1), place.edge(2));
    until("the place is heard of", || !one.is_alone() && !two.is_alone()).await;
    let caller = key(1, per_minute(60), Limits::NONE);
    let mut admitted = 0;
    for _ in 0..100 {
        admitted += count(&one, &caller, 1).await + count(&two, &caller, 1).await;
    }
    // What the other holds may be idle there.
    assert!((45..=62).contains(&admitted), "{admitted}");
    let ample = key(2, per_minute(1_000_000), Limits::NONE);
    count(&one, &ample, 100).await;
    let before = place.exchanges.load(Ordering::Relaxed);
    assert_eq!(count(&one, &ample, 1_000).await, 1_000);
    let asked = place.exchanges.load(Ordering::Relaxed) - before;
    assert!(asked < 50, "{asked} exchanges for 1,000 calls");
}

#[tokio::test]
async fn many_first_calls_at_once_wait_for_one_answer() {
    let place = Place::new(Manner::Answers);
    let (limiter, _stop) = place.edge(1);
    until("the place is heard of", || !limiter.is_alone()).await;
    let caller = key(1, per_minute(10), Limits::NONE);
    let calls = (0..30).map(|_| admit(&limiter, &caller));
    let answers = futures_util::future::join_all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
}

#[tokio::test]
async fn a_place_that_hangs_or_is_away_turns_nobody_away_and_nobody_loose() {
    for manner in [Manner::Hangs, Manner::IsAway] {
        let place = Place::new(Manner::Answers);
        let (limiter, _stop) = place.edge(1);
        until("the place is heard of", || !limiter.is_alone()).await;
        place.set(manner);
        // One of two edges: half of the limit.
        assert_eq!(
            count(&limiter, &key(1, per_minute(10), Limits::NONE), 20).await,
            5,
            "{manner:?}"
        );
        if manner == Manner::IsAway {
            until("it is noticed", || limiter.is_alone()).await;
            place.set(Manner::Answers);
            until("it is back", || !limiter.is_alone()).await;
            let fresh = key(2, per_minute(10), Limits::NONE);
            assert_eq!(count(&limiter, &fresh, 20).await, 10);
        }
    }
}
