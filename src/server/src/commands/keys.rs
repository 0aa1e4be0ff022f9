//! `tokenrouted keys`: makes, lists and revokes API keys. A key itself is shown once and never kept.

use std::time::Duration;

use serde_json::json;
use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::key::{Funding, KeyHash, Pepper, RawKey, Terms};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Acting, Database, Error, KeyListing, NewKey, RedisCache};

use super::terms::{self, KeyClearing, is_name, name_rule};
use super::{DAY, End, Terminal, actor, cell, clock};

/// Keys read from the database at once.
pub(super) const PAGE: u32 = 500;
/// The account of the first key, and of keys for which none is named.
pub(crate) const ACCOUNT: &str = "default";

/// What is said of an ID that cannot be one.
const NO_ID: &str = "that is no key's ID: take one from `keys list`, such as key_01ARZ3…";

/// What a key is to be.
#[derive(Clone, Debug)]
pub(crate) struct Wish<'a> {
    /// What its owner calls it.
    pub name: &'a str,
    /// The name of the account that pays; made if it is not there, unmetered.
    pub account: &'a str,
    /// When it stops working, if ever.
    pub expires: Option<Timestamp>,
    /// What it may do.
    pub terms: Terms,
}

/// What a key is to be from now on.
#[derive(Clone, Debug)]
pub(crate) struct Change<'a> {
    /// What is taken away first.
    pub clear: &'a [KeyClearing],
    /// When it stops working, if that is to be changed.
    pub expires: Option<Timestamp>,
    /// What takes the place of what was.
    pub terms: Terms,
}

/// Makes a key.
pub(crate) async fn issue(
    acting: Acting<'_>,
    pepper: &Pepper,
    wish: Wish<'_>,
    now: Timestamp,
) -> anyhow::Result<(KeyId, RawKey)> {
    let mut chance = [0; 32];
    getrandom::fill(&mut chance)?;
    let raw = RawKey::new(chance);
    let account = account(acting, wish.account, now).await?;
    let id = KeyId::new(now, crate::state::chance()?);
    let key = NewKey {
        id,
        account,
        name: wish.name,
        hash: pepper.hash(&raw),
        shown: raw.shown(),
        created: now,
        expires: wish.expires,
        terms: wish.terms,
    };
    anyhow::ensure!(acting.create_key(&key).await?, "the key was not taken; try again");
    Ok((id, raw))
}

/// The account of that name, new if there is none yet.
async fn account(acting: Acting<'_>, name: &str, now: Timestamp) -> anyhow::Result<AccountId> {
    let database = acting.database();
    if let Some(account) = database.account_by_name(name).await? {
        return Ok(account);
    }
    let account = AccountId::new(now, crate::state::chance()?);
    if acting.create_account(account, name, Funding::Unmetered, now).await? {
        return Ok(account);
    }
    // Somebody else made it at the same moment.
    let theirs = database.account_by_name(name).await?;
    theirs.ok_or_else(|| anyhow::anyhow!("the account was not taken; try again"))
}

/// `keys create`: prints the key alone on standard output, and what is known of it beside it.
pub(crate) async fn create(
    database: &Database,
    pepper: &Pepper,
    wish: Wish<'_>,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    for (what, name) in [("name", wish.name), ("account", wish.account)] {
        if !is_name(name) {
            terminal.tell(format_args!("--{what}: {}", name_rule()));
            return End::Mistaken;
        }
    }
    let Wish { name, account, expires, .. } = wish;
    let bounds = terms::in_words(&wish.terms, &vec![NanoUsd::ZERO; wish.terms.ceilings.len()]);
    let (id, raw) = match issue(database.acting(&actor()), pepper, wish, now).await {
        Ok(made) => made,
        Err(error) => return terminal.unable(&format_args!("{error:#}")),
    };
    let end = expires.map_or_else(|| "never".to_owned(), clock::seconds);
    for line in bounds {
        terminal.tell(line);
    }
    terminal.tell(format_args!(
        "key {id} \"{name}\" of account \"{account}\", expires: {end}. It is shown only this once:"
    ));
    terminal.say(raw.expose())
}

/// When a key that is made `now` expires.
pub(crate) fn expiry(days: Option<u32>, now: Timestamp) -> Option<Timestamp> {
    days.map(|days| now.plus(Duration::from_secs(u64::from(days).saturating_mul(DAY))))
}

/// `keys list`: a table, or one JSON object a line.
pub(crate) async fn list(
    database: &Database,
    json: bool,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    if !json {
        let heads = ["ID", "KEY", "STATE", "CREATED", "EXPIRES", "ACCOUNT", "NAME"];
        if terminal.say(format_args!("{}", row(heads))) != End::Done {
            return End::Unable;
        }
    }
    let mut last = None;
    loop {
        let keys = match database.list_keys(last, PAGE).await {
            Ok(keys) => keys,
            Err(error) => return terminal.unable(&error),
        };
        let Some(end) = keys.last() else { return End::Done };
        last = Some(end.id);
        for key in &keys {
            let spent = match spent(database, key, now).await {
                Ok(spent) => spent,
                Err(error) => return terminal.unable(&error),
            };
            let line = if json { as_json(key, &spent, now) } else { as_text(key, &spent, now) };
            if terminal.say(line) != End::Done {
                return End::Unable;
            }
        }
    }
}

