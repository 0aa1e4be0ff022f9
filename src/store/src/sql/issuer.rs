//! The embedded issuer's own: local users, the links that make them, its signing keys, and what was tried
//! too often. Devices and refresh tokens are in `grants`.

use std::time::Duration;

use tokenroute_domain::time::Timestamp;

use super::Database;
use super::audit::{Acting, Deed, Fact, note};
use super::statement::{Row, sql};
use super::users::{Role, User, insert};
use crate::Error;

/// What is hashed before it is kept, as the issuer's codes, tokens and links are.
pub type Digest = [u8; 32];

/// A local user's password, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUser {
    /// What the issuer calls the user in tokens.
    pub subject: String,
    /// What the user types.
    pub login: String,
    /// The password's hash, with its salt and parameters (PHC string).
    pub password: String,
}

/// What came of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// The user is made.
    Done,
    /// It is none, was used, or its time is over.
    NoLink,
    /// Somebody has the login; the link can be used again.
    LoginTaken,
}

/// A key that the issuer signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerKey {
    /// What tokens name it by.
    pub kid: String,
    /// The private key, encrypted.
    pub sealed: Vec<u8>,
    /// The public key (JWK).
    pub public: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was replaced; from then on it verifies only.
    pub retired: Option<Timestamp>,
}

impl Database {
    /// Whether there is a local user.
    pub async fn any_local_user(&self) -> Result<bool, Error> {
        let select = sql("SELECT subject FROM issuer_users LIMIT 1");
        Ok(select.fetch_optional(self.reading()).await?.is_some())
    }

    /// The local user who logs in so.
    pub async fn local_user(&self, login: &str) -> Result<Option<LocalUser>, Error> {
        let row = sql("SELECT subject, login, password FROM issuer_users WHERE login = $1")
            .bind(login)
            .fetch_optional(self.reading())
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(LocalUser {
            subject: row.text("subject")?,
            login: row.text("login")?,
            password: row.text("password")?,
        }))
    }

    /// The role of whom a link makes, while it can be used.
    pub async fn link(&self, token: &Digest, now: Timestamp) -> Result<Option<Role>, Error> {
        let row = sql("SELECT role FROM issuer_links
             WHERE token = $1 AND used IS NULL AND expires > $2")
        .bind(token.as_slice())
        .bind(now)
        .fetch_optional(self.reading())
        .await?;
        row.map(|row| row.word("role", Role::parse)).transpose()
    }

    /// Uses a link: makes a local user, and the user whom its tokens are of, with the link's role. The first
    /// user of all ends every other link, which were for the same purpose.
    pub async fn redeem_link(
        &self,
        token: &Digest,
        local: &LocalUser,
        user: &User,
    ) -> Result<Redeemed, Error> {
        let mut transaction = self.begin().await?;
        let row = sql("UPDATE issuer_links SET used = $2
             WHERE token = $1 AND used IS NULL AND expires > $2 RETURNING role")
        .bind(token.as_slice())
        .bind(user.created)
        .fetch_optional(transaction.on())
        .await?;
        let Some(row) = row else { return Ok(Redeemed::NoLink) };
        let role = row.word("role", Role::parse)?;
        sql("DELETE FROM issuer_links
             WHERE token <> $1 AND NOT EXISTS (SELECT 1 FROM issuer_users)")
        .bind(token.as_slice())
        .execute(transaction.on())
        .await?;
        let done = sql("INSERT INTO issuer_users (subject, login, password, created)
             VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
        .bind(&local.subject)
        .bind(&local.login)
        .bind(&local.password)
        .bind(user.created)
        .execute(transaction.on())
        .await?;
        if done == 0 || !insert(&mut transaction, &User { role, ..user.clone() }).await? {
            return Ok(Redeemed::LoginTaken);
        }
        // Whoever has the link acts for itself: there was nobody before.
        let actor = format!("user {}", user.id);
        let facts = vec![("role", Fact::Word(role.as_str()))];
        let (action, subject) = ("user.create", user.id.to_string());
        let deed = Deed { actor: &actor, action, subject, facts };
        note(&mut transaction, &deed, user.created).await?;
        transaction.commit().await?;
        Ok(Redeemed::Done)
    }

    /// The issuer's keys, the newest first.
    pub async fn issuer_keys(&self) -> Result<Vec<IssuerKey>, Error> {
        let select = sql("SELECT * FROM issuer_keys ORDER BY created DESC, kid");
        select.fetch_all(self.reading()).await?.iter().map(key).collect()
    }

    /// Keeps a new key and retires all others.
    pub async fn add_issuer_key(&self, key: &IssuerKey) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        sql("UPDATE issuer_keys SET retired = $1 WHERE retired IS NULL")
            .bind(key.created)
            .execute(transaction.on())
            .await?;
        sql("INSERT INTO issuer_keys (kid, sealed, public, created) VALUES ($1, $2, $3, $4)")
            .bind(&key.kid)
            .bind(key.sealed.as_slice())
            .bind(&key.public)
            .bind(key.created)
            .execute(transaction.on())
            .await?;
        transaction.commit().await
    }

    /// Counts a try of `what` in the window that began at `window`, and says how many there are now.
    pub async fn count_try(&self, what: &str, window: u64) -> Result<u64, Error> {
        sql("INSERT INTO issuer_tries (what, minute, tries) VALUES ($1, $2, 1)
             ON CONFLICT (what, minute) DO UPDATE SET tries = issuer_tries.tries + 1
             RETURNING tries")
        .bind(what)
        .bind(window)
        .fetch_one(self.writing())
        .await?
        .count("tries")
    }

    /// Forgets what is over: codes, refresh tokens and links a while after their time, tries, and keys that
    /// were retired `keep` ago.
    pub async fn purge_issuer(
        &self,
        (window, now): (u64, Timestamp),
        keep: Duration,
    ) -> Result<(), Error> {
        let keep = u64::try_from(keep.as_micros()).unwrap_or(u64::MAX);
        let past = Timestamp(now.micros().saturating_sub(keep));
        for delete in [
            sql("DELETE FROM issuer_devices WHERE expires < $1").bind(past),
            sql("DELETE FROM issuer_refreshes WHERE expires < $1").bind(past),
            sql("DELETE FROM issuer_links WHERE expires < $1").bind(past),
            sql("DELETE FROM issuer_keys WHERE retired < $1").bind(past),
            sql("DELETE FROM issuer_tries WHERE minute < $1").bind(window),
        ] {
            delete.execute(self.writing()).await?;
        }
        Ok(())
    }
}

impl Acting<'_> {
    /// Keeps a link that makes one user of that role.
    pub async fn create_link(
        &self,
        token: &Digest,
        role: Role,
        (now, expires): (Timestamp, Timestamp),
    ) -> Result<(), Error> {
        let mut transaction = self.database.begin().await?;
        sql("INSERT INTO issuer_links (token, role, created, expires) VALUES ($1, $2, $3, $4)")
            .bind(token.as_slice())
            .bind(role.as_str())
            .bind(now)
            .bind(expires)
            .execute(transaction.on())
            .await?;
        let facts = vec![("role", Fact::Word(role.as_str())), ("expires", Fact::Time(expires))];
        note(&mut transaction, &self.deed("user.invite", "link", facts), now).await?;
        transaction.commit().await
    }
}

fn key(row: &Row) -> Result<IssuerKey, Error> {
    Ok(IssuerKey {
        kid: row.text("kid")?,
        sealed: row.bytes("sealed")?.to_vec(),
        public: row.text("public")?,
        created: row.time("created")?,
        retired: row.time_if_any("retired")?,
    })
}
