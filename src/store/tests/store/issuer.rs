//! What every database must do with the embedded issuer's users, links, codes and tokens.

use std::time::Duration;

use tokenroute_domain::id::{AccountId, UserId};
use tokenroute_store::{
    Database, IssuerKey, LocalUser, NewDevice, NewRefresh, Polled, Redeemed, Role, Rotated, User,
};

use crate::support::{Fresh, T0, after};

fn local(login: &str) -> LocalUser {
    LocalUser {
        subject: format!("subject of {login}"),
        login: login.to_owned(),
        password: "$argon2id$…".to_owned(),
    }
}

fn user(login: &str, chance: u128) -> User {
    User {
        id: UserId::new(T0, chance),
        issuer: "embedded".to_owned(),
        subject: format!("subject of {login}"),
        account: AccountId::new(T0, chance),
        display_name: login.to_owned(),
        email: None,
        role: Role::User,
        is_active: true,
        created: after(5),
    }
}

async fn redeem(database: &Database, token: u8, login: &str, chance: u128) -> Redeemed {
    let (local, user) = (local(login), user(login, chance));
    database.redeem_link(&[token; 32], &local, &user).await.unwrap()
}

async fn a_link_makes_one_user_of_its_role(fresh: &impl Fresh) {
    let database = fresh.database();
    for token in [1, 2] {
        database
            .acting("tester")
            .create_link(&[token; 32], Role::Admin, (T0, after(60)))
            .await
            .unwrap();
    }
    assert_eq!(database.link(&[1; 32], after(59)).await.unwrap(), Some(Role::Admin));
    assert_eq!(database.link(&[1; 32], after(60)).await.unwrap(), None);
    assert!(!database.any_local_user().await.unwrap());
    assert_eq!(redeem(database, 9, "ann", 1).await, Redeemed::NoLink);
    assert_eq!(redeem(database, 1, "ann", 1).await, Redeemed::Done);
    assert!(database.any_local_user().await.unwrap());
    assert_eq!(database.local_user("ann").await.unwrap(), Some(local("ann")));
    assert_eq!(database.local_user("Ann").await.unwrap(), None);
    let made = database.user_of("embedded", "subject of ann").await.unwrap().unwrap();
    assert_eq!(made, User { role: Role::Admin, ..user("ann", 1) });
    let log = database.audit_log(None, 1).await.unwrap();
    assert_eq!((log[0].action.as_str(), &*log[0].detail), ("user.create", r#"{"role":"admin"}"#));
    assert_eq!(log[0].actor, format!("user {}", made.id));
    assert_eq!(redeem(database, 1, "bob", 2).await, Redeemed::NoLink, "it is used");
    assert_eq!(redeem(database, 2, "bob", 2).await, Redeemed::NoLink, "it was for the same");
}

async fn a_link_is_not_used_up_for_a_login_that_is_taken(fresh: &impl Fresh) {
    let database = fresh.database();
    database.acting("tester").create_link(&[1; 32], Role::Admin, (T0, after(60))).await.unwrap();
    assert_eq!(redeem(database, 1, "ann", 1).await, Redeemed::Done);
    database.acting("tester").create_link(&[2; 32], Role::User, (T0, after(60))).await.unwrap();
    database.acting("tester").create_link(&[3; 32], Role::User, (T0, after(60))).await.unwrap();
    assert_eq!(redeem(database, 2, "ann", 2).await, Redeemed::LoginTaken);
    assert_eq!(redeem(database, 2, "bob", 2).await, Redeemed::Done);
    assert_eq!(redeem(database, 3, "carol", 3).await, Redeemed::Done, "invitations stay");
}

fn device(number: u8, user_code: &str) -> NewDevice<'_> {
    NewDevice {
        device: [number; 32],
        user_code,
        client: "client",
        scope: "scope",
        pause_seconds: 5,
        created: T0,
        expires: after(600),
    }
}

async fn a_device_is_told_what_is_decided_once(fresh: &impl Fresh) {
    let database = fresh.database();
    assert!(database.create_device(&device(1, "AAAA")).await.unwrap());
    assert!(!database.create_device(&device(2, "AAAA")).await.unwrap(), "the code is taken");
    assert!(database.create_device(&device(2, "BBBB")).await.unwrap());
    let poll = async |number: u8, client: &str, seconds| {
        database.poll_device(&[number; 32], client, after(seconds)).await.unwrap()
    };
    assert_eq!(poll(1, "client", 1).await, Polled::Pending);
    assert_eq!(poll(1, "client", 5).await, Polled::TooSoon);
    assert_eq!(poll(1, "client", 14).await, Polled::TooSoon, "ten seconds now");
    assert_eq!(poll(1, "client", 29).await, Polled::Pending, "fifteen now");
    assert_eq!(poll(1, "else", 60).await, Polled::Unknown);
    assert_eq!(poll(9, "client", 60).await, Polled::Unknown);
    assert_eq!(poll(2, "client", 600).await, Polled::Expired);
    assert!(database.is_device_pending("AAAA", after(60)).await.unwrap());
    assert!(!database.decide_device("ZZZZ", ("ann", true), after(60)).await.unwrap());
    assert!(!database.decide_device("AAAA", ("ann", true), after(600)).await.unwrap());
    assert!(database.decide_device("AAAA", ("ann", true), after(60)).await.unwrap());
    assert!(!database.decide_device("AAAA", ("eve", false), after(60)).await.unwrap());
    assert!(database.decide_device("BBBB", ("ann", false), after(60)).await.unwrap());
    assert_eq!(poll(2, "client", 61).await, Polled::Declined);
    assert_eq!(poll(1, "else", 61).await, Polled::Unknown);
    let approved = Polled::Approved { subject: "ann".to_owned(), scope: "scope".to_owned() };
    assert_eq!(poll(1, "client", 61).await, approved);
    assert_eq!(poll(1, "client", 62).await, Polled::Unknown, "it is used");
}

async fn of_many_who_ask_at_once_one_is_let_in(fresh: &impl Fresh) {
    let database = fresh.database();
    assert!(database.create_device(&device(1, "AAAA")).await.unwrap());
    assert!(database.decide_device("AAAA", ("ann", true), after(1)).await.unwrap());
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move {
                database.poll_device(&[1; 32], "client", after(2)).await.unwrap()
            })
        })
        .collect();
    let mut approved = 0;
    for one in asking {
        let polled = one.await.unwrap();
        let is_approved = matches!(polled, Polled::Approved { .. });
        assert!(is_approved || polled == Polled::Unknown, "{polled:?}");
        approved += usize::from(is_approved);
    }
    assert_eq!(approved, 1);
}

