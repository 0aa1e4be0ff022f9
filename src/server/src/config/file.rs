//! The configuration as it was typed: every field may be left out, and nothing is judged yet.
//!
//! `conf/tokenroute.toml` explains each field; `plan` says what they come to.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};

/// A whole file.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct File {
    /// Folder of the database, the pepper and the logs of a node.
    pub state_dir: Option<String>,
    /// Whether presets come up by the credential variables that are set.
    pub providers_from_environment: Option<bool>,
    /// Where clients connect.
    pub listen: Listen,
    /// Where operators connect.
    pub admin: Admin,
    /// The management plane.
    pub control: Control,
    /// The key cache and messenger that several edges share.
    pub redis: Address,
    /// Where keys, records and the ledger are.
    pub database: Address,
    /// How calls that are paid for are bounded.
    pub money: Money,
    /// Limits under a name.
    pub tiers: BTreeMap<String, Tier>,
    /// Bounds of calls and connections.
    pub limits: Limits,
    /// How long things may take.
    pub deadlines: Deadlines,
    /// Where providers may be.
    pub egress: Egress,
    /// How routes that say nothing try their targets.
    pub routing: Routing,
    /// How a node goes down.
    pub shutdown: Shutdown,
    /// What is logged.
    pub log: Log,
    /// Where the secret of the key hashes is.
    pub keys: Keys,
    /// The built-in demo provider.
    pub demo: Demo,
    /// Who answers calls, by name.
    pub providers: BTreeMap<String, Provider>,
    /// Model names of one's own.
    pub routes: Vec<Route>,
}

/// `[listen]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Listen {
    /// `IP:port`.
    pub address: Option<String>,
    /// Whether HTTP/2 without TLS is spoken.
    pub h2c: Option<bool>,
    /// Threads of the data plane.
    pub threads: Option<i64>,
    /// Certificate and key.
    pub tls: ListenTls,
}

/// `[listen.tls]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct ListenTls {
    /// PEM file of the certificate chain.
    pub certificate: Option<String>,
    /// PEM file of the private key.
    pub key: Option<String>,
}

/// `[admin]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Admin {
    /// `IP:port`.
    pub address: Option<String>,
    /// Names that it may be asked under.
    pub hosts: Option<Vec<String>>,
}

/// `[control]`: the management plane; the fields are explained at the control plane's `Settings`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Control {
    /// `IP:port`.
    pub address: Option<String>,
    /// The URL under which clients find it.
    pub public_url: Option<String>,
    /// The URL under which clients find the edge, with `/v1`.
    pub inference_base_url: Option<String>,
    /// Subjects of the issuer who are admins.
    pub admins: Option<Vec<String>>,
    /// Who says who people are.
    pub oidc: Oidc,
    /// Hashes of partners' secrets, by name.
    pub internal_secrets: BTreeMap<String, String>,
}

/// `[control.oidc]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Oidc {
    pub issuer: Option<String>,
    pub audience: Option<String>,
    pub client_id: Option<String>,
    pub scopes: Option<String>,
}

/// `[redis]` and `[database]`: at most one of the three URLs.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Address {
    /// The variable that holds the URL.
    pub url_env: Option<String>,
    /// The file that holds the URL.
    pub url_file: Option<String>,
    /// The URL itself.
    #[serde(deserialize_with = "secret")]
    #[cfg_attr(test, serde(serialize_with = "hidden"))]
    pub url: Option<SecretString>,
    /// PEM file of the authorities that the server's certificate must be of.
    pub ca_file: Option<String>,
}

/// `[egress]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Egress {
    /// Networks, as `10.0.0.0/8`.
    pub allow_private: Option<Vec<String>>,
}

/// `[money]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Money {
    /// How long money is lent to an edge that is not heard of.
    pub lease_seconds: Option<Seconds>,
    /// How long a charge may wait to be in the ledger before paid calls are refused.
    pub posting_lag_max_seconds: Option<Seconds>,
    /// The cap on answers where neither the request nor the catalogue names one.
    pub output_tokens_default: Option<i64>,
    /// The least that an answer is capped at for want of money.
    pub output_tokens_min: Option<i64>,
}

/// `[tiers.NAME]`; the fields are explained at the domain's `limit::Limits`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Tier {
    pub requests_per_second: Option<i64>,
    pub requests_per_minute: Option<i64>,
    pub tokens_per_minute: Option<i64>,
    pub concurrency: Option<i64>,
}

