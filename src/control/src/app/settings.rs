//! Settings that administrators change: checked with all others and the file before they are stored, and in
//! use on every edge within a second.

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokenroute_api::settings::{
    Credential, History, HistoryLine, PricedTarget, RoutedModel, RoutedModels, Setting, Settings,
};
use tokenroute_domain::time::{Timestamp, utc};
use tokenroute_store::vault::{NONCE_BYTES, Place};
use tokenroute_store::{
    SealedCredential, SettingChange, SettingKind, SettingVersion, StoredSettings,
};

use super::Problem;
use super::models::pricing;
use super::page::{Page, number};
use super::text::invalid;
use crate::Parts;
use crate::rules::{Fixed, Unsound, Whole};

/// How often a change is checked anew because another one came first.
const TRIES_MAX: u32 = 5;
/// The table of secrets for providers: they are sealed for their row in it.
const CREDENTIALS: &str = "credentials";
/// What the history calls them.
const CREDENTIAL: &str = "credential";
/// The source of what is stored.
const STORED: &str = "stored";

/// Which setting, and what the asker knows of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Which<'a> {
    /// What it is.
    pub(crate) kind: SettingKind,
    /// Its name.
    pub(crate) name: &'a str,
    /// Its version when the asker read it, 0 if it was not there; `None`: whatever it is.
    pub(crate) expected: Option<i64>,
    /// Who asks, for the history.
    pub(crate) actor: &'a str,
}

/// What is to become of a setting.
#[derive(Clone, Copy)]
enum Wish<'a> {
    /// It says this, as JSON; and with it there may come a secret.
    Put(&'a str, Option<&'a SecretString>),
    /// It goes.
    Remove,
    /// A provider's secret is this one.
    Seal(&'a SecretString),
    /// A provider has none any more.
    Unseal,
}

/// All settings of a kind, by name.
pub(crate) async fn list<T: DeserializeOwned>(
    parts: &Parts,
    kind: SettingKind,
) -> Result<Settings<T>, Problem> {
    let stored = parts.database.settings().await?;
    let whole = judge(parts, &stored).await.map_err(standing)?;
    let fixed = whole.fixed.iter().filter(|one| one.kind == kind).map(of_fixed);
    let ours = stored.settings.iter().filter(|one| one.kind == kind);
    let ours = ours.map(|one| of_stored(&stored, &one.name, kind));
    let mut data = fixed.chain(ours).collect::<Result<Vec<Setting<T>>, _>>()?;
    data.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Settings { version: stored.version, data })
}

/// One setting.
pub(crate) async fn find<T: DeserializeOwned>(
    parts: &Parts,
    kind: SettingKind,
    name: &str,
) -> Result<Setting<T>, Problem> {
    let all: Settings<T> = list(parts, kind).await?;
    let found = all.data.into_iter().find(|one| one.name == name);
    found.ok_or(Problem::NotFound(kind.as_str()))
}

/// Every model that is listed, where that is said, and who answers for it at which price.
pub(crate) async fn models(parts: &Parts) -> Result<RoutedModels, Problem> {
    let stored = parts.database.settings().await?;
    let whole = judge(parts, &stored).await.map_err(standing)?;
    let source = |kind: SettingKind, name: &str| {
        let is_it = |(of, other): (SettingKind, &str)| of == kind && other == name;
        let fixed = whole.fixed.iter().find(|one| is_it((one.kind, &one.name)));
        let ours = stored.settings.iter().any(|one| is_it((one.kind, &one.name)));
        fixed.map(|one| one.source).or(ours.then_some(STORED))
    };
    let (catalog, now) = (parts.edges.catalog(), (parts.now)());
    let listed = catalog.listed().iter();
    let data = listed.filter_map(|one| {
        let route = catalog.find(&one.id)?;
        let of_list = || source(SettingKind::Provider, one.id.split('/').next()?);
        let said = source(SettingKind::Route, &route.pattern).or_else(of_list);
        let targets = route.targets.iter().map(|target| PricedTarget {
            name: target.name.to_string(),
            rank: target.rank,
            weight: target.weight,
            pricing: target.prices.at(now).map(|price| pricing(price)),
        });
        let source = said.unwrap_or_default().to_owned();
        Some(RoutedModel { id: one.id.to_string(), source, targets: targets.collect() })
    });
    Ok(RoutedModels { data: data.collect() })
}

