//! What every database must do with money: the ledger, escrow, posted calls, findings and usage.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokenroute_domain::id::{AccountId, CallId, NodeId};
use tokenroute_domain::key::{Funding, Terms};
use tokenroute_domain::limit::Limits;
use tokenroute_domain::money::{ACCOUNT_MAX, NanoUsd};
use tokenroute_domain::pool::{Ceiling, Period, PurseId};
use tokenroute_domain::record::{Outcome, Record};
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::Usage;
use tokenroute_store::{
    AccountTerms, Balance, Database, Error, Finding, LedgerLine, Moved, Movement, NewKey, Pocket,
    PostedCall, UsageRow,
};

use crate::support::{Fresh, T0, account, after, create_keys, hash, key_id, new_key, record};

pub(crate) fn other_account() -> AccountId {
    AccountId::new(T0, 2)
}

pub(crate) async fn prepaid(database: &Database) {
    for (id, name) in [(account(), "acme"), (other_account(), "other")] {
        assert!(
            database.acting("tester").create_account(id, name, Funding::Prepaid, T0).await.unwrap()
        );
    }
}

pub(crate) fn movement(key: &str, amount: i64) -> Movement<'_> {
    Movement {
        account: account(),
        amount: NanoUsd(amount),
        idempotency_key: key,
        actor: "tester",
        note: "a note",
    }
}

pub(crate) async fn grant(database: &Database, account: AccountId, amount: i64) {
    static KEYS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let key = KEYS.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
    let moved = database.grant(&Movement { account, ..movement(&key, amount) }, T0).await.unwrap();
    assert_eq!(moved, Moved::Done);
}

fn purse() -> PurseId {
    PurseId { key: key_id(1), period: Period::Total, number: 0 }
}

fn posted_call(number: u128, charge: i64, excess: i64) -> PostedCall {
    PostedCall {
        account: account(),
        funding: Funding::Prepaid,
        record: Arc::new(Record { house_cost: NanoUsd(3), ..record(number) }),
        charge: NanoUsd(charge),
        excess: NanoUsd(excess),
        purses: vec![purse()],
    }
}

async fn is_sound(database: &Database) {
    assert_eq!(database.reconcile(None, T0).await.unwrap(), []);
}

async fn migrating_again_changes_nothing(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    assert_eq!(database.migrate().await.unwrap(), 5);
    assert_eq!(database.accounts(None, 9).await.unwrap().len(), 2);
}

async fn a_grant_counts_once(fresh: &impl Fresh) {
    let database = fresh.database();
    assert_eq!(database.grant(&movement("a", 5), T0).await.unwrap(), Moved::NoAccount);
    prepaid(database).await;
    assert_eq!(database.grant(&movement("a", 5), T0).await.unwrap(), Moved::Done);
    assert_eq!(database.grant(&movement("a", 5), after(9)).await.unwrap(), Moved::Duplicate);
    assert_eq!(database.grant(&movement("a", 6), T0).await.unwrap(), Moved::Conflict);
    let elsewhere = Movement { account: other_account(), ..movement("a", 5) };
    assert_eq!(database.grant(&elsewhere, T0).await.unwrap(), Moved::Conflict);
    let back = database.withdraw(&movement("a", 5), Pocket::Customer, T0).await.unwrap();
    assert_eq!(back, Moved::Conflict);
    for amount in [0, -1, ACCOUNT_MAX.0 - 4, i64::MAX] {
        let moved = database.grant(&movement("b", amount), T0).await.unwrap();
        assert_eq!(moved, Moved::TooMuch, "{amount}");
    }
    let moved = database.grant(&movement("b", ACCOUNT_MAX.0 - 5), T0).await.unwrap();
    assert_eq!(moved, Moved::Done, "what was refused does not use up its key");
    assert_eq!(database.balance(account()).await.unwrap().total(), ACCOUNT_MAX);
    assert_eq!(database.balance(other_account()).await.unwrap(), Balance::default());
    is_sound(database).await;
}

