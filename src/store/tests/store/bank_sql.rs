//! SQL as the bank: what it does to a pool is what the pure rules say, whoever asks and whatever fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::key::Funding;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{
    Exchange, Period, Pool, Purse, PurseId, PurseWant, Reply, Settlement, Want,
};
use tokenroute_domain::record::Record;
use tokenroute_domain::time::{Tick, Timestamp};
use tokenroute_store::{Error, SqlBank};

use crate::money::{dropped_after, grant, movement, other_account, prepaid};
use crate::support::{Fresh, T0, account, after, key_id, record};

pub(crate) const LEASE: Duration = Duration::from_mins(1);

pub(crate) fn node(number: u128) -> NodeId {
    NodeId::new(T0, number)
}

pub(crate) fn settlement(account: AccountId, number: u128, charge: i64, cost: i64) -> Settlement {
    let record = Record { account: Some(account), cost: NanoUsd(cost), ..record(number) };
    Settlement { record: Arc::new(record), charge: NanoUsd(charge), purses: Vec::new() }
}

/// One edge wants so much, of which so much is in use.
pub(crate) fn want(account: AccountId, node: NodeId, target: i64, in_use: i64) -> Exchange {
    Exchange {
        account,
        funding: Funding::Prepaid,
        node,
        asked: Tick(0),
        settlements: Vec::new(),
        want: Want { target: NanoUsd(target), in_use: NanoUsd(in_use), waiting: NanoUsd::ZERO },
        purses: Vec::new(),
    }
}

/// Exchanges again while the database is only busy; the reply to the first.
async fn insist(bank: &SqlBank, told: &[Exchange]) -> Reply {
    for _try in 0..100 {
        match bank.exchange(told, T0).await.remove(0) {
            Ok(reply) => return reply,
            Err(error) => assert!(matches!(error, Error::Unavailable(_)), "{error}"),
        }
    }
    unreachable!("the database is busy for ever");
}

async fn what_is_settled_is_in_the_ledger(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 100).await;
    let bank = SqlBank::new(database.clone(), LEASE);
    let told = Exchange {
        settlements: vec![settlement(account(), 1, 30, 30), settlement(account(), 2, 90, 95)],
        ..want(account(), node(1), 10, 0)
    };
    for repeated in [false, true] {
        let reply = bank.exchange(std::slice::from_ref(&told), T0).await.remove(0).unwrap();
        let charged: Vec<_> =
            reply.charged.iter().map(|one| (one.charge.0, one.excess.0)).collect();
        let wanted: &[_] = if repeated { &[] } else { &[(30, 0), (70, 25)] };
        assert_eq!(charged, wanted, "never more than there is, and each once");
    }
    assert_eq!(database.balance(account()).await.unwrap().total(), NanoUsd::ZERO);
    let records = database.records_after(0, 9).await.unwrap();
    assert_eq!(records.iter().map(|one| one.charge.0).collect::<Vec<_>>(), [30, 70]);
    let calls = [CallId::new(T0, 1), CallId::new(T0, 9)];
    assert_eq!(bank.posted(&calls).await.unwrap(), calls[..1]);
    assert_eq!(database.reconcile(None, T0).await.unwrap(), []);
}

async fn what_is_lent_cannot_be_withdrawn(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 100).await;
    let bank = SqlBank::new(database.clone(), LEASE);
    bank.exchange(&[want(account(), node(1), 60, 0)], T0).await.remove(0).unwrap();
    let take = async |key, amount| {
        let from = tokenroute_store::Pocket::Customer;
        database.withdraw(&movement(key, amount), from, T0).await.unwrap()
    };
    assert_eq!(take("w", 41).await, tokenroute_store::Moved::TooMuch);
    assert_eq!(take("w", 40).await, tokenroute_store::Moved::Done);
    assert_eq!(database.reconcile(None, T0).await.unwrap(), []);
}

