//! What `smoke` may tell of what it found. An allow-list: a type with exactly these fields, each a number, a word
//! of a closed list, or a model's name that has the look of one. Nothing of a request or an answer gets in
//! otherwise, so no key, token, account, address, prompt or answer can.

use serde::Serialize;

use crate::brand;
use crate::secret::Secret;

/// The form of it.
const FORM: u32 = 1;
/// Longest model name that is told, in bytes.
const MODEL_BYTES_MAX: usize = 128;
/// How a token (JWT) begins, whichever it is.
const TOKEN: &str = "eyJ";
/// Longest run of letters and digits in it: keys, tokens and IDs are longer.
const RUN_MAX: usize = 20;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Evidence {
    v: u32,
    tool_version: &'static str,
    /// How many models the key may call.
    model_count: Option<usize>,
    /// The model that was called.
    model: Option<ModelName>,
    /// Why it is no proof; `null`: it is one.
    failure_class: Option<FailureClass>,
    /// What was asked, in order.
    steps: Vec<Step>,
}

/// A request and how it ended.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Step {
    /// What was asked.
    pub(crate) endpoint_path: Endpoint,
    /// Whether the answer was to be a stream.
    pub(crate) stream: bool,
    /// The HTTP status; `null`: there was no answer.
    pub(crate) status: Option<u16>,
    /// How long it took.
    pub(crate) elapsed_ms: u64,
    /// Why it did not do.
    pub(crate) failure_class: Option<FailureClass>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Endpoint {
    /// Where models are called; told only if it fails.
    #[serde(rename = "/api/v1/auth/discovery")]
    Discovery,
    /// Which models there are.
    #[serde(rename = "/v1/models")]
    Models,
    /// A call.
    #[serde(rename = "/v1/chat/completions")]
    Chat,
}

/// Why it did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureClass {
    /// Not reached, or no gateway, or it failed.
    Endpoint,
    /// The key is not good.
    Key,
    /// The model is unknown, or not this key's.
    ModelId,
    /// The request was not understood.
    RequestShape,
    /// No balance, or a limit.
    Quota,
    /// It took too long.
    Timeout,
    /// The answer is not what this kind of request is answered with.
    Capability,
}

/// A model's name that has the look of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct ModelName(String);

impl ModelName {
    /// `None` if it could be something else: a key, an ID, an address, a sentence.
    fn parse(text: &str) -> Option<Self> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "/._:-".contains(c);
        let runs = text.split(|c: char| !c.is_ascii_alphanumeric());
        let is_name = !text.is_empty()
            && text.len() <= MODEL_BYTES_MAX
            && text.chars().all(is_part)
            && runs.clone().all(|run| run.len() <= RUN_MAX)
            && !has_address(text)
            && !text.contains(brand::KEY_PREFIX)
            && !text.contains(TOKEN);
        is_name.then(|| Self(text.to_owned()))
    }
}

/// Whether four numbers with dots are in it, or three colons, which no model's name has.
fn has_address(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let is_ipv4 = |word: &str| word.split('.').filter(|number| !number.is_empty()).count() >= 4;
    text.matches(':').count() >= 2 || words.into_iter().any(is_ipv4)
}

impl Evidence {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            v: FORM,
            tool_version: brand::VERSION,
            model_count: None,
            model: None,
            failure_class: None,
            steps: Vec::new(),
        }
    }

    /// Adds what was asked and how it ended.
    pub(crate) fn push(&mut self, step: Step) {
        self.failure_class = self.failure_class.or(step.failure_class);
        self.steps.push(step);
    }

    /// How many models there are.
    pub(crate) fn count(&mut self, models: usize) {
        self.model_count = Some(models);
    }

    /// The model that is called with `key`.
    pub(crate) fn select(&mut self, model: &str, key: &Secret) {
        let name = ModelName::parse(model);
        self.model = name.filter(|name| !name.0.contains(key.reveal()));
    }

    /// Why it is no proof, where no request failed.
    pub(crate) fn fail(&mut self, class: FailureClass) {
        self.failure_class = self.failure_class.or(Some(class));
    }

    /// In one line.
    pub(crate) fn json(&self) -> String {
        // Numbers and words: writing them cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people to read, and to keep.
    pub(crate) fn pretty(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_told() {
        for name in [
            "openai/gpt-4o-mini",
            "anthropic/claude-haiku-4-5",
            "openai/gpt-4o-2024-08-06",
            "ollama/llama3.2:3b-instruct-q4_K_M",
            "acme-fast",
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
        ] {
            assert_eq!(ModelName::parse(name), Some(ModelName(name.to_owned())));
        }
    }

    #[test]
    fn what_is_no_name_of_a_model_is_not() {
        for text in [
            "",
            "a b",
            "sk-tr-short",
            "0123456789abcdefghijk",
            "key_01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "host/10.0.0.1",
            "v-192.168.1.7:80",
            "fe80::1",
            "user@example.com",
            "моdel",
            &"a-".repeat(100),
        ] {
            assert_eq!(ModelName::parse(text), None, "{text:?}");
        }
    }
}