async fn grants_at_the_same_time_count_once(fresh: &impl Fresh) {
    prepaid(fresh.database()).await;
    let second = fresh.second().await;
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let database = if number % 2 == 0 { second.clone() } else { fresh.database().clone() };
            tokio::spawn(async move { database.grant(&movement("same", 7), T0).await.unwrap() })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += usize::from(task.await.unwrap() == Moved::Done);
    }
    assert_eq!(done, 1);
    assert_eq!(fresh.database().balance(account()).await.unwrap().customer, NanoUsd(7));
    is_sound(fresh.database()).await;
}

async fn a_withdrawal_takes_what_is_there(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 10).await;
    let take = async |key, amount, from| {
        database.withdraw(&movement(key, amount), from, T0).await.unwrap()
    };
    assert_eq!(take("w1", 11, Pocket::Customer).await, Moved::TooMuch);
    assert_eq!(take("w1", 4, Pocket::Customer).await, Moved::Done);
    assert_eq!(take("w1", 4, Pocket::Customer).await, Moved::Duplicate);
    assert_eq!(take("w2", 1, Pocket::Escrow).await, Moved::TooMuch);
    database.move_to_escrow(account(), T0).await.unwrap();
    assert_eq!(take("w2", 1, Pocket::Customer).await, Moved::TooMuch);
    assert_eq!(take("w2", 6, Pocket::Escrow).await, Moved::Done);
    assert_eq!(database.balance(account()).await.unwrap(), Balance::default());
    is_sound(database).await;
}

async fn the_ledger_is_read_in_pages(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    for second in 1..4 {
        let key = format!("g{second}");
        database.grant(&movement(&key, 10), after(second)).await.unwrap();
    }
    grant(database, other_account(), 1).await;
    let lines = database.ledger(Some(account()), None, 100).await.unwrap();
    let seen: Vec<_> =
        lines.iter().map(|line| (line.idempotency_key.as_str(), line.balance_after.0)).collect();
    assert_eq!(seen, [("credit:g3", 30), ("credit:g2", 20), ("credit:g1", 10)]);
    assert_eq!((lines[0].kind.as_str(), lines[0].actor.as_str()), ("grant", "tester"));
    assert_eq!((lines[0].note.as_str(), lines[0].created), ("a note", after(3)));
    let all = database.ledger(None, None, 100).await.unwrap();
    assert_eq!(all.len(), 8);
    let (mut paged, mut last) = (Vec::new(), None);
    while let Some(line) = database.ledger(None, last.as_ref(), 3).await.unwrap().into_iter().next()
    {
        paged.push(line.clone());
        last = Some(line);
    }
    assert_eq!(paged, all);
}

async fn what_is_written_in_the_ledger_stays(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 10).await;
    for statement in [
        "UPDATE ledger_entries SET amount = amount + 1",
        "DELETE FROM ledger_entries",
        "UPDATE ledger_transactions SET note = 'other'",
        "DELETE FROM ledger_transactions",
        "UPDATE ledger_accounts SET balance = -1 WHERE id LIKE 'customer:%'",
        "UPDATE pools SET free = -1",
        "INSERT INTO key_purses (key_id, period, number, spent) VALUES ('k', 'day', 1, -1)",
    ] {
        assert!(fresh.tamper(statement).await.is_err(), "{statement}");
    }
    is_sound(database).await;
}

async fn escrow_moves_are_numbered(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    let none = database.move_to_escrow(account(), T0).await.unwrap();
    assert_eq!((none.total, none.sequence), (NanoUsd::ZERO, 0));
    grant(database, account(), 10).await;
    let first = database.move_to_escrow(account(), T0).await.unwrap();
    assert_eq!((first.total, first.sequence), (NanoUsd(10), 1));
    assert_eq!(database.move_to_escrow(account(), T0).await.unwrap(), first);
    grant(database, account(), 5).await;
    let second = database.move_to_escrow(account(), T0).await.unwrap();
    assert_eq!((second.total, second.sequence), (NanoUsd(15), 2));
    let open = database.unapplied_moves(9).await.unwrap();
    assert_eq!(
        open.iter().map(|one| (one.sequence, one.amount.0)).collect::<Vec<_>>(),
        [(1, 10), (2, 5)]
    );
    database.mark_applied(account(), 1).await.unwrap();
    assert_eq!(database.unapplied_moves(9).await.unwrap(), open[1..]);
    assert_eq!(database.escrows(None, 9).await.unwrap(), [(account(), NanoUsd(15))]);
    assert_eq!(database.escrows(Some(account()), 9).await.unwrap(), []);
    let back = async |key, amount| database.release(&movement(key, amount), T0).await.unwrap();
    assert_eq!(back("r", 16).await, Moved::TooMuch);
    assert_eq!(back("r", 15).await, Moved::Done);
    assert_eq!(back("r", 15).await, Moved::Duplicate);
    let customer = database.balance(account()).await.unwrap();
    assert_eq!(customer, Balance { customer: NanoUsd(15), escrow: NanoUsd::ZERO });
    is_sound(database).await;
}

