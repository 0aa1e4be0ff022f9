//! Settings: who answers calls, at which prices, and who may call how much. What a configuration file says of
//! them and what administrators say are the same types: every field may be left out, and nothing is judged
//! yet.

mod number;
mod views;

use serde::{Deserialize, Serialize};

pub use number::{Fraction, Seconds};
pub use views::{
    Credential, History, HistoryLine, NewCredential, NewProvider, PricedTarget, RoutedModel,
    RoutedModels, Setting, Settings, TargetState, Targets,
};

/// Whether a field is left out.
fn says_nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A provider: who answers calls. In a file, `[providers.NAME]`; a preset is the same table in a file of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Provider {
    /// The preset whose settings hold where this table says nothing.
    #[serde(skip_serializing_if = "says_nothing")]
    pub preset: Option<String>,
    /// What comes before `/chat/completions`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub base_url: Option<String>,
    /// Whether a plain-text base URL may leave the host.
    #[serde(skip_serializing_if = "says_nothing")]
    pub allow_http: Option<bool>,
    /// The wire format that it speaks.
    #[serde(skip_serializing_if = "says_nothing")]
    pub dialect: Option<String>,
    /// The variable that holds the credential; in a file only.
    #[serde(skip_serializing_if = "says_nothing")]
    pub credential_env: Option<String>,
    /// The file that holds the credential; in a file only.
    #[serde(skip_serializing_if = "says_nothing")]
    pub credential_file: Option<String>,
    /// `cancel` or `drain`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub on_disconnect: Option<String>,
    /// Whether it is spoken to in HTTP/2.
    #[serde(skip_serializing_if = "says_nothing")]
    pub http2: Option<bool>,
    /// Where it differs from `OpenAI`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub quirks: Quirks,
    /// Where it differs from `[deadlines]`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub deadlines: Deadlines,
    /// How it is looked after while nobody calls.
    #[serde(skip_serializing_if = "says_nothing")]
    pub probe: Option<Probe>,
    /// The models to list, with their prices.
    #[serde(skip_serializing_if = "says_nothing")]
    pub models: Vec<Model>,
}

/// Where a provider differs from `OpenAI`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Quirks {
    /// Whether it accepts `stream_options`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub stream_options: Option<bool>,
    /// `inside`, `added` or `by_total`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub reasoning: Option<String>,
    /// `message`, `prefix`, `partial` or `continue_final_message`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub prefill: Option<String>,
    /// `max_tokens` or `max_completion_tokens`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output_cap: Option<String>,
}

/// How a provider is looked after while nobody calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Probe {
    /// Time between two probes.
    #[serde(skip_serializing_if = "says_nothing")]
    pub every_seconds: Option<Seconds>,
    /// `models` or `completion`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub kind: Option<String>,
}

/// How long a provider may take. In a file, `[deadlines]`, and `[providers.NAME.deadlines]` where one differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Deadlines {
    /// For a connection to be made, TLS included.
    #[serde(skip_serializing_if = "says_nothing")]
    pub connect_seconds: Option<Seconds>,
    /// For the head of the answer.
    #[serde(skip_serializing_if = "says_nothing")]
    pub head_seconds: Option<Seconds>,
    /// For the first token of the answer.
    #[serde(skip_serializing_if = "says_nothing")]
    pub first_token_seconds: Option<Seconds>,
    /// Between two pieces of the answer.
    #[serde(skip_serializing_if = "says_nothing")]
    pub stall_seconds: Option<Seconds>,
    /// For the whole answer.
    #[serde(skip_serializing_if = "says_nothing")]
    pub total_seconds: Option<Seconds>,
    /// For the rest of an answer whose client has left.
    #[serde(skip_serializing_if = "says_nothing")]
    pub drain_seconds: Option<Seconds>,
    /// How long an idle connection is kept.
    #[serde(skip_serializing_if = "says_nothing")]
    pub pool_idle_seconds: Option<Seconds>,
}

