//! Books of several edges over one bank, which is the pure pool in memory.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tokenroute_domain::id::CallId;
use tokenroute_domain::journal::{Ended, Mark};
use tokenroute_domain::key::{Funding, Terms};
use tokenroute_domain::pool::{Ceiling, Exchange, Period, Pool};
use tokenroute_domain::record::{Endpoint, Outcome, Record};
use tokenroute_domain::usage::{Usage, UsageSource};
use tokio::sync::{broadcast, mpsc};

use super::*;
use crate::bank::{Banked, Later, Unavailable, Unwritable};
use crate::outbox::Outbox;

const LEASE: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct PureBank {
    pool: Mutex<(Pool, HashSet<CallId>)>,
    recalls: broadcast::Sender<AccountId>,
    away: AtomicBool,
}

impl PureBank {
    fn new(free: i64) -> (Arc<Self>, broadcast::Sender<AccountId>) {
        let (recalls, _) = broadcast::channel(64);
        let pool = Pool { free: NanoUsd(free), ..Pool::default() };
        let bank = Self {
            pool: Mutex::new((pool, HashSet::new())),
            recalls: recalls.clone(),
            away: AtomicBool::new(false),
        };
        (Arc::new(bank), recalls)
    }
}

/// One edge's way to the bank: the recalls of its own are not for it.
#[derive(Debug)]
struct Branch {
    bank: Arc<PureBank>,
    heard: tokio::sync::Mutex<broadcast::Receiver<AccountId>>,
}