async fn a_call_is_posted_once(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 100).await;
    database.move_to_escrow(account(), T0).await.unwrap();
    let (one, two, three) = (posted_call(1, 10, 0), posted_call(2, 20, 4), posted_call(3, 0, 0));
    let new = database.post(&[one.clone(), one.clone(), two.clone()], T0).await.unwrap();
    assert_eq!(new, [one.record.call, two.record.call]);
    let new = database.post(&[two, three.clone(), one], after(1)).await.unwrap();
    assert_eq!(new, [three.record.call]);
    assert_eq!(database.post(&[], T0).await.unwrap(), []);
    assert_eq!(database.balance(account()).await.unwrap().escrow, NanoUsd(70));
    assert_eq!(database.spent(&[purse()]).await.unwrap(), [NanoUsd(30)]);
    let charges: Vec<_> =
        database.records_after(0, 9).await.unwrap().iter().map(|one| one.charge.0).collect();
    assert_eq!(charges, [10, 20, 0]);
    let calls = [1, 2, 3, 4].map(|number| CallId::new(T0, number));
    let recorded: BTreeSet<_> = database.recorded(&calls).await.unwrap().into_iter().collect();
    assert_eq!(recorded, calls[..3].iter().copied().collect());
    let lines = database.ledger(None, None, 100).await.unwrap();
    let house = |name: &str| -> i64 {
        lines.iter().filter(|line| line.account == name).map(|line| line.amount.0).sum()
    };
    let sums = ["revenue", "loss", "upstream_cost", "providers", "cash"]
        .map(|name| house(&format!("house:{name}")));
    assert_eq!(sums, [34, -4, -9, 9, -100]);
    is_sound(database).await;
}

async fn calls_that_are_posted_together_are_one_charge_an_account(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    for account in [account(), other_account()] {
        grant(database, account, 100).await;
        database.move_to_escrow(account, T0).await.unwrap();
    }
    let ours = |number, charge| posted_call(number, charge, 0);
    let other = PostedCall { account: other_account(), ..ours(3, 7) };
    let other = PostedCall {
        record: Arc::new(Record { account: Some(other_account()), ..record(3) }),
        ..other
    };
    database.post(&[ours(1, 10), ours(2, 20), other], T0).await.unwrap();
    database.post(&[ours(4, 5)], after(1)).await.unwrap();
    let charges = |all: Vec<LedgerLine>| -> Vec<(i64, String, String)> {
        let charges = all.into_iter().filter(|line| line.kind == "charge");
        let charges = charges.filter(|line| !line.account.starts_with("house:"));
        charges.map(|line| (line.amount.0, line.note, line.idempotency_key)).collect()
    };
    let lines = database.ledger(Some(account()), None, 100).await.unwrap();
    let key = |first, last, account| format!("records:{first}-{last}:{account}");
    assert_eq!(
        charges(lines),
        [
            (-5, "calls: 1".to_owned(), key(4, 4, account())),
            (-30, "calls: 2".to_owned(), key(1, 3, account())),
        ]
    );
    let lines = database.ledger(Some(other_account()), None, 100).await.unwrap();
    assert_eq!(charges(lines), [(-7, "calls: 1".to_owned(), key(1, 3, other_account()))]);
    is_sound(database).await;
}