/// A model of a provider. Prices are decimals in USD per million tokens, `request` in USD.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Model {
    /// The model's ID at the provider.
    #[serde(skip_serializing_if = "says_nothing")]
    pub id: Option<String>,
    /// When it came out, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "says_nothing")]
    pub created: Option<i64>,
    /// Input and output tokens that it can hold together.
    #[serde(skip_serializing_if = "says_nothing")]
    pub context_tokens: Option<i64>,
    /// Most output tokens of one answer.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output_tokens_max: Option<i64>,
    /// Most input tokens of one image.
    #[serde(skip_serializing_if = "says_nothing")]
    pub image_tokens_max: Option<i64>,
    /// Input.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input: Option<String>,
    /// Input that was read from a cache.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_cache_read: Option<String>,
    /// Input that was written to a cache.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_cache_write: Option<String>,
    /// Input that was written to a cache for a longer time.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_cache_write_long: Option<String>,
    /// Spoken input.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_audio: Option<String>,
    /// Pictures in the input.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_image: Option<String>,
    /// Output.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output: Option<String>,
    /// Reasoning.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output_reasoning: Option<String>,
    /// Spoken output.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output_audio: Option<String>,
    /// Pictures in the output.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output_image: Option<String>,
    /// Each call.
    #[serde(skip_serializing_if = "says_nothing")]
    pub request: Option<String>,
    /// What long prompts cost more.
    #[serde(skip_serializing_if = "says_nothing")]
    pub long_context: Option<LongContext>,
    /// What other service tiers cost, as factors.
    #[serde(skip_serializing_if = "says_nothing")]
    pub service_tiers: Option<ServiceTiers>,
    /// Prices from certain days on.
    #[serde(skip_serializing_if = "says_nothing")]
    pub prices: Vec<Price>,
}

/// A price: decimals in USD per million tokens, `request` in USD.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Price {
    /// The first day (UTC) that it holds on, as `YYYY-MM-DD`; without it, from ever on.
    #[serde(skip_serializing_if = "says_nothing")]
    pub from: Option<String>,
    /// Input.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input: Option<String>,
    /// Input that was read from a cache.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_cache_read: Option<String>,
    /// Input that was written to a cache.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_cache_write: Option<String>,
    /// Input that was written to a cache for a longer time.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_cache_write_long: Option<String>,
    /// Spoken input.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_audio: Option<String>,
    /// Pictures in the input.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input_image: Option<String>,
    /// Output.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output: Option<String>,
    /// Reasoning.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output_reasoning: Option<String>,
    /// Spoken output.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output_audio: Option<String>,
    /// Pictures in the output.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output_image: Option<String>,
    /// Each call.
    #[serde(skip_serializing_if = "says_nothing")]
    pub request: Option<String>,
    /// What long prompts cost more.
    #[serde(skip_serializing_if = "says_nothing")]
    pub long_context: Option<LongContext>,
    /// What other service tiers cost, as factors.
    #[serde(skip_serializing_if = "says_nothing")]
    pub service_tiers: Option<ServiceTiers>,
}

/// What long prompts cost more, as factors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct LongContext {
    /// Prompts of more input tokens are long.
    #[serde(skip_serializing_if = "says_nothing")]
    pub above_tokens: Option<i64>,
    /// The factor of input.
    #[serde(skip_serializing_if = "says_nothing")]
    pub input: Option<String>,
    /// The factor of output.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output: Option<String>,
}

/// What calls in other service tiers cost, as factors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ServiceTiers {
    /// The factor of calls that may wait.
    #[serde(skip_serializing_if = "says_nothing")]
    pub flex: Option<String>,
    /// The factor of calls that go first.
    #[serde(skip_serializing_if = "says_nothing")]
    pub priority: Option<String>,
    /// The factor of calls within bought capacity.
    #[serde(skip_serializing_if = "says_nothing")]
    pub scale: Option<String>,
}

/// A route: which targets answer for a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Route {
    /// What clients ask for: a name, or `prefix/*`. In the API it is the name in the path.
    #[serde(skip_serializing_if = "says_nothing")]
    pub model: Option<String>,
    /// Most attempts of a call.
    #[serde(skip_serializing_if = "says_nothing")]
    pub attempts_max: Option<i64>,
    /// Latest that an attempt may begin after its call.
    #[serde(skip_serializing_if = "says_nothing")]
    pub attempts_seconds: Option<Seconds>,
    /// Longest wait for a target that has said when to come back.
    #[serde(skip_serializing_if = "says_nothing")]
    pub wait_seconds_max: Option<Seconds>,
    /// What becomes of an answer that breaks off: `continue` or `error`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub on_break: Option<String>,
    /// Who is asked first among targets of equal rank: `weighted` or `least_loaded`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub balance: Option<String>,
    /// Whether calls that begin alike go to the same target: `none` or `prefix`.
    #[serde(skip_serializing_if = "says_nothing")]
    pub affinity: Option<String>,
    /// Deadlines that take the place of the provider's.
    #[serde(skip_serializing_if = "says_nothing")]
    pub deadlines: Patience,
    /// When a second target is tried while the first is silent.
    #[serde(skip_serializing_if = "says_nothing")]
    pub hedge: Option<Hedge>,
    /// Who answers, in order.
    #[serde(skip_serializing_if = "says_nothing")]
    pub targets: Vec<Target>,
}

