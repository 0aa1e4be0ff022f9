//! Embeddings: small vectors made from a hash of each input, as floats or in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::observe::fnv64;
use crate::tokens;

/// Most inputs in a request, and most dimensions of a vector.
const INPUTS_MAX: usize = 2_048;
const DIMENSIONS_MAX: u64 = 4_096;
const DIMENSIONS_DEFAULT: u64 = 8;

/// The answer to an embeddings request and its prompt tokens; `Err` says what is wrong with it.
pub(crate) fn answer(model: &str, body: &Value) -> Result<(Value, u64), &'static str> {
    let inputs = match body.get("input") {
        Some(Value::Array(items)) if items.iter().all(Value::is_number) => {
            vec![Value::Array(items.clone())]
        }
        Some(Value::Array(items)) => items.clone(),
        Some(text @ Value::String(_)) => vec![text.clone()],
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => vec![],
    };
    if inputs.is_empty() || inputs.len() > INPUTS_MAX {
        return Err("'input' must be a string, a list of tokens, or a list of 1 to 2048 of them");
    }
    let dimensions = body.get("dimensions").and_then(Value::as_u64).unwrap_or(DIMENSIONS_DEFAULT);
    let dimensions = dimensions.clamp(1, DIMENSIONS_MAX);
    let packed = body.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let mut data = vec![];
    let mut count = 0_u64;
    for (index, input) in inputs.iter().enumerate() {
        let (seed, input_tokens) = match input {
            Value::String(text) => (fnv64(text.as_bytes()), tokens::count(text)),
            Value::Array(ids) => {
                (fnv64(input.to_string().as_bytes()), u64::try_from(ids.len()).unwrap_or(0))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                return Err("'input' holds something that is no text");
            }
        };
        count = count.saturating_add(input_tokens);
        let vector = vector(seed, dimensions);
        let embedding = if packed {
            let bytes = vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
            Value::from(STANDARD.encode(bytes))
        } else {
            Value::from(vector)
        };
        data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
    }
    let usage = json!({ "prompt_tokens": count, "total_tokens": count });
    Ok((json!({ "object": "list", "data": data, "model": model, "usage": usage }), count))
}

/// Values between -1 and 1 that depend on the seed alone.
fn vector(seed: u64, dimensions: u64) -> Vec<f32> {
    let value = |index: u64| {
        let [a, b, ..] = fnv64(&(seed ^ index).to_le_bytes()).to_le_bytes();
        f32::from(i16::from_le_bytes([a, b])) / 32_768.0
    };
    (0..dimensions).map(value).collect()
}