async fn an_unmetered_call_leaves_the_ledger_alone(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    let call = PostedCall { funding: Funding::Unmetered, ..posted_call(1, 10, 5) };
    database.post(&[call], T0).await.unwrap();
    assert_eq!(database.spent(&[purse()]).await.unwrap(), [NanoUsd(10)]);
    assert_eq!(database.records_after(0, 9).await.unwrap()[0].charge, NanoUsd::ZERO);
    assert_eq!(database.ledger(None, None, 9).await.unwrap(), []);
    is_sound(database).await;
}

async fn more_than_there_is_cannot_be_posted(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 5).await;
    database.move_to_escrow(account(), T0).await.unwrap();
    assert!(database.post(&[posted_call(1, 3, 0), posted_call(2, 3, 0)], T0).await.is_err());
    assert_eq!(database.last_record().await.unwrap(), 0, "all or none");
    is_sound(database).await;
}

/// Drops a future when it has been polled so often.
pub(crate) async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

async fn whoever_dies_between_two_steps_leaves_all_or_nothing(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 1_000_000).await;
    database.move_to_escrow(account(), T0).await.unwrap();
    let (mut died, mut calls) = (0, Vec::new());
    for polls in 0..60 {
        let number = u128::try_from(polls).unwrap() * 2 + 1;
        let pair = [posted_call(number, 10, 1), posted_call(number + 1, 20, 0)];
        died += usize::from(dropped_after(polls, database.post(&pair, T0)).await.is_none());
        let known = database.recorded(&pair.each_ref().map(|call| call.record.call)).await.unwrap();
        assert!(known.is_empty() || known.len() == 2, "half of a transaction");
        calls.extend(pair);
    }
    assert!(died > 5, "{died} died");
    // The worker that comes after repeats all of it.
    for part in calls.chunks(7) {
        database.post(part, T0).await.unwrap();
    }
    assert_eq!(database.balance(account()).await.unwrap().escrow, NanoUsd(1_000_000 - 60 * 30));
    assert_eq!(database.spent(&[purse()]).await.unwrap(), [NanoUsd(60 * 30)]);
    is_sound(database).await;
}

async fn workers_at_the_same_time_post_each_call_once(fresh: &impl Fresh) {
    prepaid(fresh.database()).await;
    grant(fresh.database(), account(), 1_000_000).await;
    fresh.database().move_to_escrow(account(), T0).await.unwrap();
    let calls: Arc<Vec<_>> = Arc::new((1..101).map(|number| posted_call(number, 10, 1)).collect());
    let mut tasks = Vec::new();
    for worker in 0..3_usize {
        let (database, calls) = (fresh.second().await, Arc::clone(&calls));
        tasks.push(tokio::spawn(async move {
            let mut new = 0;
            for part in 0..10 {
                let start = (part * 10 + worker * 30) % 100;
                let part = &calls[start..start + 10];
                let mut tries = 0;
                new += loop {
                    match database.post(part, T0).await {
                        Ok(posted) => break posted.len(),
                        Err(error) => assert!(matches!(error, Error::Unavailable(_)), "{error}"),
                    }
                    tries += 1;
                    assert!(tries < 100, "the database is busy for ever");
                };
            }
            database.close().await;
            new
        }));
    }
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap();
    }
    assert_eq!(new, 100);
    let left = fresh.database().balance(account()).await.unwrap().escrow;
    assert_eq!(left, NanoUsd(1_000_000 - 1_000));
    is_sound(fresh.database()).await;
}

/// A key's terms with what is said of its account.
fn of_account((tier, policy): (&str, &str), account_limits: Limits, own: Terms) -> Terms {
    let (account_tier, account_policy) = (Some(tier.into()), Some(policy.into()));
    Terms { account_tier, account_policy, account_limits, ..own }
}

