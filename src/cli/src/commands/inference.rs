//! Calling models: `env`, `test`, `models`.

use serde::Serialize;
use tokenroute_api::models::{Model, Models, Pricing};

use crate::address::Address;
use crate::failure::Failure;
use crate::network::{Answer, Content, Method, Request};
use crate::output::{NONE, Output, aligned, or_none, usd};
use crate::secret::{Secret, presentable};
use crate::session::{World, checked};

/// Most output tokens of a trial: with a bound on it little of the balance is put aside.
const OUTPUT_TOKENS_MAX: u32 = 16;
/// What a model is asked in a trial.
const QUESTION: &str = "Reply with OK.";

/// `env`, for programs.
#[derive(Serialize)]
struct Environment<'a> {
    #[serde(rename = "OPENAI_API_KEY")]
    key: &'a str,
    #[serde(rename = "OPENAI_BASE_URL")]
    base_url: &'a str,
}

/// `test`, for programs.
#[derive(Serialize)]
struct Connected<'a> {
    status: &'a str,
    model: &'a str,
    elapsed_ms: u64,
}

/// `env`: two lines that `eval`, `export` and `.env` files take.
pub(crate) fn env(world: &World<'_>, named: Option<&str>) -> Result<Output, Failure> {
    let key = world.inference_key(named)?;
    let base = world.inference()?;
    let (key, base_url) = (key.reveal(), base.text());
    let said = format!("OPENAI_API_KEY={}\nOPENAI_BASE_URL={}", quoted(key), quoted(base_url));
    Output::new(said, &Environment { key, base_url })
}

/// `text` as one word of a shell; bare if it can be, as `.env` files are read without a shell.
fn quoted(text: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_bare) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// `test`
pub(crate) fn test(world: &World<'_>, model: &str, named: Option<&str>) -> Result<Output, Failure> {
    let key = world.inference_key(named)?;
    let base = world.inference()?;
    let begun = world.clock.elapsed();
    let answer = chat(world, &base, &key, &Trial { model, stream: false })?;
    let elapsed_ms = milliseconds(world.clock.elapsed().saturating_sub(begun));
    if !is_chat(&checked(answer, &key)?) {
        return Err(Failure::unreadable("the model's answer"));
    }
    let said = format!("OK connected ({}, {elapsed_ms} ms)", presentable(model));
    Output::new(said, &Connected { status: "ok", model, elapsed_ms })
}

/// One small call.
#[derive(Clone, Copy)]
pub(crate) struct Trial<'a> {
    /// Of which model.
    pub(crate) model: &'a str,
    /// Whether the answer is to be a stream.
    pub(crate) stream: bool,
}

/// Does one small call, whatever comes of it.
pub(crate) fn chat(
    world: &World<'_>,
    base: &Address,
    key: &Secret,
    trial: &Trial<'_>,
) -> Result<Answer, Failure> {
    let address = base.at("/chat/completions");
    let ask = |bound: &str| {
        let body = serde_json::json!({
            "model": trial.model,
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": trial.stream,
            bound: OUTPUT_TOKENS_MAX,
        });
        let content = Content::Json(body.to_string());
        world.send(&Request { method: Method::Post, address: &address, bearer: Some(key), content })
    };
    let answer = ask("max_tokens")?;
    // Models that reason have another name for it.
    if answer.status == 400 && Failure::answered(&answer).param.as_deref() == Some("max_tokens") {
        return ask("max_completion_tokens");
    }
    Ok(answer)
}

/// Whether it is what a call is answered with.
pub(crate) fn is_chat(answer: &Answer) -> bool {
    let body = serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap_or_default();
    body.get("choices").and_then(serde_json::Value::as_array).is_some_and(|all| !all.is_empty())
}

/// As a whole number.
pub(crate) fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `models`
pub(crate) fn models(world: &World<'_>) -> Result<Output, Failure> {
    let models: Models = world.get(&world.reader()?, "/api/v1/models")?;
    if models.data.is_empty() {
        return Output::new("No models", &models.data);
    }
    let head = ["MODEL", "INPUT", "CACHED", "OUTPUT", "REQUEST", "CONTEXT"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(models.data.iter().map(row));
    let note =
        "Input, cached input and output in USD for a million tokens, requests in USD for each.";
    Output::new(format!("{}\n\n{note}", aligned(&rows)), &models.data)
}

fn row(model: &Model) -> Vec<String> {
    let price = |of: fn(&Pricing) -> Option<&String>| {
        or_none(model.pricing.as_ref().and_then(of).map(|price| usd(price)).as_ref())
    };
    vec![
        model.id.clone(),
        price(|all| Some(&all.input)),
        price(|all| all.input_cache_read.as_ref()),
        price(|all| Some(&all.output)),
        price(|all| all.request.as_ref()),
        model.context_tokens.map_or_else(|| NONE.to_owned(), |tokens| tokens.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_one_word_of_a_shell() {
        assert_eq!(quoted("https://api.example.com:1/v1"), "https://api.example.com:1/v1");
        assert_eq!(quoted("sk-tr-abc"), "sk-tr-abc");
        assert_eq!(quoted("a$(b)"), "'a$(b)'");
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(quoted(""), "''");
    }
}
