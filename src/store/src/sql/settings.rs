//! Settings that are not in a file: providers, routes, tiers and policies, every version of them, and the
//! encrypted secrets for providers.
//!
//! **Invariant:** every change counts `settings_version` up in its own transaction, and is made only if that
//! was what the caller had read. So whoever has checked a change against all other settings has checked
//! what it comes to, and whoever sees the number unchanged need not read again.

use tokenroute_domain::time::Timestamp;

use super::Database;
use super::audit::{Acting, Deed, Fact, note};
use super::statement::{Row, Transaction, sql};
use crate::Error;

/// How often all settings are read anew because they changed meanwhile.
const READ_TRIES: u32 = 10;
/// Settings of all kinds that are read: more than are ever accepted.
const SETTINGS_MAX: u32 = 50_000;
/// What the history calls a provider's secret; it says whereto the secret is sent, and never the secret.
const CREDENTIAL: &str = "credential";

/// What a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SettingKind {
    /// Who answers calls, with models and prices.
    Provider,
    /// Which targets answer for a model.
    Route,
    /// Limits under a name.
    Tier,
    /// Which models and providers accounts may use.
    Policy,
}

impl SettingKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Provider, Self::Route, Self::Tier, Self::Policy];

    /// The stable word for storage and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Route => "route",
            Self::Tier => "tier",
            Self::Policy => "policy",
        }
    }

    /// Reads what [`Self::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What it is.
    pub kind: SettingKind,
    /// Its name; no other of its kind has it.
    pub name: String,
    /// What it says, as a JSON object.
    pub content: String,
    /// The version of the whole that brought it.
    pub version: i64,
    /// When it was changed last.
    pub changed: Timestamp,
}

/// Our secret for a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedCredential {
    /// The provider's name.
    pub provider: String,
    /// Whereto alone it is sent, as `https://host:port`.
    pub origin: String,
    /// The secret, encrypted.
    pub sealed: Vec<u8>,
    /// When it was given.
    pub changed: Timestamp,
}

/// All settings of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSettings {
    /// The number of the last change; 0 if there never was one.
    pub version: i64,
    /// In order of kind and name.
    pub settings: Vec<Setting>,
    /// In order of provider.
    pub credentials: Vec<SealedCredential>,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingChange<'a> {
    /// A setting says this from now on.
    Put {
        /// What it is.
        kind: SettingKind,
        /// Its name.
        name: &'a str,
        /// What it says, as a JSON object.
        content: &'a str,
    },
    /// A setting is no more; nor is the secret, if it was a provider.
    Remove {
        /// What it was.
        kind: SettingKind,
        /// Its name.
        name: &'a str,
    },
    /// This is our secret for a provider from now on.
    Seal {
        /// The provider's name.
        provider: &'a str,
        /// Whereto alone it is sent.
        origin: &'a str,
        /// The secret, encrypted.
        sealed: &'a [u8],
    },
    /// We have no secret for a provider any more.
    Unseal {
        /// The provider's name.
        provider: &'a str,
    },
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingVersion {
    /// Its number.
    pub version: i64,
    /// The word of a [`SettingKind`], or `credential`.
    pub kind: String,
    /// The setting's name; of a credential, the provider's.
    pub name: String,
    /// What it said from then on, of a credential whereto it is sent; `None`: it was taken away.
    pub content: Option<String>,
    /// Who did it.
    pub actor: String,
    /// When.
    pub changed: Timestamp,
}

impl Database {
    /// The number of the last change to any setting.
    pub async fn settings_version(&self) -> Result<i64, Error> {
        sql("SELECT value FROM counters WHERE name = 'settings_version'")
            .fetch_one(self.reading())
            .await?
            .int("value")
    }

    /// All settings, as they were at one moment.
    pub async fn settings(&self) -> Result<StoredSettings, Error> {
        let mut version = self.settings_version().await?;
        for _ in 0..READ_TRIES {
            let rows = sql("SELECT * FROM settings ORDER BY kind, name LIMIT $1")
                .bind(SETTINGS_MAX)
                .fetch_all(self.reading())
                .await?;
            let sealed = sql("SELECT * FROM credentials ORDER BY provider LIMIT $1")
                .bind(SETTINGS_MAX)
                .fetch_all(self.reading())
                .await?;
            // Every change counts up, so what did not is what it was.
            let now = self.settings_version().await?;
            if now == version {
                let settings = rows.iter().map(setting).collect::<Result<_, _>>()?;
                let credentials = sealed.iter().map(credential).collect::<Result<_, _>>()?;
                return Ok(StoredSettings { version, settings, credentials });
            }
            version = now;
        }
        Err(Error::Unavailable("the settings change faster than they can be read".to_owned()))
    }

