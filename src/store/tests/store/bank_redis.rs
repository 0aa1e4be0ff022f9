//! Redis as the hot store, with SQL behind it: a real server that is killed, emptied and stalled, and
//! workers that die at every step.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::Value;
use tokenroute_domain::id::CallId;
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{Exchange, Period, PurseId, PurseWant, Reply, Want};
use tokenroute_domain::record::Record;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{
    BankOptions, Banked, Database, Leader, RedisBank, RedisCache, Withdrawal, Withdrawn, audit,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bank_sql::{ACCOUNTS, Model, account_number, node, settlement, want};
use crate::money::{dropped_after, grant, other_account, prepaid};
use crate::redis_server::RedisServer;
use crate::support::{Fresh, PATIENCE, T0, account, eventually, key_id, record};

#[expect(clippy::disallowed_methods, reason = "leases and epochs are of real time here")]
fn clock() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Timestamp(u64::try_from(micros).unwrap())
}

/// A clock that began 45 s before `T0`: by it, calls of `T0` ended well after the first epoch began, and just
/// now, so that only the pool knows whether it has settled them.
fn clock_of_t0() -> Timestamp {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let elapsed = u64::try_from(BEGIN.elapsed().as_micros()).unwrap();
    Timestamp(T0.micros() - 45_000_000 + elapsed)
}

/// Something that runs until it is dropped.
struct Running(
    JoinHandle<()>,
    #[expect(dead_code, reason = "dropped, it stops")] watch::Sender<bool>,
);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct House {
    redis: RedisServer,
    database: Database,
    clock: fn() -> Timestamp,
}

impl House {
    async fn new(database: &Database) -> Self {
        let redis = RedisServer::start_durable().await;
        Self { redis, database: database.clone(), clock }
    }

    /// With two prepaid accounts, the first of which has so much.
    async fn with_funds(database: &Database, amount: i64) -> Self {
        prepaid(database).await;
        grant(database, account(), amount).await;
        Self::new(database).await
    }

    fn cache(&self) -> RedisCache {
        RedisCache::new(&self.redis.address()).unwrap()
    }

    fn leader(&self, number: u128) -> Leader {
        Leader::new(self.cache(), Arc::new(self.database.clone()), node(number), self.clock)
    }

    fn lead(&self) -> Running {
        let leader = self.leader(100);
        let (stop, stopping) = watch::channel(false);
        Running(tokio::spawn(async move { leader.run(stopping).await }), stop)
    }

    fn bank_with(&self, number: u128, options: BankOptions) -> (RedisBank, Running) {
        let books = Arc::new(self.database.clone());
        let bank = RedisBank::new(self.cache(), books, node(number), self.clock, options);
        let (stop, stopping) = watch::channel(false);
        let watched = bank.clone();
        (bank, Running(tokio::spawn(async move { watched.watch(stopping).await }), stop))
    }

    /// The bank of an edge, connected to a store that has recovered.
    async fn bank(&self, number: u128) -> (RedisBank, Running) {
        let (bank, running) = self.bank_with(number, patient(Duration::from_mins(1)));
        self.recovered(&bank, number, 0).await;
        (bank, running)
    }

    async fn recovered(&self, bank: &RedisBank, number: u128, epoch: u64) -> u64 {
        let mut found = 0;
        eventually("the store has recovered", async || {
            let idle =
                Exchange { funding: Funding::Unmetered, ..want(account(), node(number), 0, 0) };
            let Ok(banked) = bank.exchange(&[idle]).await.remove(0) else { return false };
            found = banked.epoch;
            !banked.recovering && banked.epoch > epoch
        })
        .await;
        found
    }

    /// Everything is posted, and escrow is what the pools have.
    async fn balances(&self) {
        eventually("nothing is unposted", async || self.waiting().await == 0).await;
        assert_eq!(audit(&self.cache(), &self.database, T0).await.unwrap(), []);
        assert_eq!(self.database.reconcile(None, T0).await.unwrap(), []);
    }

