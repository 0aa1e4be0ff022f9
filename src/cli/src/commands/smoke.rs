//! `smoke`, the first proof of an integration: which models there are, one call, one stream. What it found is
//! told by [`Evidence`] alone; a failure's words here are ours, never the server's.

use serde::Deserialize;
use serde_json::Value;

use super::inference::{Trial, chat, is_chat, milliseconds};
use crate::address::Address;
use crate::brand;
use crate::evidence::{Endpoint, Evidence, FailureClass, Step};
use crate::failure::{Exit, Failure};
use crate::files::Files;
use crate::network::{Answer, Content, Method, Request};
use crate::output::Output;
use crate::secret::Secret;
use crate::session::World;

/// Where evidence is kept.
const FILE: &str = "smoke.json";

/// What is read of `/v1/models`.
#[derive(Deserialize)]
struct Listing {
    data: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

/// `smoke`: keeps evidence in `files` and says it, whichever way it went.
pub(crate) fn smoke(
    world: &World<'_>,
    files: &Files,
    model: Option<&str>,
    named: Option<&str>,
) -> Result<Output, Failure> {
    let key = world.inference_key(named)?;
    let mut evidence = Evidence::new();
    let proved = prove(world, &key, model, &mut evidence);
    let kept = files.write(FILE, &format!("{}\n", evidence.pretty()));
    proved.map_err(|why| failure(why, &evidence))?;
    kept?;
    // The path has a user's name in it.
    let kept = format!("~/{}/{FILE}", brand::FOLDER);
    Ok(Output {
        human: format!("{}\n\nOK proved; kept in {kept}", evidence.pretty()),
        json: evidence.json(),
        warning: None,
    })
}

/// In our words.
fn failure((exit, class): Why, evidence: &Evidence) -> Failure {
    let mut failure = Failure::input(word(class), advice(class));
    failure.exit = exit;
    failure.kind = String::from("smoke_error");
    failure.evidence = Some(evidence.json().into());
    failure
}

/// Whose fault it is, and why.
type Why = (Exit, FailureClass);

fn prove(
    world: &World<'_>,
    key: &Secret,
    model: Option<&str>,
    evidence: &mut Evidence,
) -> Result<(), Why> {
    let begun = world.clock.elapsed();
    let base = world.inference().map_err(|failure| {
        let class = match failure.reason.as_str() {
            "timeout" => FailureClass::Timeout,
            _ => FailureClass::Endpoint,
        };
        let elapsed_ms = milliseconds(world.clock.elapsed().saturating_sub(begun));
        evidence.push(Step {
            endpoint_path: Endpoint::Discovery,
            stream: false,
            status: failure.status,
            elapsed_ms,
            failure_class: Some(class),
        });
        (failure.exit, class)
    })?;
    let listing =
        step(world, evidence, (Endpoint::Models, false), || list(world, &base, key), models)?;
    evidence.count(listing.len());
    let Some(model) = choose(&listing, model) else {
        evidence.fail(FailureClass::ModelId);
        return Err((Exit::User, FailureClass::ModelId));
    };
    evidence.select(model, key);
    for stream in [false, true] {
        let trial = Trial { model, stream };
        let what = (Endpoint::Chat, stream);
        let good = |answer: &Answer| if stream { whole_stream(answer) } else { one_answer(answer) };
        step(world, evidence, what, || chat(world, &base, key, &trial), good)?;
    }
    Ok(())
}

/// Asks once, and adds to `evidence` how it ended.
fn step<T>(
    world: &World<'_>,
    evidence: &mut Evidence,
    (endpoint_path, stream): (Endpoint, bool),
    ask: impl FnOnce() -> Result<Answer, Failure>,
    good: impl FnOnce(&Answer) -> Result<T, FailureClass>,
) -> Result<T, Why> {
    let begun = world.clock.elapsed();
    let asked = ask();
    let elapsed_ms = milliseconds(world.clock.elapsed().saturating_sub(begun));
    let status = asked.as_ref().ok().map(|answer| answer.status);
    let ended = match &asked {
        Err(failure) if failure.reason == "timeout" => Err((failure.exit, FailureClass::Timeout)),
        Err(failure) => Err((failure.exit, FailureClass::Endpoint)),
        Ok(answer) if !(200..300).contains(&answer.status) => {
            let failure = Failure::answered(answer);
            Err((failure.exit, class(endpoint_path, answer.status, &failure.reason)))
        }
        Ok(answer) => good(answer).map_err(|class| (Exit::Server, class)),
    };
    let failure_class = ended.as_ref().err().map(|(_, class)| *class);
    evidence.push(Step { endpoint_path, stream, status, elapsed_ms, failure_class });
    ended
}

/// Why an answer that is no success is none.
fn class(endpoint: Endpoint, status: u16, reason: &str) -> FailureClass {
    let is_about_model = reason.starts_with("model_");
    match status {
        400 | 403 | 404 if is_about_model => FailureClass::ModelId,
        401 | 403 => FailureClass::Key,
        402 | 429 => FailureClass::Quota,
        408 | 504 => FailureClass::Timeout,
        405 | 501 => FailureClass::Capability,
        404 if endpoint == Endpoint::Models => FailureClass::Endpoint,
        404 => FailureClass::ModelId,
        400..=499 => FailureClass::RequestShape,
        _ => FailureClass::Endpoint,
    }
}

fn list(world: &World<'_>, base: &Address, key: &Secret) -> Result<Answer, Failure> {
    let address = base.at("/models");
    let content = Content::Nothing;
    world.send(&Request { method: Method::Get, address: &address, bearer: Some(key), content })
}

/// Who answers something else is no gateway.
fn models(answer: &Answer) -> Result<Vec<String>, FailureClass> {
    let listing: Listing =
        serde_json::from_slice(&answer.body).map_err(|_| FailureClass::Endpoint)?;
    Ok(listing.data.into_iter().map(|model| model.id).collect())
}

/// The model that was named, if it is listed; else the usual one; else the first.
fn choose<'a>(listing: &'a [String], named: Option<&str>) -> Option<&'a str> {
    let find = |name: &str| listing.iter().find(|id| *id == name);
    let chosen = match named {
        Some(name) => find(name),
        None => find(brand::MODEL_DEFAULT).or_else(|| listing.first()),
    };
    chosen.map(String::as_str)
}