async fn first_refresh(database: &Database, token: u8, family: &str) {
    let new = NewRefresh {
        token: [token; 32],
        family,
        subject: "ann",
        client: "client",
        scope: "scope",
        created: T0,
        expires: after(60),
    };
    database.create_refresh(&new).await.unwrap();
}

async fn rotate(database: &Database, token: u8, next: u8, seconds: u64) -> Rotated {
    let (token, next) = ([token; 32], [next; 32]);
    let rotated =
        database.rotate_refresh((&token, "client"), (&next, after(seconds + 60)), after(seconds));
    rotated.await.unwrap()
}

async fn a_refresh_token_works_once_and_its_copy_ends_the_family(fresh: &impl Fresh) {
    let database = fresh.database();
    first_refresh(database, 1, "one").await;
    first_refresh(database, 100, "other").await;
    let done = Rotated::Done { subject: "ann".to_owned(), scope: "scope".to_owned() };
    assert_eq!(rotate(database, 1, 2, 10).await, done);
    assert_eq!(rotate(database, 2, 3, 65).await, done, "its time began anew");
    assert_eq!(rotate(database, 1, 9, 66).await, Rotated::Reused);
    assert_eq!(rotate(database, 3, 4, 67).await, Rotated::Unknown, "the family is ended");
    assert_eq!(rotate(database, 1, 9, 68).await, Rotated::Unknown);
    assert_eq!(rotate(database, 100, 101, 59).await, done, "others are not");
    assert_eq!(rotate(database, 101, 102, 119).await, Rotated::Unknown, "its time is over");
    let other = database.rotate_refresh((&[101; 32], "else"), (&[7; 32], after(99)), after(61));
    assert_eq!(other.await.unwrap(), Rotated::Unknown, "it is another client's");
    assert_eq!(rotate(database, 101, 102, 61).await, done);
    database.revoke_refresh(&[102; 32], "else").await.unwrap();
    assert_eq!(rotate(database, 102, 103, 62).await, done);
    database.revoke_refresh(&[103; 32], "client").await.unwrap();
    assert_eq!(rotate(database, 103, 104, 63).await, Rotated::Unknown);
    first_refresh(database, 50, "third").await;
    database.revoke_refreshes_of("ann").await.unwrap();
    assert_eq!(rotate(database, 50, 51, 1).await, Rotated::Unknown);
}

