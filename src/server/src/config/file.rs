//! The configuration as it was typed: every field may be left out, and nothing is judged yet.
//!
//! `conf/tokenroute.toml` explains each field; `plan` says what they come to.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer};

// What administrators change by the API, and files say too.
pub(crate) use tokenroute_api::settings::{
    Deadlines, Fraction, Hedge, LongContext, Model, Patience, Policy, Price, Probe, Provider,
    Route, Seconds, ServiceTiers, Target, Tier,
};

use super::stored::Stored;

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
    /// What accounts may use, under a name.
    pub policies: BTreeMap<String, Policy>,
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
    /// What is not in the file, but in the database.
    #[serde(skip)]
    pub stored: Stored,
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