fn one_answer(answer: &Answer) -> Result<(), FailureClass> {
    if is_chat(answer) { Ok(()) } else { Err(FailureClass::Capability) }
}

/// A stream is one that says something and says that it is at its end. One that fails on the way says so.
fn whole_stream(answer: &Answer) -> Result<(), FailureClass> {
    let text = String::from_utf8_lossy(&answer.body);
    let mut events = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
    let is_stream = answer.content_type.starts_with("text/event-stream");
    let mut chunks = 0_usize;
    let is_whole = events.any(|event| {
        let chunk: Value = serde_json::from_str(event).unwrap_or_default();
        let is_chunk = chunk.get("choices").is_some_and(Value::is_array);
        chunks += usize::from(is_chunk && chunk.get("error").is_none());
        event == "[DONE]"
    });
    if is_stream && is_whole && chunks > 0 { Ok(()) } else { Err(FailureClass::Capability) }
}

fn word(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Endpoint => "endpoint",
        FailureClass::Key => "key",
        FailureClass::ModelId => "model_id",
        FailureClass::RequestShape => "request_shape",
        FailureClass::Quota => "quota",
        FailureClass::Timeout => "timeout",
        FailureClass::Capability => "capability",
    }
}

fn advice(class: FailureClass) -> String {
    let (name, url) = (brand::NAME, brand::API_URL);
    match class {
        FailureClass::Endpoint => format!("no gateway answers as one: is {url} its address?"),
        FailureClass::Key => format!("the key is not good: {name} keys list, {name} keys create"),
        FailureClass::ModelId => format!("this key may not call that model: {name} models"),
        FailureClass::RequestShape => "the model does not understand a plain chat".to_owned(),
        FailureClass::Quota => format!("no balance is left, or a limit is reached: {name} balance"),
        FailureClass::Timeout => "it took too long: try again".to_owned(),
        FailureClass::Capability => "the model does not answer or stream as chats do".to_owned(),
    }
}

#[cfg(test)]
mod tests;
