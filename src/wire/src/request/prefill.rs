//! A request that is to be answered from the middle of its answer: the beginning of the answer goes
//! along as a message of the assistant's.

use super::facts::{Facts, Messages};
use super::splicer::Edit;
use crate::envelope::push_json_string;

const CONTINUE: &str = r#","continue_final_message":true"#;
const NO_PROMPT: &str = r#","add_generation_prompt":false"#;

/// How a provider is told to go on from an assistant's message that the request ends in, instead of
/// answering it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrefillForm {
    /// By the message alone (Anthropic's compatibility layer, many self-hosted templates).
    #[default]
    Message,
    /// `"prefix": true` in the message (Mistral, `DeepSeek`'s beta).
    Prefix,
    /// `"partial": true` in the message (Moonshot, Qwen).
    Partial,
    /// `"continue_final_message": true, "add_generation_prompt": false` beside the messages (vLLM, `SGLang`).
    ContinueFinalMessage,
}

/// The beginning of an answer that another target is to go on from.
#[derive(Clone, Copy, Debug)]
pub struct Prefill<'a> {
    /// The text of the answer so far.
    pub text: &'a str,
    /// How the provider is told to go on.
    pub form: PrefillForm,
}

impl Prefill<'_> {
    /// What is put before the end of `messages`.
    pub(super) fn message(&self, messages: Messages) -> Edit {
        let mut out = Vec::with_capacity(self.text.len().saturating_add(64));
        if !messages.empty {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"role":"assistant","content":"#);
        push_json_string(&mut out, self.text);
        out.extend_from_slice(match self.form {
            PrefillForm::Message | PrefillForm::ContinueFinalMessage => b"}",
            PrefillForm::Prefix => br#","prefix":true}"#,
            PrefillForm::Partial => br#","partial":true}"#,
        });
        Edit::insert(messages.span.end.saturating_sub(1), out.into())
    }

    /// What is put before the end of a body that has members already.
    pub(super) fn members(&self, facts: &Facts, close: u64) -> Option<Edit> {
        let missing = match self.form {
            PrefillForm::Message | PrefillForm::Prefix | PrefillForm::Partial => return None,
            PrefillForm::ContinueFinalMessage => {
                [(facts.continue_final_message, CONTINUE), (facts.add_generation_prompt, NO_PROMPT)]
            }
        };
        let missing = missing.into_iter().filter(|(given, _)| given.is_none());
        let out: String = missing.map(|(_, member)| member).collect();
        (!out.is_empty()).then(|| Edit::insert(close, out.into()))
    }
}
