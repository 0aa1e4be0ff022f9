//! What every database must do with keys and records.

use tokenroute_domain::id::{AccountId, CallId};
use tokenroute_domain::key::{ApiKey, Funding, Terms};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::{Outcome, Record};
use tokenroute_domain::time::Timestamp;
use tokenroute_domain::usage::{Usage, UsageSource};
use tokenroute_store::{KeyChange, KeyListing, NewKey, StoredAttempt};

use crate::support::{Fresh, T0, account, after, create_keys, hash, key_id, new_key, record};

/// Texts that would do harm if they ever became part of a statement.
const HOSTILE: [&str; 7] = [
    "'; DROP TABLE api_keys; --",
    "\" OR \"\"=\"",
    "x' OR '1'='1",
    "$1",
    "\\'; DELETE FROM accounts; --",
    "%_",
    "naïve 😀\n\t",
];

async fn accounts_are_found_by_name(fresh: &impl Fresh) {
    let database = fresh.database();
    let other = AccountId::new(T0, 2);
    assert_eq!(database.account_by_name("acme").await.unwrap(), None);
    assert!(
        database
            .acting("tester")
            .create_account(account(), "acme", Funding::Prepaid, T0)
            .await
            .unwrap()
    );
    assert!(
        !database
            .acting("tester")
            .create_account(other, "acme", Funding::Unmetered, T0)
            .await
            .unwrap()
    );
    assert!(
        !database
            .acting("tester")
            .create_account(account(), "other", Funding::Unmetered, T0)
            .await
            .unwrap()
    );
    assert_eq!(database.account_by_name("acme").await.unwrap(), Some(account()));
    assert_eq!(database.account_by_name("ACME").await.unwrap(), None);
}

async fn a_key_is_found_by_its_whole_hash(fresh: &impl Fresh) {
    let database = fresh.database();
    database
        .acting("tester")
        .create_account(account(), "acme", Funding::Prepaid, T0)
        .await
        .unwrap();
    assert!(!database.any_key().await.unwrap());
    let key = NewKey { expires: Some(after(60)), ..new_key(1) };
    assert!(database.acting("tester").create_key(&key).await.unwrap());
    assert!(database.any_key().await.unwrap());
    let found = ApiKey {
        id: key_id(1),
        account: account(),
        funding: Funding::Prepaid,
        expires: Some(after(60)),
        terms: std::sync::Arc::default(),
    };
    assert_eq!(database.find_key(&hash(1)).await.unwrap(), Some(found));
    let mut nearly = hash(1);
    nearly.0[31] ^= 1;
    assert_eq!(database.find_key(&nearly).await.unwrap(), None);
}

async fn a_key_is_created_once_and_for_an_account(fresh: &impl Fresh) {
    let database = fresh.database();
    assert!(
        !database.acting("tester").create_key(&new_key(1)).await.unwrap(),
        "there is no account yet"
    );
    database
        .acting("tester")
        .create_account(account(), "acme", Funding::Unmetered, T0)
        .await
        .unwrap();
    assert!(database.acting("tester").create_key(&new_key(1)).await.unwrap());
    assert!(!database.acting("tester").create_key(&new_key(1)).await.unwrap());
    assert!(
        !database
            .acting("tester")
            .create_key(&NewKey { id: key_id(2), ..new_key(1) })
            .await
            .unwrap()
    );
    assert!(
        !database
            .acting("tester")
            .create_key(&NewKey { hash: hash(2), ..new_key(1) })
            .await
            .unwrap()
    );
    assert_eq!(database.list_keys(None, 10).await.unwrap().len(), 1);
}

