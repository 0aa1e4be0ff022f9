//! What a configuration means: plain checked data. Nothing past it checks again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokenroute_domain::catalog::Catalog;
use tokenroute_domain::money::Price;

use super::base::Base;

/// Everything that a node needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Folder of the database and the pepper.
    pub state_dir: PathBuf,
    /// The secret that keys are hashed under; made at the first start if it is not there.
    pub pepper_file: PathBuf,
    /// Where clients connect.
    pub listen: Listen,
    /// Where operators read health and metrics.
    pub admin: SocketAddr,
    /// Where the shared key cache is; it may hold a password. `None`: this node has no Redis.
    pub redis_url: Option<SecretString>,
    /// Bounds of calls and connections.
    pub limits: Limits,
    /// How a node goes down.
    pub shutdown: Shutdown,
    /// What is logged.
    pub log: Log,
    /// Whether the demo provider runs; if so, one of `providers` has [`Base::Demo`].
    pub demo: bool,
    /// Who answers calls. A `catalog::ProviderIndex` is a place in this list.
    pub providers: Vec<ProviderPlan>,
    /// The routes and the models to list.
    pub catalog: Catalog,
    /// What is allowed but unwise, in words for the operator.
    pub warnings: Vec<String>,
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

/// Bounds of calls and connections, as clients meet them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Longest request body.
    pub body_bytes_max: u64,
    /// Bodies up to this length are scanned to their end before they are sent on.
    pub stream_after_bytes: u64,
    /// How much of one body is kept to be sent again.
    pub replay_bytes_max: u64,
    /// How much of all bodies together is kept.
    pub buffered_bytes_max: u64,
    /// Longest request head.
    pub head_bytes_max: usize,
    /// Most headers of a request.
    pub headers_max: usize,
    /// Longest request target (path and query).
    pub target_bytes_max: usize,
    /// Most calls at once.
    pub calls_in_flight_max: usize,
    /// Slots of the outbox: records that are not yet in the database.
    pub records_max: usize,
    /// Most client connections at once.
    pub connections_max: usize,
    /// A connection is closed after so many requests.
    pub requests_per_connection_max: u32,
    /// For a whole request body.
    pub body: Duration,
    /// Between two parts of a request body.
    pub body_stall: Duration,
    /// Without progress in writing to a client.
    pub write_stall: Duration,
    /// Between two requests of a connection.
    pub keepalive: Duration,
}

/// How long a provider may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// For TCP and TLS together.
    pub connect: Duration,
    /// From the end of the request to the head of the answer.
    pub head: Duration,
    /// Between two parts of an answer.
    pub stall: Duration,
    /// For a whole attempt.
    pub total: Duration,
    /// For the rest of an answer whose client has left, where `on_disconnect = "drain"`.
    pub drain: Duration,
    /// How long an unused connection is kept; shorter than the provider keeps it.
    pub pool_idle: Duration,
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

/// A setting of a closed set of words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value with its word in the file, the default first.
            pub(crate) const WORDS: &[(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }
    };
}

words!(
    /// Form of a log line.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
);
words!(
    /// Importance of a log line. Finer ones are not compiled in: they could show secrets.
    LogLevel {
        /// Everything.
        Info = "info",
        /// What somebody should look at.
        Warn = "warn",
        /// What does not work.
        Error = "error",
    }
);
words!(
    /// A wire format.
    Dialect {
        /// `OpenAI`'s chat completions, completions and embeddings.
        OpenAi = "openai",
    }
);
words!(
    /// What becomes of the upstream call when its client leaves.
    OnDisconnect {
        /// It is broken off, so that the provider stops.
        Cancel = "cancel",
        /// It is read on for its usage, as long as `deadlines.drain` allows.
        Drain = "drain",
    }
);
words!(
    /// Where a provider counts reasoning tokens.
    Reasoning {
        /// Within `completion_tokens`.
        Inside = "inside",
        /// Beside `completion_tokens`.
        Added = "added",
        /// Nowhere but in `total_tokens`.
        ByTotal = "by_total",
    }
);

/// A provider.
#[derive(Clone, Debug)]
pub(crate) struct ProviderPlan {
    /// Its name in routes, records and metrics.
    pub name: Arc<str>,
    /// Where it is.
    pub base: Base,
    /// What it speaks.
    pub dialect: Dialect,
    /// What we present to it as a bearer token, fit for a header; `None`: nothing.
    pub credential: Option<SecretString>,
    /// Where it differs.
    pub quirks: Quirks,
    /// What becomes of its work when a client leaves.
    pub on_disconnect: OnDisconnect,
    /// How long it may take.
    pub deadlines: Deadlines,
    /// What is known of its models.
    pub models: Vec<ModelPlan>,
}

/// Where a provider differs from others of its dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quirks {
    /// Whether it accepts `stream_options`.
    pub stream_options: bool,
    /// Where it counts reasoning tokens.
    pub reasoning: Reasoning,
}

/// What is known of a provider's model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelPlan {
    /// Its ID at the provider.
    pub id: Arc<str>,
    /// When it came out, in seconds since the Unix epoch; 0 if nobody has said.
    pub created: u64,
    /// What it costs; `None` if nobody has said.
    pub price: Option<Price>,
    /// Input and output tokens that it can hold together.
    pub context_tokens: Option<u64>,
    /// Most output tokens of one answer.
    pub output_tokens_max: Option<u64>,
}

impl Plan {
    /// The settings that differ in `other` and that a running node cannot take over.
    pub(crate) fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let redis = |plan: &Self| plan.redis_url.as_ref().map(|url| url.expose_secret().to_owned());
        let (ours, theirs) = (&self.limits, &other.limits);
        let changes = [
            ("state_dir", self.state_dir != other.state_dir),
            ("keys.pepper_file", self.pepper_file != other.pepper_file),
            ("listen", self.listen != other.listen),
            ("admin", self.admin != other.admin),
            ("redis", redis(self) != redis(other)),
            ("log", self.log != other.log),
            ("demo", self.demo != other.demo),
            ("limits.records_max", ours.records_max != theirs.records_max),
            ("limits.connections_max", ours.connections_max != theirs.connections_max),
            (
                "limits.requests_per_connection_max",
                ours.requests_per_connection_max != theirs.requests_per_connection_max,
            ),
            ("limits.head_bytes_max", ours.head_bytes_max != theirs.head_bytes_max),
        ];
        changes.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}
