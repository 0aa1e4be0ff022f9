//! `keys create|list|revoke|rotate`.

use serde::Serialize;
use tokenroute_api::keys::{CreatedKey, Key, Keys, Limits, NewKey, Rotation};

use crate::arguments;
use crate::brand;
use crate::failure::Failure;
use crate::network::escaped;
use crate::output::{NONE, Output, aligned, fields, or_none, usd};
use crate::secret::Secret;
use crate::session::{Holder, World};

const PATH: &str = "/api/v1/me/keys";
/// Most pages that are listed.
const PAGES_MAX: usize = 100;

/// What `keys revoke` says to programs.
#[derive(Serialize)]
struct Revoked<'a> {
    id: &'a str,
    status: &'a str,
}

/// `keys create`
pub(crate) fn create(world: &World<'_>, wanted: &arguments::NewKey) -> Result<Output, Failure> {
    let some = |names: &Vec<String>| (!names.is_empty()).then(|| names.clone());
    let new = NewKey {
        name: wanted.name.clone(),
        ceiling_usd: wanted.ceiling.clone(),
        expires_at: wanted.expires_at.clone(),
        models: some(&wanted.models),
        providers: some(&wanted.providers),
        limits: Limits {
            requests_per_second: wanted.requests_per_second,
            requests_per_minute: wanted.requests_per_minute,
            tokens_per_minute: wanted.tokens_per_minute,
            concurrency: wanted.concurrency,
        },
    };
    let holder = world.manager()?;
    make(world, wanted.no_cache, || world.post(&holder, PATH, &new))
}

/// `keys rotate`
pub(crate) fn rotate(
    world: &World<'_>,
    id: &str,
    grace_seconds: u32,
    no_cache: bool,
) -> Result<Output, Failure> {
    let holder = world.manager()?;
    let rotation = Rotation { grace_seconds };
    make(world, no_cache, || world.post(&holder, &format!("{PATH}/{id}/rotate"), &rotation))
}

/// Keeps what `made` makes. That it can be kept is found out before there is a key that is shown only once.
fn make(
    world: &World<'_>,
    no_cache: bool,
    made: impl FnOnce() -> Result<CreatedKey, Failure>,
) -> Result<Output, Failure> {
    if !no_cache {
        drop(world.credentials.lock(world.clock)?);
    }
    let made = made()?;
    let key = Secret::parse(&made.raw).ok_or_else(|| Failure::unreadable("the new key"))?;
    let kept = if no_cache { Ok(None) } else { keep(world, &made, &key).map(Some) };
    let mut lines = vec![
        ("Name", made.key.name.clone()),
        ("ID", made.key.id.clone()),
        ("Ceiling", ceiling(&made.key)),
        ("Expires", or_none(made.key.expires_at.as_ref())),
    ];
    if let Ok(Some(path)) = &kept {
        lines.push(("Kept in", path.clone()));
    }
    // The one place that shows a key: this is what the command is for.
    let said = format!("{}\n\n{}\n\nIt is shown this once.", fields(&lines), key.reveal());
    let mut output = Output::new(said, &made)?;
    output.warning = kept.err().map(|failure| format!("the key is not kept: {}", failure.message));
    Ok(output)
}

fn keep(world: &World<'_>, made: &CreatedKey, key: &Secret) -> Result<String, Failure> {
    let _lock = world.credentials.lock(world.clock)?;
    let path = world.credentials.keep_key(world.api_url(), &made.key.id, key)?;
    Ok(path.display().to_string())
}

/// `keys list`
pub(crate) fn list(world: &World<'_>) -> Result<Output, Failure> {
    let keys = all(world, &world.manager()?)?;
    if keys.is_empty() {
        return Output::new(format!("No keys: {} keys create --name NAME", brand::NAME), &keys);
    }
    let head = ["ID", "NAME", "KEY", "STATUS", "TO SPEND", "CEILING", "EXPIRES", "CREATED"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(keys.iter().map(|key| {
        vec![
            key.id.clone(),
            key.name.clone(),
            key.key_prefix.clone(),
            key.status.clone(),
            usd(&key.balance_usd),
            ceiling(key),
            or_none(key.expires_at.as_ref()),
            key.created_at.clone(),
        ]
    }));
    Output::new(aligned(&rows), &keys)
}

/// Page by page.
fn all(world: &World<'_>, holder: &Holder) -> Result<Vec<Key>, Failure> {
    let mut keys = Vec::new();
    let mut path = PATH.to_owned();
    for _ in 0..PAGES_MAX {
        let page: Keys = world.get(holder, &path)?;
        keys.extend(page.data);
        let Some(cursor) = page.next_cursor else { return Ok(keys) };
        path = format!("{PATH}?cursor={}", escaped(&cursor));
    }
    Err(Failure::unreadable("an endless list of keys"))
}

/// `keys revoke`
pub(crate) fn revoke(world: &World<'_>, id: &str) -> Result<Output, Failure> {
    world.delete(&world.manager()?, &format!("{PATH}/{id}"))?;
    let forgotten = world
        .credentials
        .lock(world.clock)
        .and_then(|_lock| world.credentials.forget_key(world.api_url(), id));
    let mut output = Output::new(format!("OK revoked {id}"), &Revoked { id, status: "revoked" })?;
    output.warning = forgotten.err().map(|failure| failure.message);
    Ok(output)
}

fn ceiling(key: &Key) -> String {
    key.ceiling_usd.as_deref().map_or_else(|| NONE.to_owned(), usd)
}