async fn terms_reach_edges(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    let terms = Terms {
        ceilings: vec![Ceiling { period: Period::Day, limit: NanoUsd(5) }],
        models: Some(vec!["gpt-*".into()]),
        tier: Some("gold".into()),
        limits: Limits { concurrency: Some(3), ..Limits::default() },
        ..Terms::default()
    };
    assert!(
        database
            .acting("tester")
            .create_key(&NewKey { terms: terms.clone(), ..new_key(1) })
            .await
            .unwrap()
    );
    create_keys(database, 2..4).await;
    database.acting("tester").revoke_key(key_id(3), T0).await.unwrap();
    let found = database.find_key(&hash(1)).await.unwrap().unwrap();
    assert_eq!(*found.terms, terms);
    assert_eq!(database.list_keys(None, 1).await.unwrap()[0].terms, terms);

    let start = database.key_epoch().await.unwrap();
    let limits = Limits { tokens_per_minute: Some(u64::MAX / 2), ..Limits::default() };
    let silver = |all: &mut AccountTerms| {
        (all.tier, all.policy, all.limits) = (Some("silver".into()), Some("eu".into()), limits);
    };
    let changed = database.acting("tester").change_account(account(), silver, T0).await.unwrap();
    assert_eq!(changed, Some(vec![hash(1), hash(2)]));
    assert_eq!(
        database.acting("tester").change_account(AccountId::new(T0, 9), silver, T0).await.unwrap(),
        None
    );
    let found = database.find_key(&hash(1)).await.unwrap().unwrap();
    let whole = of_account(("silver", "eu"), limits, terms.clone());
    assert_eq!(*found.terms, whole);
    let changed = database.key_changes(start, 9).await.unwrap();
    assert_eq!(changed.iter().map(|one| one.hash).collect::<Vec<_>>(), [hash(1), hash(2)]);
    assert!(changed[0].epoch < changed[1].epoch);

    let start = database.key_epoch().await.unwrap();
    let open = |own: &mut Terms, expires: &mut Option<Timestamp>| {
        own.ceilings.clear();
        *expires = Some(after(7));
    };
    assert_eq!(
        database.acting("tester").change_key(key_id(1), open, T0).await.unwrap(),
        Some(hash(1))
    );
    assert_eq!(
        database.acting("tester").change_key(key_id(3), open, T0).await.unwrap(),
        None,
        "revoked"
    );
    assert_eq!(database.acting("tester").change_key(key_id(9), open, T0).await.unwrap(), None);
    let found = database.find_key(&hash(1)).await.unwrap().unwrap();
    assert_eq!((found.expires, &found.terms.ceilings), (Some(after(7)), &vec![]));
    assert_eq!(found.terms.models, terms.models, "the rest stays");
    assert_eq!(database.key_changes(start, 9).await.unwrap()[0].hash, hash(1));

    let listed = database.account("acme").await.unwrap().unwrap();
    assert_eq!(
        (listed.terms.tier.as_deref(), listed.terms.limits, listed.keys),
        (Some("silver"), limits, 2)
    );
    assert_eq!(database.account("nobody").await.unwrap(), None);
    grant(database, account(), 8).await;
    let all = database.accounts(None, 9).await.unwrap();
    assert_eq!(all.iter().map(|one| one.balance.0).collect::<Vec<_>>(), [8, 0]);
    assert_eq!(database.accounts(Some(all[0].id), 9).await.unwrap(), all[1..]);
}

async fn epochs_are_declared_one_after_the_other(fresh: &impl Fresh) {
    let database = fresh.database();
    assert_eq!(database.hot_epoch().await.unwrap(), None);
    let first = database.declare_epoch(0, "run-a", T0).await.unwrap().unwrap();
    assert_eq!((first.epoch, first.run_id.as_str()), (1, "run-a"));
    assert_eq!(database.declare_epoch(0, "run-b", T0).await.unwrap(), None);
    let second = database.declare_epoch(1, "run-b", after(1)).await.unwrap().unwrap();
    assert_eq!(database.hot_epoch().await.unwrap(), Some(second));
}

