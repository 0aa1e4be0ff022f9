//! People: made when they first come, with an account of their own.

use serde_json::Value;
use tokenroute_api::me::Me;
use tokenroute_api::users as api;
use tokenroute_domain::id::{AccountId, UserId};
use tokenroute_domain::time::utc;
use tokenroute_store::{Role, User};

use super::page::Page;
use super::text::invalid;
use super::{Problem, invitations};
use crate::Parts;
use crate::identity::caller::{Admin, Person};
use crate::identity::issuer::NAME;
use crate::identity::token::Claims;

/// Longest name and address that are kept of a user, in characters.
const TEXT_MAX: usize = 200;

/// The user of a token's claims, whom its first request makes.
pub(crate) async fn recognise(
    parts: &Parts,
    claims: &Claims,
    token: &str,
) -> Result<User, Problem> {
    let (issuer, subject) = (parts.identity.issuer_name(), claims.sub.as_str());
    if let Some(user) = parts.database.user_of(issuer, subject).await? {
        return Ok(user);
    }
    let (display_name, email) = called(parts, claims, token).await;
    let now = (parts.now)();
    let user = User {
        id: UserId::new(now, chance(parts)?),
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
        account: AccountId::new(now, chance(parts)?),
        display_name,
        email,
        role: Role::User,
        is_active: true,
        created: now,
    };
    if parts.database.create_user(&user).await? {
        return Ok(user);
    }
    // Another request of the same user was first.
    parts.database.user_of(issuer, subject).await?.ok_or(Problem::Unavailable)
}

/// 128 bits of chance.
pub(crate) fn chance(parts: &Parts) -> Result<u128, Problem> {
    let drawn = (parts.chance)().ok_or(Problem::Internal)?;
    let (half, _) = drawn.split_first_chunk::<16>().ok_or(Problem::Internal)?;
    Ok(u128::from_be_bytes(*half))
}

/// What people call the user, and its address: as the token says, else as the issuer does.
async fn called(parts: &Parts, claims: &Claims, token: &str) -> (String, Option<String>) {
    let name = text(claims.name.as_ref()).or_else(|| text(claims.username.as_ref()));
    let email = vouched(claims.email.as_ref(), claims.email_verified.as_ref());
    if let (Some(name), Some(email)) = (&name, &email) {
        return (name.clone(), Some(email.clone()));
    }
    let told = parts.identity.userinfo(token).await.unwrap_or_default();
    // It must be of the same one (OpenID Connect Core, section 5.3.2).
    if told.get("sub").and_then(Value::as_str) != Some(&claims.sub) {
        return (name.unwrap_or_default(), email);
    }
    let further = ["name", "preferred_username", "username"];
    let name = name.or_else(|| further.into_iter().find_map(|field| text(told.get(field))));
    let email = email.or_else(|| vouched(told.get("email"), told.get("email_verified")));
    (name.unwrap_or_default(), email)
}

/// An address counts only if the issuer says that it is the user's.
fn vouched(email: Option<&Value>, verified: Option<&Value>) -> Option<String> {
    let verified = verified.is_some_and(|said| *said == true || *said == "true");
    text(email).filter(|_| verified)
}

/// A text that can be shown: no control characters, not too long, not empty.
fn text(value: Option<&Value>) -> Option<String> {
    let kept = value?.as_str()?.chars().filter(|one| !one.is_control()).take(TEXT_MAX);
    let kept = kept.collect::<String>().trim().to_owned();
    (!kept.is_empty()).then_some(kept)
}

/// Who a user is, told to itself.
pub(crate) async fn me(parts: &Parts, person: &Person) -> Result<Me, Problem> {
    let balance = parts.database.balance(person.account).await?;
    let Person { user, is_admin, .. } = person;
    Ok(Me {
        id: user.id.to_string(),
        display_name: user.display_name.clone(),
        email: user.email.clone(),
        logto_sub: user.subject.clone(),
        balance_usd: balance.total().to_string(),
        status: if user.is_active { "active" } else { "disabled" }.to_owned(),
        role: if *is_admin { Role::Admin } else { Role::User }.as_str().to_owned(),
    })
}