async fn a_revoked_key_is_gone_and_stays_gone(fresh: &impl Fresh) {
    let database = fresh.database();
    database
        .acting("tester")
        .create_account(account(), "acme", Funding::Unmetered, T0)
        .await
        .unwrap();
    create_keys(database, 1..3).await;
    assert_eq!(database.acting("tester").revoke_key(key_id(9), T0).await.unwrap(), None);
    assert_eq!(
        database.acting("tester").revoke_key(key_id(1), after(5)).await.unwrap(),
        Some(hash(1))
    );
    assert_eq!(
        database.acting("tester").revoke_key(key_id(1), after(9)).await.unwrap(),
        Some(hash(1))
    );
    assert_eq!(database.find_key(&hash(1)).await.unwrap(), None);
    assert!(database.find_key(&hash(2)).await.unwrap().is_some());
    let listed = database.list_keys(None, 10).await.unwrap();
    assert_eq!(listed[0].revoked, Some(after(5)), "the first revocation counts");
    assert_eq!(listed[1].revoked, None);
    assert!(
        !database.acting("tester").create_key(&new_key(1)).await.unwrap(),
        "its hash cannot come back"
    );
}

async fn keys_are_listed_in_pages(fresh: &impl Fresh) {
    let database = fresh.database();
    database
        .acting("tester")
        .create_account(account(), "acme", Funding::Unmetered, T0)
        .await
        .unwrap();
    create_keys(database, 1..6).await;
    let first = database.list_keys(None, 2).await.unwrap();
    let whole = KeyListing {
        id: key_id(1),
        account: account(),
        account_name: "acme".to_owned(),
        name: "laptop".to_owned(),
        shown: "sk-tr-abcd".to_owned(),
        created: T0,
        expires: None,
        revoked: None,
        terms: Terms::default(),
    };
    assert_eq!(first[0], whole);
    let rest = database.list_keys(Some(first[1].id), 10).await.unwrap();
    let ids: Vec<_> = first.iter().chain(&rest).map(|key| key.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5].map(key_id));
}

async fn every_change_of_a_key_is_seen_once_and_in_order(fresh: &impl Fresh) {
    let database = fresh.database();
    database
        .acting("tester")
        .create_account(account(), "acme", Funding::Unmetered, T0)
        .await
        .unwrap();
    create_keys(database, 1..4).await;
    let start = database.key_epoch().await.unwrap();
    assert_eq!(database.key_changes(start, 10).await.unwrap(), []);
    database.acting("tester").revoke_key(key_id(2), after(1)).await.unwrap();
    create_keys(database, 4..5).await;
    database.acting("tester").revoke_key(key_id(1), after(2)).await.unwrap();
    let first = database.key_changes(start, 2).await.unwrap();
    let rest = database.key_changes(first[1].epoch, 10).await.unwrap();
    let seen: Vec<_> = first.iter().chain(&rest).map(|one| (one.hash, one.revoked)).collect();
    assert_eq!(seen, [(hash(2), true), (hash(4), false), (hash(1), true)]);
    let last =
        KeyChange { epoch: database.key_epoch().await.unwrap(), hash: hash(1), revoked: true };
    assert_eq!(rest, [last]);
    assert_eq!(database.revoked_since(after(2), 10).await.unwrap(), [hash(1)]);
    assert_eq!(database.revoked_since(T0, 10).await.unwrap(), [hash(1), hash(2)]);
    assert_eq!(database.revoked_since(T0, 1).await.unwrap(), [hash(1)]);
}

async fn changes_at_the_same_time_are_all_numbered(fresh: &impl Fresh) {
    let database = fresh.database();
    database
        .acting("tester")
        .create_account(account(), "acme", Funding::Unmetered, T0)
        .await
        .unwrap();
    let start = database.key_epoch().await.unwrap();
    let tasks: Vec<_> = (1..41)
        .map(|number| {
            let database = database.clone();
            tokio::spawn(
                async move { database.acting("tester").create_key(&new_key(number)).await },
            )
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().unwrap());
    }
    let changes = database.key_changes(start, 100).await.unwrap();
    let epochs: Vec<i64> = changes.iter().map(|change| change.epoch).collect();
    assert_eq!(epochs, (start + 1..start + 41).collect::<Vec<_>>());
}

