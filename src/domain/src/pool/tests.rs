//! Tests of the pool's rules, one by one. `allotment::tests` tries them with edges and a bad network.

use super::*;
use crate::record::{Endpoint, Outcome};
use crate::usage::{Usage, UsageSource};

const LEASE: Duration = Duration::from_mins(1);
const NOW: Timestamp = Timestamp(1_000_000_000);

fn nano(amount: i64) -> NanoUsd {
    NanoUsd(amount)
}

fn node(number: u128) -> NodeId {
    NodeId::new(Timestamp(0), number)
}

fn key(number: u128) -> KeyId {
    KeyId::new(Timestamp(0), number)
}

fn purse(number: u128) -> PurseId {
    PurseId { key: key(number), period: Period::Total, number: 0 }
}

fn pool(free: i64) -> Pool {
    Pool { free: nano(free), ..Pool::default() }
}

fn want(target: i64, in_use: i64) -> Want {
    Want { target: nano(target), in_use: nano(in_use), waiting: NanoUsd::ZERO }
}

/// An exchange of an edge that wants so much, asked at its own time.
fn exchange(edge: u128, asked: u64, target: i64) -> Exchange {
    Exchange {
        account: AccountId::new(Timestamp(0), 1),
        funding: Funding::Prepaid,
        node: node(edge),
        asked: Tick(asked),
        settlements: Vec::new(),
        want: want(target, 0),
        purses: Vec::new(),
    }
}

fn settlement(call: u128, charge: i64, cost: i64, purses: &[PurseId]) -> Settlement {
    let record = Record {
        call: CallId::new(Timestamp(0), call),
        started: Timestamp(0),
        endpoint: Endpoint::ChatCompletions,
        key: None,
        account: None,
        model: None,
        target: None,
        attempts: Vec::new(),
        status: 200,
        outcome: Outcome::Answered,
        error: None,
        streamed: false,
        usage: Usage::default(),
        usage_source: UsageSource::Provider,
        cost: nano(cost),
        charge: NanoUsd::ZERO,
        price_version: None,
        house_cost: NanoUsd::ZERO,
        latency_micros: 0,
        first_token_micros: None,
    };
    Settlement { record: Arc::new(record), charge: nano(charge), purses: purses.to_vec() }
}

fn settling(edge: u128, asked: u64, all: Vec<Settlement>, target: i64) -> Exchange {
    Exchange { settlements: all, ..exchange(edge, asked, target) }
}

fn under(mut exchange: Exchange, purse: PurseId, limit: i64, want: Want) -> Exchange {
    exchange.purses.push(PurseWant { purse, limit: nano(limit), want });
    exchange
}

fn ask(pool: &mut Pool, exchange: &Exchange) -> Reply {
    pool.exchange(exchange, NOW, LEASE).0
}

fn loan(pool: &Pool, edge: u128) -> i64 {
    pool.loans.get(&node(edge)).map_or(0, |loan| loan.amount.0)
}

/// Charge and excess of the only settlement.
fn charged(reply: &Reply) -> (i64, i64) {
    assert_eq!(reply.charged.len(), 1);
    (reply.charged[0].charge.0, reply.charged[0].excess.0)
}