    /// Events that are in the streams.
    async fn waiting(&self) -> usize {
        let mut sum = 0;
        for shard in 0..16 {
            let name = format!("tr:{{{shard:02}}}:events");
            sum += self.redis.ask::<usize>(&["XLEN", &name]).await.unwrap_or(usize::MAX / 32);
        }
        sum
    }

    async fn total(&self) -> i64 {
        self.database.balance(account()).await.unwrap().total().0
    }
}

fn patient(lease: Duration) -> BankOptions {
    BankOptions { lease, budget: PATIENCE, sql: PATIENCE, ..BankOptions::default() }
}

async fn ask(bank: &RedisBank, told: &Exchange) -> Banked {
    bank.exchange(std::slice::from_ref(told)).await.remove(0).unwrap()
}

fn charges(reply: &Reply) -> Vec<(i64, i64)> {
    reply.charged.iter().map(|one| (one.charge.0, one.excess.0)).collect()
}

/// One call that is over, told with the wish for so much.
fn told(number: u128, charge: i64, target: i64) -> Exchange {
    Exchange {
        settlements: vec![settlement(account(), number, charge, charge)],
        ..want(account(), node(1), target, 0)
    }
}

/// An answer without how long others were silent: that is told by the server's clock.
fn timeless(mut reply: Reply) -> Reply {
    for granted in reply.purses.iter_mut().chain([&mut reply.granted]) {
        granted.others.silent = Duration::ZERO;
    }
    reply
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_exchanges_do_in_redis_what_the_rules_say() {
    let fresh = crate::sqlite::fresh().await;
    let house = House { clock: clock_of_t0, ..House::new(&fresh.database).await };
    let mut credited = 0;
    let mut model = Model::new();
    for number in 0..ACCOUNTS {
        let unmetered = number + 1 == ACCOUNTS;
        let funding = if unmetered { Funding::Unmetered } else { Funding::Prepaid };
        let name = format!("account {number}");
        house
            .database
            .acting("tester")
            .create_account(account_number(number), &name, funding, T0)
            .await
            .unwrap();
        if !unmetered {
            grant(&house.database, account_number(number), 1_000_000).await;
            model.pools[number].free = NanoUsd(1_000_000);
            credited += 1_000_000;
        }
    }
    let _leading = house.lead();
    let (long, _watching) = house.bank(1).await;
    // Loans of this one have lapsed by the next exchange.
    let moment = Duration::from_micros(1);
    let (short, _also) = house.bank_with(2, patient(moment));
    house.recovered(&short, 2, 0).await;
    let (mut now, mut done, mut charged, mut excess) = (T0, 0, 0, 0);
    while done < 10_000 {
        let is_short = model.dice.below(4) == 0;
        let (bank, lease) =
            if is_short { (&short, moment) } else { (&long, Duration::from_mins(1)) };
        // The short lease lapses between two exchanges of one account, so it is had alone.
        let most = if is_short { 0 } else { 24 };
        let batch: Vec<_> = (0..=model.dice.below(most + 1)).map(|_| model.exchange()).collect();
        let exchanges: Vec<_> = batch.iter().map(|(_, one)| one.clone()).collect();
        let replies = bank.exchange(&exchanges).await;
        now = now.plus(moment * 2);
        for ((number, told), reply) in batch.iter().zip(replies) {
            let reply = reply.unwrap().reply;
            let wanted = model.reply(*number, told, (now, lease));
            assert_eq!(timeless(reply.clone()), timeless(wanted), "{done}: {told:?}");
            if told.funding == Funding::Prepaid {
                charged += reply.charged.iter().map(|one| one.charge.0).sum::<i64>();
                excess += reply.charged.iter().map(|one| one.excess.0).sum::<i64>();
            }
        }
        done += batch.len();
    }
    house.balances().await;
    let mut left = 0;
    for number in 0..ACCOUNTS {
        left += house.database.balance(account_number(number)).await.unwrap().total().0;
    }
    assert_eq!(left, credited - charged);
    assert!(charged > 1_000 && excess > 1_000, "{charged} {excess}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ceiling_never_goes_below_zero() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 1_000).await;
    let _leading = house.lead();
    let (bank, _watching) = house.bank(1).await;
    let purse = PurseId { key: key_id(1), period: Period::Total, number: 0 };
    // As often as not the pool has more than the ceiling leaves, and the cost is above both.
    for (number, (charge, limit, wanted)) in
        [(30, 100, 30), (90, 100, 70), (5, 100, 0), (5, 40, 0), (50, 140, 40), (2_000, 9_999, 860)]
            .into_iter()
            .enumerate()
    {
        let mut one = told(u128::try_from(number).unwrap() + 1, charge, 50);
        one.settlements[0].purses = vec![purse];
        let (target, in_use) = (NanoUsd(20), NanoUsd(5));
        let want = Want { target, in_use, waiting: NanoUsd::ZERO };
        one.purses = vec![PurseWant { purse, limit: NanoUsd(limit), want }];
        let reply = ask(&bank, &one).await.reply;
        assert_eq!(charges(&reply), [(wanted, charge - wanted)], "{charge} of {limit}");
        assert!(reply.purses[0].free >= NanoUsd::ZERO && reply.granted.free >= NanoUsd::ZERO);
        assert_eq!(ask(&bank, &one).await.reply.charged, [], "told again it counts no more");
    }
    house.balances().await;
    assert_eq!(house.total().await, 0);
    assert_eq!(house.database.spent(&[purse]).await.unwrap(), [NanoUsd(1_000)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_is_one_command_an_account_and_survives_forgotten_scripts() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 1_000).await;
    let _leading = house.lead();
    let (bank, _watching) = house.bank(1).await;
    let both = [want(account(), node(1), 10, 0), want(other_account(), node(1), 10, 0)];
    let run = async || {
        let replies = bank.exchange(&both).await;
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    };
    run().await;
    let count = async |name: &str| {
        let stats: String = house.redis.ask(&["INFO", "commandstats"]).await.unwrap();
        let prefix = format!("{name}:calls=");
        let calls = stats.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or("0");
        calls.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    house.redis.ask::<Value>(&["CONFIG", "RESETSTAT"]).await.unwrap();
    for _ in 0..50 {
        run().await;
    }
    // The leader may have swept or credited meanwhile, at most every half second.
    let calls = count("cmdstat_evalsha").await;
    assert!((100..=110).contains(&calls), "{calls}");
    assert_eq!(count("cmdstat_eval").await, 0);
    house.redis.ask::<Value>(&["SCRIPT", "FLUSH"]).await.unwrap();
    run().await;
    assert!(bank.is_connected(), "forgotten scripts are loaded, not waited for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_comes_in_and_goes_out_while_the_pool_is_open() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 100).await;
    let _leading = house.lead();
    let (bank, _watching) = house.bank(1).await;
    assert_eq!(ask(&bank, &told(1, 30, 10)).await.reply.granted.free, NanoUsd(60));
    grant(&house.database, account(), 50).await;
    eventually("the credit is in the pool", async || {
        ask(&bank, &want(account(), node(1), 10, 0)).await.reply.granted.free == NanoUsd(110)
    })
    .await;
    let withdrawal = |id: &str, amount| Withdrawal {
        account: account(),
        id: id.to_owned(),
        amount: NanoUsd(amount),
        actor: "tester".to_owned(),
        note: "back".to_owned(),
    };
    let withdraw = async |id, amount| bank.withdraw(&withdrawal(id, amount)).await.unwrap();
    assert_eq!(withdraw("w1", 111).await, Withdrawn::Short(NanoUsd(110)));
    for _ in 0..2 {
        assert_eq!(withdraw("w2", 100).await, Withdrawn::Done);
    }
    assert_eq!(withdraw("w2", 5).await, Withdrawn::Conflict, "the name is that of another one");
    house.balances().await;
    assert_eq!(house.total().await, 20);
    assert_eq!(ask(&bank, &want(account(), node(1), 99, 0)).await.reply.granted.loan, NanoUsd(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_is_heard_by_others_only() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 100).await;
    let _leading = house.lead();
    let (one, _watching) = house.bank(1).await;
    let (other, _also) = house.bank(2).await;
    let heard = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            heard = other.recalled() => heard,
            _ = one.recalled() => panic!("heard itself"),
            () = async {
                // Until the other one listens.
                loop {
                    one.recall(account());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            } => unreachable!(),
        }
    });
    assert_eq!(heard.await.unwrap(), account());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loan_that_nobody_renews_lapses_and_is_found() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 100).await;
    let _leading = house.lead();
    let (dying, _watching) = house.bank_with(1, patient(Duration::from_millis(10)));
    house.recovered(&dying, 1, 0).await;
    ask(&dying, &want(account(), node(1), 60, 25)).await;
    eventually("it was swept", async || {
        !house.database.findings(false, 9).await.unwrap().is_empty()
    })
    .await;
    let findings = house.database.findings(false, 9).await.unwrap();
    assert_eq!(findings[0].finding.kind, "abandoned");
    let (bank, _also) = house.bank(2).await;
    assert_eq!(
        ask(&bank, &want(account(), node(2), 100, 0)).await.reply.granted.loan,
        NanoUsd(100)
    );
    house.balances().await;
}

/// What an edge does after its store has been away: tells everything that it does not know to be posted.
async fn tell_again(house: &House, bank: &RedisBank, calls: std::ops::Range<u128>, epoch: u64) {
    eventually("another epoch has begun", async || {
        let all = Exchange {
            settlements: calls
                .clone()
                .map(|number| settlement(account(), number, 10, 10))
                .collect(),
            ..want(account(), node(1), 50, 20)
        };
        bank.exchange(&[all]).await.remove(0).is_ok_and(|banked| banked.epoch > epoch)
    })
    .await;
    house.recovered(bank, 1, epoch).await;
}

impl House {
    /// Waits until an edge has said in a recovery that it has told everything.
    async fn checked_in(&self, epoch: u64, number: u128) {
        let (key, node) = (format!("tr:checked:{epoch}"), node(number).to_string());
        eventually("the edge has told everything", async || {
            self.redis.ask::<bool>(&["SISMEMBER", &key, &node]).await.unwrap_or(false)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_rests_tells_what_it_has_when_all_wait_for_it() {
    let fresh = crate::sqlite::fresh().await;
    let mut house = House::with_funds(&fresh.database, 100).await;
    let _leading = house.lead();
    let (bank, _watching) = house.bank(1).await;
    let before = ask(&bank, &want(account(), node(1), 60, 0)).await.epoch;
    house.redis.kill();
    house.redis.start_again().await;
    let recalled = tokio::time::timeout(PATIENCE, bank.recalled()).await;
    assert_eq!(recalled.ok(), Some(account()));
    eventually("it can be told", async || {
        bank.exchange(&[want(account(), node(1), 0, 0)]).await.remove(0).is_ok()
    })
    .await;
    house.checked_in(before + 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_loan_that_has_lapsed() {
    let fresh = crate::sqlite::fresh().await;
    let mut house = House::with_funds(&fresh.database, 100).await;
    let _leading = house.lead();
    let lease = Duration::from_millis(100);
    let (bank, _watching) = house.bank_with(1, patient(lease));
    house.recovered(&bank, 1, 0).await;
    let before = ask(&bank, &want(account(), node(1), 60, 0)).await.epoch;
    tokio::time::sleep(lease).await;
    house.redis.kill();
    house.redis.start_again().await;
    house.checked_in(before + 1, 1).await;
}

async fn forgets(database: &Database, forget: impl AsyncFn(&mut RedisServer)) {
    let mut house = House::with_funds(database, 10_000).await;
    let _leading = house.lead();
    let (bank, _watching) = house.bank(1).await;
    let (mut calls, mut epoch) = (0, 0);
    for _round in 0..3 {
        for _ in 0..20 {
            calls += 1;
            if let Ok(banked) = bank.exchange(&[told(calls, 10, 50)]).await.remove(0) {
                epoch = banked.epoch;
            }
        }
        forget(&mut house.redis).await;
        tell_again(&house, &bank, 1..calls + 1, epoch).await;
    }
    house.balances().await;
    assert_eq!(house.total().await, 10_000 - i64::try_from(calls).unwrap() * 10);
    assert_eq!(house.database.findings(false, 9).await.unwrap(), []);
    let free = ask(&bank, &want(account(), node(1), 0, 0)).await.reply.granted.free;
    assert_eq!(free.0, house.total().await);
}

async fn killed_and_started_again_loses_nothing(fresh: &impl Fresh) {
    forgets(fresh.database(), async |redis: &mut RedisServer| {
        redis.kill();
        redis.start_again().await;
    })
    .await;
}

async fn emptied_it_loses_nothing(fresh: &impl Fresh) {
    forgets(fresh.database(), async |redis: &mut RedisServer| {
        redis.ask::<Value>(&["FLUSHALL"]).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_stalled_server() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 1_000).await;
    let _leading = house.lead();
    let (bank, _watching) =
        house.bank_with(1, BankOptions { sql: PATIENCE, ..BankOptions::default() });
    house.recovered(&bank, 1, 0).await;
    let before = loop {
        if let Ok(banked) = bank.exchange(&[told(1, 10, 50)]).await.remove(0) {
            break banked;
        }
    };
    house.redis.stall();
    let start = Instant::now();
    let mut failed = 0;
    for _ in 0..1_000 {
        failed += usize::from(bank.exchange(&[told(2, 10, 50)]).await.remove(0).is_err());
    }
    assert_eq!(failed, 1_000);
    assert!(start.elapsed() < PATIENCE, "one waits for the budget, the others for nothing");
    house.redis.go_on();
    eventually("it goes on", async || {
        let answer = bank.exchange(&[told(2, 10, 50)]).await.remove(0);
        answer.is_ok_and(|banked| banked.epoch == before.epoch)
    })
    .await;
    house.balances().await;
    assert_eq!(house.total().await, 980, "each once, though the second was told many times");
}

async fn a_leader_that_dies_at_any_step_posts_each_call_once(fresh: &impl Fresh) {
    let house = House::with_funds(fresh.database(), 100_000).await;
    let (bank, _watching) = {
        let _leading = house.lead();
        house.bank(1).await
    };
    let (mut calls, mut died) = (0_u128, 0);
    for polls in (0..160).step_by(2) {
        for _ in 0..3 {
            calls += 1;
            ask(&bank, &told(calls, 10, 50)).await;
        }
        bank.write(&[Arc::new(Record { cost: NanoUsd::ZERO, ..record(1_000_000 + calls) })])
            .await
            .unwrap();
        let (_stop, stopping) = watch::channel(false);
        let leader = house.leader(200 + u128::try_from(polls).unwrap());
        let _lived = tokio::time::timeout(
            Duration::from_millis(300),
            dropped_after(polls, leader.run(stopping)),
        )
        .await
        .inspect(|_dropped| died += 1);
    }
    assert!(died > 10, "{died}");
    let _leading = house.lead();
    house.balances().await;
    assert_eq!(house.total().await, 100_000 - i64::try_from(calls).unwrap() * 10);
    let all: Vec<_> = (1..=calls).map(|number| CallId::new(T0, number)).collect();
    assert_eq!(house.database.recorded(&all).await.unwrap().len(), all.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_posted_is_put_away_and_the_rest_flows() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 100).await;
    let leading = house.lead();
    let (bank, _watching) = house.bank(1).await;
    ask(&bank, &want(account(), node(1), 10, 0)).await;
    drop(leading);
    // Somebody takes money out of escrow behind the store's back: the second call is not covered.
    fresh
        .tamper("UPDATE ledger_accounts SET balance = 15 WHERE id LIKE 'escrow:%' AND balance > 0")
        .await
        .unwrap();
    ask(&bank, &told(1, 10, 10)).await;
    ask(&bank, &told(2, 10, 10)).await;
    ask(&bank, &told(3, 5, 10)).await;
    let mut garbage = vec!["XADD", "tr:{03}:events", "*", "kind", "call", "body", "{"];
    garbage.extend(["epoch", "1"]);
    house.redis.ask::<Value>(&garbage).await.unwrap();
    let _leading = house.lead();
    eventually("nothing is left", async || house.waiting().await == 0).await;
    let kinds: Vec<_> = house.database.findings(false, 9).await.unwrap();
    assert_eq!(kinds.iter().filter(|one| one.finding.kind == "poison").count(), 2, "{kinds:?}");
    let calls = [1, 2, 3].map(|number| CallId::new(T0, number));
    assert_eq!(house.database.recorded(&calls).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_may_forget_what_it_likes_is_a_finding() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 100).await;
    let policy = async |policy| {
        let words = ["CONFIG", "SET", "maxmemory-policy", policy];
        house.redis.ask::<Value>(&words).await.unwrap();
    };
    policy("allkeys-lru").await;
    let _leading = house.lead();
    let found = async || house.database.findings(false, 9).await.unwrap();
    eventually("it is found", async || !found().await.is_empty()).await;
    let all = found().await;
    assert_eq!((all.len(), all[0].finding.kind.as_str()), (1, "eviction"));
    assert!(all[0].finding.detail.contains("allkeys-lru"), "{all:?}");
    policy("noeviction").await;
    eventually("it is seen to", async || found().await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_known_for_how_long_nothing_was_posted() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 100).await;
    let leading = house.lead();
    let posting_lag_max = Duration::from_millis(300);
    let options = BankOptions { posting_lag_max, ..patient(Duration::from_mins(1)) };
    let (bank, _watching) = house.bank_with(1, options);
    house.recovered(&bank, 1, 0).await;
    ask(&bank, &want(account(), node(1), 10, 0)).await;
    eventually("all is posted", async || house.waiting().await == 0).await;
    drop(leading);
    ask(&bank, &told(1, 10, 10)).await;
    assert!(!bank.is_behind(), "it has only just come");
    eventually("it waits for too long", async || bank.is_behind()).await;
    assert!(bank.posting_lag() > posting_lag_max);
    let _leading = house.lead();
    eventually("it is posted", async || !bank.is_behind()).await;
    assert_eq!(bank.posting_lag(), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_posted_long_ago_is_not_charged_again() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 100).await;
    let _leading = house.lead();
    let (bank, _watching) = house.bank(1).await;
    let old = Record { started: Timestamp(1_000), account: Some(account()), ..record(1) };
    let mut one = told(1, 10, 10);
    one.settlements[0].record = Arc::new(old);
    assert_eq!(ask(&bank, &one).await.reply.charged.len(), 1);
    house.balances().await;
    // The pool has forgotten the call, as it does minutes after its posting.
    for shard in 0..16 {
        let seen = format!("tr:{{{shard:02}}}:seen:{}", account());
        house.redis.ask::<Value>(&["DEL", &seen]).await.unwrap();
    }
    assert_eq!(ask(&bank, &one).await.reply.charged, []);
    house.balances().await;
    assert_eq!(house.total().await, 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_settlements_are_told_in_parts_and_count_as_one() {
    let fresh = crate::sqlite::fresh().await;
    let house = House::with_funds(&fresh.database, 10_000).await;
    let _leading = house.lead();
    let (bank, _watching) = house.bank(1).await;
    let (thief, _also) = house.bank(2).await;
    ask(&bank, &want(account(), node(1), 7_000, 7_000)).await;
    let all = Exchange {
        settlements: (1..=700).map(|number| settlement(account(), number, 10, 10)).collect(),
        ..want(account(), node(1), 0, 0)
    };
    // Whoever takes all that is free in between takes nothing that the later parts need.
    let taking = tokio::spawn(async move {
        ask(&thief, &want(account(), node(2), 3_000, 0)).await.reply.granted.loan
    });
    let reply = ask(&bank, &all).await.reply;
    assert_eq!(reply.charged.iter().map(|one| one.charge.0).sum::<i64>(), 7_000);
    assert_eq!(taking.await.unwrap(), NanoUsd(3_000));
    house.balances().await;
    assert_eq!(house.total().await, 3_000);
}

on_every_database! {
    killed_and_started_again_loses_nothing,
    emptied_it_loses_nothing,
    a_leader_that_dies_at_any_step_posts_each_call_once,
}
