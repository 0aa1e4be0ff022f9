//! API keys of an account. A key itself is told once, when it is made; only its keyed hash is kept.

use std::sync::Arc;
use std::time::Duration;

use tokenroute_api::keys::{CreatedKey, Key, Keys, NewKey, Rotation};
use tokenroute_domain::id::{AccountId, KeyId};
use tokenroute_domain::key::{ApiKey, Funding, RawKey, Terms};
use tokenroute_domain::limit::Limits;
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::pool::Period;
use tokenroute_domain::time::{Timestamp, utc};
use tokenroute_store::{self as store, Account, Added, KeyListing, Room};

use super::page::Page;
use super::text::{self, invalid};
use super::users::chance;
use super::{Problem, terms};
use crate::{Change, Parts};

/// Keys that an account may have that are not revoked.
const LIVE_MAX: u32 = 200;
/// Keys that an account may make in a day: revoked ones stay in the table.
const NEW_MAX: u32 = 1_000;
/// A day.
const DAY: Duration = Duration::from_hours(24);
/// Longest time for which a key that was taken over goes on working, in seconds: a week.
const GRACE_SECONDS_MAX: u32 = 604_800;

/// Whose keys, and in whose hands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring<'a> {
    /// Whose.
    pub(crate) account: AccountId,
    /// Who acts, for the audit log.
    pub(crate) actor: &'a str,
    /// Whether limits may be wider than the tier says.
    pub(crate) may_widen: bool,
}

/// A page of an account's keys, the oldest first.
pub(crate) async fn list(
    parts: &Parts,
    account: AccountId,
    page: Page<'_>,
) -> Result<Keys, Problem> {
    let limit = page.limit()?;
    let after = page.after(KeyId::parse)?;
    let mut keys = parts.database.keys_of(account, after, limit.saturating_add(1)).await?;
    let next_cursor = Page::next(&mut keys, limit, |key| key.id.to_string());
    let owner = owner(parts, account).await?;
    let mut data = Vec::with_capacity(keys.len());
    for key in &keys {
        data.push(shown(parts, key, &owner).await?);
    }
    Ok(Keys { data, next_cursor })
}

/// Makes a key, and tells it this once.
pub(crate) async fn create(
    parts: &Parts,
    ring: Ring<'_>,
    wish: &NewKey,
) -> Result<CreatedKey, Problem> {
    let now = (parts.now)();
    let name = text::name("name", &wish.name)?;
    let expires = wish.expires_at.as_deref().map(|text| text::time("expires_at", text));
    let expires = expires.transpose()?;
    if expires.is_some_and(|end| end <= now) {
        let message = "expires_at: write a time that is to come";
        return Err(invalid("time_invalid", "expires_at", message));
    }
    let owner = owner(parts, ring.account).await?;
    let terms = terms::of_key(wish, &parts.edges.catalog())?;
    if !ring.may_widen {
        terms::narrower(terms.limits, given(parts, &owner))?;
    }
    let (id, raw) = fresh(parts, now)?;
    let key = store::NewKey {
        id,
        account: ring.account,
        name,
        hash: parts.pepper.hash(&raw),
        shown: raw.shown(),
        created: now,
        expires,
        terms,
    };
    let acting = parts.database.acting(ring.actor);
    match acting.create_key_within(&key, room(now)).await? {
        Added::Done => told(parts, (id, &owner), &raw).await,
        Added::Full => Err(full()),
        Added::Refused => Err(Problem::NotFound("account")),
    }
}

/// Makes a key in the place of another one, which goes on working for a while.
pub(crate) async fn rotate(
    parts: &Parts,
    ring: Ring<'_>,
    (id, wish): (&str, Rotation),
) -> Result<CreatedKey, Problem> {
    let now = (parts.now)();
    if wish.grace_seconds > GRACE_SECONDS_MAX {
        let message = format!("grace_seconds: write 0 to {GRACE_SECONDS_MAX}");
        return Err(invalid("grace_invalid", "grace_seconds", message));
    }
    let old = own(parts, ring.account, id).await?;
    if status(&old, now) != ACTIVE {
        let message = "only a key that works can be taken over: create a new one".to_owned();
        return Err(Problem::Conflict { reason: "key_not_active", message });
    }
    let hash = parts.database.find_key_hash(old.id).await?.ok_or(Problem::NotFound("key"))?;
    let (id, raw) = fresh(parts, now)?;
    let rotation = store::Rotation {
        old: old.id,
        account: ring.account,
        id,
        hash: parts.pepper.hash(&raw),
        shown: raw.shown(),
        old_until: now.plus(Duration::from_secs(wish.grace_seconds.into())),
    };
    match parts.database.acting(ring.actor).rotate_key(&rotation, room(now), now).await? {
        Added::Done => {
            let at_once = rotation.old_until <= now;
            parts
                .edges
                .tell(if at_once { Change::Revoked(hash) } else { Change::Changed(hash) })
                .await;
            let owner = owner(parts, ring.account).await?;
            told(parts, (id, &owner), &raw).await
        }
        Added::Full => Err(full()),
        Added::Refused => Err(Problem::NotFound("key")),
    }
}