async fn of_many_copies_at_once_none_is_left(fresh: &impl Fresh) {
    let database = fresh.database();
    first_refresh(database, 1, "one").await;
    let rotating: Vec<_> = (2..10)
        .map(|next| {
            let database = database.clone();
            tokio::spawn(async move { rotate(&database, 1, next, 1).await })
        })
        .collect();
    let mut done = 0;
    for one in rotating {
        done += usize::from(matches!(one.await.unwrap(), Rotated::Done { .. }));
    }
    assert_eq!(done, 1);
    for next in 2..10 {
        assert_eq!(rotate(database, next, 99, 2).await, Rotated::Unknown, "{next}");
    }
}

fn key(kid: &str, seconds: u64) -> IssuerKey {
    IssuerKey {
        kid: kid.to_owned(),
        sealed: vec![1, 2, 3],
        public: "{}".to_owned(),
        created: after(seconds),
        retired: None,
    }
}

async fn a_new_key_retires_the_others(fresh: &impl Fresh) {
    let database = fresh.database();
    assert_eq!(database.issuer_keys().await.unwrap(), []);
    database.add_issuer_key(&key("a", 1)).await.unwrap();
    database.add_issuer_key(&key("b", 2)).await.unwrap();
    let old = IssuerKey { retired: Some(after(2)), ..key("a", 1) };
    assert_eq!(database.issuer_keys().await.unwrap(), [key("b", 2), old]);
}

async fn tries_are_counted_by_what_and_when(fresh: &impl Fresh) {
    let database = fresh.database();
    for wanted in 1..=3 {
        assert_eq!(database.count_try("login '; --", 7).await.unwrap(), wanted);
    }
    assert_eq!(database.count_try("login '; --", 8).await.unwrap(), 1);
    assert_eq!(database.count_try("else", 7).await.unwrap(), 1);
}

async fn what_is_over_is_forgotten_after_a_while(fresh: &impl Fresh) {
    let database = fresh.database();
    database.acting("tester").create_link(&[1; 32], Role::User, (T0, after(60))).await.unwrap();
    assert!(database.create_device(&device(1, "AAAA")).await.unwrap());
    first_refresh(database, 1, "one").await;
    database.add_issuer_key(&key("a", 1)).await.unwrap();
    database.add_issuer_key(&key("b", 60)).await.unwrap();
    database.count_try("what", 7).await.unwrap();
    let purge = async |window, seconds| {
        let keep = Duration::from_secs(100);
        database.purge_issuer((window, after(seconds)), keep).await.unwrap();
    };
    purge(7, 160).await;
    assert_eq!(database.link(&[1; 32], after(1)).await.unwrap(), Some(Role::User));
    assert_eq!(database.issuer_keys().await.unwrap().len(), 2);
    assert_eq!(database.count_try("what", 7).await.unwrap(), 2);
    purge(8, 161).await;
    assert_eq!(database.link(&[1; 32], after(1)).await.unwrap(), None);
    assert_eq!(rotate(database, 1, 2, 1).await, Rotated::Unknown);
    assert_eq!(database.issuer_keys().await.unwrap(), [key("b", 60)]);
    assert_eq!(database.count_try("what", 7).await.unwrap(), 1);
    assert!(database.is_device_pending("AAAA", after(1)).await.unwrap());
    purge(8, 701).await;
    assert!(!database.is_device_pending("AAAA", after(1)).await.unwrap());
}

on_every_database! {
    a_link_makes_one_user_of_its_role,
    a_link_is_not_used_up_for_a_login_that_is_taken,
    a_device_is_told_what_is_decided_once,
    of_many_who_ask_at_once_one_is_let_in,
    a_refresh_token_works_once_and_its_copy_ends_the_family,
    of_many_copies_at_once_none_is_left,
    a_new_key_retires_the_others,
    tries_are_counted_by_what_and_when,
    what_is_over_is_forgotten_after_a_while,
}
