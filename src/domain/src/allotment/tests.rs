//! Tests of an edge's side, alone and with the pool behind a bad network.

mod machine;
mod walk;
mod world;

use super::*;
use crate::id::KeyId;
use crate::pool::Period;
use crate::time::Timestamp;

const LEASE: Duration = Duration::from_mins(1);
const NOW: Tick = Tick(1_000_000);

fn nano(amount: i64) -> NanoUsd {
    NanoUsd(amount)
}

fn purse(number: u32) -> PurseId {
    PurseId { key: KeyId::new(Timestamp(0), 1), period: Period::Day, number }
}

/// An answer that lends so much, of the pool and under each ceiling.
fn lends(money: i64, purses: &[i64]) -> Reply {
    let granted = |loan: &i64| Granted { loan: nano(*loan), ..Granted::default() };
    let purses = purses.iter().map(granted).collect();
    Reply { granted: granted(&money), purses, charged: Vec::new() }
}

fn nothing(_: Option<PurseId>) -> NanoUsd {
    NanoUsd::ZERO
}

/// An allotment with a loan of money and of each ceiling.
fn allotment(money: i64, purses: &[(u32, i64)]) -> Allotment {
    let mut allotment = Allotment::new(Funding::Prepaid);
    let ceilings: Vec<_> = purses.iter().map(|(id, _)| (purse(*id), nano(1_000))).collect();
    assert_eq!(allotment.place(nano(1), &ceilings, NOW), Err(Short::Lease));
    let (_, named) = allotment.wants(nothing, nothing, &Sent::default());
    let loans: Vec<_> = purses.iter().map(|(_, loan)| *loan).collect();
    allotment.replied(&lends(money, &loans), &named, &Sent::default(), (NOW, LEASE));
    allotment
}

#[test]
fn before_the_first_loan_nothing_is_spent() {
    let mut allotment = Allotment::new(Funding::Prepaid);
    assert_eq!(allotment.place(nano(0), &[], NOW), Err(Short::Lease));
    // Without money and ceilings there is nothing to wait for.
    let mut free = Allotment::new(Funding::Unmetered);
    assert!(free.place(nano(5), &[], NOW).is_ok());
    assert_eq!(free.place(nano(5), &[(purse(1), nano(9))], NOW), Err(Short::Lease));
}

#[test]
fn holds_are_placed_in_all_or_in_none() {
    let mut allotment = allotment(100, &[(1, 50), (2, 30)]);
    let both = [(purse(1), nano(50)), (purse(2), nano(30))];
    assert_eq!(allotment.place(nano(101), &[], NOW), Err(Short::Money(nano(100))));
    assert_eq!(allotment.place(nano(51), &both, NOW), Err(Short::Ceiling(purse(1), nano(50))));
    assert_eq!(allotment.place(nano(31), &both, NOW), Err(Short::Ceiling(purse(2), nano(30))));
    assert_eq!(allotment.money().held(), nano(0));
    let hold = allotment.place(nano(30), &both, NOW).unwrap();
    assert_eq!((hold.amount(), hold.purses()), (nano(30), &[purse(1), purse(2)][..]));
    assert_eq!(allotment.money().left(), nano(70));
    assert_eq!(allotment.purse(purse(1)).unwrap().left(), nano(20));
    assert_eq!(allotment.purse(purse(2)).unwrap().left(), nano(0));
    assert_eq!(allotment.settle(hold, nano(0)).0, nano(0));
    assert_eq!(allotment.money().left(), nano(100));
    assert_eq!(allotment.purse(purse(2)).unwrap().left(), nano(30));
}

#[test]
fn a_ceiling_given_twice_is_one() {
    let mut allotment = allotment(100, &[(1, 50)]);
    let twice = [(purse(1), nano(90)), (purse(1), nano(50))];
    let hold = allotment.place(nano(30), &twice, NOW).unwrap();
    assert_eq!(hold.purses(), [purse(1)]);
    assert_eq!(allotment.purse(purse(1)).unwrap().left(), nano(20));
    let _charge = allotment.settle(hold, nano(0));
    assert_eq!(allotment.purse(purse(1)).unwrap().left(), nano(50));
}

#[test]
fn a_call_is_charged_its_cost_up_to_its_hold_and_what_else_is_left() {
    for (cost, charge) in [(0, 0), (20, 20), (40, 40), (60, 60), (70, 70), (90, 70), (-3, 0)] {
        let mut allotment = allotment(100, &[]);
        let _other = allotment.place(nano(30), &[], NOW).unwrap();
        let hold = allotment.place(nano(40), &[], NOW).unwrap();
        assert_eq!(allotment.settle(hold, nano(cost)), (nano(charge), vec![]));
        assert_eq!(allotment.money().held(), nano(30), "another's hold is not touched");
        assert_eq!(allotment.money().left(), nano(70 - charge));
    }
    // Under the ceiling as well.
    let mut allotment = allotment(100, &[(1, 50)]);
    let hold = allotment.place(nano(40), &[(purse(1), nano(1_000))], NOW).unwrap();
    assert_eq!(allotment.settle(hold, nano(90)), (nano(50), vec![purse(1)]));
    assert_eq!(allotment.purse(purse(1)).unwrap().left(), nano(0));
    assert_eq!(allotment.money().left(), nano(50));
}

#[test]
fn four_fifths_of_a_lease_are_used_counted_from_the_question() {
    let allotment = allotment(100, &[]);
    let end = NOW.plus(Duration::from_secs(48));
    assert!(allotment.is_live(Tick(end.0 - 1)));
    assert!(!allotment.is_live(end));
    let mut over = allotment.clone();
    assert_eq!(over.place(nano(1), &[], end), Err(Short::Lease));
    // A hold that outlives the lease is settled all the same.
    let mut during = allotment;
    let hold = during.place(nano(10), &[], NOW).unwrap();
    assert_eq!(during.settle(hold, nano(10)).0, nano(10));
}