/// What has been spent under each of a key's ceilings, in the period that is now.
async fn spent(
    database: &Database,
    key: &KeyListing,
    now: Timestamp,
) -> Result<Vec<NanoUsd>, Error> {
    if key.terms.ceilings.is_empty() {
        return Ok(Vec::new());
    }
    let purses: Vec<_> = key.terms.ceilings.iter().map(|one| one.purse(key.id, now)).collect();
    database.spent(&purses).await
}

fn state(key: &KeyListing, now: Timestamp) -> &'static str {
    match (key.revoked, key.expires) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        (None, _) => "active",
    }
}

fn row([id, key, state, created, expires, account, name]: [&str; 7]) -> String {
    let line = format!(
        "{id:<30}  {key:<11}  {state:<7}  {created:<20}  {expires:<20}  {account:<16}  {name}"
    );
    line.trim_end().to_owned()
}

fn as_row(key: &KeyListing, now: Timestamp) -> String {
    let (id, shown) = (key.id.to_string(), format!("{}…", cell(&key.shown)));
    let created = clock::seconds(key.created);
    let expires = key.expires.map_or_else(|| "never".to_owned(), clock::seconds);
    let (account, name) = (cell(&key.account_name), cell(&key.name));
    row([&id, &shown, state(key, now), &created, &expires, &account, &name])
}

/// Its row, and below it what bounds it.
fn as_text(key: &KeyListing, spent: &[NanoUsd], now: Timestamp) -> String {
    let bounds = terms::in_words(&key.terms, spent);
    let below = bounds.into_iter().map(|line| format!("\n    {line}"));
    std::iter::once(as_row(key, now)).chain(below).collect()
}

fn as_json(key: &KeyListing, spent: &[NanoUsd], now: Timestamp) -> String {
    json!({
        "id": key.id.to_string(),
        "name": key.name,
        "account": key.account_name,
        "shown": key.shown,
        "state": state(key, now),
        "created": clock::micros(key.created),
        "expires": key.expires.map(clock::micros),
        "revoked": key.revoked.map(clock::micros),
        "terms": terms::as_json(&key.terms, spent),
    })
    .to_string()
}

/// `keys set`: in the database, which every edge asks twice a second what changed.
pub(crate) async fn set(
    (database, redis): (&Database, Option<&RedisCache>),
    id: &str,
    change: Change<'_>,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let Some(key) = KeyId::parse(id) else { return terminal.refuse(NO_ID) };
    let Change { clear, expires, terms: named } = change;
    let actor = actor();
    let apply = |own: &mut Terms, end: &mut Option<Timestamp>| {
        if clear.contains(&KeyClearing::Expiry) {
            *end = None;
        }
        *end = expires.or(*end);
        terms::change(own, clear, &named);
    };
    match database.acting(&actor).change_key(key, apply, now).await {
        Ok(Some(hash)) => {
            drop_cached(redis, &[hash], terminal).await;
            terminal.say(format_args!("{key} is changed"))
        }
        Ok(None) => terminal.refuse(format_args!("there is no key {key} that is not revoked")),
        Err(error) => terminal.unable(&error),
    }
}

/// Takes what a key could do before out of the cache that edges share. If that fails, those that run know
/// better all the same.
pub(super) async fn drop_cached(
    redis: Option<&RedisCache>,
    hashes: &[KeyHash],
    terminal: &mut Terminal<'_>,
) {
    let Some(redis) = redis else { return };
    if let Err(failure) = redis.drop_cached(hashes).await {
        terminal.tell(format_args!(
            "warning: {failure}: an edge that is started now may find the old terms for half a minute"
        ));
    }
}

/// `keys revoke`: in the database, and by Redis at once on every edge that shares it.
pub(crate) async fn revoke(
    database: &Database,
    redis: Option<&RedisCache>,
    id: &str,
    (now, terminal): (Timestamp, &mut Terminal<'_>),
) -> End {
    let Some(key) = KeyId::parse(id) else { return terminal.refuse(NO_ID) };
    match database.acting(&actor()).revoke_key(key, now).await {
        Ok(Some(hash)) => {
            announce(redis, &hash, terminal).await;
            terminal.say(format_args!("{key} is revoked"))
        }
        Ok(None) => {
            terminal.tell(format_args!("there is no key {key}"));
            End::Mistaken
        }
        Err(error) => terminal.unable(&error),
    }
}

/// Tells the edges. If that fails the key is revoked all the same.
async fn announce(redis: Option<&RedisCache>, hash: &KeyHash, terminal: &mut Terminal<'_>) {
    let Some(redis) = redis else { return };
    if let Err(failure) = redis.announce_revocation(hash).await {
        terminal.tell(format_args!(
            "warning: {failure}: edges that share this database see it within a second, other \
             caches of the key end within five minutes"
        ));
    }
}
