//! The usage of an answer in the members that each provider has for it.

use crate::script::{Script, UsageForm, UsageOdd, UsageWhen};

/// Reasoning tokens that the forms with such a member tell.
const REASONING_TOKENS: u64 = 7;

/// Where a stream tells its usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Nowhere,
    /// In an extra chunk without choices.
    Extra,
    /// On the chunk with the finish reason.
    LastContent,
    /// There, and in its choice too.
    LastContentAndChoice,
    /// There, within `x_groq`.
    LastContentXGroq,
    /// Cumulative on every chunk, and in an extra one.
    Every,
}

/// Where `script` tells the usage of a stream whose client asked for it or not.
pub(crate) fn place(script: &Script, asked: bool) -> Place {
    let when_asked = if asked { Place::Extra } else { Place::Nowhere };
    match script.usage_when {
        UsageWhen::Never => Place::Nowhere,
        UsageWhen::Every => Place::Every,
        UsageWhen::LastContent => Place::LastContent,
        UsageWhen::Always => Place::Extra,
        UsageWhen::Usual => match script.usage_form {
            UsageForm::Simple
            | UsageForm::OpenAi
            | UsageForm::Anthropic
            | UsageForm::Gemini
            | UsageForm::MiniMax
            | UsageForm::Ollama
            | UsageForm::Qwen => when_asked,
            UsageForm::DeepSeek | UsageForm::Mistral | UsageForm::Xai | UsageForm::Zai => {
                Place::LastContent
            }
            UsageForm::Moonshot => Place::LastContentAndChoice,
            UsageForm::Groq => Place::LastContentXGroq,
            UsageForm::OpenRouter => Place::Extra,
            UsageForm::Vllm if asked => Place::Every,
            UsageForm::Vllm => Place::Nowhere,
        },
    }
}

/// The usage object.
///
/// A quarter of the prompt was cached and seven tokens were reasoning, in the forms that tell such things.
pub(crate) fn object(script: &Script, prompt: u64, text: u64) -> String {
    if let Some(odd) = script.usage_odd {
        return odd_object(odd);
    }
    let cached = prompt / 4;
    let miss = prompt.saturating_sub(cached);
    let reasoning = REASONING_TOKENS;
    let out = text.saturating_add(reasoning);
    let total = prompt.saturating_add(out);
    let plain = prompt.saturating_add(text);
    let sum = |completion: u64, total: u64| {
        format!(
            r#""prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":{total}"#
        )
    };
    let details = |more: &str| {
        format!(
            r#""prompt_tokens_details":{{"cached_tokens":{cached}{more}}},"completion_tokens_details":{{"reasoning_tokens":{reasoning}}}"#
        )
    };
    match script.usage_form {
        UsageForm::Simple => format!(
            r#"{{{},"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#,
            sum(text, plain)
        ),
        UsageForm::OpenAi => format!(
            "{{{},{}}}",
            sum(out, total),
            details(r#","audio_tokens":0,"cache_write_tokens":0"#)
        ),
        UsageForm::Anthropic | UsageForm::Mistral | UsageForm::Ollama => {
            format!("{{{}}}", sum(text, plain))
        }
        UsageForm::DeepSeek => format!(
            r#"{{{},"prompt_tokens_details":{{"cached_tokens":{cached}}},"completion_tokens_details":{{"reasoning_tokens":{reasoning}}},"prompt_cache_hit_tokens":{cached},"prompt_cache_miss_tokens":{miss}}}"#,
            sum(out, total)
        ),
        UsageForm::Gemini => format!("{{{}}}", sum(text, total)),
        UsageForm::Groq => format!(
            r#"{{"queue_time":0.01,{},"prompt_time":0.002,"completion_time":0.1,"total_time":0.102,"prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#,
            sum(text, plain)
        ),
        UsageForm::MiniMax => {
            format!(r#"{{{},"total_characters":0,{}}}"#, sum(out, total), details(""))
        }
        UsageForm::Moonshot => format!(r#"{{{},"cached_tokens":{cached}}}"#, sum(text, plain)),
        UsageForm::OpenRouter => format!(
            r#"{{{},"cost":0.00014,"is_byok":false,{},"cost_details":{{"upstream_inference_cost":null}}}}"#,
            sum(out, total),
            details("")
        ),
        UsageForm::Qwen => format!(
            "{{{},{}}}",
            sum(out, total),
            details(r#","cache_creation_input_tokens":0,"cache_type":"implicit""#)
        ),
        UsageForm::Vllm | UsageForm::Zai => format!(
            r#"{{{},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#,
            sum(text, plain)
        ),
        UsageForm::Xai => format!(
            r#"{{{},{},"num_sources_used":0,"cost_in_usd_ticks":1200}}"#,
            sum(text, total),
            details("")
        ),
    }
}

fn odd_object(odd: UsageOdd) -> String {
    let count = match odd {
        UsageOdd::Zero => "0",
        UsageOdd::Negative => "-5",
        UsageOdd::Float => "3.5",
        UsageOdd::Huge => "9223372036854775808",
        UsageOdd::Text => "\"12\"",
    };
    format!(r#"{{"prompt_tokens":{count},"completion_tokens":{count},"total_tokens":{count}}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_json_and_adds_up_as_its_provider_says() {
        for name in ["openai", "deepseek", "gemini", "groq", "mistral", "moonshot", "xai", "qwen"] {
            let script = Script::parse(&format!("echo+usage-forms-{name}")).unwrap();
            let usage: serde_json::Value = serde_json::from_str(&object(&script, 40, 10))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(usage["prompt_tokens"], 40, "{name}");
        }
        let xai = object(&Script::parse("usage-forms-xai").unwrap(), 40, 10);
        assert!(xai.contains(r#""completion_tokens":10,"total_tokens":57"#), "{xai}");
        let deepseek = object(&Script::parse("usage-forms-deepseek").unwrap(), 40, 10);
        assert!(deepseek.contains(r#""prompt_cache_hit_tokens":10,"prompt_cache_miss_tokens":30"#));
    }
}
