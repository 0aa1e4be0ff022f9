//! What an answer says, and its JSON form.

use serde_json::Value;

use crate::ask::{Ask, Endpoint, ToolCall};
use crate::script::{Answer, Script, UsageWhen};
use crate::{tokens, usage};

/// When every answer was made, seconds of Unix time: fixed, so that answers can be compared.
pub(crate) const CREATED: u64 = 1_750_000_000;

const UNICODE: &str = "Grüße, Ελλάδα, Привет, 你好 世界, こんにちは, 🙂👩‍👩‍👧 \u{202e}x\u{202c} \"quoted\" \\ / \t\u{1}\u{7f} e\u{301} \u{10ffff} end";

/// What is said.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) pieces: Vec<String>,
    pub(crate) tool: Option<ToolCall>,
    pub(crate) finish: &'static str,
}

impl Said {
    pub(crate) fn new(script: &Script, ask: &Ask) -> Self {
        if let (Answer::Echo, Some(tool)) = (&script.answer, &ask.tool) {
            let pieces = pieces_of(&tool.arguments);
            return Self { pieces, tool: Some(tool.clone()), finish: "tool_calls" };
        }
        let mut pieces = match &script.answer {
            Answer::Echo => tokens::split(&ask.text).into_iter().map(str::to_owned).collect(),
            Answer::Words(count) => words(*count),
            Answer::Unicode => tokens::split(UNICODE).into_iter().map(str::to_owned).collect(),
            Answer::JsonBytes(_) | Answer::Status(_) | Answer::BaseResp => words(8),
        };
        let limit = ask.tokens_max.and_then(|limit| usize::try_from(limit).ok());
        let cut = limit.is_some_and(|limit| limit < pieces.len());
        pieces.truncate(limit.unwrap_or(usize::MAX));
        Self { pieces, tool: None, finish: if cut { "length" } else { "stop" } }
    }

    /// Tokens of one choice.
    pub(crate) fn tokens(&self) -> u64 {
        u64::try_from(self.pieces.len()).unwrap_or(u64::MAX)
    }
}

fn words(count: usize) -> Vec<String> {
    let word = |index| if index == 0 { "word".to_owned() } else { format!(" word{index}") };
    (0..count).map(word).collect()
}

/// Arguments are streamed in pieces of a few characters, as providers do.
fn pieces_of(arguments: &str) -> Vec<String> {
    let characters = arguments.chars().collect::<Vec<_>>();
    characters.chunks(6).map(|piece| piece.iter().collect()).collect()
}

/// `text` as a JSON string, quotes included.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The number of an answer as its id.
pub(crate) fn id(endpoint: Endpoint, number: u64) -> String {
    match endpoint {
        Endpoint::Chat => format!("chatcmpl-box{number}"),
        Endpoint::Completions | Endpoint::Embeddings => format!("cmpl-box{number}"),
    }
}

/// The JSON answer. The tokens told are those of all choices.
pub(crate) fn body(script: &Script, ask: &Ask, said: &Said, number: u64) -> String {
    let body = with_text(script, ask, said, &said.pieces.concat(), number);
    let Answer::JsonBytes(size) = script.answer else { return body };
    let text_bytes = said.pieces.concat().len();
    let fill = size.saturating_sub(body.len().saturating_sub(text_bytes));
    with_text(script, ask, said, &filler(fill), number)
}

/// Text of exactly so many bytes that needs no escapes.
pub(crate) fn filler(bytes: usize) -> String {
    "lorem ipsum dolor ".chars().cycle().take(bytes).collect()
}

fn with_text(script: &Script, ask: &Ask, said: &Said, text: &str, number: u64) -> String {
    let choices = (0..ask.choices).map(|index| choice(ask, said, text, index)).collect::<Vec<_>>();
    let usage = if script.usage_when == UsageWhen::Never {
        String::new()
    } else {
        let tokens = said.tokens().saturating_mul(ask.choices);
        format!(r#","usage":{}"#, usage::object(script, ask.prompt_tokens, tokens))
    };
    let object = match ask.endpoint {
        Endpoint::Chat => "chat.completion",
        Endpoint::Completions | Endpoint::Embeddings => "text_completion",
    };
    format!(
        r#"{{"id":"{}","object":"{object}","created":{CREATED},"model":{},"choices":[{}]{usage},"service_tier":"default","system_fingerprint":"fp_box"}}"#,
        id(ask.endpoint, number),
        quoted(&ask.model),
        choices.join(","),
    )
}

fn choice(ask: &Ask, said: &Said, text: &str, index: u64) -> String {
    let finish = said.finish;
    let text = quoted(text);
    let message = match (ask.endpoint, &said.tool) {
        (Endpoint::Completions | Endpoint::Embeddings, _) => format!(r#""text":{text}"#),
        (Endpoint::Chat, None) => format!(
            r#""message":{{"role":"assistant","content":{text},"refusal":null,"annotations":[]}}"#
        ),
        (Endpoint::Chat, Some(tool)) => format!(
            r#""message":{{"role":"assistant","content":null,"tool_calls":[{{"id":"call_box{index}","type":"function","function":{{"name":{},"arguments":{}}}}}],"refusal":null,"annotations":[]}}"#,
            quoted(&tool.name),
            quoted(&tool.arguments),
        ),
    };
    format!(r#"{{"index":{index},{message},"logprobs":null,"finish_reason":"{finish}"}}"#)
}
