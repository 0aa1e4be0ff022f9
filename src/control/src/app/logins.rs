//! The embedded issuer's device flow (RFC 8628): a device asks, a person decides, the device gets tokens.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::SecretString;
use tokenroute_api::auth::{DeviceAuthorization, IssuedTokens};
use tokenroute_store::{NewDevice, NewRefresh, Polled, Rotated};

use super::Problem;
use super::invitations::login_of;
use crate::identity::issuer::signing::{self, Grant, TOKEN_LIFE};
use crate::identity::issuer::{APPROVAL_PATH, NAME, tries};
use crate::identity::secret;
use crate::{Parts, identity};

/// How long a person has to decide.
const DEVICE_LIFE: Duration = Duration::from_mins(10);
/// The pause between a device's questions, in seconds.
const PAUSE_SECONDS: u32 = 2;
/// How long a login lasts that is not used.
const REFRESH_LIFE: Duration = Duration::from_hours(30 * 24);
/// How often a code for people is drawn anew because it is taken.
const DRAWS_MAX: u32 = 5;
/// Longest text of a client that is read.
const TEXT_BYTES_MAX: usize = 2048;
/// What asks for a refresh token; nothing else can be granted.
const OFFLINE: &str = "offline_access";
/// What a device's code is presented as.
pub(crate) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// What a refresh token is presented as.
pub(crate) const REFRESH_GRANT: &str = "refresh_token";
const DEVICE_PREFIX: &str = "trd_";
const REFRESH_PREFIX: &str = "trr_";

/// Why a client is not let in.
#[derive(Debug)]
pub(crate) enum Denied {
    /// As the protocol says it: its word, and words for people.
    Word(&'static str, &'static str),
    /// For another reason.
    Problem(Problem),
}

impl<P: Into<Problem>> From<P> for Denied {
    fn from(problem: P) -> Self {
        Self::Problem(problem.into())
    }
}

const BAD_CLIENT: Denied =
    Denied::Word("invalid_client", "the client is unknown: /api/v1/auth/discovery names it");
const BAD_TARGET: Denied =
    Denied::Word("invalid_target", "tokens for this resource are not given here");
const BAD_GRANT: Denied =
    Denied::Word("invalid_grant", "it is unknown, was used, or its time is over: log in again");

/// What a client presents of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asking {
    /// Which client.
    pub(crate) client: Option<String>,
    /// What its tokens are to be for (RFC 8707).
    pub(crate) resource: Option<String>,
}

/// The client, if it is ours and asks for what is here.
fn client(parts: &Parts, asking: &Asking) -> Result<String, Denied> {
    let known = identity::client(&parts.settings);
    if asking.client.as_ref() != Some(&known.id) {
        return Err(BAD_CLIENT);
    }
    if asking.resource.as_ref().is_some_and(|resource| *resource != known.resource) {
        return Err(BAD_TARGET);
    }
    Ok(known.id)
}

/// A device asks to be let in.
pub(crate) async fn begin(
    parts: &Parts,
    address: IpAddr,
    asking: &Asking,
    scope: Option<&str>,
) -> Result<DeviceAuthorization, Denied> {
    let client = client(parts, asking)?;
    tries::count_device(parts, address).await?;
    let offline = scope.unwrap_or_default().split(' ').any(|word| word == OFFLINE);
    let now = (parts.now)();
    let device_code = secret::draw(DEVICE_PREFIX, parts.chance)?;
    for _ in 0..DRAWS_MAX {
        let user_code = secret::user_code((parts.chance)().ok_or(Problem::Internal)?);
        let device = NewDevice {
            device: secret::hash(&device_code),
            user_code: &user_code,
            client: &client,
            scope: if offline { OFFLINE } else { "" },
            pause_seconds: PAUSE_SECONDS,
            created: now,
            expires: now.plus(DEVICE_LIFE),
        };
        if secret::typed(&user_code).is_some() && parts.database.create_device(&device).await? {
            let page = format!("{}{APPROVAL_PATH}", parts.settings.public_url);
            let shown = secret::shown(&user_code);
            return Ok(DeviceAuthorization {
                device_code,
                verification_uri_complete: format!("{page}?user_code={shown}"),
                verification_uri: page,
                user_code: shown,
                expires_in: DEVICE_LIFE.as_secs(),
                interval: PAUSE_SECONDS,
            });
        }
    }
    Err(Problem::Internal.into())
}

