//! What every database must do for the management plane: requests that are done once, and records as their
//! owners look for them.

use tokenroute_domain::record::{Outcome, Record};
use tokenroute_domain::usage::Usage;
use tokenroute_store::{Ask, Claim, RecordFilter};

use crate::money::other_account;
use crate::support::{Fresh, T0, account, after, key_id, record};

const ASK: Ask<'_> = Ask { scope: "partner a", key: "order-1", request: [1; 32] };

async fn a_request_is_claimed_once(fresh: &impl Fresh) {
    let (database, second) = (fresh.database(), fresh.second().await);
    assert_eq!(database.claim(&ASK, T0, after(9)).await.unwrap(), Claim::Ours);
    assert_eq!(second.claim(&ASK, T0, after(9)).await.unwrap(), Claim::Theirs);
    let other = Ask { request: [2; 32], ..ASK };
    assert_eq!(second.claim(&other, T0, after(9)).await.unwrap(), Claim::Other);
    let elsewhere = Ask { scope: "partner b", ..other };
    assert_eq!(second.claim(&elsewhere, T0, after(9)).await.unwrap(), Claim::Ours);
    database.answer(&ASK, 201, b"sealed").await.unwrap();
    let done = Claim::Done { status: 201, answer: b"sealed".to_vec() };
    assert_eq!(second.claim(&ASK, T0, after(9)).await.unwrap(), done);
    assert_eq!(second.claim(&ASK, after(99), after(99)).await.unwrap(), done, "an answer stays");
    assert_eq!(second.claim(&other, after(99), after(99)).await.unwrap(), Claim::Other);
}

async fn a_claim_is_given_up_or_lapses(fresh: &impl Fresh) {
    let database = fresh.database();
    assert_eq!(database.claim(&ASK, T0, after(1)).await.unwrap(), Claim::Ours);
    database.give_up(&ASK).await.unwrap();
    let other = Ask { request: [2; 32], ..ASK };
    assert_eq!(database.claim(&other, T0, after(1)).await.unwrap(), Claim::Ours);
    assert_eq!(database.claim(&other, after(1), after(5)).await.unwrap(), Claim::Theirs);
    assert_eq!(database.claim(&ASK, after(2), after(5)).await.unwrap(), Claim::Other);
    assert_eq!(database.claim(&other, after(2), after(5)).await.unwrap(), Claim::Ours);
    assert_eq!(database.claim(&other, after(2), after(5)).await.unwrap(), Claim::Theirs);
    database.answer(&other, 200, b"sealed").await.unwrap();
    database.give_up(&other).await.unwrap();
    assert_eq!(database.forget_answers(after(5)).await.unwrap(), 0, "an answer is not given up");
    assert_eq!(database.forget_answers(after(6)).await.unwrap(), 1);
    assert_eq!(database.claim(&ASK, T0, after(7)).await.unwrap(), Claim::Ours);
}

async fn one_claim_of_many_at_once_is_good(fresh: &impl Fresh) {
    let second = fresh.second().await;
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let database = if number % 2 == 0 { second.clone() } else { fresh.database().clone() };
            tokio::spawn(async move { database.claim(&ASK, T0, after(1)).await.unwrap() })
        })
        .collect();
    let mut ours = 0;
    for task in tasks {
        ours += usize::from(task.await.unwrap() == Claim::Ours);
    }
    assert_eq!(ours, 1);
}

/// Calls of two keys of one account, and of another account.
fn calls() -> Vec<Record> {
    let of = |number: u128, key: u8, status: u16, outcome| Record {
        key: Some(key_id(key)),
        account: Some(account()),
        started: after(u64::try_from(number).unwrap()),
        status,
        outcome,
        model: Some("m".into()),
        usage: Usage { input: 10, output: 3, ..Usage::default() },
        ..record(number)
    };
    let mut all = vec![
        of(1, 1, 200, Outcome::Answered),
        of(2, 2, 200, Outcome::Answered),
        of(3, 1, 429, Outcome::Refused),
        of(4, 1, 200, Outcome::Cut),
        of(5, 1, 200, Outcome::Answered),
        of(6, 3, 200, Outcome::Answered),
    ];
    all[4].model = Some("n".into());
    all[5].account = Some(other_account());
    all
}

async fn usage_counts_what_succeeded(fresh: &impl Fresh) {
    let database = fresh.database();
    database.insert_records(&calls()).await.unwrap();
    let usage = async |key, from, to| {
        let rows = database.usage_of(account(), key, (after(from), after(to))).await.unwrap();
        rows.iter().map(|row| (row.key.clone(), row.calls, row.input_tokens)).collect::<Vec<_>>()
    };
    let (one, two) = (key_id(1).to_string(), key_id(2).to_string());
    assert_eq!(usage(None, 0, 9).await, [(one.clone(), 2, 20), (two, 1, 10)]);
    assert_eq!(usage(Some(key_id(1)), 0, 9).await, [(one.clone(), 2, 20)]);
    assert_eq!(usage(Some(key_id(1)), 2, 6).await, [(one.clone(), 1, 10)]);
    assert_eq!(usage(Some(key_id(1)), 1, 5).await, [(one, 1, 10)]);
    assert_eq!(usage(Some(key_id(3)), 0, 9).await, []);
}

async fn records_are_found_by_what_is_known_of_them(fresh: &impl Fresh) {
    let database = fresh.database();
    database.insert_records(&calls()).await.unwrap();
    let mine = RecordFilter { account: Some(account()), ..RecordFilter::default() };
    let find = async |filter: RecordFilter<'_>, before, limit| {
        let found = database.find_records(&filter, before, limit).await.unwrap();
        found.iter().map(|one| one.sequence).collect::<Vec<_>>()
    };
    assert_eq!(find(RecordFilter::default(), None, 9).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(find(mine, None, 2).await, [5, 4]);
    assert_eq!(find(mine, Some(4), 9).await, [3, 2, 1]);
    assert_eq!(find(RecordFilter { key: Some(key_id(2)), ..mine }, None, 9).await, [2]);
    assert_eq!(find(RecordFilter { key: Some(key_id(3)), ..mine }, None, 9).await, [0_i64; 0]);
    assert_eq!(find(RecordFilter { model: Some("n"), ..mine }, None, 9).await, [5]);
    assert_eq!(find(RecordFilter { status: Some((400, 499)), ..mine }, None, 9).await, [3]);
    let window = RecordFilter { from: Some(after(2)), to: Some(after(4)), ..mine };
    assert_eq!(find(window, None, 9).await, [3, 2]);
}

on_every_database! {
    a_request_is_claimed_once,
    a_claim_is_given_up_or_lapses,
    one_claim_of_many_at_once_is_good,
    usage_counts_what_succeeded,
    records_are_found_by_what_is_known_of_them,
}