    /// At most `limit` lines of the history before the version `before`, the latest first; of one kind and of
    /// one name where they are given.
    pub async fn settings_history(
        &self,
        (kind, name): (Option<&str>, Option<&str>),
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<SettingVersion>, Error> {
        let rows = sql("SELECT * FROM settings_history
             WHERE version < $1 AND kind = COALESCE($2, kind) AND name = COALESCE($3, name)
             ORDER BY version DESC LIMIT $4")
        .bind(before.unwrap_or(i64::MAX))
        .bind(kind)
        .bind(name)
        .bind(limit)
        .fetch_all(self.reading())
        .await?;
        rows.iter().map(line).collect()
    }

    /// One line of the history.
    pub async fn setting_at(&self, version: i64) -> Result<Option<SettingVersion>, Error> {
        let row = sql("SELECT * FROM settings_history WHERE version = $1")
            .bind(version)
            .fetch_optional(self.reading())
            .await?;
        row.as_ref().map(line).transpose()
    }
}

impl Acting<'_> {
    /// Makes changes, all or none, if `expected` is still the version of the whole. The version that they
    /// brought, or as the error the one that there is instead.
    pub async fn change_settings(
        &self,
        expected: i64,
        changes: &[SettingChange<'_>],
        now: Timestamp,
    ) -> Result<Result<i64, i64>, Error> {
        let mut transaction = self.database.begin().await?;
        // It locks, so that who changes something else waits.
        let row = sql("UPDATE counters SET value = value WHERE name = 'settings_version'
             RETURNING value")
        .fetch_one(transaction.on())
        .await?;
        let mut version = row.int("value")?;
        if version != expected {
            return Ok(Err(version));
        }
        for change in changes {
            version = next_version(&mut transaction).await?;
            apply(&mut transaction, change, (version, now)).await?;
            write_down(&mut transaction, change, (version, self.actor, now)).await?;
        }
        for change in changes {
            note(&mut transaction, &self.deed_of(change), now).await?;
        }
        transaction.commit().await?;
        Ok(Ok(version))
    }

    /// What is written down of a change: which setting, and nothing of what it says.
    fn deed_of(&self, change: &SettingChange<'_>) -> Deed<'_> {
        let (action, kind, name, facts) = match *change {
            SettingChange::Put { kind, name, .. } => {
                ("setting.put", kind.as_str(), name, Vec::new())
            }
            SettingChange::Remove { kind, name } => {
                ("setting.remove", kind.as_str(), name, Vec::new())
            }
            SettingChange::Seal { provider, origin, .. } => {
                let facts = vec![("origin", Fact::Name(origin.to_owned()))];
                ("credential.put", CREDENTIAL, provider, facts)
            }
            SettingChange::Unseal { provider } => {
                ("credential.remove", CREDENTIAL, provider, Vec::new())
            }
        };
        self.deed(action, format!("{kind} {name}"), facts)
    }
}

/// Numbers a change. The row stays locked to the end of the transaction, so changes commit in order.
async fn next_version(transaction: &mut Transaction) -> Result<i64, Error> {
    sql("UPDATE counters SET value = value + 1 WHERE name = 'settings_version' RETURNING value")
        .fetch_one(transaction.on())
        .await?
        .int("value")
}

async fn apply(
    transaction: &mut Transaction,
    change: &SettingChange<'_>,
    (version, now): (i64, Timestamp),
) -> Result<(), Error> {
    let statement = match *change {
        SettingChange::Put { kind, name, content } => {
            sql("INSERT INTO settings (kind, name, content, version, changed)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (kind, name) DO UPDATE SET
                     content = excluded.content, version = excluded.version,
                     changed = excluded.changed")
            .bind(kind.as_str())
            .bind(name)
            .bind(content)
            .bind(version)
            .bind(now)
        }
        SettingChange::Remove { kind, name } => {
            if kind == SettingKind::Provider {
                forget_credential(name).execute(transaction.on()).await?;
            }
            sql("DELETE FROM settings WHERE kind = $1 AND name = $2").bind(kind.as_str()).bind(name)
        }
        SettingChange::Seal { provider, origin, sealed } => {
            sql("INSERT INTO credentials (provider, origin, sealed, changed)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (provider) DO UPDATE SET
                     origin = excluded.origin, sealed = excluded.sealed,
                     changed = excluded.changed")
            .bind(provider)
            .bind(origin)
            .bind(sealed)
            .bind(now)
        }
        SettingChange::Unseal { provider } => forget_credential(provider),
    };
    statement.execute(transaction.on()).await?;
    Ok(())
}

fn forget_credential(provider: &str) -> super::statement::Statement<'_> {
    sql("DELETE FROM credentials WHERE provider = $1").bind(provider)
}

async fn write_down(
    transaction: &mut Transaction,
    change: &SettingChange<'_>,
    (version, actor, now): (i64, &str, Timestamp),
) -> Result<(), Error> {
    let (kind, name, content) = match *change {
        SettingChange::Put { kind, name, content } => (kind.as_str(), name, Some(content)),
        SettingChange::Remove { kind, name } => (kind.as_str(), name, None),
        SettingChange::Seal { provider, origin, .. } => (CREDENTIAL, provider, Some(origin)),
        SettingChange::Unseal { provider } => (CREDENTIAL, provider, None),
    };
    sql("INSERT INTO settings_history (version, kind, name, content, actor, changed)
         VALUES ($1, $2, $3, $4, $5, $6)")
    .bind(version)
    .bind(kind)
    .bind(name)
    .bind(content)
    .bind(actor)
    .bind(now)
    .execute(transaction.on())
    .await?;
    Ok(())
}

fn setting(row: &Row) -> Result<Setting, Error> {
    Ok(Setting {
        kind: row.word("kind", SettingKind::parse)?,
        name: row.text("name")?,
        content: row.text("content")?,
        version: row.int("version")?,
        changed: row.time("changed")?,
    })
}

fn credential(row: &Row) -> Result<SealedCredential, Error> {
    Ok(SealedCredential {
        provider: row.text("provider")?,
        origin: row.text("origin")?,
        sealed: row.bytes("sealed")?.to_vec(),
        changed: row.time("changed")?,
    })
}

fn line(row: &Row) -> Result<SettingVersion, Error> {
    Ok(SettingVersion {
        version: row.int("version")?,
        kind: row.text("kind")?,
        name: row.text("name")?,
        content: row.text_if_any("content")?,
        actor: row.text("actor")?,
        changed: row.time("changed")?,
    })
}