/// Lets a setting say `content`, which is JSON. With it a provider may get another secret, as it must where
/// it moves to another address.
pub(crate) async fn put<T: Serialize + DeserializeOwned>(
    parts: &Parts,
    which: Which<'_>,
    (content, secret): (&str, Option<&SecretString>),
) -> Result<Setting<T>, Problem> {
    let stored = change(parts, which, Wish::Put(content, secret)).await?;
    of_stored(&stored, which.name, which.kind)
}

/// Takes a setting away, and if it is a provider its secret.
pub(crate) async fn remove(parts: &Parts, which: Which<'_>) -> Result<(), Problem> {
    change(parts, which, Wish::Remove).await.map(drop)
}

/// Gives a provider's secret, which nobody can read again.
pub(crate) async fn give_credential(
    parts: &Parts,
    which: Which<'_>,
    secret: &SecretString,
) -> Result<Credential, Problem> {
    let stored = change(parts, which, Wish::Seal(secret)).await?;
    credential(&stored, which.name).ok_or(Problem::Internal)
}

/// Takes a provider's secret away.
pub(crate) async fn take_credential(parts: &Parts, which: Which<'_>) -> Result<(), Problem> {
    change(parts, which, Wish::Unseal).await.map(drop)
}

/// Who has changed what, the latest first; of one kind and of one name where they are given.
pub(crate) async fn history(
    parts: &Parts,
    of: (Option<&str>, Option<&str>),
    page: Page<'_>,
) -> Result<History, Problem> {
    let (limit, before) = (page.limit()?, page.after(number::<i64>)?);
    // No text of a database holds it, and PostgreSQL takes it for a mistake.
    if [of.0, of.1].into_iter().flatten().any(|text| text.contains('\0')) {
        return Ok(History { data: Vec::new(), next_cursor: None });
    }
    let more = limit.saturating_add(1);
    let mut lines = parts.database.settings_history(of, before, more).await?;
    let next_cursor = Page::next(&mut lines, limit, |line| line.version.to_string());
    Ok(History { data: lines.into_iter().map(line).collect(), next_cursor })
}

/// Lets the setting that a version was about be again what it was from that version on, or be no more.
pub(crate) async fn restore(
    parts: &Parts,
    version: i64,
    actor: &str,
) -> Result<HistoryLine, Problem> {
    let then = parts.database.setting_at(version).await?;
    let then = then.ok_or(Problem::NotFound("version of the settings"))?;
    if then.kind == CREDENTIAL {
        return Err(Problem::Conflict {
            reason: "credential_not_restored",
            message: "a credential is never told again: give it anew".to_owned(),
        });
    }
    let kind = SettingKind::parse(&then.kind).ok_or(Problem::Internal)?;
    let which = Which { kind, name: &then.name, expected: None, actor };
    let wish = then.content.as_deref().map_or(Wish::Remove, |content| Wish::Put(content, None));
    change(parts, which, wish).await?;
    let of = (Some(kind.as_str()), Some(then.name.as_str()));
    let now = parts.database.settings_history(of, None, 1).await?;
    now.into_iter().next().map(line).ok_or(Problem::Internal)
}