async fn hostile_texts_are_only_texts(fresh: &impl Fresh) {
    let database = fresh.database();
    for (number, text) in (1_u8..).zip(HOSTILE) {
        let id = AccountId::new(T0, u128::from(number));
        assert!(
            database
                .acting("tester")
                .create_account(id, text, Funding::Unmetered, T0)
                .await
                .unwrap(),
            "{text}"
        );
        assert_eq!(database.account_by_name(text).await.unwrap(), Some(id), "{text}");
        let key = NewKey { account: id, name: text, shown: text, ..new_key(number) };
        assert!(database.acting("tester").create_key(&key).await.unwrap(), "{text}");
    }
    let listed = database.list_keys(None, 100).await.unwrap();
    assert_eq!(listed.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), HOSTILE);
    assert_eq!(listed.iter().map(|key| key.account_name.as_str()).collect::<Vec<_>>(), HOSTILE);
    assert_eq!(listed.iter().map(|key| key.shown.as_str()).collect::<Vec<_>>(), HOSTILE);
    let records: Vec<Record> = (0_u128..)
        .zip(HOSTILE)
        .map(|(number, text)| Record {
            model: Some(text.into()),
            target: Some(text.into()),
            error: Some(text),
            ..record(number)
        })
        .collect();
    database.insert_records(&records).await.unwrap();
    let stored = database.records_after(0, 100).await.unwrap();
    assert_eq!(stored.iter().filter_map(|one| one.model.as_deref()).collect::<Vec<_>>(), HOSTILE);
    assert_eq!(stored.iter().filter_map(|one| one.error.as_deref()).collect::<Vec<_>>(), HOSTILE);
}

async fn a_record_reads_back_as_it_was_written(fresh: &impl Fresh) {
    let database = fresh.database();
    let bare = Record {
        key: None,
        account: None,
        model: None,
        target: None,
        attempts: Vec::new(),
        status: 0,
        outcome: Outcome::ClientGone,
        error: Some("client_gone"),
        streamed: false,
        usage: Usage::default(),
        usage_source: UsageSource::None,
        cost: NanoUsd(-1),
        charge: NanoUsd::ZERO,
        price_version: None,
        house_cost: NanoUsd(i64::MAX),
        first_token_micros: None,
        ..record(2)
    };
    let full = record(1);
    database.insert_records(&[full.clone(), bare.clone()]).await.unwrap();
    let stored = database.records_after(0, 10).await.unwrap();
    assert_eq!(stored.len(), 2);
    let attempt = StoredAttempt {
        target: "demo/\"echo\"".to_owned(),
        why: "fallback".to_owned(),
        result: "ok".to_owned(),
        status: Some(200),
        micros: 1234,
        output_tokens: 5,
        cost: NanoUsd(77),
        house_cost: NanoUsd(8),
    };
    assert_eq!(stored[0].attempts, [attempt]);
    for (stored, record) in stored.iter().zip([&full, &bare]) {
        let attempts: Vec<_> = record.attempts.iter().map(StoredAttempt::from).collect();
        assert_eq!(stored.call, record.call.to_string());
        assert_eq!(stored.started, record.started);
        assert_eq!(stored.endpoint, record.endpoint.as_str());
        assert_eq!(stored.key, record.key.map(|id| id.to_string()));
        assert_eq!(stored.account, record.account.map(|id| id.to_string()));
        assert_eq!(stored.model.as_deref(), record.model.as_deref());
        assert_eq!(stored.target.as_deref(), record.target.as_deref());
        assert_eq!(stored.attempts, attempts);
        assert_eq!(stored.status, record.status);
        assert_eq!(stored.outcome, record.outcome.as_str());
        assert_eq!(stored.error.as_deref(), record.error);
        assert_eq!(stored.streamed, record.streamed);
        assert_eq!(stored.usage, record.usage);
        assert_eq!(stored.usage_source, record.usage_source);
        assert_eq!(stored.cost, record.cost);
        assert_eq!(stored.house_cost, record.house_cost);
        assert_eq!(stored.latency_micros, record.latency_micros);
        assert_eq!(stored.first_token_micros, record.first_token_micros);
    }
}

