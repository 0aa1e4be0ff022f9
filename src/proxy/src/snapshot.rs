//! The immutable view that a call keeps: one generation of providers, routes and limits.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use memchr::memmem;
use secrecy::{ExposeSecret, SecretString};
use tokenroute_domain::catalog::{self, Catalog, Configured, ProviderIndex, Route};
use tokenroute_domain::hedge::Share;
use tokenroute_domain::limit::Tiers;
use tokenroute_domain::record::Endpoint;
use tokenroute_wire::meter::Reasoning;
use tokenroute_wire::request::PrefillForm;

use crate::clock;
use crate::listing::Listing;
use crate::metrics::{Metrics, RouteMetrics};
use crate::resolve::{Host, Resolver};
use crate::targets::{Target, Targets};
use crate::upstream::Peers;

/// What a snapshot is made of; everything in it has been checked.
#[derive(Debug)]
pub struct Settings {
    /// Counts up with each table that was swapped in.
    pub generation: u64,
    /// Models and routes. Its provider indices point into `providers`.
    pub catalog: Catalog,
    /// Providers, in the order that the catalog's indices mean.
    pub providers: Vec<ProviderSettings>,
    /// Bounds on requests.
    pub limits: Limits,
    /// Limits of keys and accounts that are bundled under a name.
    pub tiers: Tiers,
    /// How calls that are paid for are bounded.
    pub money: MoneySettings,
}

/// By which member a provider is told how much a chat may put out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputCap {
    /// The older one, which every provider knows but the newest models of OpenAI.
    #[default]
    MaxTokens,
    /// OpenAI's newer one, which counts reasoning too.
    MaxCompletionTokens,
}

impl OutputCap {
    /// The member's name.
    pub(crate) const fn member(self, endpoint: Endpoint) -> &'static str {
        match (self, endpoint) {
            (Self::MaxCompletionTokens, Endpoint::ChatCompletions) => "max_completion_tokens",
            (Self::MaxTokens | Self::MaxCompletionTokens, _) => "max_tokens",
        }
    }
}

/// How calls that are paid for are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoneySettings {
    /// The cap on the output of a request that names none, at models of which none is known.
    pub output_tokens_default: u64,
    /// A cap that is set because no more is affordable is not below this; else the call is refused.
    pub output_tokens_min: u64,
}

impl Default for MoneySettings {
    fn default() -> Self {
        Self { output_tokens_default: 4_096, output_tokens_min: 256 }
    }
}

/// One provider, as configured.
#[derive(Debug)]
pub struct ProviderSettings {
    /// Its name in records, headers and metrics.
    pub name: Arc<str>,
    /// Host name or address, without brackets or port.
    pub host: String,
    /// Port of its base URL.
    pub port: u16,
    /// Whether its base URL is `https`.
    pub tls: bool,
    /// Path of its base URL without a final slash, such as `/v1`.
    pub path: String,
    /// Our secret for it; `None` for providers that want none.
    pub credential: Option<SecretString>,
    /// Whether it understands `stream_options.include_usage`.
    pub stream_options: bool,
    /// Whether its `completion_tokens` contain reasoning tokens.
    pub reasoning: Reasoning,
    /// What happens upstream when the client leaves.
    pub on_disconnect: OnDisconnect,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// Whether it is spoken to in HTTP/2.
    pub http2: bool,
    /// How it is told to go on from an assistant's message that the request ends in.
    pub prefill: PrefillForm,
    /// How a cap on the output of a chat is told to it.
    pub output_cap: OutputCap,
    /// How it is looked after while nobody calls; `None`: not at all.
    pub probe: Option<Probe>,
}

/// How a provider is looked after while nobody calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Time between two probes of a target, give or take a tenth.
    pub every: Duration,
    /// What is asked.
    pub kind: ProbeKind,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// `GET /models`: costs nothing, and proves little.
    Models,
    /// A completion of one token: the provider may bill it.
    Completion,
}

/// What happens upstream when the client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The connection is closed at once; what was received counts.
    Cancel,
    /// The answer is read on, within [`Deadlines::drain`], for its true usage.
    Drain,
}

/// How long an upstream may take. All are bounds on waiting, none on the whole answer but `total`.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// TCP and TLS connect.
    pub connect: Duration,
    /// From the end of the request to the response head.
    pub head: Duration,
    /// From the end of the request to the first semantic token; comments, roles and empty texts are
    /// none.
    pub first_token: Duration,
    /// Between two semantic events of a stream, or two reads of another body.
    pub stall: Duration,
    /// The whole call, from its head to the end of its answer.
    pub total: Duration,
    /// For the rest of an answer whose client has left, with [`OnDisconnect::Drain`].
    pub drain: Duration,
    /// How long an unused connection is kept: less than the provider keeps it.
    pub pool_idle: Duration,
}