#[test]
fn periods_are_those_of_the_calendar() {
    // Seconds as `date -u -d DATE +%s` has them; days since the epoch, ISO weeks by their Mondays.
    for (seconds, day, week, year, month) in [
        (0, 0, 0, 1970, 1),
        (345_599, 3, 0, 1970, 1),               // Sunday 1970-01-04 23:59:59
        (345_600, 4, 1, 1970, 1),               // Monday 1970-01-05
        (2_678_399, 30, 4, 1970, 1),            // 1970-01-31 23:59:59
        (2_678_400, 31, 4, 1970, 2),            // 1970-02-01
        (68_169_600, 789, 113, 1972, 2),        // Tuesday 1972-02-29
        (68_256_000, 790, 113, 1972, 3),        // 1972-03-01
        (951_782_400, 11_016, 1_574, 2000, 2),  // Tuesday 2000-02-29
        (951_868_800, 11_017, 1_574, 2000, 3),  // 2000-03-01
        (978_307_199, 11_322, 1_617, 2000, 12), // Sunday 2000-12-31 23:59:59
        (978_307_200, 11_323, 1_618, 2001, 1),  // Monday 2001-01-01
        (1_709_164_800, 19_782, 2_826, 2024, 2), // Thursday 2024-02-29
        (1_767_225_599, 20_453, 2_922, 2025, 12), // Wednesday 2025-12-31 23:59:59
        (1_767_225_600, 20_454, 2_922, 2026, 1), // Thursday 2026-01-01
        (1_795_305_599, 20_778, 2_968, 2026, 11), // Saturday 2026-11-21 23:59:59
        (4_107_542_399, 47_540, 6_791, 2100, 2), // 2100-02-28 23:59:59, in a year that is no leap year
        (4_107_542_400, 47_541, 6_792, 2100, 3), // Monday 2100-03-01
    ] {
        let now = Timestamp(seconds * 1_000_000 + 999_999);
        assert_eq!(Period::Total.number(now), 0, "{seconds}");
        assert_eq!(Period::Day.number(now), day, "{seconds}");
        assert_eq!(Period::Week.number(now), week, "{seconds}");
        assert_eq!(Period::Month.number(now), year * 12 + month - 1, "{seconds}");
    }
}

#[test]
fn months_are_as_long_as_they_are() {
    // Every day of 400 years, counted by hand.
    let mut day = 0_u32;
    for year in 1970..2370_u32 {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        for (nth, length) in lengths.into_iter().enumerate() {
            for _ in 0..length {
                assert_eq!(month(day), year * 12 + u32::try_from(nth).unwrap());
                day += 1;
            }
        }
    }
}

#[test]
fn the_end_of_time_is_a_period() {
    for period in Period::ALL {
        let _number = period.number(Timestamp(u64::MAX));
        assert_eq!(Period::parse(period.as_str()), Some(period));
    }
    assert_eq!(Period::parse("year"), None);
}

#[test]
fn lends_what_is_wanted_and_what_there_is() {
    let mut pool = pool(100);
    assert_eq!(ask(&mut pool, &exchange(1, 1, 60)).granted.loan, nano(60));
    let second = ask(&mut pool, &exchange(2, 1, 60)).granted;
    assert_eq!((second.loan, second.free), (nano(40), nano(0)));
    assert_eq!(ask(&mut pool, &exchange(3, 1, 60)).granted.loan, nano(0));
    assert_eq!(pool.loans.len(), 2, "a loan of nothing is none");
    // Less than it has: the rest goes back.
    let less = ask(&mut pool, &exchange(1, 2, 25)).granted;
    assert_eq!((less.loan, less.free), (nano(25), nano(35)));
    let none = ask(&mut pool, &exchange(1, 3, -5)).granted;
    assert_eq!((none.loan, none.free), (nano(0), nano(60)));
}

#[test]
fn the_same_exchange_twice_changes_nothing() {
    let mut pool = pool(100);
    let first = ask(&mut pool, &exchange(1, 1, 60));
    let before = pool.clone();
    assert_eq!(ask(&mut pool, &exchange(1, 1, 60)), first);
    assert_eq!(pool, before);
}

#[test]
fn an_exchange_that_was_overtaken_lends_and_takes_back_nothing() {
    let mut pool = pool(100);
    let name = |exchange, target| under(exchange, purse(1), 500, want(target, 0));
    ask(&mut pool, &name(exchange(1, 7, 60), 50));
    for target in [0, 10, 90] {
        let before = pool.clone();
        let late = ask(&mut pool, &name(exchange(1, 6, target), target));
        assert_eq!((late.granted.loan, late.purses[0].loan), (nano(60), nano(50)));
        assert_eq!(pool, before);
    }
    // What it tells is settled all the same.
    let late = settling(1, 6, vec![settlement(1, 20, 20, &[])], 0);
    assert_eq!(charged(&ask(&mut pool, &late)), (20, 0));
    assert_eq!((loan(&pool, 1), pool.free), (40, nano(40)));
    // Other edges' clocks have nothing to do with it; whoever speaks for a dead edge comes last.
    assert_eq!(ask(&mut pool, &exchange(2, 1, 10)).granted.loan, nano(10));
    assert_eq!(
        ask(&mut pool, &Exchange { asked: ASKED_LAST, ..exchange(1, 0, 0) }).granted.free,
        nano(70)
    );
}