async fn each_kind_of_token_has_its_own_column(fresh: &impl Fresh) {
    let database = fresh.database();
    let usage = Usage {
        input: 1,
        input_cache_read: 2,
        input_cache_write: 3,
        input_cache_write_long: 4,
        input_audio: 5,
        input_image: 6,
        output: 7,
        output_reasoning: 8,
        output_audio: 9,
        output_image: 10,
    };
    let huge = Usage { input: u64::MAX, ..usage };
    let batch = [Record { usage, ..record(1) }, Record { usage: huge, ..record(2) }];
    database.insert_records(&batch).await.unwrap();
    let stored = database.records_after(0, 10).await.unwrap();
    assert_eq!(stored[0].usage, usage);
    assert_eq!(stored[1].usage.input, u64::MAX / 2, "the largest that fits, and no lost batch");
}

async fn a_call_has_one_record_however_often_it_is_written(fresh: &impl Fresh) {
    let database = fresh.database();
    let first = [record(1), record(2)];
    database.insert_records(&first).await.unwrap();
    let again = [Record { status: 500, ..record(2) }, record(3)];
    database.insert_records(&again).await.unwrap();
    database.insert_records(&[]).await.unwrap();
    let stored = database.records_after(0, 10).await.unwrap();
    let calls: Vec<_> = stored.iter().map(|one| one.call.as_str()).collect();
    assert_eq!(calls, [1, 2, 3].map(|number| CallId::new(T0, number).to_string()));
    assert_eq!(stored[1].status, 200, "the first record of a call stays");
}

async fn records_are_followed_without_gaps_or_repeats(fresh: &impl Fresh) {
    let database = fresh.database();
    assert_eq!(database.last_record().await.unwrap(), 0);
    let (mut seen, mut last) = (Vec::new(), 0);
    for round in 0..5_u128 {
        let batch: Vec<_> = (0..7).map(|number| record(round * 7 + number)).collect();
        database.insert_records(&batch).await.unwrap();
        for _page in 0..2 {
            let page = database.records_after(last, 4).await.unwrap();
            assert!(page.len() <= 4);
            last = page.last().map_or(last, |record| record.sequence);
            seen.extend(page.into_iter().map(|record| record.call));
        }
    }
    let all: Vec<_> = (0..35).map(|number| CallId::new(T0, number).to_string()).collect();
    assert_eq!(seen, all);
    assert_eq!(database.last_record().await.unwrap(), last);
}

async fn times_reach_from_the_epoch_to_the_end(fresh: &impl Fresh) {
    let database = fresh.database();
    database
        .acting("tester")
        .create_account(account(), "acme", Funding::Unmetered, Timestamp(0))
        .await
        .unwrap();
    let key = NewKey { created: Timestamp(0), expires: Some(Timestamp(u64::MAX)), ..new_key(1) };
    assert!(database.acting("tester").create_key(&key).await.unwrap());
    let found = database.find_key(&hash(1)).await.unwrap().unwrap();
    assert_eq!(found.expires, Some(Timestamp(u64::MAX / 2)), "never, for all that matters");
    assert_eq!(database.list_keys(None, 1).await.unwrap()[0].created, Timestamp(0));
}

on_every_database! {
    accounts_are_found_by_name,
    a_key_is_found_by_its_whole_hash,
    a_key_is_created_once_and_for_an_account,
    a_revoked_key_is_gone_and_stays_gone,
    keys_are_listed_in_pages,
    every_change_of_a_key_is_seen_once_and_in_order,
    changes_at_the_same_time_are_all_numbered,
    hostile_texts_are_only_texts,
    a_record_reads_back_as_it_was_written,
    each_kind_of_token_has_its_own_column,
    a_call_has_one_record_however_often_it_is_written,
    records_are_followed_without_gaps_or_repeats,
    times_reach_from_the_epoch_to_the_end,
}