/// Bounds on requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest request body; a longer one is refused with 413.
    pub body_bytes_max: u64,
    /// A body up to this length is scanned to its end before dispatch.
    pub stream_after_bytes: u64,
    /// Longest body that is kept for another attempt.
    pub replay_bytes_max: u64,
    /// Longest time for the first byte of a connection.
    pub first_byte: Duration,
    /// Longest time for a request's head, from its first byte to its last.
    pub head_total: Duration,
    /// Longest pause between two parts of a request body.
    pub body_idle: Duration,
    /// Longest time for a whole request body.
    pub body_total: Duration,
    /// How long a body may come as slowly as it likes.
    pub body_grace: Duration,
    /// Bytes a second that it has to come with after that, over all of its time; 0: it need not.
    pub body_bytes_per_second_min: u64,
    /// Longest pause of a client that does not read its answer.
    pub write_stall: Duration,
    /// Bytes of all bodies together that may be held at once.
    pub buffered_bytes_max: u64,
    /// Calls at once.
    pub calls_max: usize,
    /// Bytes of a request's header fields, and their number.
    pub head_bytes_max: usize,
    /// Most header fields of a request.
    pub fields_max: usize,
    /// Longest request target, in bytes.
    pub target_bytes_max: usize,
    /// How long an idle downstream connection is kept.
    pub keepalive: Duration,
}

/// One generation, ready for calls.
#[derive(Debug)]
pub struct Snapshot {
    /// Which one.
    pub(crate) generation: u64,
    /// Models and routes.
    pub(crate) catalog: Arc<Catalog>,
    /// Bounds on requests.
    pub(crate) limits: Limits,
    /// Limits of keys and accounts that are bundled under a name.
    pub(crate) tiers: Tiers,
    providers: Vec<Arc<Provider>>,
    /// What of the models is listed.
    pub(crate) listing: Listing,
    money: MoneySettings,
    routes: HashMap<Arc<str>, Arc<RouteMetrics>>,
    /// How each target stands, by its slot.
    targets: Vec<Arc<Target>>,
    /// How many calls are hedged, by route.
    hedges: HashMap<Arc<str>, Hedges>,
}

/// Keeps the hedged calls of a route below their share.
#[derive(Debug, Default)]
pub(crate) struct Hedges(Mutex<Share>);

impl Hedges {
    /// Counts a call that may be hedged.
    pub(crate) fn call(&self, share_permille: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).call(share_permille);
    }

    /// Takes leave for a hedge, if there is any.
    pub(crate) fn take(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Snapshot {
    /// Makes a snapshot; what can be worked out once is worked out here and not on a call.
    pub fn new(
        settings: Settings,
        (resolver, targets): (&Resolver, &Targets),
        metrics: &Metrics,
    ) -> Self {
        let Settings { generation, catalog, providers, limits, tiers, money } = settings;
        let listing = Listing::new(&catalog, clock::now());
        let routes = catalog
            .patterns()
            .map(|pattern| (Arc::clone(pattern), Arc::new(metrics.route(pattern))))
            .collect();
        let hedges = catalog.patterns().map(|name| (Arc::clone(name), Hedges::default()));
        let hedges = hedges.collect();
        let providers: Vec<_> =
            providers.into_iter().map(|one| Arc::new(Provider::new(one, resolver))).collect();
        let identity = |index: ProviderIndex| providers.get(index.0).map_or(0, |one| one.identity);
        let names = catalog.targets().iter();
        let names: Vec<_> =
            names.map(|one| (Arc::clone(&one.name), identity(one.provider))).collect();
        let targets = targets.assign(&names);
        metrics.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        Self {
            generation,
            catalog: Arc::new(catalog),
            limits,
            tiers,
            providers,
            listing,
            money,
            routes,
            targets,
            hedges,
        }
    }

    /// Which generation this is.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// How calls that are paid for are bounded.
    pub const fn money(&self) -> MoneySettings {
        self.money
    }

    /// The models and routes.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    /// Limits by the name of their tier.
    pub const fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    /// The provider at a catalog's index.
    pub(crate) fn provider(&self, index: ProviderIndex) -> Option<&Arc<Provider>> {
        self.providers.get(index.0)
    }

    /// How a target stands.
    pub(crate) fn standing(&self, target: &catalog::Target) -> Option<Arc<Target>> {
        Some(self.targets.get(target.slot.0)?.named(&target.name))
    }

    /// How each target stands.
    pub(crate) fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }

    /// The configured targets whose providers want to be looked after, each with its standing.
    pub(crate) fn probed(
        &self,
    ) -> impl Iterator<Item = (&Configured, &Arc<Provider>, &Arc<Target>)> {
        self.catalog.targets().iter().zip(&self.targets).filter_map(|(configured, target)| {
            let provider = self.provider(configured.provider)?;
            provider.probe.map(|_| (configured, provider, target))
        })
    }

    /// The share of hedged calls of a route.
    pub(crate) fn hedges(&self, route: &Route) -> Option<&Hedges> {
        self.hedges.get(&route.pattern)
    }

    /// The counters of a route.
    pub(crate) fn route_metrics(&self, route: &Route) -> Option<&Arc<RouteMetrics>> {
        self.routes.get(&route.pattern)
    }
}

