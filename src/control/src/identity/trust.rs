//! What is known of the issuer: where its endpoints are and which keys it signs with.
//!
//! It is asked for when it is needed first, and again when it is old or a token names an unknown key: by one
//! at a time, and not again for a while, whoever presents how many tokens. What was known serves on while the
//! issuer cannot be reached.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokenroute_domain::time::Timestamp;
use tokio::sync::Mutex;

use super::fetch::{Failure, Fetcher, is_safe};
use super::issuer::{DEVICE_PATH, KEYS_PATH, TOKEN_PATH, signing};
use super::token::{Head, Keys, Rules};
use crate::Parts;
use crate::app::Problem;

/// For how long what is known needs no other look.
const FRESH: Duration = Duration::from_mins(5);
/// For how long it serves while the issuer cannot be reached.
const STALE_MAX: Duration = Duration::from_hours(24);
/// The pause after a look that has succeeded, however many unknown keys are named.
const PAUSE: Duration = Duration::from_secs(30);
/// The pause after one that has failed.
const PAUSE_FAILED: Duration = Duration::from_secs(3);

/// What an issuer says of itself (OpenID Connect Discovery 1.0, RFC 8628).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) issuer: String,
    jwks_uri: String,
    /// Where the device code becomes a token.
    pub(crate) token_endpoint: Option<String>,
    /// Where a device code is asked for.
    pub(crate) device_authorization_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
}

impl Metadata {
    /// Whether it is the issuer's that was asked, and nothing that it names is open to others' ears.
    fn is_sound(&self, issuer: &str) -> bool {
        let named = [
            Some(&self.jwks_uri),
            self.token_endpoint.as_ref(),
            self.device_authorization_endpoint.as_ref(),
            self.userinfo_endpoint.as_ref(),
        ];
        self.issuer == issuer && named.into_iter().flatten().all(|url| is_safe(url))
    }
}

/// What is known of the issuer.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// What it says of itself.
    pub(crate) metadata: Arc<Metadata>,
    /// Its keys.
    pub(crate) keys: Keys,
    since: Timestamp,
}

/// When it was asked last.
#[derive(Clone, Copy, Debug, Default)]
struct Asked(Option<(Timestamp, Duration)>);

impl Asked {
    /// Whether it may be asked again. A clock that was set back does not hold it up.
    fn may_again(self, now: Timestamp) -> bool {
        self.0.is_none_or(|(at, pause)| now < at || now.since(at) >= pause)
    }
}

/// What is known of the issuer, and how it is got to know.
#[derive(Debug)]
pub(crate) struct Trust {
    rules: Rules,
    /// Who asks an external issuer; the embedded one is in the database.
    fetcher: Option<Fetcher>,
    known: RwLock<Option<Arc<Known>>>,
    /// Whoever has it asks; the others wait for what it learns.
    asked: Arc<Mutex<Asked>>,
}

impl Trust {
    pub(super) fn new(rules: Rules, is_external: bool) -> Self {
        let fetcher = is_external.then(Fetcher::new);
        Self { rules, fetcher, known: RwLock::default(), asked: Arc::default() }
    }

    pub(super) const fn is_external(&self) -> bool {
        self.fetcher.is_some()
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    fn present(&self) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known, with the key of `head` if the issuer has it. The issuer is asked if that is called for.
    pub(super) async fn known(
        self: &Arc<Self>,
        parts: &Parts,
        head: Option<&Head>,
    ) -> Result<Arc<Known>, Problem> {
        let serves = |known: &Known, age: Duration| {
            age < STALE_MAX && head.is_none_or(|head| known.keys.have(head))
        };
        let age = |known: &Known| (parts.now)().since(known.since);
        if let Some(known) = self.present()
            && serves(&known, age(&known))
        {
            if age(&known) >= FRESH {
                self.refresh_beside(parts);
            }
            return Ok(known);
        }
        let mut asked = self.asked.lock().await;
        // Who had it before may have learnt what is wanted.
        if self.present().is_none_or(|known| !serves(&known, age(&known))) {
            self.refresh(parts, &mut asked).await;
        }
        drop(asked);
        self.present().filter(|known| age(known) < STALE_MAX).ok_or(Problem::Unavailable)
    }

    /// Asks without anybody waiting for it.
    fn refresh_beside(self: &Arc<Self>, parts: &Parts) {
        let Ok(mut asked) = Arc::clone(&self.asked).try_lock_owned() else { return };
        if asked.may_again((parts.now)()) {
            let (this, parts) = (Arc::clone(self), parts.clone());
            tokio::spawn(async move { this.refresh(&parts, &mut asked).await });
        }
    }

    /// Asks, unless it was asked a moment ago.
    async fn refresh(&self, parts: &Parts, asked: &mut Asked) {
        let now = (parts.now)();
        if !asked.may_again(now) {
            return;
        }
        // Before it is asked: should whoever waits leave, it has been asked all the same.
        *asked = Asked(Some((now, PAUSE_FAILED)));
        let (learnt, pause) = match &self.fetcher {
            Some(fetcher) => (self.learn(fetcher, now).await, PAUSE),
            // It is no further than the database, which each request asks anyway.
            None => (self.learn_here(parts, now).await, Duration::ZERO),
        };
        match learnt {
            Ok(known) => {
                *asked = Asked(Some((now, pause)));
                let known = Some(Arc::new(known));
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
            }
            Err(failure) => tracing::warn!(%failure, "the issuer of tokens cannot be asked"),
        }
    }

    async fn learn(&self, fetcher: &Fetcher, now: Timestamp) -> Result<Known, Failure> {
        let issuer = &self.rules.issuer;
        let place = issuer.trim_end_matches('/');
        let place = format!("{place}/.well-known/openid-configuration");
        let unfit = |url: &str, error: &str| Failure::Request {
            url: url.to_owned(),
            error: error.to_owned(),
        };
        let text = fetcher.get(&place, None).await?;
        let metadata: Metadata = serde_json::from_slice(&text)
            .map_err(|_unsaid| unfit(&place, "is not an issuer's metadata"))?;
        if !metadata.is_sound(issuer) {
            return Err(unfit(&place, "is of another issuer, or names what is not https://"));
        }
        let text = fetcher.get(&metadata.jwks_uri, None).await?;
        let keys = Keys::parse(&text)
            .ok_or_else(|| unfit(&metadata.jwks_uri, "is not a set of keys (JWKS)"))?;
        Ok(Known { metadata: Arc::new(metadata), keys, since: now })
    }

    async fn learn_here(&self, parts: &Parts, now: Timestamp) -> Result<Known, Failure> {
        let keys = signing::published(parts).await?;
        let keys = Keys::parse(keys.to_string().as_bytes()).unwrap_or_default();
        let here = &self.rules.issuer;
        let metadata = Metadata {
            issuer: here.clone(),
            jwks_uri: format!("{here}{KEYS_PATH}"),
            token_endpoint: Some(format!("{here}{TOKEN_PATH}")),
            device_authorization_endpoint: Some(format!("{here}{DEVICE_PATH}")),
            userinfo_endpoint: None,
        };
        Ok(Known { metadata: Arc::new(metadata), keys, since: now })
    }

    /// What the issuer says of whom a token is of; it may not want to.
    pub(super) async fn userinfo(&self, token: &str) -> Option<Value> {
        let url = self.present()?.metadata.userinfo_endpoint.clone()?;
        let text = self.fetcher.as_ref()?.get(&url, Some(token)).await.ok()?;
        serde_json::from_slice(&text).ok()
    }
}
