//! Answers for load: precomputed or nearly so, without a look at the request beyond its model name.
//!
//! They are not in the observation log (the truth file has them), so that the proxy is what is measured.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::frame::{self, Framing, put_chunk};
use crate::observe::Seen;
use crate::state::State;
use crate::wire::{Gone, Wire};
use crate::{answer, monotonic_ns};

/// Events that go in one write when they are not paced.
const BATCH_EVENTS: usize = 8;
/// Prompt tokens that load answers tell.
const PROMPT_TOKENS: u64 = 20;
const EVENTS_MAX: usize = 10_000_000;
const JSON_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A load model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// A fixed JSON body of so many bytes.
    Json(usize),
    /// So many content events, so far apart, stamped with the monotonic clock.
    Sse { events: usize, pace: Duration },
}

impl Load {
    /// Reads a `load-…` model name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("load-")?;
        if let Some(bytes) = rest.strip_prefix("json-") {
            return bytes.parse().ok().filter(|bytes| *bytes <= JSON_BYTES_MAX).map(Self::Json);
        }
        let (events, pace) = rest.strip_prefix("sse-")?.split_once('-')?;
        let events = events.parse().ok().filter(|events| *events <= EVENTS_MAX)?;
        let pace = pace.parse().ok().filter(|millis| *millis <= 3_600_000)?;
        Some(Self::Sse { events, pace: Duration::from_millis(pace) })
    }
}

/// The model name in `body` when it is a plain string at the body's very start or the last `"model"` in it.
/// It is a guess for speed: only names of load models are taken from it.
pub(crate) fn guess_model(body: &[u8]) -> Option<&str> {
    leading_model(body).or_else(|| {
        let at = memchr::memmem::rfind(body, b"\"model\"")?;
        string_after(body.get(at.checked_add(7)?..)?)
    })
}

/// The model name when it is the first member of a body that may still be arriving.
pub(crate) fn leading_model(body: &[u8]) -> Option<&str> {
    let rest = body.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    string_after(rest.strip_prefix(b"\"model\"")?)
}

fn string_after(rest: &[u8]) -> Option<&str> {
    let rest =
        rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', rest)?;
    str::from_utf8(rest.get(..end)?).ok()
}

/// A whole response with a JSON body of `bytes` bytes (at least what an empty answer has).
pub(crate) fn json_answer(bytes: usize) -> Bytes {
    let body = |text: &str| {
        let tokens = PROMPT_TOKENS;
        format!(
            r#"{{"id":"chatcmpl-load","object":"chat.completion","created":{},"model":"load","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{tokens},"completion_tokens":{tokens},"total_tokens":{}}},"system_fingerprint":"fp_load"}}"#,
            answer::CREATED,
            tokens.saturating_add(tokens),
        )
    };
    let fill = bytes.saturating_sub(body("").len());
    let body = body(&answer::filler(fill));
    let fields = "x-request-id: req_load\r\nopenai-processing-ms: 1\r\n";
    let mut out = frame::head(200, "application/json", Framing::Length(body.len()), fields);
    out.extend_from_slice(body.as_bytes());
    Bytes::from(out)
}

/// Answers a request for a load model; `body` is only searched for `include_usage`.
pub(crate) async fn serve(
    wire: &mut Wire,
    state: &State,
    (name, load): (&str, Load),
    body: &[u8],
) -> Result<(), Gone> {
    let mut seen = Seen { at_us: monotonic_ns() / 1_000, status: 200, ..Seen::default() };
    let sent = match load {
        Load::Json(bytes) => {
            seen.tokens_sent = PROMPT_TOKENS;
            wire.send(&state.load_answer(bytes)).await
        }
        Load::Sse { events, pace } => {
            let asked = memchr::memmem::find(body, b"\"include_usage\":true").is_some()
                || memchr::memmem::find(body, b"\"include_usage\": true").is_some();
            stream(wire, &mut seen, Plan { events, pace, asked }).await
        }
    };
    if state.has_truth() {
        seen.prompt_tokens = PROMPT_TOKENS;
        seen.model = Some(name.to_owned());
        seen.end = if sent.is_ok() { "finished" } else { "client_closed" };
        state.tell(|| seen.to_end(None));
    }
    sent
}