/// Does what is wished, if everything fits together with it; all settings with it.
async fn change(
    parts: &Parts,
    which: Which<'_>,
    wish: Wish<'_>,
) -> Result<StoredSettings, Problem> {
    for _ in 0..TRIES_MAX {
        let stored = parts.database.settings().await?;
        let candidate = wished(parts, (&stored, which), wish).await?;
        let whole = judge(parts, &candidate).await.map_err(refused)?;
        let sealed = match wish {
            Wish::Put(_, Some(secret)) | Wish::Seal(secret) => {
                Some(seal(parts, (which.name, &whole), secret)?)
            }
            Wish::Put(_, None) | Wish::Remove | Wish::Unseal => None,
        };
        let changes = changes(which, wish, sealed.as_ref());
        let acting = parts.database.acting(which.actor);
        if acting.change_settings(stored.version, &changes, (parts.now)()).await?.is_ok() {
            return Ok(parts.database.settings().await?);
        }
    }
    Err(Problem::Conflict {
        reason: "settings_changing",
        message: "others are changing settings: try again in a moment".to_owned(),
    })
}

/// All settings as they would be, but for a secret that has to be sealed first.
async fn wished(
    parts: &Parts,
    (stored, which): (&StoredSettings, Which<'_>),
    wish: Wish<'_>,
) -> Result<StoredSettings, Problem> {
    let Which { kind, name, expected, .. } = which;
    let is_it = |one: &tokenroute_store::Setting| one.kind == kind && one.name == name;
    let place = stored.settings.iter().position(is_it);
    let version = place.and_then(|at| stored.settings.get(at)).map_or(0, |one| one.version);
    if place.is_none() && !matches!(wish, Wish::Put(..)) {
        return Err(absent(parts, stored, (kind, name)).await);
    }
    if expected.is_some_and(|expected| expected != version) {
        return Err(Problem::Conflict {
            reason: "version_mismatch",
            message: format!("it was changed meanwhile, to version {version}: read it again"),
        });
    }
    let mut candidate = stored.clone();
    let secrets = &mut candidate.credentials;
    match wish {
        Wish::Put(content, secret) => {
            if secret.is_some() {
                secrets.retain(|one| one.provider != name);
            }
            let (name, content) = (name.to_owned(), content.to_owned());
            let now = (parts.now)();
            let setting = tokenroute_store::Setting { kind, name, content, version, changed: now };
            candidate.settings.retain(|one| !is_it(one));
            candidate.settings.push(setting);
        }
        Wish::Remove => {
            if kind == SettingKind::Provider {
                secrets.retain(|one| one.provider != name);
            }
            candidate.settings.retain(|one| !is_it(one));
        }
        Wish::Unseal if secrets.iter().all(|one| one.provider != name) => {
            return Err(Problem::NotFound("credential"));
        }
        Wish::Seal(_) | Wish::Unseal => secrets.retain(|one| one.provider != name),
    }
    Ok(candidate)
}

/// Why a setting that is not stored cannot be changed.
async fn absent(
    parts: &Parts,
    stored: &StoredSettings,
    (kind, name): (SettingKind, &str),
) -> Problem {
    match judge(parts, stored).await {
        Ok(whole) if whole.fixed.iter().any(|one| one.kind == kind && one.name == name) => {
            defined_in_file(kind, name)
        }
        Ok(_) => Problem::NotFound(kind.as_str()),
        Err(unsound) => standing(unsound),
    }
}

fn changes<'a>(
    which: Which<'a>,
    wish: Wish<'a>,
    sealed: Option<&'a (String, Vec<u8>)>,
) -> Vec<SettingChange<'a>> {
    let Which { kind, name, .. } = which;
    let first = match wish {
        Wish::Put(content, _) => Some(SettingChange::Put { kind, name, content }),
        Wish::Remove => Some(SettingChange::Remove { kind, name }),
        Wish::Unseal => Some(SettingChange::Unseal { provider: name }),
        Wish::Seal(_) => None,
    };
    let second =
        sealed.map(|(origin, sealed)| SettingChange::Seal { provider: name, origin, sealed });
    first.into_iter().chain(second).collect()
}