impl Bank for Branch {
    fn exchange<'a>(&'a self, all: &'a [Exchange]) -> Later<'a, Vec<Result<Banked, Unavailable>>> {
        Box::pin(async move {
            if self.bank.away.load(Ordering::Acquire) {
                return all.iter().map(|_| Err(Unavailable)).collect();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut state = self.bank.pool.lock().unwrap();
            let one = |exchange: &Exchange| {
                let (pool, seen) = &mut *state;
                let mut exchange = exchange.clone();
                exchange.settlements.retain(|one| seen.insert(one.record.call));
                let (reply, _) = pool.exchange(&exchange, clock::now(), LEASE);
                Ok(Banked { reply, epoch: 1, recovering: false })
            };
            all.iter().map(one).collect()
        })
    }

    fn write<'a>(&'a self, _: &'a [Arc<Record>]) -> Later<'a, Result<(), Unavailable>> {
        Box::pin(async { Ok(()) })
    }

    fn posted<'a>(&'a self, calls: &'a [CallId]) -> Later<'a, Result<Vec<CallId>, Unavailable>> {
        Box::pin(async { Ok(calls.to_vec()) })
    }

    fn recall(&self, account: AccountId) {
        let _heard = self.bank.recalls.send(account);
    }

    fn recalled(&self) -> Later<'_, AccountId> {
        Box::pin(async {
            let mut heard = self.heard.lock().await;
            loop {
                match heard.recv().await {
                    Ok(account) => return account,
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        })
    }

    fn posts_at_once(&self) -> bool {
        true
    }

    fn lease(&self) -> Duration {
        LEASE
    }
}

#[derive(Debug, Default)]
struct Notes {
    full: AtomicBool,
    marks: Mutex<Vec<Mark>>,
    forgotten: Mutex<Vec<CallId>>,
}

impl Journal for Notes {
    fn intend(&self, _: &Intent) -> Result<(), Unwritable> {
        if self.is_writable() { Ok(()) } else { Err(Unwritable) }
    }

    fn mark(&self, marks: &[Mark]) {
        self.marks.lock().unwrap().extend_from_slice(marks);
    }

    fn ended(&self, _: &[Arc<Ended>]) -> Result<(), Unwritable> {
        Ok(())
    }

    fn forget(&self, calls: &[CallId]) {
        self.forgotten.lock().unwrap().extend_from_slice(calls);
    }

    fn is_writable(&self) -> bool {
        !self.full.load(Ordering::Acquire)
    }
}

struct Edge {
    books: Books,
    outbox: Outbox,
    notes: Arc<Notes>,
    teller: std::thread::JoinHandle<usize>,
}

impl Edge {
    fn new(bank: &Arc<PureBank>, recalls: &broadcast::Sender<AccountId>, number: u128) -> Self {
        let heard = tokio::sync::Mutex::new(recalls.subscribe());
        let branch = Arc::new(Branch { bank: Arc::clone(bank), heard });
        let notes = Arc::new(Notes::default());
        let journal: Arc<dyn Journal> = notes.clone();
        let books = Books::new(NodeId::new(Timestamp(0), number), branch, journal);
        let (outbox, ended): (Outbox, mpsc::Receiver<Ended>) = Outbox::new(4_096);
        let options = TellerOptions::default();
        let teller = Teller::spawn(books.clone(), ended, options).unwrap();
        Self { books, outbox, notes, teller }
    }

    /// A call that costs `cost`; tells whether it was let in.
    async fn call(&self, key: &ApiKey, cost: i64) -> Result<(), Denied> {
        let claim = Claim::new(key, NanoUsd(cost), clock::now());
        let hold = self.books.hold(key, &claim).await?;
        tokio::time::sleep(Duration::from_millis(3)).await;
        self.settle(hold, key, cost);
        Ok(())
    }

    fn settle(&self, hold: Hold, key: &ApiKey, cost: i64) {
        let due = Some(hold.settle(NanoUsd(cost)));
        let record = Arc::new(record(key, cost));
        self.outbox.reserve().unwrap().send(Ended { record, due });
    }

    fn end(self) {
        self.outbox.close();
        assert_eq!(self.teller.join().unwrap(), 0);
    }
}

fn key(ceilings: Vec<Ceiling>) -> ApiKey {
    let now = Timestamp(0);
    ApiKey {
        id: KeyId::new(now, 1),
        account: AccountId::new(now, 1),
        funding: Funding::Prepaid,
        expires: None,
        terms: Arc::new(Terms { ceilings, ..Terms::default() }),
    }
}

fn record(key: &ApiKey, cost: i64) -> Record {
    Record {
        call: CallId::new(clock::now(), clock::chance()),
        started: Timestamp(0),
        endpoint: Endpoint::ChatCompletions,
        key: Some(key.id),
        account: Some(key.account),
        model: None,
        target: None,
        attempts: Vec::new(),
        status: 200,
        outcome: Outcome::Answered,
        error: None,
        streamed: false,
        usage: Usage::default(),
        usage_source: UsageSource::Provider,
        cost: NanoUsd(cost),
        charge: NanoUsd(cost),
        price_version: None,
        house_cost: NanoUsd::ZERO,
        latency_micros: 0,
        first_token_micros: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn funds_for_ten_admit_ten_of_two_hundred_over_three_edges() {
    for _ in 0..10 {
        let (bank, recalls) = PureBank::new(10 * 7);
        let edges: Vec<_> =
            (1..=3).map(|number| Arc::new(Edge::new(&bank, &recalls, number))).collect();
        let calls: Vec<_> = (0..200)
            .map(|number| {
                let edge = Arc::clone(&edges[number % 3]);
                tokio::spawn(async move { edge.call(&key(vec![]), 7).await })
            })
            .collect();
        let mut admitted = 0;
        for call in calls {
            match call.await.unwrap() {
                Ok(()) => admitted += 1,
                Err(denied) => assert!(matches!(denied, Denied::Money(_)), "{denied:?}"),
            }
        }
        assert_eq!(admitted, 10);
        for edge in edges {
            Arc::into_inner(edge).unwrap().end();
        }
        assert_eq!(bank.pool.lock().unwrap().0, Pool::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_edge_does_not_use_is_recalled() {
    let (bank, recalls) = PureBank::new(100);
    let (one, two) = (Edge::new(&bank, &recalls, 1), Edge::new(&bank, &recalls, 2));
    let key = key(vec![]);
    let claim = Claim::new(&key, NanoUsd(90), clock::now());
    let hold = one.books.hold(&key, &claim).await.unwrap();
    // All of it is on loan to the first edge, and none of it in use any more.
    drop(hold);
    let hold = two.books.hold(&key, &claim).await.unwrap();
    two.settle(hold, &key, 90);
    assert_eq!(one.call(&key, 11).await, Err(Denied::Money(NanoUsd(10))));
    one.end();
    two.end();
    assert_eq!(bank.pool.lock().unwrap().0.free, NanoUsd(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceiling_is_shared_by_edges_and_never_passed() {
    let (bank, recalls) = PureBank::new(1_000_000);
    let edges = [Edge::new(&bank, &recalls, 1), Edge::new(&bank, &recalls, 2)];
    let key = key(vec![
        Ceiling { period: Period::Total, limit: NanoUsd(50) },
        Ceiling { period: Period::Day, limit: NanoUsd(1_000) },
    ]);
    let mut admitted = 0;
    for number in 0..20 {
        match edges[number % 2].call(&key, 7).await {
            Ok(()) => admitted += 1,
            Err(denied) => assert!(matches!(denied, Denied::Ceiling(_)), "{denied:?}"),
        }
    }
    assert_eq!(admitted, 7);
    edges.into_iter().for_each(Edge::end);
    let state = bank.pool.lock().unwrap();
    assert_eq!(state.0.free, NanoUsd(1_000_000 - 49));
    for (id, purse) in &state.0.purses {
        assert_eq!((purse.spent, purse.loans.len()), (NanoUsd(49), 0), "{id:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_loan_is_spent_while_the_bank_is_away_and_then_calls_are_told_to_come_back() {
    let (bank, recalls) = PureBank::new(1_000_000);
    let edge = Edge::new(&bank, &recalls, 1);
    let key = key(vec![]);
    for _ in 0..100 {
        edge.call(&key, 100).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    bank.away.store(true, Ordering::Release);
    let mut admitted = 0;
    let denied = loop {
        match edge.call(&key, 100).await {
            Ok(()) => admitted += 1,
            Err(denied) => break denied,
        }
    };
    assert_eq!(denied, Denied::Unavailable);
    assert!(admitted > 100, "{admitted}");
    bank.away.store(false, Ordering::Release);
    tokio::time::sleep(Duration::from_millis(400)).await;
    edge.call(&key, 100).await.unwrap();
    edge.end();
    let spent = (admitted + 101) * 100;
    assert_eq!(bank.pool.lock().unwrap().0.free, NanoUsd(1_000_000 - spent));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_down_is_not_spent() {
    let (bank, recalls) = PureBank::new(1_000);
    let edge = Edge::new(&bank, &recalls, 1);
    edge.notes.full.store(true, Ordering::Release);
    assert_eq!(edge.call(&key(vec![]), 1).await, Err(Denied::Unavailable));
    edge.notes.full.store(false, Ordering::Release);
    assert_eq!(edge.call(&key(vec![]), 1).await, Ok(()));
    edge.end();
    assert_eq!(bank.pool.lock().unwrap().0.free, NanoUsd(999));
}