async fn edges_live_while_they_are_heard_of(fresh: &impl Fresh) {
    let database = fresh.database();
    let nodes = [1, 2, 3].map(|number| NodeId::new(T0, number));
    for (node, second) in nodes.into_iter().zip([0, 10, 20]) {
        database.beat(node, after(second)).await.unwrap();
    }
    database.beat(nodes[0], after(15)).await.unwrap();
    assert_eq!(database.live_nodes(after(11)).await.unwrap(), [nodes[0], nodes[2]]);
    database.forget_node(nodes[2]).await.unwrap();
    assert_eq!(database.live_nodes(T0).await.unwrap(), nodes[..2]);
    database.beat(nodes[2], after(2 * 86_400)).await.unwrap();
    assert_eq!(database.live_nodes(T0).await.unwrap(), nodes[2..]);
}

fn found(subject: &str, detail: &str, amount: i64) -> Finding {
    Finding {
        kind: "odd".to_owned(),
        subject: subject.to_owned(),
        detail: detail.to_owned(),
        amount: NanoUsd(amount),
    }
}

async fn a_finding_that_an_operator_has_closed_comes_again_only_if_it_grows(fresh: &impl Fresh) {
    let database = fresh.database();
    let seen = async |amount, second| {
        database.note_finding(&found("a", "of so much", amount), after(second)).await.unwrap()
    };
    assert!(seen(5, 0).await);
    let (who, why) = ("uid 7", "paid back by hand");
    assert!(database.accept_finding("odd:a", (who, why), after(1)).await.unwrap());
    assert!(!database.accept_finding("odd:a", (who, why), after(2)).await.unwrap(), "it is closed");
    assert!(!database.accept_finding("odd:b", (who, why), after(2)).await.unwrap());
    assert!(!seen(5, 3).await && !seen(4, 4).await);
    assert_eq!(database.count_findings().await.unwrap(), []);
    assert!(seen(6, 5).await, "more is off than was put up with");
    assert_eq!(database.count_findings().await.unwrap(), [("odd".to_owned(), 1)]);
    assert!(!seen(5, 6).await, "that much was");
    // Gone and come again, it is another one.
    assert_eq!(database.close_findings("odd", after(7)).await.unwrap(), 1);
    assert!(seen(1, 8).await);
    let all = database.findings(true, 9).await.unwrap();
    assert_eq!((all.len(), all[0].id.as_str()), (1, "odd:a"));
    for statement in ["UPDATE finding_closings SET actor = 'x'", "DELETE FROM finding_closings"] {
        assert!(fresh.tamper(statement).await.is_err(), "{statement}");
    }
}

async fn findings_stand_until_they_are_seen_no_more(fresh: &impl Fresh) {
    let database = fresh.database();
    let finding = |subject: &str, detail: &str| found(subject, detail, 0);
    database.note_finding(&finding("a", "first"), T0).await.unwrap();
    database.note_finding(&finding("b", "first"), T0).await.unwrap();
    database.note_finding(&finding("a", "again"), after(5)).await.unwrap();
    assert_eq!(database.close_findings("odd", after(5)).await.unwrap(), 1);
    assert_eq!(database.close_findings("even", after(9)).await.unwrap(), 0);
    let open = database.findings(false, 9).await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].finding, finding("a", "again"));
    assert_eq!((open[0].first_seen, open[0].last_seen, open[0].is_open), (T0, after(5), true));
    assert_eq!(database.findings(true, 9).await.unwrap().len(), 2);
    database.note_price("v1", "a/b", "{}", T0).await.unwrap();
    database.note_price("v1", "a/b", "{}", after(1)).await.unwrap();
}

async fn usage_is_summed_by_account_and_key(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    create_keys(database, 1..2).await;
    let at = |number: u128, second: u64| Record {
        call: CallId::new(after(second), number),
        started: after(second),
        usage: Usage {
            input: 1,
            input_cache_read: 2,
            output: 3,
            output_audio: 4,
            ..Usage::default()
        },
        ..record(number)
    };
    let other = Record { account: Some(other_account()), key: Some(key_id(7)), ..at(5, 10) };
    database
        .insert_records(&[
            at(1, 9),
            at(2, 10),
            Record { outcome: Outcome::Cut, ..at(3, 11) },
            at(4, 20),
            other,
            Record { key: None, account: None, ..at(6, 12) },
        ])
        .await
        .unwrap();
    let acme = UsageRow {
        account: account().to_string(),
        account_name: Some("acme".to_owned()),
        key: key_id(1).to_string(),
        key_name: Some("laptop".to_owned()),
        calls: 1,
        unanswered: 1,
        input_tokens: 6,
        output_tokens: 14,
        cost: NanoUsd(154),
        charge: NanoUsd::ZERO,
        house_cost: NanoUsd(16),
    };
    let range = (after(10), after(20));
    let all = database.usage(range, None).await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0], acme);
    assert_eq!((all[1].calls, all[1].key_name.clone()), (1, None));
    assert_eq!(database.usage(range, Some(account())).await.unwrap(), [acme]);
    assert_eq!(database.usage((Timestamp(0), T0), None).await.unwrap(), []);
}

