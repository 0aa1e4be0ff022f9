//! What every database must do with settings: one version for all of them, and a history that stays.

use tokenroute_store::{SettingChange, SettingKind, StoredSettings};

use crate::support::{Fresh, T0, after};

const ACME: SettingChange<'_> = SettingChange::Put {
    kind: SettingKind::Provider,
    name: "acme",
    content: r#"{"base_url":"https://acme.test"}"#,
};
const SEALED: SettingChange<'_> = SettingChange::Seal {
    provider: "acme",
    origin: "https://acme.test:443",
    sealed: b"\0\x01ciphertext\xff",
};

fn tier(content: &str) -> SettingChange<'_> {
    SettingChange::Put { kind: SettingKind::Tier, name: "gold", content }
}

/// Kind, name and version of each.
fn names(stored: &StoredSettings) -> Vec<(SettingKind, &str, i64)> {
    stored.settings.iter().map(|one| (one.kind, one.name.as_str(), one.version)).collect()
}

async fn settings_are_read_back_whole(fresh: &impl Fresh) {
    let database = fresh.database();
    assert_eq!(database.settings().await.unwrap(), StoredSettings::default());
    assert_eq!(database.settings_version().await.unwrap(), 0);

    let done = database.acting("ada").change_settings(0, &[ACME, SEALED, tier("{}")], T0).await;
    assert_eq!(done.unwrap(), Ok(3), "each change is a version");
    let stored = database.settings().await.unwrap();
    assert_eq!(stored.version, 3);
    assert_eq!(
        names(&stored),
        [(SettingKind::Provider, "acme", 1), (SettingKind::Tier, "gold", 3)]
    );
    assert_eq!(stored.settings[0].content, r#"{"base_url":"https://acme.test"}"#);
    assert_eq!(stored.settings[0].changed, T0);
    assert_eq!(stored.credentials[0].origin, "https://acme.test:443");
    assert_eq!(stored.credentials[0].sealed, b"\0\x01ciphertext\xff");

    let again = [tier(r#"{"concurrency":2}"#)];
    assert_eq!(database.acting("ada").change_settings(3, &again, after(1)).await.unwrap(), Ok(4));
    let stored = database.settings().await.unwrap();
    assert_eq!((stored.settings.len(), stored.settings[1].version), (2, 4));
    assert_eq!(stored.settings[1].changed, after(1));

    let gone = [SettingChange::Remove { kind: SettingKind::Provider, name: "acme" }];
    assert_eq!(database.acting("ada").change_settings(4, &gone, after(2)).await.unwrap(), Ok(5));
    let stored = database.settings().await.unwrap();
    assert_eq!(names(&stored), [(SettingKind::Tier, "gold", 4)]);
    assert_eq!(stored.credentials, [], "the secret goes with its provider");
}

async fn a_secret_can_be_taken_away_alone(fresh: &impl Fresh) {
    let database = fresh.database();
    database.acting("ada").change_settings(0, &[ACME, SEALED], T0).await.unwrap().unwrap();
    let gone = [SettingChange::Unseal { provider: "acme" }];
    assert_eq!(database.acting("ada").change_settings(2, &gone, T0).await.unwrap(), Ok(3));
    let stored = database.settings().await.unwrap();
    assert_eq!((stored.settings.len(), stored.credentials.len(), stored.version), (1, 0, 3));
}

async fn a_change_is_made_only_to_what_was_read(fresh: &impl Fresh) {
    let database = fresh.database();
    database.acting("ada").change_settings(0, &[ACME], T0).await.unwrap().unwrap();
    let late = database.acting("bob").change_settings(0, &[tier("{}")], T0).await.unwrap();
    assert_eq!(late, Err(1));
    assert_eq!(names(&database.settings().await.unwrap()), [(SettingKind::Provider, "acme", 1)]);
    assert_eq!(database.settings_history((None, None), None, 9).await.unwrap().len(), 1);

    // All at the same time, from the same reading: one is first.
    let changes = [tier("{}")];
    let ada = database.acting("ada");
    let tries = (0..8).map(|_| ada.change_settings(1, &changes, T0));
    let mut done = 0;
    for result in futures_util::future::join_all(tries).await {
        done += usize::from(result.unwrap() == Ok(2));
    }
    assert_eq!((done, database.settings_version().await.unwrap()), (1, 2));
}

async fn the_history_tells_who_did_what(fresh: &impl Fresh) {
    let database = fresh.database();
    let gone = SettingChange::Remove { kind: SettingKind::Tier, name: "gold" };
    let changes = [ACME, SEALED, tier("{}"), gone];
    database.acting("ada").change_settings(0, &changes, T0).await.unwrap().unwrap();
    database.acting("bob").change_settings(4, &[tier("{}")], after(1)).await.unwrap().unwrap();

    let all = database.settings_history((None, None), None, 9).await.unwrap();
    let told: Vec<_> =
        all.iter().map(|one| (one.version, one.kind.as_str(), one.content.is_some())).collect();
    let expected = [
        (5, "tier", true),
        (4, "tier", false),
        (3, "tier", true),
        (2, "credential", true),
        (1, "provider", true),
    ];
    assert_eq!(told, expected);
    assert_eq!((all[0].actor.as_str(), all[0].changed), ("bob", after(1)));
    assert_eq!(all[3].content.as_deref(), Some("https://acme.test:443"), "whereto, no secret");

    let versions = async |what, before, limit| -> Vec<i64> {
        let page = database.settings_history(what, before, limit).await.unwrap();
        page.iter().map(|one| one.version).collect()
    };
    assert_eq!(versions((None, None), Some(5), 2).await, [4, 3]);
    assert_eq!(versions((Some("tier"), None), None, 9).await, [5, 4, 3]);
    assert_eq!(versions((None, Some("acme")), None, 9).await, [2, 1]);
    assert_eq!(versions((Some("tier"), Some("acme")), None, 9).await, [0; 0]);
    let line = database.setting_at(3).await.unwrap().unwrap();
    assert_eq!((line.name.as_str(), line.content.as_deref()), ("gold", Some("{}")));
    assert_eq!(database.setting_at(9).await.unwrap(), None);
}

async fn what_is_read_is_of_one_moment(fresh: &impl Fresh) {
    let database = fresh.database();
    // A provider and its secret come and go together: nobody reads one without the other.
    let writing = async {
        for version in 0..20 {
            let there = [ACME, SEALED];
            let gone = [SettingChange::Remove { kind: SettingKind::Provider, name: "acme" }];
            let now = version * 3;
            assert_eq!(
                database.acting("ada").change_settings(now, &there, T0).await.unwrap(),
                Ok(now + 2)
            );
            assert_eq!(
                database.acting("ada").change_settings(now + 2, &gone, T0).await.unwrap(),
                Ok(now + 3)
            );
        }
    };
    let reading = async {
        let mut seen = 0;
        while seen < 60 {
            let Ok(stored) = database.settings().await else { continue };
            assert_eq!(stored.settings.len(), stored.credentials.len(), "{}", stored.version);
            assert_eq!(stored.settings.len(), usize::from(stored.version % 3 != 0));
            seen = stored.version;
        }
    };
    tokio::join!(writing, reading);
}

on_every_database! {
    settings_are_read_back_whole,
    a_secret_can_be_taken_away_alone,
    a_change_is_made_only_to_what_was_read,
    the_history_tells_who_did_what,
    what_is_read_is_of_one_moment,
}