/// `[limits]`; the fields are explained at the proxy's `snapshot::Limits` and at
/// `plan::Sizes`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Limits {
    pub body_bytes_max: Option<i64>,
    pub stream_after_bytes: Option<i64>,
    pub replay_bytes_max: Option<i64>,
    pub buffered_bytes_max: Option<i64>,
    pub head_bytes_max: Option<i64>,
    pub fields_max: Option<i64>,
    pub target_bytes_max: Option<i64>,
    pub calls_max: Option<i64>,
    pub records_max: Option<i64>,
    pub connections_max: Option<i64>,
    pub connections_per_source_max: Option<i64>,
    pub memory_bytes_max: Option<i64>,
    pub lag_seconds_max: Option<Seconds>,
    pub requests_per_connection_max: Option<i64>,
    pub first_byte_seconds: Option<Seconds>,
    pub head_total_seconds: Option<Seconds>,
    pub body_grace_seconds: Option<Seconds>,
    pub body_bytes_per_second_min: Option<i64>,
    pub body_total_seconds: Option<Seconds>,
    pub body_idle_seconds: Option<Seconds>,
    pub write_stall_seconds: Option<Seconds>,
    pub keepalive_seconds: Option<Seconds>,
}

/// `[deadlines]`, and `[providers.NAME.deadlines]` where one provider differs; the
/// fields are explained at the proxy's `snapshot::Deadlines`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "units stand last in every name")]
pub(crate) struct Deadlines {
    pub connect_seconds: Option<Seconds>,
    pub head_seconds: Option<Seconds>,
    pub first_token_seconds: Option<Seconds>,
    pub stall_seconds: Option<Seconds>,
    pub total_seconds: Option<Seconds>,
    pub drain_seconds: Option<Seconds>,
    pub pool_idle_seconds: Option<Seconds>,
}

/// `[routing]`: how a route that says nothing of its own tries its targets; the fields are explained at
/// the domain's `routing::Policy`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Routing {
    pub attempts_max: Option<i64>,
    pub attempts_seconds: Option<Seconds>,
    pub wait_seconds_max: Option<Seconds>,
    pub on_break: Option<String>,
    pub balance: Option<String>,
    pub affinity: Option<String>,
}

/// `[shutdown]`; the fields are explained at `plan::Shutdown`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Shutdown {
    pub delay_seconds: Option<Seconds>,
    pub streams_seconds: Option<Seconds>,
}

/// `[log]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Log {
    /// `text` or `json`.
    pub format: Option<String>,
    /// `error`, `warn` or `info`.
    pub level: Option<String>,
}

/// `[keys]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Keys {
    /// File of the secret that keys are hashed under.
    pub pepper_file: Option<String>,
    /// File of the keys that stored credentials are encrypted with.
    pub vault_file: Option<String>,
}

/// `[demo]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Demo {
    /// Whether `demo/echo` answers.
    pub enabled: Option<bool>,
}

/// `[providers.NAME]`; a preset is the same table in a file of its own.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Provider {
    /// The preset whose settings hold where this table says nothing.
    pub preset: Option<String>,
    /// What comes before `/chat/completions`.
    pub base_url: Option<String>,
    /// Whether a plain-text base URL may leave the host.
    pub allow_http: Option<bool>,
    /// The wire format that it speaks.
    pub dialect: Option<String>,
    /// The variable that holds the credential.
    pub credential_env: Option<String>,
    /// The file that holds the credential.
    pub credential_file: Option<String>,
    /// `cancel` or `drain`.
    pub on_disconnect: Option<String>,
    /// Whether it is spoken to in HTTP/2.
    pub http2: Option<bool>,
    /// Where it differs from `OpenAI`.
    pub quirks: Quirks,
    /// Where it differs from `[deadlines]`.
    pub deadlines: Deadlines,
    /// How it is looked after while nobody calls.
    pub probe: Option<Probe>,
    /// The models to list, with their prices.
    pub models: Vec<Model>,
}

/// `[providers.NAME.quirks]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Quirks {
    /// Whether it accepts `stream_options`.
    pub stream_options: Option<bool>,
    /// `inside`, `added` or `by_total`.
    pub reasoning: Option<String>,
    /// `message`, `prefix`, `partial` or `continue_final_message`.
    pub prefill: Option<String>,
    /// `max_tokens` or `max_completion_tokens`.
    pub output_cap: Option<String>,
}

/// `[providers.NAME.probe]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Probe {
    /// Time between two probes.
    pub every_seconds: Option<Seconds>,
    /// `models` or `completion`.
    pub kind: Option<String>,
}

