//! What a provider complains of in the body of an error, as far as it decides whether another target
//! could do better.

use super::ERROR_BYTES_MAX;
use crate::value::{Kind, Malformed, Reader};

/// What a provider complains of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Complaint {
    /// Prompt and answer are longer than the model's context.
    ContextLength,
    /// What was asked is against the provider's policy.
    ContentPolicy,
    /// Anything else.
    #[default]
    Other,
}

/// Codes and types, in lower case.
const CODES: [(&str, Complaint); 19] = [
    ("context_length_exceeded", Complaint::ContextLength),
    ("context_window_exceeded", Complaint::ContextLength),
    ("model_context_window_exceeded", Complaint::ContextLength),
    // llama.cpp
    ("exceed_context_size_error", Complaint::ContextLength),
    // Azure's and GitHub's models
    ("tokens_limit_reached", Complaint::ContextLength),
    ("string_above_max_length", Complaint::ContextLength),
    ("prompt_too_long", Complaint::ContextLength),
    // Zhipu
    ("1261", Complaint::ContextLength),
    ("content_filter", Complaint::ContentPolicy),
    ("content_policy_violation", Complaint::ContentPolicy),
    ("moderation_blocked", Complaint::ContentPolicy),
    ("responsibleaipolicyviolation", Complaint::ContentPolicy),
    // Qwen
    ("data_inspection_failed", Complaint::ContentPolicy),
    ("datainspectionfailed", Complaint::ContentPolicy),
    ("content_moderation", Complaint::ContentPolicy),
    ("safety", Complaint::ContentPolicy),
    // Zhipu, and MiniMax
    ("1301", Complaint::ContentPolicy),
    ("1026", Complaint::ContentPolicy),
    ("1027", Complaint::ContentPolicy),
];

/// Parts of messages, in lower case. They are looked for in this order.
const PHRASES: [(&str, Complaint); 31] = [
    // OpenAI, DeepSeek, vLLM, Mistral, Together
    ("maximum context length", Complaint::ContextLength),
    ("context window", Complaint::ContextLength),
    ("context length", Complaint::ContextLength),
    // Anthropic
    ("prompt is too long", Complaint::ContextLength),
    ("exceed context limit", Complaint::ContextLength),
    // Gemini
    ("exceeds the maximum number of tokens", Complaint::ContextLength),
    // Qwen
    ("range of input length", Complaint::ContextLength),
    // Moonshot
    ("exceeded model token limit", Complaint::ContextLength),
    // Groq
    ("reduce the length of the messages", Complaint::ContextLength),
    // Bedrock
    ("input is too long", Complaint::ContextLength),
    // Text Generation Inference
    ("`inputs` tokens + `max_new_tokens`", Complaint::ContextLength),
    // llama.cpp
    ("available context size", Complaint::ContextLength),
    ("prompt exceeds max length", Complaint::ContextLength),
    ("prompt too long", Complaint::ContextLength),
    ("too large for model with", Complaint::ContextLength),
    // Azure
    ("content management policy", Complaint::ContentPolicy),
    ("content policy", Complaint::ContentPolicy),
    ("content_policy", Complaint::ContentPolicy),
    ("content filter", Complaint::ContentPolicy),
    ("content moderation", Complaint::ContentPolicy),
    // OpenAI
    ("safety system", Complaint::ContentPolicy),
    ("usage policies", Complaint::ContentPolicy),
    ("violating our usage policy", Complaint::ContentPolicy),
    // xAI
    ("usage guidelines", Complaint::ContentPolicy),
    ("safety_check", Complaint::ContentPolicy),
    ("for safety reasons", Complaint::ContentPolicy),
    ("blocked by safety", Complaint::ContentPolicy),
    // Moonshot
    ("considered high risk", Complaint::ContentPolicy),
    // DeepSeek
    ("content exists risk", Complaint::ContentPolicy),
    // Qwen
    ("inappropriate content", Complaint::ContentPolicy),
    // Zhipu
    ("不安全或敏感内容", Complaint::ContentPolicy),
];

/// What the body of a provider's error complains of, by the codes and messages that stand anywhere in it.
/// Of a body that is not JSON or longer than [`ERROR_BYTES_MAX`] nothing is known.
pub fn complaint(body: &[u8]) -> Complaint {
    if body.len() > ERROR_BYTES_MAX {
        return Complaint::Other;
    }
    let mut found = Found::default();
    let read = Reader::of_bytes(body).and_then(|mut reader| {
        found.read(&mut reader)?;
        reader.finish()
    });
    match (read, found.code) {
        (Err(Malformed), _) => Complaint::Other,
        (Ok(()), Complaint::Other) => found.message,
        (Ok(()), code) => code,
    }
}

/// The first thing that codes say, and that messages say.
#[derive(Debug, Default)]
struct Found {
    code: Complaint,
    message: Complaint,
}

impl Found {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        match reader.kind()? {
            Kind::Array => reader.array(|reader| self.read(reader)),
            Kind::Object => reader.object(|reader, key| {
                let name = key.text.decode();
                match (&*name, reader.kind()?) {
                    ("code" | "type" | "status" | "reason", Kind::Text) => {
                        note(&mut self.code, &CODES, &reader.string()?.decode(), str::eq);
                    }
                    ("code" | "status_code", Kind::Number) => {
                        note(&mut self.code, &CODES, reader.number()?, str::eq);
                    }
                    ("message" | "msg" | "status_msg" | "detail" | "error", Kind::Text) => {
                        let said = reader.string()?.decode();
                        note(&mut self.message, &PHRASES, &said, |text, part| text.contains(part));
                    }
                    (_, Kind::Object | Kind::Array) => self.read(reader)?,
                    (_, Kind::Text | Kind::Number | Kind::Bool | Kind::Null) => {}
                }
                Ok(())
            }),
            Kind::Text | Kind::Number | Kind::Bool | Kind::Null => reader.skip().map(drop),
        }
    }
}

/// Looks a text up, unless something was found before.
fn note(
    found: &mut Complaint,
    table: &[(&str, Complaint)],
    text: &str,
    fits: impl Fn(&str, &str) -> bool,
) {
    if *found == Complaint::Other {
        let text = text.to_ascii_lowercase();
        let entry = table.iter().find(|(word, _)| fits(&text, word));
        *found = entry.map_or(Complaint::Other, |(_, complaint)| *complaint);
    }
}
