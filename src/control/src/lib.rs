//! The management plane: accounts, keys, settings and who may do what with them.
//!
//! `app` holds the use cases by noun, without HTTP: the command line's server, operators' commands, MCP and the
//! console are faces of the same ones. `http` is their HTTP face, on an address of its own; `identity`
//! says who is asking. This crate reads no clock and draws no chance: both are in [`Parts`].

pub mod app;
mod http;
mod identity;
mod rules;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokenroute_api::settings::Targets;
use tokenroute_domain::catalog::Catalog;
use tokenroute_domain::key::{ApiKey, KeyHash, Pepper};
use tokenroute_domain::limit::Limits;
use tokenroute_domain::time::Timestamp;
use tokenroute_store::vault::Vault;
use tokenroute_store::{Database, RedisCache};

pub use app::invitations::{first_setup_link, setup_link};
pub use http::{openapi, serve};
pub use identity::Identity;
pub use identity::secret::{digest, random_secret};
pub use rules::{Fixed, Rules, Unsound, Whole};

/// What is done later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What this plane needs of the calls' plane, of which it knows nothing else.
pub trait Edges: fmt::Debug + Send + Sync {
    /// Tells edges that a key is revoked, or that its terms are others. SQL says so already: an edge that is
    /// not reached finds out within a second.
    fn tell(&self, change: Change) -> Later<'_, ()>;
    /// The models and routes that are in use.
    fn catalog(&self) -> Arc<Catalog>;
    /// How targets stand.
    fn targets(&self) -> Targets;
    /// What limits this key alone, by its own terms and the tiers that are in use.
    fn limits(&self, key: &ApiKey) -> Limits;
    /// Whether a tier of this name is in use.
    fn knows_tier(&self, name: &str) -> bool;
}

/// What edges are told of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is revoked.
    Revoked(KeyHash),
    /// Its terms are others.
    Changed(KeyHash),
}

/// What the management plane is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What outlives the process.
    pub database: Database,
    /// Where several edges share it: what lends money to them.
    pub redis: Option<RedisCache>,
    /// What keys are hashed under.
    pub pepper: Pepper,
    /// What stored secrets are encrypted under.
    pub vault: Arc<Vault>,
    /// Who says who people are.
    pub identity: Identity,
    /// The calls' plane.
    pub edges: Arc<dyn Edges>,
    /// What settings are held against before they are stored.
    pub rules: Arc<dyn Rules>,
    /// What the operator has set.
    pub settings: Arc<Settings>,
    /// The wall clock.
    pub now: fn() -> Timestamp,
    /// Unpredictable bytes; fails if the operating system has none.
    pub chance: fn() -> Option<[u8; 32]>,
}

/// What the operator has set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients find this plane, without a final slash.
    pub public_url: String,
    /// What an OpenAI SDK takes for its base URL.
    pub inference_base_url: String,
    /// Who says who people are; `None`: the embedded issuer.
    pub oidc: Option<Oidc>,
    /// Subjects of the issuer who are admins whatever their role here says.
    pub admins: Vec<String>,
    /// Partners' secrets.
    pub internal_secrets: Vec<InternalSecret>,
}

/// An issuer of tokens (OpenID Connect).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oidc {
    /// Its URL, as its tokens name it.
    pub issuer: String,
    /// What its tokens must be for: their `aud`, and the `resource` that clients ask for.
    pub audience: String,
    /// The command line's client ID there.
    pub client_id: String,
    /// What clients ask for, divided by spaces.
    pub scopes: String,
}

/// A partner's secret, which is not kept: only what it hashes to.
#[derive(Clone, PartialEq, Eq)]
pub struct InternalSecret {
    /// Who has it, for the audit log.
    pub name: String,
    /// SHA-256 of it. It is long and random, so that a plain hash tells nothing.
    pub sha256: [u8; 32],
}

impl fmt::Debug for InternalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalSecret").field("name", &self.name).finish_non_exhaustive()
    }
}