async fn what_is_wrong_in_the_books_is_found(fresh: &impl Fresh) {
    let database = fresh.database();
    prepaid(database).await;
    grant(database, account(), 100).await;
    database.move_to_escrow(account(), T0).await.unwrap();
    database.post(&[posted_call(1, 10, 0)], T0).await.unwrap();
    is_sound(database).await;
    let mut second = 0;
    for (statements, undo, kinds) in [
        (
            "UPDATE ledger_accounts SET balance = balance + 1 WHERE id = 'house:cash'",
            "UPDATE ledger_accounts SET balance = balance - 1 WHERE id = 'house:cash'",
            &["balance_entries", "ledger_sum"][..],
        ),
        ("UPDATE pools SET free = free + 1", "UPDATE pools SET free = free - 1", &["pool_balance"]),
        (
            "UPDATE records SET charge = charge + 1",
            "UPDATE records SET charge = charge - 1",
            &["charge_without_record"],
        ),
        (
            "UPDATE records SET sequence = sequence + 1000",
            "UPDATE records SET sequence = sequence - 1000",
            &["charge_without_record", "record_without_charge"],
        ),
        (
            "INSERT INTO ledger_transactions VALUES ('txn_9', 'grant', 'x', 's', 'a', 'n', 0, NULL, NULL);
             INSERT INTO ledger_entries VALUES ('txn_9', 0, 'house:cash', 0, 0)",
            "INSERT INTO ledger_entries VALUES ('txn_9', 1, 'house:cash', 5, 0)",
            &[],
        ),
        (
            "SELECT 1",
            "INSERT INTO ledger_entries VALUES ('txn_9', 2, 'house:cash', -5, 0)",
            &["balance_entries", "transaction_sum"],
        ),
    ] {
        second += 1;
        fresh.tamper(statements).await.unwrap();
        let found = database.reconcile(None, after(second)).await.unwrap();
        let found: BTreeSet<_> = found.iter().map(|one| one.kind.as_str()).collect();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), kinds, "{statements}");
        let stored = database.findings(false, 99).await.unwrap();
        let stored: BTreeSet<_> = stored.iter().map(|one| one.finding.kind.clone()).collect();
        assert_eq!(stored.into_iter().collect::<Vec<_>>(), kinds, "{statements}");
        fresh.tamper(undo).await.unwrap();
    }
    is_sound(database).await;
    assert_eq!(database.reconcile(Some(T0), after(99)).await.unwrap(), []);
}

on_every_database! {
    migrating_again_changes_nothing,
    a_grant_counts_once,
    grants_at_the_same_time_count_once,
    a_withdrawal_takes_what_is_there,
    the_ledger_is_read_in_pages,
    what_is_written_in_the_ledger_stays,
    escrow_moves_are_numbered,
    a_call_is_posted_once,
    calls_that_are_posted_together_are_one_charge_an_account,
    an_unmetered_call_leaves_the_ledger_alone,
    more_than_there_is_cannot_be_posted,
    whoever_dies_between_two_steps_leaves_all_or_nothing,
    workers_at_the_same_time_post_each_call_once,
    terms_reach_edges,
    epochs_are_declared_one_after_the_other,
    edges_live_while_they_are_heard_of,
    findings_stand_until_they_are_seen_no_more,
    a_finding_that_an_operator_has_closed_comes_again_only_if_it_grows,
    usage_is_summed_by_account_and_key,
    what_is_wrong_in_the_books_is_found,
}
