//! Who is asking.
//!
//! `token` says what of a token is believed, `trust` what is known of its issuer, `issuer` is our own; `caller` is what endpoints
//! take, and so says who may ask them.

pub(crate) mod caller;
mod crypto;
mod fetch;
pub(crate) mod issuer;
pub(crate) mod secret;
pub(crate) mod token;
pub(crate) mod trust;

use std::fmt;
use std::sync::Arc;

use crate::{Parts, Settings};

use self::issuer::password::Passwords;
use self::token::{Bad, Claims, Rules};
use self::trust::{Metadata, Trust};
use crate::app::Problem;

/// Who says who people are, and what is known of it. Clones share it.
#[derive(Clone)]
pub struct Identity {
    trust: Arc<Trust>,
    passwords: Arc<Passwords>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl Identity {
    /// The issuer that the settings name, or the embedded one. Nothing is asked of it yet.
    pub fn new(settings: &Settings) -> Self {
        crypto::install();
        let rules = match &settings.oidc {
            Some(oidc) => Rules { issuer: oidc.issuer.clone(), audience: oidc.audience.clone() },
            None => {
                Rules { issuer: settings.public_url.clone(), audience: settings.public_url.clone() }
            }
        };
        let trust = Arc::new(Trust::new(rules, settings.oidc.is_some()));
        Self { trust, passwords: Arc::default() }
    }

    /// What a token says, if it is to be believed.
    pub(crate) async fn claims(&self, parts: &Parts, token: &str) -> Result<Claims, Problem> {
        let head = token::head(token).map_err(bad)?;
        let known = self.trust.known(parts, Some(&head)).await?;
        token::verify(token, &head, &known.keys, self.trust.rules(), (parts.now)()).map_err(bad)
    }

    /// What the issuer says of itself.
    pub(crate) async fn metadata(&self, parts: &Parts) -> Result<Arc<Metadata>, Problem> {
        Ok(Arc::clone(&self.trust.known(parts, None).await?.metadata))
    }

    /// More of a user than the token says, if the issuer tells.
    pub(crate) async fn userinfo(&self, token: &str) -> Option<serde_json::Value> {
        self.trust.userinfo(token).await
    }

    /// Under which name users of the issuer are known here.
    pub(crate) fn issuer_name(&self) -> &str {
        if self.trust.is_external() { &self.trust.rules().issuer } else { issuer::NAME }
    }

    /// Who hashes passwords of local users.
    pub(crate) fn passwords(&self) -> &Passwords {
        &self.passwords
    }
}

/// The command line, as the issuer knows it, and what it asks for.
pub(crate) struct Client {
    /// Its ID; it has no secret.
    pub(crate) id: String,
    /// What it asks for, divided by spaces.
    pub(crate) scopes: String,
    /// What its tokens are for.
    pub(crate) resource: String,
}

/// The command line's client. The embedded issuer knows no other.
pub(crate) fn client(settings: &Settings) -> Client {
    match &settings.oidc {
        Some(oidc) => Client {
            id: oidc.client_id.clone(),
            scopes: oidc.scopes.clone(),
            resource: oidc.audience.clone(),
        },
        None => Client {
            id: "tokenroute".to_owned(),
            scopes: "offline_access".to_owned(),
            resource: settings.public_url.clone(),
        },
    }
}

fn bad(bad: Bad) -> Problem {
    let reason = if bad == Bad::Expired { "token_expired" } else { "token_invalid" };
    let message = format!("the token is not accepted: {bad}; log in again");
    Problem::Unauthenticated { reason, message }
}