/// Revokes a key for good, everywhere within a second.
pub(crate) async fn revoke(parts: &Parts, ring: Ring<'_>, id: &str) -> Result<(), Problem> {
    let id = KeyId::parse(id).ok_or(Problem::NotFound("key"))?;
    let acting = parts.database.acting(ring.actor);
    let revoked = acting.revoke_key_of(ring.account, id, (parts.now)()).await?;
    let hash = revoked.ok_or(Problem::NotFound("key"))?;
    parts.edges.tell(Change::Revoked(hash)).await;
    Ok(())
}

/// What a key may still spend: the least of what its account has and of what its ceilings leave.
pub(crate) async fn left(parts: &Parts, key: &KeyListing) -> Result<NanoUsd, Problem> {
    let owner = owner(parts, key.account).await?;
    left_of(parts, key, &owner).await
}

async fn left_of(parts: &Parts, key: &KeyListing, owner: &Account) -> Result<NanoUsd, Problem> {
    let purses: Vec<_> =
        key.terms.ceilings.iter().map(|one| one.purse(key.id, (parts.now)())).collect();
    let spent = parts.database.spent(&purses).await?;
    let rests = key.terms.ceilings.iter().zip(spent);
    let rest = rests.map(|(one, spent)| one.limit.minus(spent).at_least_zero()).min();
    Ok(match (owner.funding, rest) {
        // What is only recorded is bounded by ceilings alone.
        (Funding::Unmetered, Some(rest)) => rest,
        (Funding::Unmetered | Funding::Prepaid, None) => owner.balance,
        (Funding::Prepaid, Some(rest)) => rest.min(owner.balance),
    })
}

/// The account's key with that identifier. Another's is as good as none.
async fn own(parts: &Parts, account: AccountId, id: &str) -> Result<KeyListing, Problem> {
    let id = KeyId::parse(id).ok_or(Problem::NotFound("key"))?;
    let key = parts.database.key(id).await?.filter(|key| key.account == account);
    key.ok_or(Problem::NotFound("key"))
}

async fn owner(parts: &Parts, account: AccountId) -> Result<Account, Problem> {
    parts.database.account_by_id(account).await?.ok_or(Problem::NotFound("account"))
}

/// What limits a key of this account that says nothing itself.
fn given(parts: &Parts, owner: &Account) -> Limits {
    let key = ApiKey {
        id: KeyId::new(owner.created, 0),
        account: owner.id,
        funding: owner.funding,
        expires: None,
        terms: Arc::new(Terms::default()),
    };
    parts.edges.limits(&key)
}

fn fresh(parts: &Parts, now: Timestamp) -> Result<(KeyId, RawKey), Problem> {
    let raw = RawKey::new((parts.chance)().ok_or(Problem::Internal)?);
    Ok((KeyId::new(now, chance(parts)?), raw))
}

fn room(now: Timestamp) -> Room {
    let since = Timestamp(now.micros().saturating_sub(Timestamp(0).plus(DAY).micros()));
    Room { live_max: LIVE_MAX, new_max: NEW_MAX, since }
}

fn full() -> Problem {
    let message = format!(
        "an account has at most {LIVE_MAX} keys, and makes at most {NEW_MAX} in a day: revoke one \
         that is not needed"
    );
    Problem::Conflict { reason: "too_many_keys", message }
}

/// A key that was just made, and the key itself.
async fn told(
    parts: &Parts,
    (id, owner): (KeyId, &Account),
    raw: &RawKey,
) -> Result<CreatedKey, Problem> {
    let listing = parts.database.key(id).await?.ok_or(Problem::Internal)?;
    let key = shown(parts, &listing, owner).await?;
    Ok(CreatedKey { key, raw: raw.expose().to_owned() })
}

/// The status of a key that works.
const ACTIVE: &str = "active";

fn status(key: &KeyListing, now: Timestamp) -> &'static str {
    match (key.revoked, key.expires) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        (None, _) => ACTIVE,
    }
}

async fn shown(parts: &Parts, key: &KeyListing, owner: &Account) -> Result<Key, Problem> {
    let texts = |names: &Option<Vec<Arc<str>>>| {
        names.as_ref().map(|names| names.iter().map(ToString::to_string).collect())
    };
    let total = key.terms.ceilings.iter().find(|one| one.period == Period::Total);
    Ok(Key {
        id: key.id.to_string(),
        name: key.name.clone(),
        key_prefix: key.shown.clone(),
        status: status(key, (parts.now)()).to_owned(),
        balance_usd: left_of(parts, key, owner).await?.to_string(),
        ceiling_usd: total.map(|one| one.limit.to_string()),
        created_at: utc::seconds(key.created),
        expires_at: key.expires.map(utc::seconds),
        models: texts(&key.terms.models),
        providers: texts(&key.terms.providers),
        limits: terms::shown(key.terms.limits),
    })
}
