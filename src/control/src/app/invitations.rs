//! Links with which a person makes itself a user of the embedded issuer: the first administrator's set-up,
//! and invitations.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokenroute_domain::id::{AccountId, UserId};
use tokenroute_domain::time::Timestamp;
use tokenroute_store::{Acting, LocalUser, Redeemed, Role, User};

use super::Problem;
use super::users::chance;
use crate::Parts;
use crate::identity::issuer::password::LENGTHS;
use crate::identity::issuer::{NAME, SETUP_PATH, tries};
use crate::identity::secret;

/// How long the first administrator's link works.
const SETUP_LIFE: Duration = Duration::from_mins(30);
/// How long an invitation works.
const INVITATION_LIFE: Duration = Duration::from_hours(24);
/// Longest login, in characters.
const LOGIN_MAX: usize = 64;

/// A new link that makes one administrator, for whoever is at the server. It works once, for half an hour.
pub async fn setup_link(
    by: Acting<'_>,
    public_url: &str,
    now: Timestamp,
    chance: fn() -> Option<[u8; 32]>,
) -> Result<String, Problem> {
    let expires = now.plus(SETUP_LIFE);
    link((by, public_url), Role::Admin, (now, expires), chance).await
}

/// The first administrator's link, as long as there is no user at all.
pub async fn first_setup_link(parts: &Parts) -> Result<Option<String>, Problem> {
    if parts.settings.oidc.is_some() || parts.database.any_local_user().await? {
        return Ok(None);
    }
    let public_url = &parts.settings.public_url;
    setup_link(parts.database.acting("gateway"), public_url, (parts.now)(), parts.chance)
        .await
        .map(Some)
}

/// An invitation, and when it stops working.
pub(crate) async fn invite(
    parts: &Parts,
    actor: &str,
    role: Role,
) -> Result<(String, Timestamp), Problem> {
    if parts.settings.oidc.is_some() {
        let message = "users are the issuer's: invite them there".to_owned();
        return Err(Problem::Conflict { reason: "issuer_is_external", message });
    }
    let now = (parts.now)();
    let expires = now.plus(INVITATION_LIFE);
    let place = (parts.database.acting(actor), parts.settings.public_url.as_str());
    Ok((link(place, role, (now, expires), parts.chance).await?, expires))
}

async fn link(
    (by, public_url): (Acting<'_>, &str),
    role: Role,
    times: (Timestamp, Timestamp),
    chance: fn() -> Option<[u8; 32]>,
) -> Result<String, Problem> {
    let token = secret::draw("", chance)?;
    by.create_link(&secret::hash(&token), role, times).await?;
    Ok(format!("{public_url}{SETUP_PATH}?token={token}"))
}

/// Whether a link can be used now.
pub(crate) async fn is_open(parts: &Parts, token: &str) -> Result<bool, Problem> {
    Ok(parts.database.link(&secret::hash(token), (parts.now)()).await?.is_some())
}

/// A login as it is kept: in small letters, of those that cannot be taken for each other.
pub(crate) fn login_of(typed: &str) -> Option<String> {
    let login = typed.trim().to_ascii_lowercase();
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
    let sound = (1..=LOGIN_MAX).contains(&login.len()) && login.bytes().all(sound);
    sound.then_some(login)
}

/// A new user as it describes itself.
pub(crate) struct Newcomer {
    /// What it will log in with.
    pub(crate) login: String,
    /// Its password.
    pub(crate) password: SecretString,
    /// The same again, if it was asked for.
    pub(crate) again: Option<SecretString>,
}

/// What came of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The user is made.
    Done,
    /// The link does not work, or not any more.
    NoLink,
    /// This is to be put right first; the link can be used again.
    Wrong(&'static str),
}

/// Uses a link. It is used up only if a user is made.
pub(crate) async fn join(
    parts: &Parts,
    address: IpAddr,
    token: &str,
    newcomer: Newcomer,
) -> Result<Joined, Problem> {
    tries::count_login(parts, address, None).await?;
    let now = (parts.now)();
    let token = secret::hash(token);
    if parts.database.link(&token, now).await?.is_none() {
        return Ok(Joined::NoLink);
    }
    let Newcomer { login, password, again } = newcomer;
    let Some(login) = login_of(&login) else {
        return Ok(Joined::Wrong(
            "The login must be 1 to 64 of the letters a to z, digits, and . _ @ + -",
        ));
    };
    if again.is_some_and(|again| again.expose_secret() != password.expose_secret()) {
        return Ok(Joined::Wrong("The two passwords are not the same"));
    }
    if !LENGTHS.contains(&password.expose_secret().chars().count()) {
        return Ok(Joined::Wrong("The password must have 10 to 256 characters"));
    }
    let salt = chance(parts)?.to_be_bytes();
    let password = parts.identity.passwords().hash(password, salt).await?;
    let id = UserId::new(now, chance(parts)?);
    let local = LocalUser { subject: id.to_string(), login: login.clone(), password };
    let user = User {
        id,
        issuer: NAME.to_owned(),
        subject: local.subject.clone(),
        account: AccountId::new(now, chance(parts)?),
        display_name: login,
        email: None,
        role: Role::User,
        is_active: true,
        created: now,
    };
    Ok(match parts.database.redeem_link(&token, &local, &user).await? {
        Redeemed::Done => Joined::Done,
        Redeemed::NoLink => Joined::NoLink,
        Redeemed::LoginTaken => Joined::Wrong("Somebody has this login: choose another"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_kept_as_it_is_compared() {
        assert_eq!(login_of(" Ann@Example.org ").as_deref(), Some("ann@example.org"));
        let long = "x".repeat(LOGIN_MAX + 1);
        for wrong in ["", " ", "a b", "an\nn", "a\u{430}n", "<b>", long.as_str()] {
            assert_eq!(login_of(wrong), None, "{wrong}");
        }
    }
}