async fn what_an_edge_leaves_behind_lapses(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 100).await;
    grant(database, other_account(), 100).await;
    let bank = SqlBank::new(database.clone(), LEASE);
    let all = [
        want(account(), node(1), 60, 0),
        want(account(), node(2), 20, 5),
        want(other_account(), node(2), 100, 0),
    ];
    for reply in bank.exchange(&all, T0).await {
        reply.unwrap();
    }
    assert_eq!(bank.sweep(after(59)).await.unwrap(), 0);
    bank.exchange(&all[..1], after(30)).await.remove(0).unwrap();
    assert_eq!(bank.sweep(after(60)).await.unwrap(), 2);
    let findings = database.findings(false, 9).await.unwrap();
    assert_eq!(findings.len(), 1, "only what calls were holding: {findings:?}");
    assert_eq!(findings[0].finding.kind, "abandoned");
    assert_eq!(findings[0].finding.subject, format!("{} {}", account(), node(2)));
    let pool = bank.pool(account(), &[]).await.unwrap();
    assert_eq!((pool.free, pool.loans.len()), (NanoUsd(40), 1));
    // Heard of again, it has nothing; what it was holding is charged to what is free.
    let late = Exchange {
        settlements: vec![settlement(account(), 1, 5, 5)],
        ..want(account(), node(2), 0, 0)
    };
    let reply = bank.exchange(&[late], after(61)).await.remove(0).unwrap();
    assert_eq!((reply.charged[0].charge, reply.granted.free), (NanoUsd(5), NanoUsd(35)));
    assert_eq!(bank.sweep(after(200)).await.unwrap(), 1);
    assert_eq!(database.reconcile(None, T0).await.unwrap(), []);
}

async fn one_broken_account_does_not_keep_others_from_theirs(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 100).await;
    grant(database, other_account(), 100).await;
    let bank = SqlBank::new(database.clone(), LEASE);
    // Of two accounts, the first in the ledger has lost its balance, but not its pool.
    fresh
        .tamper(
            "UPDATE ledger_accounts SET balance = 0
             WHERE id = (SELECT min(id) FROM ledger_accounts WHERE id LIKE 'customer:%')",
        )
        .await
        .unwrap();
    let told = [(account(), 1), (other_account(), 2)].map(|(account, number)| Exchange {
        settlements: vec![settlement(account, number, 5, 5)],
        ..want(account, node(1), 10, 0)
    });
    let replies = bank.exchange(&told, T0).await;
    assert!(matches!(replies[0], Err(Error::Corrupt(_))), "{:?}", replies[0]);
    assert_eq!(replies[1].as_ref().unwrap().charged.len(), 1);
    assert_eq!(database.recorded(&[CallId::new(T0, 1)]).await.unwrap(), []);
}

async fn edges_at_the_same_time_never_have_more_than_there_is(fresh: &impl Fresh) {
    const EDGES: u128 = 3;
    prepaid(fresh.database()).await;
    grant(fresh.database(), account(), 1_000).await;
    let mut tasks = Vec::new();
    for edge in 0..EDGES {
        let bank = SqlBank::new(fresh.second().await, LEASE);
        tasks.push(tokio::spawn(async move {
            let (mut loan, mut charged) = (0, 0);
            for round in 0..25_u128 {
                let number = edge * 1_000 + round;
                let charge = loan.min(25);
                let mut told = want(account(), node(edge), 40, 0);
                told.settlements.push(settlement(account(), number, charge, charge));
                let both = [told, want(other_account(), node(edge), 1, 0)];
                let reply = insist(&bank, &both).await;
                assert!(reply.charged.len() <= 1);
                charged += reply.charged.iter().map(|one| one.charge.0).sum::<i64>();
                assert!(reply.granted.free >= NanoUsd::ZERO);
                loan = reply.granted.loan.0;
            }
            let gone = want(account(), node(edge), 0, 0);
            insist(&bank, std::slice::from_ref(&gone)).await;
            charged
        }));
    }
    let mut charged = 0;
    for task in tasks {
        charged += task.await.unwrap();
    }
    assert_eq!(charged, 1_000, "all that there was, and no more");
    assert_eq!(fresh.database().balance(account()).await.unwrap().total(), NanoUsd::ZERO);
    assert_eq!(fresh.database().reconcile(None, T0).await.unwrap(), []);
}

