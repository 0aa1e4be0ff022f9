//! What is kept between runs: for each gateway the tokens that its issuer gave, and which gateway the last key is
//! for. A token or key goes to no other gateway than the one that it was kept for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokenroute_api::auth::Discovery;

use crate::failure::Failure;
use crate::files::{Files, Lock};
use crate::secret::Secret;
use crate::surroundings::Clock;

const CREDENTIALS: &str = "credentials.json";
const LAST_KEY: &str = "last_key.txt";
/// The file's form.
const VERSION: u32 = 1;
/// A token is renewed when this much of its time is left, in seconds: the request has to arrive, too.
const MARGIN_SECONDS: i64 = 60;

/// All that is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    v: u32,
    /// By the gateway's address.
    sessions: BTreeMap<String, Session>,
    /// Whose the key in the other file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_key: Option<Owner>,
}

/// Which key it is.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    api_url: String,
    id: String,
}

/// A login at a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Who issued the tokens.
    pub(crate) issuer: String,
    /// What we are called there.
    pub(crate) client_id: String,
    /// Where they are renewed: a refresh token goes nowhere else.
    pub(crate) token_endpoint: String,
    /// What they are for.
    pub(crate) resource: String,
    /// What requests carry.
    pub(crate) access_token: Secret,
    /// What renews it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_token: Option<Secret>,
    /// When the access token ends, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<i64>,
}

/// An answer of a token endpoint (RFC 6749, 5.1).
#[derive(Debug, Deserialize)]
pub(crate) struct Tokens {
    access_token: Secret,
    token_type: String,
    #[serde(default)]
    expires_in: Option<i64>,
    #[serde(default)]
    refresh_token: Option<Secret>,
}

impl Tokens {
    /// Reads an answer; `None` if it is none, or has a token that we cannot carry.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let tokens: Self = serde_json::from_slice(body).ok()?;
        let is_whole = |secret: &Secret| Secret::parse(secret.reveal()).is_some();
        let good = tokens.token_type.eq_ignore_ascii_case("bearer")
            && is_whole(&tokens.access_token)
            && tokens.refresh_token.as_ref().is_none_or(is_whole);
        good.then_some(tokens)
    }
}

impl Session {
    /// The login that `tokens` make at `now_seconds`.
    pub(crate) fn new(discovery: &Discovery, tokens: Tokens, now_seconds: i64) -> Self {
        Self {
            issuer: discovery.issuer.clone(),
            client_id: discovery.client_id.clone(),
            token_endpoint: discovery.token_endpoint.clone(),
            resource: discovery.resource.clone(),
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            expires_at: tokens.expires_in.map(|time| now_seconds.saturating_add(time)),
        }
    }

    /// The same login with new tokens. An issuer that does not say a refresh token anew leaves the old one good.
    pub(crate) fn renewed(&self, tokens: Tokens, now_seconds: i64) -> Self {
        Self {
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token.or_else(|| self.refresh_token.clone()),
            expires_at: tokens.expires_in.map(|time| now_seconds.saturating_add(time)),
            ..self.clone()
        }
    }

    /// Whether it is time to renew the access token.
    pub(crate) fn is_stale(&self, now_seconds: i64) -> bool {
        self.expires_at.is_some_and(|end| end.saturating_sub(MARGIN_SECONDS) <= now_seconds)
    }
}

/// What is kept in `files`.
#[derive(Clone, Debug)]
pub(crate) struct Credentials(Files);

impl Credentials {
    /// What is kept there.
    pub(crate) fn of(files: Files) -> Self {
        Self(files)
    }

    /// Waits until nobody else changes what is kept.
    pub(crate) fn lock(&self, clock: &dyn Clock) -> Result<Lock, Failure> {
        self.0.lock(clock)
    }

    fn read(&self) -> Result<Kept, Failure> {
        let empty = Kept { v: VERSION, sessions: BTreeMap::new(), last_key: None };
        let Some(text) = self.0.read(CREDENTIALS)? else { return Ok(empty) };
        let path = self.0.path(CREDENTIALS)?;
        let shown = path.display();
        // What serde says of it could show a token.
        let kept: Kept = serde_json::from_str(&text).map_err(|_| {
            Failure::file(format!("{shown} is damaged: remove it and log in again"))
        })?;
        if kept.v == VERSION {
            return Ok(kept);
        }
        Err(Failure::file(format!("{shown} is of another version: remove it and log in again")))
    }

    fn write(&self, kept: &Kept) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(kept)
            .map_err(|_| Failure::file("credentials cannot be written"))?;
        self.0.write(CREDENTIALS, &format!("{text}\n")).map(|_| ())
    }

    /// The login at the gateway.
    pub(crate) fn session(&self, api_url: &str) -> Result<Option<Session>, Failure> {
        Ok(self.read()?.sessions.remove(api_url))
    }

    /// Keeps a login, or takes it away; says whether there was one. The lock is the caller's.
    pub(crate) fn keep_session(
        &self,
        api_url: &str,
        session: Option<Session>,
    ) -> Result<bool, Failure> {
        let mut kept = self.read()?;
        let before = match session {
            Some(session) => kept.sessions.insert(api_url.to_owned(), session),
            None => kept.sessions.remove(api_url),
        };
        if before.is_some() || kept.sessions.contains_key(api_url) {
            self.write(&kept)?;
        }
        Ok(before.is_some())
    }

    /// The last key, if it is for this gateway. A file that somebody put there is for whichever is asked.
    pub(crate) fn last_key(&self, api_url: &str) -> Result<Option<Secret>, Failure> {
        let Some(text) = self.0.read(LAST_KEY)? else { return Ok(None) };
        let is_ours = self.read()?.last_key.is_none_or(|owner| owner.api_url == api_url);
        Ok(Secret::parse(&text).filter(|_| is_ours))
    }

    /// Keeps a key. The lock is the caller's.
    pub(crate) fn keep_key(
        &self,
        api_url: &str,
        id: &str,
        key: &Secret,
    ) -> Result<PathBuf, Failure> {
        let mut kept = self.read()?;
        kept.last_key = Some(Owner { api_url: api_url.to_owned(), id: id.to_owned() });
        // First whose it is: in no moment is it taken for another gateway's.
        self.0.remove(LAST_KEY)?;
        self.write(&kept)?;
        self.0.write(LAST_KEY, &format!("{}\n", key.reveal()))
    }

    /// Forgets the last key if it is this one. The lock is the caller's.
    pub(crate) fn forget_key(&self, api_url: &str, id: &str) -> Result<(), Failure> {
        let mut kept = self.read()?;
        if kept.last_key.as_ref().is_some_and(|last| last.api_url == api_url && last.id == id) {
            kept.last_key = None;
            self.0.remove(LAST_KEY)?;
            self.write(&kept)?;
        }
        Ok(())
    }
}