/// Deadlines of a route, which take the place of its providers'.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Patience {
    /// For a connection to be made, TLS included.
    #[serde(skip_serializing_if = "says_nothing")]
    pub connect_seconds: Option<Seconds>,
    /// For the head of the answer.
    #[serde(skip_serializing_if = "says_nothing")]
    pub head_seconds: Option<Seconds>,
    /// For the first token of the answer.
    #[serde(skip_serializing_if = "says_nothing")]
    pub first_token_seconds: Option<Seconds>,
    /// Between two pieces of the answer.
    #[serde(skip_serializing_if = "says_nothing")]
    pub stall_seconds: Option<Seconds>,
    /// For the whole answer.
    #[serde(skip_serializing_if = "says_nothing")]
    pub total_seconds: Option<Seconds>,
}

/// When a second target is tried while the first is silent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Hedge {
    /// The wait: so long that this part of first tokens come sooner.
    #[serde(skip_serializing_if = "says_nothing")]
    pub quantile: Option<Fraction>,
    /// The part of the calls that may be hedged.
    #[serde(skip_serializing_if = "says_nothing")]
    pub share: Option<Fraction>,
    /// The least that is waited.
    #[serde(skip_serializing_if = "says_nothing")]
    pub wait_seconds_min: Option<Seconds>,
}

/// A target: a provider and its model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Target {
    /// A provider's name.
    #[serde(skip_serializing_if = "says_nothing")]
    pub provider: Option<String>,
    /// The model's ID there.
    #[serde(skip_serializing_if = "says_nothing")]
    pub model: Option<String>,
    /// Share of the calls among targets of equal rank.
    #[serde(skip_serializing_if = "says_nothing")]
    pub weight: Option<i64>,
    /// Order among the targets: lower ranks first.
    #[serde(skip_serializing_if = "says_nothing")]
    pub rank: Option<i64>,
    /// Whether it goes on from an assistant's message that the request ends in.
    #[serde(skip_serializing_if = "says_nothing")]
    pub prefill: Option<bool>,
    /// How many tokens of input and output it can hold together.
    #[serde(skip_serializing_if = "says_nothing")]
    pub context_tokens: Option<i64>,
    /// How long one answer can be.
    #[serde(skip_serializing_if = "says_nothing")]
    pub output_tokens_max: Option<i64>,
    /// How many tokens one image can be.
    #[serde(skip_serializing_if = "says_nothing")]
    pub image_tokens_max: Option<i64>,
    /// What it costs, instead of what the provider's list of models says.
    #[serde(skip_serializing_if = "says_nothing")]
    pub prices: Vec<Price>,
}

/// A tier: limits under a name, for keys and accounts to be given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Tier {
    /// Calls that may come at once, and every second after that.
    #[serde(skip_serializing_if = "says_nothing")]
    pub requests_per_second: Option<i64>,
    /// Calls a minute, sustained.
    #[serde(skip_serializing_if = "says_nothing")]
    pub requests_per_minute: Option<i64>,
    /// Input and output tokens a minute, sustained.
    #[serde(skip_serializing_if = "says_nothing")]
    pub tokens_per_minute: Option<i64>,
    /// Calls at the same time.
    #[serde(skip_serializing_if = "says_nothing")]
    pub concurrency: Option<i64>,
}

/// A policy: which models and providers the keys of an account may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Policy {
    /// The models, `*` at the end for all that begin so; without it, all.
    #[serde(skip_serializing_if = "says_nothing")]
    pub models: Option<Vec<String>>,
    /// The providers; without it, all.
    #[serde(skip_serializing_if = "says_nothing")]
    pub providers: Option<Vec<String>>,
}