async fn an_exchange_that_broke_off_is_repeated(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 10_000).await;
    let bank = SqlBank::new(database.clone(), LEASE);
    let mut died = 0;
    for polls in 0..80 {
        let told = [Exchange {
            settlements: vec![settlement(account(), u128::try_from(polls).unwrap(), 10, 10)],
            ..want(account(), node(1), 100, 0)
        }];
        let broke_off = dropped_after(polls, bank.exchange(&told, T0)).await.is_none();
        died += usize::from(broke_off);
        if broke_off {
            insist(&bank, &told).await;
        }
    }
    assert!(died > 5, "{died} died");
    assert_eq!(database.balance(account()).await.unwrap().total(), NanoUsd(10_000 - 800));
    let pool = bank.pool(account(), &[]).await.unwrap();
    assert_eq!((pool.free, pool.loans[&node(1)].amount), (NanoUsd(9_100), NanoUsd(100)));
    assert_eq!(database.reconcile(None, T0).await.unwrap(), []);
}

/// Numbers that look like chance (`SplitMix64`).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub(crate) fn money(&mut self, limit: u64) -> NanoUsd {
        NanoUsd(i64::try_from(self.below(limit)).unwrap())
    }

    fn purses(&mut self, account: usize) -> BTreeSet<PurseId> {
        let count = self.below(3);
        let mut one = || PurseId {
            key: key_id(u8::try_from(account * 2).unwrap() + u8::try_from(self.below(2)).unwrap()),
            period: Period::ALL[usize::try_from(self.below(2)).unwrap()],
            number: 0,
        };
        (0..count).map(|_| one()).collect()
    }
}

/// The accounts of the random test; the last one is unmetered.
pub(crate) const ACCOUNTS: usize = 3;

pub(crate) struct Model {
    pub(crate) dice: Dice,
    pub(crate) pools: Vec<Pool>,
    settled: BTreeSet<CallId>,
    told: Vec<Vec<Settlement>>,
    calls: u128,
}

pub(crate) fn account_number(number: usize) -> AccountId {
    AccountId::new(T0, u128::try_from(number).unwrap() + 1)
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            dice: Dice(7),
            pools: vec![Pool::default(); ACCOUNTS],
            settled: BTreeSet::new(),
            told: vec![Vec::new(); ACCOUNTS],
            calls: 0,
        }
    }

    fn settlement(&mut self, number: usize) -> Settlement {
        let told = &self.told[number];
        if !told.is_empty() && self.dice.below(4) == 0 {
            let again =
                usize::try_from(self.dice.below(u64::try_from(told.len()).unwrap())).unwrap();
            return told[again].clone();
        }
        self.calls += 1;
        let charge = self.dice.money(400);
        let cost = charge.plus(self.dice.money(50));
        let made = Settlement {
            purses: self.dice.purses(number).into_iter().collect(),
            ..settlement(account_number(number), self.calls, charge.0, cost.0)
        };
        self.told[number].push(made.clone());
        made
    }

    pub(crate) fn exchange(&mut self) -> (usize, Exchange) {
        let number = usize::try_from(self.dice.below(u64::try_from(ACCOUNTS).unwrap())).unwrap();
        let settlements = (0..self.dice.below(3)).map(|_| self.settlement(number)).collect();
        let purses = self.dice.purses(number).into_iter().collect::<Vec<_>>();
        let dice = &mut self.dice;
        let mut one = |limit| Want {
            target: dice.money(limit),
            in_use: dice.money(limit),
            waiting: dice.money(limit / 4),
        };
        let wanted = one(1_500);
        let wants: Vec<_> = purses.into_iter().map(|purse| (purse, one(800))).collect();
        let purses = wants
            .into_iter()
            .map(|(purse, want)| PurseWant { purse, limit: dice.money(40_000), want })
            .collect();
        let funding = if number + 1 == ACCOUNTS { Funding::Unmetered } else { Funding::Prepaid };
        let node = node(u128::from(dice.below(3)));
        let account = account_number(number);
        let asked = Tick(dice.below(1_000));
        (number, Exchange { account, funding, node, asked, settlements, want: wanted, purses })
    }

    /// What the pure rules answer, once what was settled before is left out.
    pub(crate) fn reply(
        &mut self,
        number: usize,
        told: &Exchange,
        (now, lease): (Timestamp, Duration),
    ) -> Reply {
        let mut told = told.clone();
        told.settlements.retain(|one| self.settled.insert(one.record.call));
        self.pools[number].exchange(&told, now, lease).0
    }
}

