//! What can be called, and what it costs.

use serde::{Deserialize, Serialize};

/// `GET /api/v1/models`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Models {
    /// Models by their name.
    pub data: Vec<Model>,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = PricedModel))]
pub struct Model {
    /// What a client asks for.
    pub id: String,
    /// Input and output tokens that it can hold together.
    pub context_tokens: Option<u64>,
    /// Most output tokens of one answer.
    pub output_tokens_max: Option<u64>,
    /// What it costs now at the first of its targets; `null` if nobody has said.
    pub pricing: Option<Pricing>,
}

/// Prices in USD for a million tokens, `request` in USD for each call, as decimals. What is left out costs
/// what its whole costs: cached input as input, reasoning as output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Pricing {
    /// Input.
    pub input: String,
    /// Input that was read from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_cache_read: Option<String>,
    /// Input that was written to a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_cache_write: Option<String>,
    /// Output.
    pub output: String,
    /// Reasoning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_reasoning: Option<String>,
    /// Each call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}