#[test]
fn a_purse_knows_what_was_overtaken_without_a_loan_of_money() {
    let mut pool = Pool::default();
    let ask_for = |asked, target| {
        let exchange = Exchange { funding: Funding::Unmetered, ..exchange(1, asked, 0) };
        under(exchange, purse(1), 100, want(target, 0))
    };
    assert_eq!(ask(&mut pool, &ask_for(5, 80)).purses[0].loan, nano(80));
    assert_eq!(ask(&mut pool, &ask_for(4, 10)).purses[0].loan, nano(80));
    assert_eq!(ask(&mut pool, &ask_for(6, 10)).purses[0].loan, nano(10));
}

#[test]
fn a_settlement_is_paid_by_the_loan_then_by_what_is_free_and_then_by_the_house() {
    for (charge, cost, from_loan, from_free, excess) in [
        (0, 0, 0, 0, 0),
        (30, 30, 30, 0, 0),
        (60, 60, 60, 0, 0),
        (75, 75, 60, 15, 0),
        (100, 100, 60, 40, 0),
        (130, 130, 60, 40, 30),
        // The edge has put down less than the cost: the rest is never charged.
        (50, 80, 50, 0, 30),
        (-5, 10, 0, 0, 10),
    ] {
        let mut pool = pool(100);
        ask(&mut pool, &exchange(1, 1, 60));
        // Nothing is lent anew.
        let told = settling(1, 2, vec![settlement(1, charge, cost, &[])], 60 - from_loan);
        let reply = ask(&mut pool, &told);
        assert_eq!(charged(&reply), (from_loan + from_free, excess), "{charge} of {cost}");
        assert_eq!(pool.free, nano(40 - from_free));
        assert_eq!(loan(&pool, 1), 60 - from_loan);
    }
}

#[test]
fn settlements_of_one_exchange_come_before_its_loan_and_each_counts_once() {
    let mut pool = pool(100);
    let twice = vec![settlement(1, 70, 70, &[]), settlement(1, 70, 70, &[])];
    let reply = ask(&mut pool, &settling(1, 1, twice, 100));
    assert_eq!(charged(&reply), (70, 0));
    assert_eq!(reply.granted.loan, nano(30));
    assert_eq!(pool.free, nano(0));
}

#[test]
fn others_loans_are_never_charged() {
    let mut pool = pool(100);
    ask(&mut pool, &exchange(1, 1, 90));
    let reply = ask(&mut pool, &settling(2, 1, vec![settlement(1, 50, 50, &[])], 0));
    assert_eq!(charged(&reply), (10, 40));
    assert_eq!((loan(&pool, 1), pool.free), (90, nano(0)));
}

#[test]
fn an_unmetered_account_has_no_money_and_its_keys_have_ceilings() {
    let mut pool = Pool::default();
    let mut told = settling(1, 1, vec![settlement(1, 80, 80, &[purse(1)])], 500);
    told.funding = Funding::Unmetered;
    let reply = ask(&mut pool, &under(told, purse(1), 50, want(20, 0)));
    assert_eq!(reply.granted, Granted::default());
    assert_eq!(charged(&reply), (50, 30));
    assert_eq!(pool.purses[&purse(1)].spent, nano(50));
    assert_eq!(reply.purses[0].loan, nano(0));
    assert!(pool.loans.is_empty());
}

