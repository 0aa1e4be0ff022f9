//! A request that is to be answered from the middle of its answer: the beginning of the answer goes
//! along as a message of the assistant's.

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
