//! What a configuration means: plain checked data. Nothing past it checks again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokenroute_control::{InternalSecret, Oidc};
use tokenroute_domain::catalog::Catalog;
use tokenroute_domain::limit::Tiers;
use tokenroute_domain::money::Prices;
use tokenroute_proxy::egress::Egress;
use tokenroute_proxy::snapshot::{
    Deadlines, Limits, MoneySettings, OnDisconnect, OutputCap, Probe, ProviderSettings, Settings,
};
use tokenroute_store::{BadAddress, RedisCache, SettingKind, StoredSettings};
use tokenroute_wire::meter::Reasoning;
use tokenroute_wire::request::PrefillForm;

use super::base::Base;

/// Everything that a node needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where its state is.
    pub state: StatePlan,
    /// Where clients connect.
    pub listen: Listen,
    /// Where operators read health and metrics.
    pub admin: SocketAddr,
    /// Under which names they may, beside its addresses and `localhost`.
    pub admin_hosts: Vec<String>,
    /// The management plane.
    pub control: ControlPlan,
    /// Bounds on requests.
    pub limits: Limits,
    /// Bounds that the node's queues and listeners are made with.
    pub sizes: Sizes,
    /// How a node goes down.
    pub shutdown: Shutdown,
    /// What is logged.
    pub log: Log,
    /// Whether the demo provider runs; if so, one of `providers` has [`Base::Demo`].
    pub demo: bool,
    /// Where the names of providers may lead.
    pub egress: Egress,
    /// Who answers calls. A `catalog::ProviderIndex` is a place in this list.
    pub providers: Vec<ProviderPlan>,
    /// The routes and the models to list.
    pub catalog: Catalog,
    /// Limits of keys and accounts that are bundled under a name.
    pub tiers: Tiers,
    /// How calls that are paid for are bounded.
    pub money: MoneyPlan,
    /// What is allowed but unwise, in words for the operator.
    pub warnings: Vec<String>,
}

/// The management plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlPlan {
    /// Where clients connect to it.
    pub address: SocketAddr,
    /// The URL under which they find it, without a final slash; `None`: its address is its name.
    pub public_url: Option<String>,
    /// What an OpenAI SDK takes for its base URL; `None`: the edge's address is its name.
    pub inference_base_url: Option<String>,
    /// Subjects of the issuer who are admins.
    pub admins: Vec<String>,
    /// Who says who people are; `None`: the embedded issuer.
    pub oidc: Option<Oidc>,
    /// Partners' secrets.
    pub internal_secrets: Vec<InternalSecret>,
}

impl ControlPlan {
    /// The URL under which clients find it; `None` if its port is only known once it listens.
    pub(crate) fn found_at(&self) -> Option<String> {
        let by_address = || (self.address.port() != 0).then(|| format!("http://{}", self.address));
        self.public_url.clone().or_else(by_address)
    }
}

/// Where a node's state is: all that the operator's commands need.
#[derive(Clone, Debug)]
pub(crate) struct StatePlan {
    /// Folder of the database and the pepper.
    pub dir: PathBuf,
    /// The secret that keys are hashed under; made at the first start if it is not there.
    pub pepper_file: PathBuf,
    /// The keys that stored credentials are encrypted with; made at the first start if it is not there.
    pub vault_file: PathBuf,
    /// Where the shared key cache is; it may hold a password. `None`: this node has no Redis.
    pub redis_url: Option<SecretString>,
    /// The authorities that its certificate may be of, in PEM; `None`: those that the system trusts.
    pub redis_authorities: Option<Vec<u8>>,
    /// Where keys, records and the ledger are.
    pub database: DatabasePlan,
    /// What keys and accounts may name; `None` where no file says.
    pub names: Option<Names>,
}

/// What of a configuration keys and accounts may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// Tiers, in order.
    pub tiers: Vec<String>,
    /// Policies, in order.
    pub policies: Vec<String>,
    /// Providers, in order: those that the environment of a node can bring up among them.
    pub providers: Vec<String>,
}

/// Which database is the truth.
#[derive(Clone, Debug, Default)]
pub(crate) enum DatabasePlan {
    /// A file in the folder of state.
    #[default]
    Sqlite,
    /// A server at this URL, which may hold a password, and the PEM file of the authorities that its
    /// certificate must be of.
    Postgres(SecretString, Option<PathBuf>),
}