/// People who have logged in, in the order in which they came.
pub(crate) async fn list(parts: &Parts, page: Page<'_>) -> Result<api::Users, Problem> {
    let limit = page.limit()?;
    let after = page.after(UserId::parse)?;
    let mut all = parts.database.users(after, limit.saturating_add(1)).await?;
    let next_cursor = Page::next(&mut all, limit, |user| user.id.to_string());
    Ok(api::Users { data: all.iter().map(shown).collect(), next_cursor })
}

/// Changes what a user may do. Nobody changes its own rights: the last administrator stays one.
pub(crate) async fn change(
    parts: &Parts,
    admin: &Admin,
    id: &str,
    wanted: &api::UserChange,
) -> Result<api::User, Problem> {
    let Admin(person) = admin;
    let role = wanted.role.as_deref().map(role).transpose()?;
    let is_active = match wanted.status.as_deref() {
        None => None,
        Some("active") => Some(true),
        Some("disabled") => Some(false),
        Some(_) => {
            let message = "status: write active or disabled";
            return Err(invalid("status_invalid", "status", message));
        }
    };
    let id = UserId::parse(id).ok_or(Problem::NotFound("user"))?;
    if id == person.user.id {
        return Err(Problem::Conflict {
            reason: "own_rights",
            message: "nobody changes its own rights: ask another administrator".to_owned(),
        });
    }
    let by = person.actor();
    let changed = parts.database.acting(&by);
    let changed = changed.change_user(id, (role, is_active), (parts.now)()).await?;
    let user = changed.ok_or(Problem::NotFound("user"))?;
    if !user.is_active && user.issuer == NAME {
        parts.database.revoke_refreshes_of(&user.subject).await?;
    }
    Ok(shown(&user))
}

/// Makes a link for one person.
pub(crate) async fn invite(
    parts: &Parts,
    admin: &Admin,
    wanted: &api::NewInvitation,
) -> Result<api::Invitation, Problem> {
    let role = role(&wanted.role)?;
    let (url, expires) = invitations::invite(parts, &admin.0.actor(), role).await?;
    Ok(api::Invitation { url, expires_at: utc::seconds(expires) })
}

fn role(word: &str) -> Result<Role, Problem> {
    Role::parse(word).ok_or_else(|| invalid("role_invalid", "role", "role: write user or admin"))
}

fn shown(user: &User) -> api::User {
    api::User {
        id: user.id.to_string(),
        issuer: user.issuer.clone(),
        subject: user.subject.clone(),
        account_id: user.account.to_string(),
        display_name: user.display_name.clone(),
        email: user.email.clone(),
        role: user.role.as_str().to_owned(),
        status: if user.is_active { "active" } else { "disabled" }.to_owned(),
        created_at: utc::seconds(user.created),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_is_the_users_only_if_the_issuer_says_so() {
        let email = json!("a@example.org");
        for (verified, kept) in
            [(json!(true), true), (json!("true"), true), (json!(false), false), (json!(1), false)]
        {
            assert_eq!(vouched(Some(&email), Some(&verified)).is_some(), kept, "{verified}");
        }
        assert_eq!(vouched(Some(&email), None), None);
        assert_eq!(vouched(Some(&json!(7)), Some(&json!(true))), None);
    }

    #[test]
    fn a_name_is_a_text_that_can_be_shown() {
        assert_eq!(text(Some(&json!(" A\u{1b}[2J\nB "))).as_deref(), Some("A[2JB"));
        assert_eq!(text(Some(&json!("\n"))), None);
        assert_eq!(text(Some(&json!({"a": 1}))), None);
        assert_eq!(text(Some(&json!("x".repeat(999)))).unwrap().len(), TEXT_MAX);
    }
}