/// The secret, encrypted for this provider at its address, and the address.
fn seal(
    parts: &Parts,
    (provider, whole): (&str, &Whole),
    secret: &SecretString,
) -> Result<(String, Vec<u8>), Problem> {
    let text = secret.expose_secret();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad_credential("must be characters that a header can carry, without spaces"));
    }
    let origin = whole.origins.get(provider).ok_or(Problem::Internal)?;
    let place = Place { table: CREDENTIALS, row: provider, provider, origin };
    let chance = (parts.chance)().ok_or(Problem::Internal)?;
    let nonce: [u8; NONCE_BYTES] = *chance.first_chunk::<NONCE_BYTES>().ok_or(Problem::Internal)?;
    let sealed = parts.vault.seal(&place, secret, nonce);
    let sealed = sealed.map_err(|_too_long| bad_credential("is too long to be a secret"))?;
    Ok((origin.clone(), sealed))
}

fn bad_credential(why: &str) -> Problem {
    invalid("credential_invalid", "credential", format!("credential: it {why}"))
}

async fn judge(parts: &Parts, settings: &StoredSettings) -> Result<Whole, Unsound> {
    parts.rules.judge(settings.clone()).await
}

/// What a change is told that does not fit.
fn refused(unsound: Unsound) -> Problem {
    match unsound {
        Unsound::DefinedInFile(kind, name) => defined_in_file(kind, &name),
        Unsound::Flawed(flaws) => Problem::Flawed { reason: "settings_invalid", flaws },
    }
}

/// What is told where the settings that are there do not fit any more, as the file was changed.
fn standing(unsound: Unsound) -> Problem {
    match unsound {
        Unsound::DefinedInFile(kind, name) => defined_in_file(kind, &name),
        Unsound::Flawed(flaws) => Problem::Flawed { reason: "settings_unsound", flaws },
    }
}

fn defined_in_file(kind: SettingKind, name: &str) -> Problem {
    Problem::Conflict {
        reason: "defined_in_file",
        message: format!(
            "the {} {name} is defined in the configuration file: change it there, or take it out of there",
            kind.as_str()
        ),
    }
}

fn of_fixed<T: DeserializeOwned>(fixed: &Fixed) -> Result<Setting<T>, Problem> {
    Ok(Setting {
        name: fixed.name.clone(),
        source: fixed.source.to_owned(),
        version: None,
        changed_at: None,
        content: content(&fixed.content)?,
        credential: None,
    })
}

fn of_stored<T: DeserializeOwned>(
    stored: &StoredSettings,
    name: &str,
    kind: SettingKind,
) -> Result<Setting<T>, Problem> {
    let mut all = stored.settings.iter();
    let found = all.find(|one| one.kind == kind && one.name == name);
    // Somebody may have taken it away since.
    let one = found.ok_or(Problem::NotFound(kind.as_str()))?;
    Ok(Setting {
        name: one.name.clone(),
        source: STORED.to_owned(),
        version: Some(one.version),
        changed_at: Some(time(one.changed)),
        content: content(&one.content)?,
        credential: credential(stored, name).filter(|_| kind == SettingKind::Provider),
    })
}

fn credential(stored: &StoredSettings, provider: &str) -> Option<Credential> {
    let mut all = stored.credentials.iter();
    let told = |one: &SealedCredential| Credential {
        origin: one.origin.clone(),
        set_at: time(one.changed),
    };
    all.find(|one| one.provider == provider).map(told)
}

/// What was checked is read as what it is.
fn content<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| {
        tracing::error!(%error, "a stored setting cannot be read");
        Problem::Internal
    })
}

fn line(line: SettingVersion) -> HistoryLine {
    HistoryLine {
        version: line.version,
        kind: line.kind,
        name: line.name,
        content: line.content,
        actor: line.actor,
        changed_at: time(line.changed),
    }
}

fn time(time: Timestamp) -> String {
    utc::seconds(time)
}