#[test]
fn wants_what_is_held_owed_waited_for_and_ahead() {
    let mut allotment = allotment(100, &[(1, 60)]);
    let ceiling = [(purse(1), nano(900))];
    let _held = allotment.place(nano(20), &ceiling, NOW).unwrap();
    let mut sent = Sent::default();
    for (cost, told) in [(15, true), (10, false)] {
        let hold = allotment.place(nano(15), &ceiling, NOW).unwrap();
        let (charge, purses) = allotment.settle(hold, nano(cost));
        if told {
            sent.add(charge, &purses);
        }
    }
    let demand = |id: Option<PurseId>| nano(if id.is_none() { 7 } else { 3 });
    let (want, purses) = allotment.wants(demand, |_| nano(5), &sent);
    assert_eq!(want, Want { target: nano(42), in_use: nano(37), waiting: nano(7) });
    let wanted = Want { target: nano(38), in_use: nano(33), waiting: nano(3) };
    assert_eq!(purses, [PurseWant { purse: purse(1), limit: nano(900), want: wanted }]);
    // What goes back is not spent any more, whether or not the answer arrives: 57 less 45.
    assert_eq!(allotment.money().left(), nano(12));
    assert_eq!(allotment.purse(purse(1)).unwrap().left(), nano(8));
    // The answer, with less than was wanted.
    allotment.replied(&lends(40, &[35]), &purses, &sent, (NOW, LEASE));
    assert_eq!(allotment.money().left(), nano(10));
    assert_eq!(allotment.purse(purse(1)).unwrap().left(), nano(5));
}

#[test]
fn what_is_told_again_is_owed_once_more() {
    let mut allotment = allotment(100, &[(1, 60)]);
    let hold = allotment.place(nano(30), &[(purse(1), nano(60))], NOW).unwrap();
    let (charge, settled) = allotment.settle(hold, nano(30));
    let mut sent = Sent::default();
    sent.add(charge, &settled);
    let (_, purses) = allotment.wants(nothing, |_| nano(70), &sent);
    allotment.replied(&lends(70, &[30]), &purses, &sent, (NOW, LEASE));
    allotment.owe(charge, &settled);
    assert_eq!(allotment.money().left(), nano(40));
    assert_eq!(allotment.purse(purse(1)).unwrap().left(), nano(0));
    let (want, _) = allotment.wants(nothing, nothing, &Sent::default());
    assert_eq!(want.target, nano(30));
    let (want, purses) = allotment.wants(nothing, nothing, &sent);
    assert_eq!(want.target, nano(0));
    allotment.replied(&lends(0, &[0]), &purses, &sent, (NOW, LEASE));
    assert!(allotment.is_idle());
}

#[test]
fn every_question_is_later_than_the_one_before() {
    let mut allotment = allotment(1, &[]);
    assert_eq!(allotment.ask(NOW), NOW);
    assert_eq!(allotment.ask(NOW), Tick(NOW.0 + 1));
    assert_eq!(allotment.ask(Tick(5)), Tick(NOW.0 + 2));
    assert_eq!(allotment.ask(Tick(NOW.0 + 9)), Tick(NOW.0 + 9));
}

#[test]
fn ceilings_are_forgotten_when_nobody_uses_them_and_nothing_is_in_them() {
    let mut allotment = allotment(100, &[(1, 0), (2, 50), (3, 50)]);
    let later = Tick(NOW.0 + 1_000);
    assert!(allotment.is_used(purse(1), NOW) && !allotment.is_used(purse(1), later));
    let hold = allotment.place(nano(50), &[(purse(3), nano(50))], NOW).unwrap();
    allotment.forget_purses(NOW);
    assert!((1..4).all(|id| allotment.purse(purse(id)).is_some()), "all were used just now");
    // What is lent stays, and what is held or owed with nothing lent any more.
    let (_, named) = allotment.wants(nothing, nothing, &Sent::default());
    allotment.replied(&lends(100, &[0, 50, 0]), &named, &Sent::default(), (NOW, LEASE));
    let known = |allotment: &Allotment| [1, 2, 3].map(|id| allotment.purse(purse(id)).is_some());
    allotment.forget_purses(later);
    assert_eq!(known(&allotment), [false, true, true]);
    let (charge, settled) = allotment.settle(hold, nano(50));
    allotment.forget_purses(later);
    assert_eq!((charge, known(&allotment)), (nano(50), [false, true, true]));
    let mut sent = Sent::default();
    sent.add(charge, &settled);
    let (_, named) = allotment.wants(nothing, nothing, &sent);
    allotment.replied(&lends(0, &[0, 0]), &named, &sent, (NOW, LEASE));
    allotment.forget_purses(later);
    assert_eq!(known(&allotment), [false; 3]);
}

#[test]
fn it_is_idle_when_nothing_is_lent_held_or_owed() {
    assert!(Allotment::new(Funding::Prepaid).is_idle());
    assert!(!allotment(1, &[]).is_idle());
    assert!(!allotment(0, &[(1, 1)]).is_idle());
    let mut free = Allotment::new(Funding::Unmetered);
    let hold = free.place(nano(5), &[], NOW).unwrap();
    assert!(!free.is_idle());
    let (charge, purses) = free.settle(hold, nano(5));
    assert!(!free.is_idle());
    let mut sent = Sent::default();
    sent.add(charge, &purses);
    let (_, named) = free.wants(nothing, nothing, &sent);
    free.replied(&Reply::default(), &named, &sent, (NOW, LEASE));
    assert!(free.is_idle());
}
