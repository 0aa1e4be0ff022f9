//! What every database must do with people who log in.

use tokenroute_domain::id::{AccountId, UserId};
use tokenroute_domain::key::Funding;
use tokenroute_store::{Role, User};

use crate::support::{Fresh, T0, after};

fn user(chance: u128) -> User {
    User {
        id: UserId::new(T0, chance),
        issuer: "https://issuer.example".to_owned(),
        subject: format!("subject {chance}"),
        account: AccountId::new(T0, chance),
        display_name: "naïve '; DROP TABLE users; --".to_owned(),
        email: Some("a@example.org".to_owned()),
        role: Role::User,
        is_active: true,
        created: after(1),
    }
}

async fn a_user_comes_with_an_account_of_its_own(fresh: &impl Fresh) {
    let database = fresh.database();
    let one = user(1);
    assert_eq!(database.user_of(&one.issuer, &one.subject).await.unwrap(), None);
    assert!(database.create_user(&one).await.unwrap());
    assert_eq!(database.user_of(&one.issuer, &one.subject).await.unwrap(), Some(one.clone()));
    let account = database.account(&one.id.to_string()).await.unwrap().unwrap();
    assert_eq!((account.id, account.funding), (one.account, Funding::Prepaid));
}

async fn a_subject_is_one_issuers(fresh: &impl Fresh) {
    let database = fresh.database();
    let one = user(1);
    let elsewhere = User { issuer: "https://other.example".to_owned(), ..user(2) };
    let elsewhere = User { subject: one.subject.clone(), ..elsewhere };
    assert!(database.create_user(&one).await.unwrap());
    assert!(database.create_user(&elsewhere).await.unwrap());
    let again = User { issuer: one.issuer.clone(), subject: one.subject.clone(), ..user(3) };
    assert!(!database.create_user(&again).await.unwrap(), "it is known");
    assert_eq!(
        database.account(&again.id.to_string()).await.unwrap(),
        None,
        "and no account is left over"
    );
    assert_eq!(database.user_of(&one.issuer, &one.subject).await.unwrap(), Some(one));
}

async fn what_a_user_may_do_is_changed(fresh: &impl Fresh) {
    let database = fresh.database();
    let one = user(1);
    assert!(database.create_user(&one).await.unwrap());
    assert!(database.create_user(&user(2)).await.unwrap());
    let by = database.acting("tester");
    let admin = by.change_user(one.id, (Some(Role::Admin), None), T0).await.unwrap().unwrap();
    assert_eq!(admin, User { role: Role::Admin, ..one.clone() });
    let disabled = by.change_user(one.id, (None, Some(false)), T0).await.unwrap().unwrap();
    assert_eq!(disabled, User { role: Role::Admin, is_active: false, ..one.clone() });
    assert_eq!(by.change_user(user(9).id, (None, Some(true)), T0).await.unwrap(), None);
    let log = database.audit_log(None, 9).await.unwrap();
    let said: Vec<_> =
        log.iter().map(|line| (line.action.as_str(), line.detail.as_str())).collect();
    let one_id = one.id.to_string();
    assert!(log.iter().all(|line| line.subject == one_id && line.actor == "tester"));
    assert_eq!(
        said,
        [("user.change", r#"{"status":"disabled"}"#), ("user.change", r#"{"role":"admin"}"#)]
    );
    assert_eq!(database.users(None, 9).await.unwrap(), [disabled, user(2)]);
    assert_eq!(database.users(Some(one.id), 9).await.unwrap(), [user(2)]);
    assert_eq!(database.users(None, 1).await.unwrap().len(), 1);
}

on_every_database! {
    a_user_comes_with_an_account_of_its_own,
    a_subject_is_one_issuers,
    what_a_user_may_do_is_changed,
}
