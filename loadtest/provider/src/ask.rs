//! What a request's body asks for, as far as the answers depend on it.

use serde_json::Value;

use crate::{schema, tokens};

/// Most choices in one answer.
const CHOICES_MAX: u64 = 8;
/// What a word begins with that names a request.
const MARK: &str = "mark-";

/// A model endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
}

impl Endpoint {
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/chat/completions" => Some(Self::Chat),
            "/v1/completions" => Some(Self::Completions),
            "/v1/embeddings" => Some(Self::Embeddings),
            _ => None,
        }
    }
}

/// A function to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToolCall {
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// A last message that is the assistant's, and how it is marked as one to go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) text: String,
    pub(crate) prefix: bool,
    pub(crate) partial: bool,
    pub(crate) continue_final_message: bool,
}

/// A generation request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: String,
    /// What an echo says.
    pub(crate) text: String,
    /// The caller's own name for the request: the first word of the prompt that begins with [`MARK`].
    pub(crate) mark: Option<String>,
    pub(crate) prompt_tokens: u64,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) has_stream_options: bool,
    /// Most tokens in an answer.
    pub(crate) tokens_max: Option<u64>,
    pub(crate) choices: u64,
    pub(crate) tool: Option<ToolCall>,
    pub(crate) opening: Option<Opening>,
}

impl Ask {
    /// Reads a body of a chat or completions request; `Err` says what is wrong with it.
    pub(crate) fn read(endpoint: Endpoint, body: &Value) -> Result<Self, &'static str> {
        let model = body.get("model").and_then(Value::as_str);
        let model = model.ok_or("you must provide a model parameter")?.to_owned();
        let stream_options = body.get("stream_options").filter(|value| !value.is_null());
        let flag = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
        let (mut text, prompt_tokens, mark, tool) = match endpoint {
            Endpoint::Chat => {
                let messages = body.get("messages").and_then(Value::as_array);
                let messages = messages.ok_or("Missing required parameter: 'messages'.")?;
                let text = last_text(messages);
                let texts = messages.iter().map(text_of).collect::<Vec<_>>();
                let count = texts.iter().map(|text| tokens::count(text)).sum::<u64>();
                let mark = texts.iter().find_map(|text| mark_of(text));
                (text, count, mark, pick_tool(body, messages))
            }
            Endpoint::Completions | Endpoint::Embeddings => {
                let prompt = body.get("prompt").map(prompt_text).unwrap_or_default();
                let (count, mark) = (tokens::count(&prompt), mark_of(&prompt));
                (prompt, count, mark, None)
            }
        };
        if let Some(json) = body.get("response_format").and_then(|form| shape(form, &text)) {
            text = json;
        }
        let limit = body.get("max_completion_tokens").or_else(|| body.get("max_tokens"));
        Ok(Self {
            endpoint,
            model,
            text,
            mark,
            prompt_tokens,
            stream: flag(body.get("stream")),
            include_usage: flag(stream_options.and_then(|options| options.get("include_usage"))),
            has_stream_options: stream_options.is_some(),
            tokens_max: limit.and_then(Value::as_u64),
            choices: body.get("n").and_then(Value::as_u64).unwrap_or(1).clamp(1, CHOICES_MAX),
            tool,
            opening: opening(body),
        })
    }
}

fn mark_of(text: &str) -> Option<String> {
    text.split_whitespace().find(|word| word.starts_with(MARK)).map(str::to_owned)
}

/// The last message, if it is the assistant's.
fn opening(body: &Value) -> Option<Opening> {
    let flag = |value: &Value, name: &str| value.get(name).and_then(Value::as_bool) == Some(true);
    let last = body.get("messages")?.as_array()?.last()?;
    let speaks = last.get("role").and_then(Value::as_str) == Some("assistant");
    speaks.then(|| Opening {
        text: text_of(last),
        prefix: flag(last, "prefix"),
        partial: flag(last, "partial"),
        continue_final_message: flag(body, "continue_final_message"),
    })
}

/// The text of a message: its content, or the text parts of it.
fn text_of(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
            String::new()
        }
    }
}

/// The text of the last message by the user or by a tool.
fn last_text(messages: &[Value]) -> String {
    let spoken = |message: &&Value| {
        matches!(message.get("role").and_then(Value::as_str), Some("user" | "tool"))
    };
    messages.iter().rev().find(spoken).map(text_of).unwrap_or_default()
}

fn prompt_text(prompt: &Value) -> String {
    match prompt {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().concat(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// The tool to call: the last message is the user's and names it or says "tool", or `tool_choice` demands it.
fn pick_tool(body: &Value, messages: &[Value]) -> Option<ToolCall> {
    let last = messages.last()?;
    if last.get("role").and_then(Value::as_str) != Some("user") {
        return None;
    }
    let text = text_of(last);
    let choice = body.get("tool_choice");
    if choice.and_then(Value::as_str) == Some("none") {
        return None;
    }
    let wanted = choice.and_then(|choice| choice.get("function")?.get("name")?.as_str());
    let demanded = wanted.is_some() || choice.and_then(Value::as_str) == Some("required");
    let functions = body.get("tools")?.as_array()?.iter().filter_map(|tool| tool.get("function"));
    let named = functions.filter_map(|function| Some((function.get("name")?.as_str()?, function)));
    let named = named.collect::<Vec<_>>();
    let pick = match wanted {
        Some(wanted) => named.iter().find(|(name, _)| *name == wanted),
        None => named
            .iter()
            .find(|(name, _)| text.contains(name))
            .or_else(|| named.first().filter(|_| demanded || text.contains("tool"))),
    };
    let (name, function) = pick?;
    let parameters = function.get("parameters").unwrap_or(&Value::Null);
    let arguments = schema::example(parameters, last_word(&text), 0).to_string();
    Some(ToolCall { name: (*name).to_owned(), arguments })
}

fn last_word(text: &str) -> &str {
    let word = text.split_whitespace().next_back().unwrap_or_default();
    word.trim_matches(|character: char| !character.is_alphanumeric())
}

/// An answer in the form that `response_format` asks for.
fn shape(form: &Value, text: &str) -> Option<String> {
    match form.get("type").and_then(Value::as_str) {
        Some("json_object") => Some(serde_json::json!({ "echo": text }).to_string()),
        Some("json_schema") => {
            let schema = form.get("json_schema")?.get("schema")?;
            Some(schema::example(schema, text, 0).to_string())
        }
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_chat_request_is_read() {
        let body = json!({
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [{"type": "text", "text": "one two three"}]},
            ],
            "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 2, "model": "echo",
        });
        let ask = Ask::read(Endpoint::Chat, &body).unwrap();
        assert_eq!((ask.text.as_str(), ask.prompt_tokens), ("one two three", 5));
        assert!(ask.stream && ask.include_usage && ask.has_stream_options);
        assert_eq!(ask.tokens_max, Some(2));
    }

    #[test]
    fn a_tool_is_called_when_the_message_names_it() {
        let tools = json!([{"type": "function", "function": {"name": "get_weather", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]);
        let mut body = json!({"model": "echo", "tools": tools,
            "messages": [{"role": "user", "content": "please get_weather in Paris!"}]});
        let call = Ask::read(Endpoint::Chat, &body).unwrap().tool.unwrap();
        assert_eq!(
            (call.name.as_str(), call.arguments.as_str()),
            ("get_weather", r#"{"city":"Paris"}"#)
        );
        body["tool_choice"] = json!("none");
        assert_eq!(Ask::read(Endpoint::Chat, &body).unwrap().tool, None);
    }
}