#[test]
fn nothing_is_charged_beyond_a_ceiling() {
    // Its own loan and what is free under the ceiling, whatever money there is: once the edge of the
    // ceiling went to -3 since the clamp left it out.
    for (others, mine, charge, expected) in
        [(0, 0, 200, 100), (60, 0, 200, 40), (60, 30, 200, 40), (100, 0, 1, 0), (0, 100, 103, 100)]
    {
        let mut pool = pool(1_000);
        ask(&mut pool, &under(exchange(2, 1, 0), purse(1), 100, want(others, 0)));
        ask(&mut pool, &under(exchange(1, 1, 500), purse(1), 100, want(mine, 0)));
        let told = settling(1, 2, vec![settlement(1, charge, charge, &[purse(1)])], 0);
        let reply = ask(&mut pool, &under(told, purse(1), 100, want(0, 0)));
        assert_eq!(charged(&reply), (expected, charge - expected));
        let purse = &pool.purses[&purse(1)];
        assert_eq!(
            (purse.spent, purse.free(nano(100))),
            (nano(expected), nano(100 - others - expected))
        );
        assert_eq!(pool.free, nano(1_000 - expected));
    }
}

#[test]
fn the_narrowest_of_several_ceilings_holds_and_all_count() {
    let mut pool = pool(1_000);
    let told = settling(1, 1, vec![settlement(1, 90, 90, &[purse(1), purse(2)])], 0);
    let told = under(under(told, purse(1), 70, want(0, 0)), purse(2), 50, want(0, 0));
    assert_eq!(charged(&ask(&mut pool, &told)), (50, 40));
    assert_eq!(pool.purses[&purse(1)].spent, nano(50));
    assert_eq!(pool.purses[&purse(2)].spent, nano(50));
}

#[test]
fn under_a_ceiling_that_is_not_named_no_more_is_charged_than_is_lent() {
    let mut pool = pool(1_000);
    ask(&mut pool, &under(exchange(1, 1, 500), purse(1), 100, want(30, 0)));
    let all =
        vec![settlement(1, 20, 20, &[purse(1)]), settlement(2, 20, 20, &[purse(1), purse(9)])];
    let reply = ask(&mut pool, &settling(1, 2, all, 500));
    assert_eq!(reply.charged.iter().map(|one| one.charge.0).collect::<Vec<_>>(), [20, 0]);
    let late = settling(1, 3, vec![settlement(3, 20, 20, &[purse(1)])], 500);
    assert_eq!(charged(&ask(&mut pool, &late)), (10, 10));
    assert_eq!(pool.purses[&purse(1)].spent, nano(30));
}

#[test]
fn a_ceiling_that_is_lowered_leaves_calls_what_they_hold() {
    let mut pool = pool(1_000);
    ask(&mut pool, &under(exchange(1, 1, 500), purse(1), 100, want(60, 0)));
    ask(&mut pool, &under(exchange(2, 1, 500), purse(1), 100, want(40, 0)));
    let mut wanted = want(60, 35);
    wanted.waiting = nano(10);
    let lowered = under(exchange(1, 2, 500), purse(1), 50, wanted);
    assert_eq!(ask(&mut pool, &lowered).purses[0].loan, nano(25), "held, not what calls wait for");
    // 25 + 40 are lent of 50: the other gives 15 back.
    assert_eq!(
        ask(&mut pool, &under(exchange(2, 2, 500), purse(1), 50, want(40, 0))).purses[0].loan,
        nano(25)
    );
    // Raised again, there is more.
    assert_eq!(
        ask(&mut pool, &under(exchange(2, 3, 500), purse(1), 80, want(70, 0))).purses[0].loan,
        nano(55)
    );
}

#[test]
fn loans_lapse_at_their_deadline_and_are_renewed_by_any_exchange() {
    let mut pool = pool(100);
    let mut first = under(exchange(1, 1, 60), purse(1), 100, want(60, 0));
    first.want.in_use = nano(15);
    ask(&mut pool, &first);
    let deadline = NOW.plus(LEASE);
    let just_before = Timestamp(deadline.0 - 1);
    assert_eq!(pool.reclaim(just_before), []);
    assert_eq!(pool.loans[&node(1)].deadline, deadline);
    let lapsed = Lapsed { node: node(1), amount: nano(60), in_use: nano(15) };
    let mut left = pool.clone();
    assert_eq!(left.reclaim(deadline), [lapsed]);
    assert_eq!((left.free, left.loans.len()), (nano(100), 0));
    assert!(left.purses[&purse(1)].loans.is_empty());
    // Somebody else's exchange takes it back as well, before it lends.
    let (reply, taken) = pool.clone().exchange(&exchange(2, 1, 100), deadline, LEASE);
    assert_eq!((reply.granted.loan, taken), (nano(100), vec![lapsed]));
    // Renewed, it lasts.
    pool.exchange(&first, just_before, LEASE);
    assert_eq!(pool.reclaim(deadline), []);
}

