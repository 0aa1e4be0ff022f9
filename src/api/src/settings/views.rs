//! Settings as the API tells of them: where each is said, and what it was before.

use serde::{Deserialize, Serialize};

use super::Provider;
use crate::models::Pricing;

/// A setting, and where it is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Setting<T> {
    /// Its name.
    pub name: String,
    /// `file`: a configuration file says it, and only there it can be changed. `stored`: it is in the database.
    /// `environment`: a variable with a credential brought the preset up. `built_in`: the demo provider.
    pub source: String,
    /// The version that a change has to name (`If-Match`); `null` where it is not stored.
    pub version: Option<i64>,
    /// When it was changed last; `null` where it is not stored.
    pub changed_at: Option<String>,
    /// What it says.
    pub content: T,
    /// Of a provider that is stored: the secret that we present to it, as far as it may be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
}

/// All settings of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Settings<T> {
    /// The version of all stored settings together.
    pub version: i64,
    /// By name.
    pub data: Vec<Setting<T>>,
}

/// What may be told of our secret for a provider: never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Credential {
    /// Whereto alone it is sent.
    pub origin: String,
    /// When it was given.
    pub set_at: String,
}

/// Our secret for a provider: `PUT /api/v1/admin/providers/{name}/credential`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    /// What the provider takes for a bearer token.
    pub credential: String,
}

/// What a provider is to be: `PUT /api/v1/admin/providers/{name}`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NewProvider {
    /// The provider.
    #[serde(flatten)]
    pub provider: Provider,
    /// Our secret for it, which is given together with another address: it is never told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// A page of the history: `GET /api/v1/admin/settings/history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = SettingsHistory))]
pub struct History {
    /// Changes, the latest first.
    pub data: Vec<HistoryLine>,
    /// What asks for the next page; `null` if this is the last.
    pub next_cursor: Option<String>,
}

/// One change of a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = SettingsHistoryLine))]
pub struct HistoryLine {
    /// The version that it brought.
    pub version: i64,
    /// `provider`, `route`, `tier`, `policy` or `credential`.
    pub kind: String,
    /// The setting's name.
    pub name: String,
    /// What it said from then on, as JSON; of a credential whereto it is sent. `null`: it was taken away.
    pub content: Option<String>,
    /// Who did it.
    pub actor: String,
    /// When.
    pub changed_at: String,
}

/// What can be called, and where it goes: `GET /api/v1/admin/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RoutedModels {
    /// Models that are listed, by their name.
    pub data: Vec<RoutedModel>,
}

/// A model, and who answers for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RoutedModel {
    /// What a client asks for.
    pub id: String,
    /// Where its route, or the provider whose list it is on, is said: as of a [`Setting`].
    pub source: String,
    /// Who answers, in order of rank.
    pub targets: Vec<PricedTarget>,
}

/// A target of a route, and what it costs there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PricedTarget {
    /// `provider/model`.
    pub name: String,
    /// Order among the targets: lower ranks first.
    pub rank: u32,
    /// Share of the calls among targets of equal rank.
    pub weight: u32,
    /// What it costs now; `null` if nobody has said.
    pub pricing: Option<Pricing>,
}

/// How targets stand: `GET /api/v1/admin/targets`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Targets {
    /// `edge`: as this process, which serves calls, has seen it. `hints`: as edges have told each other by
    /// Redis. `none`: this process serves no calls, and there is no Redis that it could ask.
    pub source: String,
    /// Every configured target.
    pub data: Vec<TargetState>,
}

/// How a target stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TargetState {
    /// `provider/model`.
    pub name: String,
    /// The provider.
    pub provider: String,
    /// `closed` (it is asked), `open`, `half_open`, `cooling`, `benched`, by hints `off`; `unknown` where nobody
    /// says.
    pub state: String,
    /// For how many milliseconds it is left alone from now on.
    pub left_ms: u64,
    /// Attempts at this edge; `null` where it is not known.
    pub attempts: Option<u64>,
    /// Those of them that failed.
    pub failures: Option<u64>,
    /// Why the last one failed.
    pub last_failure: Option<String>,
}

impl std::fmt::Debug for NewCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewCredential(…)")
    }
}

impl std::fmt::Debug for NewProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewProvider").field("provider", &self.provider).finish_non_exhaustive()
    }
}