impl Names {
    /// Adds what is kept in the database.
    pub(crate) fn add(&mut self, stored: &StoredSettings) {
        for one in &stored.settings {
            let names = match one.kind {
                SettingKind::Provider => &mut self.providers,
                SettingKind::Tier => &mut self.tiers,
                SettingKind::Policy => &mut self.policies,
                SettingKind::Route => continue,
            };
            names.push(one.name.clone());
            names.sort();
            names.dedup();
        }
    }
}

impl StatePlan {
    /// The shared key cache, not connected yet.
    pub(crate) fn redis(&self) -> Result<Option<RedisCache>, BadAddress> {
        let Some(url) = &self.redis_url else { return Ok(None) };
        RedisCache::trusting(url.expose_secret(), self.redis_authorities.clone()).map(Some)
    }
}

impl DatabasePlan {
    fn address(&self) -> Option<(&str, Option<&Path>)> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(url, ca_file) => Some((url.expose_secret(), ca_file.as_deref())),
        }
    }
}

/// How calls that are paid for are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MoneyPlan {
    /// How long money is lent to an edge that is not heard of.
    pub lease: Duration,
    /// How long a charge may wait to be in the ledger before paid calls are refused.
    pub posting_lag_max: Duration,
    /// What a call is bounded by.
    pub settings: MoneySettings,
    /// Whether calls that an earlier run did not live to settle are settled from its journal.
    pub replay: bool,
}

/// Which model leads where: all that it takes to explain a route.
#[derive(Clone, Debug)]
pub(crate) struct RoutesPlan {
    /// Where operators read how targets stand.
    pub admin: SocketAddr,
    /// The routes and the models to list.
    pub catalog: Catalog,
}

/// Where clients connect, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// Where.
    pub address: SocketAddr,
    /// Whether HTTP/2 without TLS is spoken too.
    pub h2c: bool,
    /// Threads of the data plane, at least 1.
    pub threads: usize,
    /// The certificate; `None`: plain HTTP.
    pub tls: Option<Tls>,
}

/// PEM files that were readable and fitted each other when they were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// The certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Bounds that the node's queues and listeners are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Slots of the outbox: records that are not yet in the database.
    pub records_max: usize,
    /// Most client connections at once.
    pub connections_max: usize,
    /// Most of them from one source; 0: no bound.
    pub connections_per_source_max: usize,
    /// The limit on memory; `None`: what the process runs under.
    pub memory_bytes_max: Option<u64>,
    /// Whether `limits.buffered_bytes_max` was typed; else it is no more than a share of the memory.
    pub buffered_bytes_typed: bool,
    /// New calls are to find the threads at most so late; zero: however late.
    pub lag_max: Duration,
    /// A connection is closed after so many requests.
    pub requests_per_connection_max: u32,
}

/// How a node goes down after SIGTERM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shutdown {
    /// Still accepting, but no longer ready, so that load balancers can leave.
    pub delay: Duration,
    /// For the calls in flight to end by themselves.
    pub streams: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// The least important lines that are written.
    pub level: LogLevel,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Importance of a log line. Finer ones are not in a release: they could show secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// What does not work.
    Error,
    /// What somebody should look at.
    Warn,
    /// Everything that may be written.
    Info,
    /// Every line of ours that is in the program: for tests, which search what was logged.
    #[cfg(debug_assertions)]
    Trace,
}

/// A provider.
#[derive(Clone, Debug)]
pub(crate) struct ProviderPlan {
    /// Its name in routes, records and metrics.
    pub name: Arc<str>,
    /// Where it is.
    pub base: Base,
    /// What we present to it as a bearer token, fit for a header; `None`: nothing.
    pub credential: Option<SecretString>,
    /// Whether it accepts `stream_options`.
    pub stream_options: bool,
    /// Where it counts reasoning tokens.
    pub reasoning: Reasoning,
    /// What becomes of its work when a client leaves.
    pub on_disconnect: OnDisconnect,
    /// How long it may take.
    pub deadlines: Deadlines,
    /// Whether it is spoken to in HTTP/2.
    pub http2: bool,
    /// How it is told to go on from an assistant's message.
    pub prefill: PrefillForm,
    /// How a cap on the output of a chat is told to it.
    pub output_cap: OutputCap,
    /// How it is looked after while nobody calls; `None`: not at all.
    pub probe: Option<Probe>,
    /// What is known of its models.
    pub models: Vec<ModelPlan>,
}