/// What is the same of two pools whatever was forgotten of them that says nothing.
fn plain(pool: &Pool, now: Timestamp) -> Pool {
    let mut pool = pool.clone();
    pool.reclaim(now);
    pool.purses.retain(|_, purse| *purse != Purse::default());
    pool
}

async fn random_exchanges(fresh: &impl Fresh, steps: usize) {
    let database = fresh.database();
    let bank = SqlBank::new(database.clone(), LEASE);
    for number in 0..ACCOUNTS {
        let funding = if number + 1 == ACCOUNTS { Funding::Unmetered } else { Funding::Prepaid };
        let name = format!("account {number}");
        database
            .acting("tester")
            .create_account(account_number(number), &name, funding, T0)
            .await
            .unwrap();
    }
    let mut model = Model::new();
    let every_purse: BTreeMap<usize, BTreeSet<PurseId>> = (0..ACCOUNTS)
        .map(|number| (number, (0..200).flat_map(|_| model.dice.purses(number)).collect()))
        .collect();
    let (mut now, mut credited, mut done) = (T0, 0, 0);
    let (mut charged, mut excess) = (0, 0);
    while done < steps {
        now = now.plus(Duration::from_secs(model.dice.below(25)));
        if model.dice.below(3) == 0 {
            let (to, amount) =
                (usize::try_from(model.dice.below(2)).unwrap(), model.dice.money(9_000));
            if amount > NanoUsd::ZERO {
                grant(database, account_number(to), amount.0).await;
                model.pools[to].free = model.pools[to].free.plus(amount);
                credited += amount.0;
            }
        }
        let batch: Vec<_> = (0..=model.dice.below(24)).map(|_| model.exchange()).collect();
        let exchanges: Vec<_> = batch.iter().map(|(_, one)| one.clone()).collect();
        let replies = bank.exchange(&exchanges, now).await;
        for ((number, told), reply) in batch.iter().zip(replies) {
            let reply = reply.unwrap();
            assert_eq!(reply, model.reply(*number, told, (now, LEASE)), "{told:?}");
            if told.funding == Funding::Prepaid {
                charged += reply.charged.iter().map(|one| one.charge.0).sum::<i64>();
                excess += reply.charged.iter().map(|one| one.excess.0).sum::<i64>();
            }
        }
        done += batch.len();
        if model.dice.below(8) == 0 {
            bank.sweep(now).await.unwrap();
        }
        for (number, purses) in &every_purse {
            let purses: Vec<_> = purses.iter().copied().collect();
            let stored = bank.pool(account_number(*number), &purses).await.unwrap();
            assert_eq!(plain(&stored, now), plain(&model.pools[*number], now), "after {done}");
        }
    }
    let mut left = 0;
    for number in 0..ACCOUNTS {
        left += database.balance(account_number(number)).await.unwrap().total().0;
    }
    assert_eq!(left, credited - charged);
    assert!(charged > 1_000 && excess > 1_000 && left > 0, "{charged} {excess} {left}");
    assert_eq!(database.reconcile(None, now).await.unwrap(), []);
}

#[tokio::test]
async fn random_exchanges_do_in_a_file_what_the_rules_say() {
    random_exchanges(&crate::sqlite::fresh().await, 10_000).await;
}

#[tokio::test]
async fn random_exchanges_do_in_postgres_what_the_rules_say() {
    random_exchanges(&crate::postgres::fresh().await, 2_000).await;
}

on_every_database! {
    what_is_settled_is_in_the_ledger,
    what_is_lent_cannot_be_withdrawn,
    what_an_edge_leaves_behind_lapses,
    one_broken_account_does_not_keep_others_from_theirs,
    an_exchange_that_broke_off_is_repeated,
    edges_at_the_same_time_never_have_more_than_there_is,
}