#[test]
fn a_late_settlement_is_paid_by_what_is_still_free() {
    let mut pool = pool(100);
    ask(&mut pool, &exchange(1, 1, 100));
    let later = NOW.plus(LEASE);
    pool.exchange(&exchange(2, 1, 70), later, LEASE);
    let told = settling(1, 2, vec![settlement(1, 50, 50, &[])], 0);
    let (reply, _) = pool.exchange(&told, later, LEASE);
    assert_eq!(charged(&reply), (30, 20));
    assert_eq!((loan(&pool, 2), pool.free), (70, nano(0)));
}

#[test]
fn a_loan_that_is_spent_is_none() {
    let mut pool = pool(100);
    ask(&mut pool, &under(exchange(1, 5, 60), purse(1), 60, want(60, 0)));
    // It was overtaken, and it does not name the ceiling: nothing is written of either loan but the charge.
    let late = settling(1, 4, vec![settlement(1, 60, 60, &[purse(1)])], 80);
    assert_eq!(charged(&ask(&mut pool, &late)), (60, 0));
    assert!(pool.loans.is_empty() && pool.purses[&purse(1)].loans.is_empty());
    assert_eq!(pool.free, nano(40), "and nothing is lent for it");
}

#[test]
fn an_edge_reads_what_others_have_and_do_not_use() {
    let mut pool = pool(100);
    for (edge, target, in_use) in [(1, 50, 20), (2, 30, 5)] {
        let want = want(target, in_use);
        let exchange = Exchange { want, ..under(exchange(edge, 1, 0), purse(1), 90, want) };
        ask(&mut pool, &exchange);
    }
    let later = NOW.plus(Duration::from_secs(2));
    let third = under(exchange(3, 1, 60), purse(1), 90, want(60, 60));
    let (reply, _) = pool.exchange(&third, later, LEASE);
    let silent = Duration::from_secs(2);
    let others = Others { lent: nano(80), spare: nano(55), silent };
    assert_eq!(reply.granted, Granted { loan: nano(20), free: nano(0), others });
    assert_eq!(reply.purses, [Granted { loan: nano(10), free: nano(0), others }]);
}

#[test]
fn what_others_do_not_use_can_be_recalled() {
    let mut pool = pool(100);
    let mut first = exchange(1, 1, 60);
    first.want.in_use = nano(200);
    ask(&mut pool, &first);
    assert_eq!(pool.loans[&node(1)].in_use, nano(60), "no more than the loan");
    first.want.in_use = nano(25);
    ask(&mut pool, &first);
    // A settlement lowers the loan below what is in use.
    let told = settling(1, 0, vec![settlement(1, 50, 50, &[])], 0);
    ask(&mut pool, &told);
    assert_eq!((loan(&pool, 1), pool.loans[&node(1)].in_use), (10, nano(10)));
}

#[test]
fn a_pool_that_has_lost_its_memory_lends_what_calls_hold() {
    let mut pool = pool(100);
    let mut wants = exchange(1, 1, 90);
    (wants.want.in_use, wants.want.waiting) = (nano(50), nano(20));
    let wants = under(wants.clone(), purse(1), 100, wants.want);
    let (reply, _) = pool.adopt(&wants, NOW, LEASE);
    assert_eq!((reply.granted.loan, reply.purses[0].loan), (nano(30), nano(30)));
    // What has been lent since stays where it is, though no call holds it any more.
    let less = exchange(1, 2, 90);
    assert_eq!(pool.adopt(&less, NOW, LEASE).0.granted.loan, nano(30));
    // What is not wanted goes back.
    assert_eq!(pool.adopt(&exchange(1, 3, 5), NOW, LEASE).0.granted.loan, nano(5));
    assert_eq!(pool.exchange(&exchange(1, 4, 90), NOW, LEASE).0.granted.loan, nano(90));
}
