//! An example value for a JSON schema: enough of one for SDKs to parse. It does not check anything.

use serde_json::{Map, Value};

/// Deepest schema that is followed.
const DEPTH_MAX: u32 = 16;

/// A value of the shape of `schema`, with `text` for strings, 1 for numbers and `true` for booleans.
pub(crate) fn example(schema: &Value, text: &str, depth: u32) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    let deeper = depth.saturating_add(1);
    if let Some(Value::Array(allowed)) = schema.get("enum") {
        return allowed.first().cloned().unwrap_or(Value::Null);
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Value::from(text),
        Some("integer" | "number") => Value::from(1),
        Some("boolean") => Value::from(true),
        Some("array") => {
            let item = schema.get("items").map(|items| example(items, text, deeper));
            Value::Array(item.into_iter().collect())
        }
        Some("object") => {
            let mut object = Map::new();
            if let Some(Value::Object(properties)) = schema.get("properties") {
                for (name, property) in properties {
                    object.insert(name.clone(), example(property, text, deeper));
                }
            }
            Value::Object(object)
        }
        Some(_) | None => Value::Null,
    }
}
