//! What every database must do with the audit log: a row a change, in its transaction, in a chain.

use tokenroute_domain::id::KeyId;
use tokenroute_domain::key::{Funding, Terms};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::{Ceiling, Period};
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{AccountTerms, Added, AuditLine, Chain, NewKey, Pocket, Room, Rotation};

use crate::money::movement;
use crate::support::{Fresh, T0, account, after, hash, key_id, new_key};

const ROOM: Room = Room { live_max: 3, new_max: 5, since: T0 };

fn told(lines: &[AuditLine]) -> Vec<(&str, &str)> {
    lines.iter().rev().map(|line| (line.action.as_str(), line.subject.as_str())).collect()
}

async fn every_change_is_written_down_once_with_who_did_it(fresh: &impl Fresh) {
    let database = fresh.database();
    let acting = database.acting("user usr_1");
    assert_eq!(database.verify_audit_log().await.unwrap(), Chain::Sound { rows: 0, head: [0; 32] });
    acting.create_account(account(), "acme", Funding::Prepaid, T0).await.unwrap();
    let terms = Terms {
        ceilings: vec![Ceiling { period: Period::Total, limit: NanoUsd(2_500_000_000) }],
        models: Some(vec!["secret-model".into()]),
        ..Terms::default()
    };
    acting.create_key(&NewKey { terms, name: "a typed secret", ..new_key(1) }).await.unwrap();
    let silver = |own: &mut AccountTerms| own.tier = Some("silver".into());
    acting.change_account(account(), silver, after(1)).await.unwrap();
    let end = |_: &mut Terms, expires: &mut Option<Timestamp>| *expires = Some(after(9));
    acting.change_key(key_id(1), end, after(2)).await.unwrap();
    acting.revoke_key(key_id(1), after(3)).await.unwrap();
    database.grant(&movement("a", 5), after(4)).await.unwrap();
    database.withdraw(&movement("b", 3), Pocket::Customer, after(5)).await.unwrap();
    let lines = database.audit_log(None, 100).await.unwrap();
    let (account, key) = (account().to_string(), key_id(1).to_string());
    let wanted = [
        ("account.create", &*account),
        ("key.create", &key),
        ("account.change", &account),
        ("key.change", &key),
        ("key.revoke", &key),
        ("credit.add", &account),
        ("credit.withdraw", &account),
    ];
    assert_eq!(told(&lines), wanted);
    let actors: Vec<_> = lines.iter().rev().map(|line| line.actor.as_str()).collect();
    assert_eq!(actors[..5], ["user usr_1"; 5]);
    assert_eq!(actors[5..], ["tester"; 2]);
    let created = &lines[5];
    assert_eq!((created.sequence, created.time), (2, T0));
    let wanted = format!(r#"{{"account":"{account}","ceiling_usd":"2.50","models":1}}"#);
    assert_eq!(created.detail, wanted);
    let page = database.audit_log(Some(lines[2].sequence), 2).await.unwrap();
    assert_eq!(page, lines[3..5]);
    let chain = database.verify_audit_log().await.unwrap();
    assert!(matches!(chain, Chain::Sound { rows: 7, .. }), "{chain:?}");
}

async fn what_changes_nothing_is_not_written_down(fresh: &impl Fresh) {
    let database = fresh.database();
    let acting = database.acting("tester");
    acting.create_account(account(), "acme", Funding::Prepaid, T0).await.unwrap();
    acting.create_key(&new_key(1)).await.unwrap();
    acting.revoke_key(key_id(1), T0).await.unwrap();
    let before = database.audit_log(None, 100).await.unwrap();
    assert!(!acting.create_account(account(), "acme", Funding::Prepaid, T0).await.unwrap());
    assert!(!acting.create_key(&new_key(1)).await.unwrap());
    assert!(acting.revoke_key(key_id(1), T0).await.unwrap().is_some());
    assert!(acting.revoke_key(key_id(9), T0).await.unwrap().is_none());
    database.withdraw(&movement("b", 3), Pocket::Customer, T0).await.unwrap();
    assert_eq!(database.audit_log(None, 100).await.unwrap(), before);
}

async fn changes_at_the_same_time_make_one_chain(fresh: &impl Fresh) {
    let database = fresh.database();
    database
        .acting("tester")
        .create_account(account(), "acme", Funding::Prepaid, T0)
        .await
        .unwrap();
    let second = fresh.second().await;
    let tasks: Vec<_> = (1..21)
        .map(|number| {
            let database = if number % 2 == 0 { second.clone() } else { database.clone() };
            tokio::spawn(async move {
                let actor = format!("uid {number}");
                database.acting(&actor).create_key(&new_key(number)).await.unwrap();
                database.grant(&movement(&actor, 1), T0).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let chain = database.verify_audit_log().await.unwrap();
    assert!(matches!(chain, Chain::Sound { rows: 41, .. }), "{chain:?}");
}

async fn a_key_is_taken_over_with_all_that_bounds_it(fresh: &impl Fresh) {
    let database = fresh.database();
    let acting = database.acting("tester");
    acting.create_account(account(), "acme", Funding::Prepaid, T0).await.unwrap();
    let terms = Terms { tier: Some("gold".into()), ..Terms::default() };
    let key = NewKey { terms: terms.clone(), expires: Some(after(50)), ..new_key(1) };
    assert_eq!(acting.create_key_within(&key, ROOM).await.unwrap(), Added::Done);
    let rotation = |old: KeyId, new: u8, old_until| Rotation {
        old,
        account: account(),
        id: key_id(new),
        hash: hash(new),
        shown: "sk-tr-new",
        old_until,
    };
    let taken = acting.rotate_key(&rotation(key_id(1), 2, after(10)), ROOM, after(5)).await;
    assert_eq!(taken.unwrap(), Added::Done);
    let (old, new) = (
        database.key(key_id(1)).await.unwrap().unwrap(),
        database.key(key_id(2)).await.unwrap().unwrap(),
    );
    assert_eq!((old.expires, old.revoked), (Some(after(10)), None));
    assert_eq!((new.expires, new.created), (Some(after(50)), after(5)));
    assert_eq!((&new.terms, &new.name), (&terms, &old.name));
    let at_once = acting.rotate_key(&rotation(key_id(2), 3, after(6)), ROOM, after(6)).await;
    assert_eq!(at_once.unwrap(), Added::Done);
    assert!(database.find_key(&hash(2)).await.unwrap().is_none());
    let gone = acting.rotate_key(&rotation(key_id(2), 4, after(7)), ROOM, after(7)).await;
    assert_eq!(gone.unwrap(), Added::Refused, "it is revoked");
    let other = Rotation { account: crate::money::other_account(), ..rotation(key_id(3), 4, T0) };
    assert_eq!(acting.rotate_key(&other, ROOM, after(7)).await.unwrap(), Added::Refused);
}

async fn an_account_has_room_for_so_many_keys(fresh: &impl Fresh) {
    let database = fresh.database();
    let acting = database.acting("tester");
    acting.create_account(account(), "acme", Funding::Prepaid, T0).await.unwrap();
    let create = async |number| acting.create_key_within(&new_key(number), ROOM).await.unwrap();
    for number in 1..4 {
        assert_eq!(create(number).await, Added::Done);
    }
    assert_eq!(create(4).await, Added::Full, "too many that work");
    for number in 1..4 {
        acting.revoke_key_of(account(), key_id(number), T0).await.unwrap();
    }
    assert_eq!([create(4).await, create(5).await], [Added::Done; 2]);
    assert_eq!(create(6).await, Added::Full, "too many in a short time");
    let listed = database.keys_of(account(), Some(key_id(2)), 2).await.unwrap();
    assert_eq!(listed.iter().map(|key| key.id).collect::<Vec<_>>(), [key_id(3), key_id(4)]);
    let other = crate::money::other_account();
    assert_eq!(acting.revoke_key_of(other, key_id(4), T0).await.unwrap(), None);
    assert_eq!(database.keys_of(other, None, 9).await.unwrap(), []);
    assert!(database.find_key(&hash(4)).await.unwrap().is_some());
}

on_every_database! {
    every_change_is_written_down_once_with_who_did_it,
    what_changes_nothing_is_not_written_down,
    changes_at_the_same_time_make_one_chain,
    a_key_is_taken_over_with_all_that_bounds_it,
    an_account_has_room_for_so_many_keys,
}