/// `[[providers.NAME.models]]`
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Model {
    pub id: Option<String>,
    pub created: Option<i64>,
    pub context_tokens: Option<i64>,
    pub output_tokens_max: Option<i64>,
    pub image_tokens_max: Option<i64>,
    // The fields of `Price` but `from`: a flattened table would hide unknown fields.
    pub input: Option<String>,
    pub input_cache_read: Option<String>,
    pub input_cache_write: Option<String>,
    pub input_cache_write_long: Option<String>,
    pub input_audio: Option<String>,
    pub input_image: Option<String>,
    pub output: Option<String>,
    pub output_reasoning: Option<String>,
    pub output_audio: Option<String>,
    pub output_image: Option<String>,
    pub request: Option<String>,
    pub long_context: Option<LongContext>,
    pub service_tiers: Option<ServiceTiers>,
    /// Prices from certain days on.
    pub prices: Vec<Price>,
}

/// One of `prices`: in USD per million tokens, `request` in USD. The rates are explained at
/// `domain::money::Price`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Price {
    /// The first day (UTC) that it holds on, as `YYYY-MM-DD`; without it, from ever on.
    pub from: Option<String>,
    pub input: Option<String>,
    pub input_cache_read: Option<String>,
    pub input_cache_write: Option<String>,
    pub input_cache_write_long: Option<String>,
    pub input_audio: Option<String>,
    pub input_image: Option<String>,
    pub output: Option<String>,
    pub output_reasoning: Option<String>,
    pub output_audio: Option<String>,
    pub output_image: Option<String>,
    pub request: Option<String>,
    pub long_context: Option<LongContext>,
    pub service_tiers: Option<ServiceTiers>,
}

/// `long_context` of a price: factors.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct LongContext {
    /// Prompts of more input tokens are long.
    pub above_tokens: Option<i64>,
    pub input: Option<String>,
    pub output: Option<String>,
}

/// `service_tiers` of a price: factors.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct ServiceTiers {
    pub flex: Option<String>,
    pub priority: Option<String>,
    pub scale: Option<String>,
}

/// `[[routes]]`
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Route {
    /// What clients ask for: a name, or `prefix/*`.
    pub model: Option<String>,
    // The fields of `Routing`, for this route alone: a flattened table would hide unknown fields.
    pub attempts_max: Option<i64>,
    pub attempts_seconds: Option<Seconds>,
    pub wait_seconds_max: Option<Seconds>,
    pub on_break: Option<String>,
    pub balance: Option<String>,
    pub affinity: Option<String>,
    /// Deadlines that take the place of the provider's.
    pub deadlines: Patience,
    /// When a second target is tried while the first is silent.
    pub hedge: Option<Hedge>,
    /// Who answers, in order.
    pub targets: Vec<Target>,
}

/// `[routes.deadlines]`; the fields are explained at the domain's `routing::Patience`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "units stand last in every name")]
pub(crate) struct Patience {
    pub connect_seconds: Option<Seconds>,
    pub head_seconds: Option<Seconds>,
    pub first_token_seconds: Option<Seconds>,
    pub stall_seconds: Option<Seconds>,
    pub total_seconds: Option<Seconds>,
}

/// `[routes.hedge]`; the fields are explained at the domain's `routing::Hedge`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Hedge {
    pub quantile: Option<Fraction>,
    pub share: Option<Fraction>,
    pub wait_seconds_min: Option<Seconds>,
}

/// One of a route's `targets`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default)]
pub(crate) struct Target {
    /// A provider's name.
    pub provider: Option<String>,
    /// The model's ID there.
    pub model: Option<String>,
    /// Share of the calls among targets of equal rank.
    pub weight: Option<i64>,
    /// Order among the targets: lower ranks first.
    pub rank: Option<i64>,
    /// Whether it goes on from an assistant's message that the request ends in.
    pub prefill: Option<bool>,
    /// How many tokens of input and output it can hold together.
    pub context_tokens: Option<i64>,
    /// How long one answer can be.
    pub output_tokens_max: Option<i64>,
    /// How many tokens one image can be.
    pub image_tokens_max: Option<i64>,
    /// What it costs, instead of what the provider's list of models says.
    pub prices: Vec<Price>,
}

/// A length of time in seconds, whole or not.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(crate) struct Seconds(pub f64);

/// A part of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(crate) struct Fraction(pub f64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number("a number of seconds")).map(Self)
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number("a number")).map(Self)
    }
}

/// Reads a number, whole or not; says what it should have been.
struct Number(&'static str);

impl Visitor<'_> for Number {
    type Value = f64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_f64<E>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<f64, E> {
        let smaller = |_| E::invalid_value(Unexpected::Signed(number), &"a smaller number");
        i32::try_from(number).map(f64::from).map_err(smaller)
    }
}

/// Reads a text that must never show up in `Debug`.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Option::<String>::deserialize(deserializer).map(|text| text.map(SecretString::from))
}

/// Writes whether there is a secret, for the test that every field is in the reference file.
#[cfg(test)]
#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
fn hidden<S: serde::Serializer>(secret: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&secret.as_ref().map(|_| "…"), to)
}