/// What is known of a provider's model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelPlan {
    /// Its ID at the provider.
    pub id: Arc<str>,
    /// When it came out, in seconds since the Unix epoch; 0 if nobody has said.
    pub created: u64,
    /// What it costs in the course of time.
    pub prices: Prices,
    /// Input and output tokens that it can hold together.
    pub context_tokens: Option<u64>,
    /// Most output tokens of one answer.
    pub output_tokens_max: Option<u64>,
    /// Most input tokens of one image.
    pub image_tokens_max: Option<u64>,
}

/// Bodies may take this part of the memory, unless a file says how much.
const BUFFERED_PART: u64 = 4;

impl Plan {
    /// Keeps what was not typed within the memory that there is.
    pub(crate) fn fit(&mut self, memory_bytes: u64) {
        if !self.sizes.buffered_bytes_typed {
            let part = memory_bytes / BUFFERED_PART;
            self.limits.buffered_bytes_max = self.limits.buffered_bytes_max.min(part);
        }
    }

    /// What a snapshot is made of, given the port of the demo provider.
    pub(crate) fn settings(&self, generation: u64, demo_port: u16) -> Settings {
        let providers = self.providers.iter().map(|provider| provider.settings(demo_port));
        Settings {
            generation,
            catalog: self.catalog.clone(),
            providers: providers.collect(),
            limits: self.limits,
            tiers: self.tiers.clone(),
            money: self.money.settings,
        }
    }

    /// The settings that differ in `other` and that a running node cannot take over.
    pub(crate) fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let redis = |plan: &Self| {
            let url = plan.state.redis_url.as_ref().map(|url| url.expose_secret().to_owned());
            (url, plan.state.redis_authorities.clone())
        };
        let (ours, theirs) = (self.sizes, other.sizes);
        let changes = [
            ("state_dir", self.state.dir != other.state.dir),
            ("keys.pepper_file", self.state.pepper_file != other.state.pepper_file),
            ("redis", redis(self) != redis(other)),
            ("database", self.state.database.address() != other.state.database.address()),
            ("money.lease_seconds", self.money.lease != other.money.lease),
            (
                "money.posting_lag_max_seconds",
                self.money.posting_lag_max != other.money.posting_lag_max,
            ),
            ("listen", self.listen != other.listen),
            ("admin", (self.admin, &self.admin_hosts) != (other.admin, &other.admin_hosts)),
            ("control", self.control != other.control),
            ("keys.vault_file", self.state.vault_file != other.state.vault_file),
            ("limits.records_max", ours.records_max != theirs.records_max),
            ("limits.connections_max", ours.connections_max != theirs.connections_max),
            (
                "limits.connections_per_source_max",
                ours.connections_per_source_max != theirs.connections_per_source_max,
            ),
            ("limits.memory_bytes_max", ours.memory_bytes_max != theirs.memory_bytes_max),
            ("limits.lag_seconds_max", ours.lag_max != theirs.lag_max),
            (
                "limits.requests_per_connection_max",
                ours.requests_per_connection_max != theirs.requests_per_connection_max,
            ),
            ("shutdown", self.shutdown != other.shutdown),
            ("log", self.log != other.log),
            ("demo", self.demo != other.demo),
        ];
        changes.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

impl ProviderPlan {
    fn settings(&self, demo_port: u16) -> ProviderSettings {
        let origin = self.base.origin(demo_port);
        ProviderSettings {
            name: Arc::clone(&self.name),
            host: origin.host,
            port: origin.port,
            tls: origin.tls,
            path: origin.path_prefix,
            credential: self.credential.clone(),
            stream_options: self.stream_options,
            reasoning: self.reasoning,
            on_disconnect: self.on_disconnect,
            deadlines: self.deadlines,
            http2: self.http2,
            prefill: self.prefill,
            output_cap: self.output_cap,
            probe: self.probe,
        }
    }
}