/// A device asks whether it is let in.
pub(crate) async fn poll(
    parts: &Parts,
    asking: &Asking,
    device_code: Option<&str>,
) -> Result<IssuedTokens, Denied> {
    let client = client(parts, asking)?;
    let Some(device_code) = device_code.filter(|code| code.len() <= TEXT_BYTES_MAX) else {
        return Err(Denied::Word("invalid_request", "device_code is missing"));
    };
    let now = (parts.now)();
    let polled = parts.database.poll_device(&secret::hash(device_code), &client, now).await?;
    let (subject, scope) = match polled {
        Polled::Approved { subject, scope } => (subject, scope),
        Polled::Pending => {
            return Err(Denied::Word("authorization_pending", "nobody has decided yet"));
        }
        Polled::TooSoon => {
            return Err(Denied::Word("slow_down", "wait 5 seconds longer between questions"));
        }
        Polled::Declined => return Err(Denied::Word("access_denied", "the person said no")),
        Polled::Expired => {
            return Err(Denied::Word(
                "expired_token",
                "nobody decided in time: ask for a new code",
            ));
        }
        Polled::Unknown => return Err(BAD_GRANT),
    };
    may_log_in(parts, &subject).await?;
    let grant = Grant { subject: &subject, client: &client, scope: &scope };
    let mut refresh_token = None;
    if scope == OFFLINE {
        let token = secret::draw(REFRESH_PREFIX, parts.chance)?;
        let new = NewRefresh {
            token: secret::hash(&token),
            family: &secret::draw("", parts.chance)?,
            subject: &subject,
            client: &client,
            scope: &scope,
            created: now,
            expires: now.plus(REFRESH_LIFE),
        };
        parts.database.create_refresh(&new).await?;
        refresh_token = Some(token);
    }
    issue(parts, grant, refresh_token).await
}

/// A client changes its refresh token for new tokens.
pub(crate) async fn refresh(
    parts: &Parts,
    asking: &Asking,
    token: Option<&str>,
) -> Result<IssuedTokens, Denied> {
    let client = client(parts, asking)?;
    let Some(token) = token.filter(|token| token.len() <= TEXT_BYTES_MAX) else {
        return Err(Denied::Word("invalid_request", "refresh_token is missing"));
    };
    let (now, next) = ((parts.now)(), secret::draw(REFRESH_PREFIX, parts.chance)?);
    let rotated = parts
        .database
        .rotate_refresh(
            (&secret::hash(token), &client),
            (&secret::hash(&next), now.plus(REFRESH_LIFE)),
            now,
        )
        .await?;
    match rotated {
        Rotated::Done { subject, scope } => {
            may_log_in(parts, &subject).await?;
            let grant = Grant { subject: &subject, client: &client, scope: &scope };
            issue(parts, grant, Some(next)).await
        }
        Rotated::Reused => {
            tracing::warn!("a refresh token came twice: its login is ended");
            Err(BAD_GRANT)
        }
        Rotated::Unknown => Err(BAD_GRANT),
    }
}

/// A client gives its refresh token back: its login is ended. Of an unknown one there is none (RFC 7009).
pub(crate) async fn revoke(
    parts: &Parts,
    asking: &Asking,
    token: Option<&str>,
) -> Result<(), Denied> {
    let client = client(parts, asking)?;
    let Some(token) = token.filter(|token| token.len() <= TEXT_BYTES_MAX) else {
        return Err(Denied::Word("invalid_request", "token is missing"));
    };
    Ok(parts.database.revoke_refresh(&secret::hash(token), &client).await?)
}

/// Whoever is disabled is not let in, and its logins are ended.
async fn may_log_in(parts: &Parts, subject: &str) -> Result<(), Denied> {
    let user = parts.database.user_of(NAME, subject).await?;
    if user.is_some_and(|user| user.is_active) {
        return Ok(());
    }
    parts.database.revoke_refreshes_of(subject).await?;
    Err(BAD_GRANT)
}

async fn issue(
    parts: &Parts,
    grant: Grant<'_>,
    refresh_token: Option<String>,
) -> Result<IssuedTokens, Denied> {
    Ok(IssuedTokens {
        access_token: signing::sign(parts, grant).await?,
        token_type: "Bearer".to_owned(),
        expires_in: TOKEN_LIFE.as_secs(),
        refresh_token,
        scope: grant.scope.to_owned(),
    })
}

/// What a person says of a device.
pub(crate) struct Decision {
    /// The code that it has typed.
    pub(crate) user_code: String,
    /// Who it is.
    pub(crate) login: String,
    /// Its password.
    pub(crate) password: SecretString,
    /// Whether the device is let in.
    pub(crate) approves: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    /// It is as the person says.
    Done,
    /// The login or the password is wrong, or the user is disabled: which, is not told.
    WrongLogin,
    /// No device waits under this code.
    NoCode,
}

/// A person decides. Nobody else learns whether a code or a login is there.
pub(crate) async fn decide(
    parts: &Parts,
    address: IpAddr,
    decision: Decision,
) -> Result<Decided, Problem> {
    let Decision { user_code, login, password, approves } = decision;
    let login = login_of(&login);
    tries::count_login(parts, address, login.as_deref()).await?;
    let local = match &login {
        Some(login) => parts.database.local_user(login).await?,
        None => None,
    };
    let (subject, kept) = local.map(|local| (local.subject, local.password)).unzip();
    let is_right = parts.identity.passwords().verify(password, kept).await?;
    let Some(subject) = subject.filter(|_| is_right) else { return Ok(Decided::WrongLogin) };
    let user = parts.database.user_of(NAME, &subject).await?;
    if !user.is_some_and(|user| user.is_active) {
        return Ok(Decided::WrongLogin);
    }
    let Some(code) = secret::typed(&user_code) else { return Ok(Decided::NoCode) };
    let now = (parts.now)();
    let done = parts.database.decide_device(&code, (&subject, approves), now).await?;
    Ok(if done { Decided::Done } else { Decided::NoCode })
}