/// A load stream.
#[derive(Clone, Copy)]
struct Plan {
    events: usize,
    pace: Duration,
    asked: bool,
}

const CHUNK: &str = r#"{"id":"chatcmpl-load","object":"chat.completion.chunk","created":1750000000,"model":"load","choices":["#;

async fn stream(wire: &mut Wire, seen: &mut Seen, plan: Plan) -> Result<(), Gone> {
    let null = if plan.asked { r#","usage":null"# } else { "" };
    let fields = "cache-control: no-cache\r\nx-request-id: req_load\r\n";
    let mut out = frame::head(200, "text/event-stream; charset=utf-8", Framing::Chunked, fields);
    let role = format!(
        "data: {CHUNK}{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"finish_reason\":null}}]{null}}}\n\n"
    );
    put_chunk(role.as_bytes(), &mut out);
    let start = Instant::now();
    let mut text = format!(
        "data: {CHUNK}{{\"index\":0,\"delta\":{{\"content\":\" token\"}},\"finish_reason\":null}}]{null},\"t\":"
    );
    let stamp_at = text.len();
    let mut waiting = 0_usize;
    for index in 0..plan.events {
        if !plan.pace.is_zero() && index > 0 {
            let turn = u32::try_from(index).unwrap_or(u32::MAX);
            let offset = plan.pace.checked_mul(turn).unwrap_or(plan.pace);
            wire.pause_until(start.checked_add(offset).unwrap_or(start)).await?;
        }
        text.truncate(stamp_at);
        text.push_str(&monotonic_ns().to_string());
        text.push_str("}\n\n");
        put_chunk(text.as_bytes(), &mut out);
        waiting = waiting.saturating_add(1);
        if !plan.pace.is_zero() || waiting >= BATCH_EVENTS {
            wire.send(&out).await?;
            out.clear();
            seen.tokens_sent = seen.tokens_sent.saturating_add(as_u64(waiting));
            seen.events_sent = seen.tokens_sent;
            waiting = 0;
        }
    }
    put_end(&mut out, plan);
    wire.send(&out).await?;
    seen.tokens_sent = seen.tokens_sent.saturating_add(as_u64(waiting));
    Ok(())
}

fn put_end(out: &mut Vec<u8>, plan: Plan) {
    let null = if plan.asked { r#","usage":null"# } else { "" };
    let mut tail = format!(
        "data: {CHUNK}{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"stop\"}}]{null}}}\n\n"
    );
    if plan.asked {
        let count = as_u64(plan.events);
        let total = count.saturating_add(PROMPT_TOKENS);
        tail = format!(
            "{tail}data: {CHUNK}],\"usage\":{{\"prompt_tokens\":{PROMPT_TOKENS},\"completion_tokens\":{count},\"total_tokens\":{total}}}}}\n\n"
        );
    }
    put_chunk(tail.as_bytes(), out);
    put_chunk(b"data: [DONE]\n\n", out);
    out.extend_from_slice(b"0\r\n\r\n");
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_names_are_read() {
        assert_eq!(Load::parse("load-json-600"), Some(Load::Json(600)));
        let pace = Duration::from_millis(50);
        assert_eq!(Load::parse("load-sse-100-50"), Some(Load::Sse { events: 100, pace }));
        for name in ["load-", "load-sse-5", "load-json-x", "load-sse-1-2-3", "echo"] {
            assert_eq!(Load::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_model_is_found_at_either_end() {
        assert_eq!(guess_model(br#"{ "model" : "a", "x": {"model":"b"}}"#), Some("a"));
        assert_eq!(
            guess_model(br#"{"messages":[],"model":"load-json-600"}"#),
            Some("load-json-600")
        );
        assert_eq!(guess_model(br#"{"messages":[]}"#), None);
        assert_eq!(leading_model(br#"{"messages":[],"model":"a"}"#), None);
    }

    #[test]
    fn a_json_answer_has_the_size_that_was_asked_for() {
        let answer = json_answer(600);
        let at = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap() + 4;
        assert_eq!(answer.len() - at, 600);
        serde_json::from_slice::<serde_json::Value>(&answer[at..]).unwrap();
    }
}
