//! People who have logged in, known by who says so and what it calls them.

use tokenroute_domain::id::{AccountId, UserId};
use tokenroute_domain::key::Funding;
use tokenroute_domain::time::Timestamp;

use super::Database;
use super::audit::{Acting, Fact, note};
use super::statement::{Row, Transaction, sql};
use crate::Error;

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What concerns the user's own account.
    User,
    /// Everything.
    Admin,
}

impl Role {
    /// As it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// Reads what `as_str` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::User, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What it is called here.
    pub id: UserId,
    /// Who says who it is.
    pub issuer: String,
    /// What that one calls it.
    pub subject: String,
    /// Whose money it spends.
    pub account: AccountId,
    /// What people call it; may be empty.
    pub display_name: String,
    /// Its address, if the issuer vouches for it.
    pub email: Option<String>,
    /// What it may do.
    pub role: Role,
    /// Whether it may do anything.
    pub is_active: bool,
    /// When it first came.
    pub created: Timestamp,
}

const ACTIVE: &str = "active";
const DISABLED: &str = "disabled";

impl Database {
    /// The user whom `issuer` calls `subject`.
    pub async fn user_of(&self, issuer: &str, subject: &str) -> Result<Option<User>, Error> {
        let row = sql("SELECT * FROM users WHERE issuer = $1 AND subject = $2")
            .bind(issuer)
            .bind(subject)
            .fetch_optional(self.reading())
            .await?;
        row.as_ref().map(user).transpose()
    }

    /// Creates a user, and its account, which pays in advance and is called what the user is. `false` if
    /// the issuer's subject is known already, or the identifier is taken.
    pub async fn create_user(&self, user: &User) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        if !insert(&mut transaction, user).await? {
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// At most `limit` users in the order of their creation, from the one after `after` on.
    pub async fn users(&self, after: Option<UserId>, limit: u32) -> Result<Vec<User>, Error> {
        let rows = sql("SELECT * FROM users WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.map(|id| id.to_string()).unwrap_or_default())
            .bind(limit)
            .fetch_all(self.reading())
            .await?;
        rows.iter().map(user).collect()
    }
}

impl Acting<'_> {
    /// Changes what a user may do, and returns it as it is then; `None` if there is none. What is not
    /// said stays.
    pub async fn change_user(
        &self,
        id: UserId,
        (role, is_active): (Option<Role>, Option<bool>),
        now: Timestamp,
    ) -> Result<Option<User>, Error> {
        let status = is_active.map(|active| if active { ACTIVE } else { DISABLED });
        let mut transaction = self.database.begin().await?;
        let row = sql("UPDATE users SET role = COALESCE($2, role), status = COALESCE($3, status)
             WHERE id = $1 RETURNING *")
        .bind(id)
        .bind(role.map(Role::as_str))
        .bind(status)
        .fetch_optional(transaction.on())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let role = role.map(|role| ("role", Fact::Word(role.as_str())));
        let status = status.map(|status| ("status", Fact::Word(status)));
        let facts = role.into_iter().chain(status).collect();
        note(&mut transaction, &self.deed("user.change", id, facts), now).await?;
        transaction.commit().await?;
        user(&row).map(Some)
    }
}

/// Creates a user and its account, if nothing of them is there.
pub(super) async fn insert(transaction: &mut Transaction, user: &User) -> Result<bool, Error> {
    let account = sql("INSERT INTO accounts (id, name, funding, created)
         VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING")
    .bind(user.account)
    .bind(user.id)
    .bind(Funding::Prepaid.as_str())
    .bind(user.created)
    .execute(transaction.on())
    .await?;
    let created = sql("INSERT INTO users
             (id, issuer, subject, account, display_name, email, role, status, created)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING")
    .bind(user.id)
    .bind(&user.issuer)
    .bind(&user.subject)
    .bind(user.account)
    .bind(&user.display_name)
    .bind(user.email.as_deref())
    .bind(user.role.as_str())
    .bind(if user.is_active { ACTIVE } else { DISABLED })
    .bind(user.created)
    .execute(transaction.on())
    .await?;
    Ok(account == 1 && created == 1)
}

fn user(row: &Row) -> Result<User, Error> {
    let status = |text: &str| match text {
        ACTIVE => Some(true),
        DISABLED => Some(false),
        _ => None,
    };
    Ok(User {
        id: row.word("id", UserId::parse)?,
        issuer: row.text("issuer")?,
        subject: row.text("subject")?,
        account: row.word("account", AccountId::parse)?,
        display_name: row.text("display_name")?,
        email: row.text_if_any("email")?,
        role: row.word("role", Role::parse)?,
        is_active: row.word("status", status)?,
        created: row.time("created")?,
    })
}