/// One provider, ready for attempts.
pub(crate) struct Provider {
    pub(crate) name: Arc<str>,
    pub(crate) host: Arc<Host>,
    /// Name for SNI and certificate; empty without TLS.
    pub(crate) server_name: String,
    pub(crate) tls: bool,
    pub(crate) stream_options: bool,
    pub(crate) reasoning: Reasoning,
    pub(crate) on_disconnect: OnDisconnect,
    pub(crate) deadlines: Deadlines,
    pub(crate) http2: bool,
    pub(crate) prefill: PrefillForm,
    pub(crate) output_cap: OutputCap,
    pub(crate) probe: Option<Probe>,
    /// Tells whether a provider of this name is still the same place with the same credential.
    identity: u64,
    /// Everything of a request's head that no call changes. Holds the credential: never shown.
    heads: [Bytes; 4],
    credential: Option<SecretString>,
    /// What the connector wants to know, made once for its addresses.
    pub(crate) peers: ArcSwapOption<Peers>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Provider {
    pub(crate) fn new(settings: ProviderSettings, resolver: &Resolver) -> Self {
        let head = |method: &str, path: &str| Bytes::from(request_head(&settings, (method, path)));
        let post = |path: &str| head("POST", path);
        let heads = [
            post("/chat/completions"),
            post("/completions"),
            post("/embeddings"),
            head("GET", "/models"),
        ];
        Self {
            host: resolver.host(&settings.host, settings.port),
            server_name: if settings.tls { settings.host.clone() } else { String::new() },
            tls: settings.tls,
            stream_options: settings.stream_options,
            reasoning: settings.reasoning,
            on_disconnect: settings.on_disconnect,
            deadlines: settings.deadlines,
            http2: settings.http2,
            prefill: settings.prefill,
            output_cap: settings.output_cap,
            probe: settings.probe,
            identity: identity(&settings),
            name: settings.name,
            heads,
            credential: settings.credential,
            peers: ArcSwapOption::empty(),
        }
    }

    /// The head of a request but for its framing and its final empty line.
    pub(crate) fn head(&self, endpoint: Endpoint) -> Option<&Bytes> {
        let [chat, completions, embeddings, models] = &self.heads;
        match endpoint {
            Endpoint::ChatCompletions => Some(chat),
            Endpoint::Completions => Some(completions),
            Endpoint::Embeddings => Some(embeddings),
            Endpoint::Models => Some(models),
            Endpoint::Unknown => None,
        }
    }

    /// Whether a text of the provider's gives away our secret.
    pub(crate) fn leaks_credential(&self, text: &[u8]) -> bool {
        self.credential.as_ref().is_some_and(|secret| {
            let secret = secret.expose_secret().as_bytes();
            !secret.is_empty() && memmem::find(text, secret).is_some()
        })
    }
}

/// A number that changes with a provider's place and credential. Kept in memory only.
fn identity(settings: &ProviderSettings) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (&settings.host, settings.port, settings.tls, &settings.path).hash(&mut hasher);
    settings.credential.as_ref().map(ExposeSecret::expose_secret).hash(&mut hasher);
    hasher.finish()
}

/// The `Host` header: the host, and the port where it is not the scheme's own.
fn authority(settings: &ProviderSettings) -> String {
    let ProviderSettings { host, port, tls, .. } = settings;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    match (*tls, *port) {
        (true, 443) | (false, 80) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

/// The request line and the headers that the gateway sends by itself. Nothing of the client's
/// head is in it: an allow-list of none.
fn request_head(settings: &ProviderSettings, (method, path): (&str, &str)) -> String {
    let authorization = settings.credential.as_ref().map_or_else(String::new, |secret| {
        format!("Authorization: Bearer {}\r\n", secret.expose_secret())
    });
    format!(
        "{method} {}{path} HTTP/1.1\r\nHost: {}\r\n{authorization}Content-Type: application/json\r\n\
         Accept-Encoding: identity\r\nUser-Agent: tokenroute/{}\r\n",
        settings.path,
        authority(settings),
        env!("CARGO_PKG_VERSION"),
    )
}
