//! The provider's behaviours over real sockets, byte for byte where it matters.
#![cfg(test)]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokenroute_provider::{Options, serve, tokens};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A hung test must fail, not hang.
const PATIENCE: Duration = Duration::from_secs(20);

struct Provider {
    address: std::net::SocketAddr,
}

/// What a connection gave until it ended.
struct Got {
    bytes: Vec<u8>,
    /// It ended with a reset and not with a FIN.
    reset: bool,
}

impl Got {
    fn text(&self) -> &str {
        str::from_utf8(&self.bytes).unwrap()
    }

    fn body(&self) -> Vec<u8> {
        let at = self.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        let (head, rest) = self.bytes.split_at(at);
        let chunked = str::from_utf8(head).unwrap().contains("transfer-encoding: chunked");
        if chunked { unchunk(rest) } else { rest.to_vec() }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body()).unwrap()
    }

    /// The payloads of all SSE events.
    fn payloads(&self) -> Vec<String> {
        let body = String::from_utf8(self.body()).unwrap();
        let events = body.split_terminator("\n\n");
        events.map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
    }

    /// The events but for `[DONE]`, which must be the last.
    fn chunks(&self) -> Vec<Value> {
        let mut payloads = self.payloads();
        assert_eq!(payloads.pop().unwrap(), "[DONE]");
        payloads.iter().map(|payload| serde_json::from_str(payload).unwrap()).collect()
    }
}

/// The chunks that are there; a body that was cut has no last one.
fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = vec![];
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let size = usize::from_str_radix(str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[at + 2..at + 2 + size]);
        rest = &rest[at + 4 + size..];
        if size == 0 {
            assert!(rest.is_empty(), "bytes after the last chunk");
        }
    }
    body
}

impl Provider {
    async fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, options, std::future::pending()));
        Self { address }
    }

    async fn plain() -> Self {
        Self::start(Options::default()).await
    }

    /// Sends `request` on a connection of its own and reads to its end.
    async fn exchange(&self, request: &[u8]) -> Got {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut bytes = vec![];
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
        Got { bytes, reset: read.is_err() }
    }

    async fn get(&self, path: &str) -> Value {
        self.small("GET", path, "").await
    }

    async fn small(&self, method: &str, path: &str, body: &str) -> Value {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {length}\r\n");
        let request = format!("{head}Host: x\r\nConnection: close\r\n\r\n{body}");
        self.exchange(request.as_bytes()).await.json()
    }

    /// With the recorded streams of the repository.
    async fn with_recordings() -> Self {
        Self::start(Options { recorded: Some(fixtures()), ..Options::default() }).await
    }

    /// Status and text of an answer to a conversation that ends with the assistant's `opening`.
    async fn go_on(&self, model: &str, opening: &str) -> (String, String) {
        let messages = json!([
            { "role": "user", "content": "Hello big world" },
            { "role": "assistant", "content": opening },
        ]);
        let got = self.chat(model, json!({ "stream": true, "messages": messages })).await;
        let status = got.text().split(' ').nth(1).unwrap().to_owned();
        let text = if status == "200" { said(&got.chunks()) } else { String::new() };
        (status, text)
    }

    async fn post(&self, path: &str, body: &Value) -> Got {
        self.exchange(&post(path, &body.to_string(), "Connection: close\r\n")).await
    }

    async fn chat(&self, model: &str, more: Value) -> Got {
        self.post("/v1/chat/completions", &chat(model, more)).await
    }

    async fn observed(&self) -> Vec<Value> {
        self.get("/__observed").await.as_array().unwrap().clone()
    }

    /// The log once its last entry has ended; only for ends that the client cannot see.
    async fn observed_ended(&self) -> Vec<Value> {
        let under_way = ["open", "silent", "stalled"].map(Value::from);
        tokio::time::timeout(PATIENCE, async {
            loop {
                let seen = self.observed().await;
                if seen.last().is_some_and(|entry| !under_way.contains(&entry["end"])) {
                    return seen;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap()
    }
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// The text of all content deltas.
fn said(chunks: &[Value]) -> String {
    let texts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    texts.collect()
}

fn chat(model: &str, more: Value) -> Value {
    let mut body = json!({
        "messages": [{ "role": "user", "content": "Hello big world" }],
        "model": model,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn post(path: &str, body: &str, fields: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{fields}\r\n{body}")
        .into_bytes()
}

#[tokio::test]
async fn an_echo_answers_in_json_with_usage_by_the_token_rule() {
    let provider = Provider::plain().await;
    let answer = provider.chat("echo", json!({})).await.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello big world");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["prompt_tokens"], tokens::count("Hello big world"));
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    let cut = provider.chat("echo", json!({ "max_tokens": 2 })).await.json();
    assert_eq!(cut["choices"][0]["message"]["content"], "Hello big");
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    let body = json!({ "model": "echo", "prompt": "a b" });
    let text = provider.post("/v1/completions", &body).await.json();
    assert_eq!(
        (&text["choices"][0]["text"], &text["object"]),
        (&json!("a b"), &json!("text_completion"))
    );
}

#[tokio::test]
async fn a_stream_tells_usage_only_when_asked() {
    let provider = Provider::plain().await;
    let plain = provider.chat("echo", json!({ "stream": true })).await.chunks();
    assert_eq!(plain[0]["choices"][0]["delta"]["role"], "assistant");
    let said =
        plain[1..4].iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap());
    assert_eq!(said.collect::<String>(), "Hello big world");
    assert_eq!(plain[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!(plain.len(), 5);
    assert!(plain.iter().all(|chunk| chunk.get("usage").is_none()));

    let options = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let asked = provider.chat("echo", options).await.chunks();
    let (last, others) = asked.split_last().unwrap();
    assert_eq!((last["choices"].clone(), &last["usage"]["total_tokens"]), (json!([]), &json!(6)));
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
}

#[tokio::test]
async fn tools_and_json_mode_are_honoured() {
    let provider = Provider::plain().await;
    let tools = json!([{ "type": "function", "function": { "name": "big", "parameters": {
        "type": "object", "properties": { "city": { "type": "string" } } } } }]);
    let answer = provider.chat("echo", json!({ "tools": tools })).await.json();
    let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call["arguments"], r#"{"city":"world"}"#);
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");

    let streamed = provider.chat("echo", json!({ "tools": tools, "stream": true })).await.chunks();
    let part = |chunk: &Value| {
        let call = &chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"];
        call.as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(streamed.iter().map(part).collect::<String>(), r#"{"city":"world"}"#);

    let form = json!({ "response_format": { "type": "json_object" } });
    let answer = provider.chat("echo", form).await.json();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({ "echo": "Hello big world" }));
}

#[tokio::test]
async fn embeddings_are_floats_or_base64_of_the_same() {
    let provider = Provider::plain().await;
    let ask =
        |form: &str| json!({ "model": "echo", "input": ["a b", "c"], "encoding_format": form });
    let floats = provider.post("/v1/embeddings", &ask("float")).await.json();
    assert_eq!(floats["usage"], json!({ "prompt_tokens": 3, "total_tokens": 3 }));
    assert_eq!(floats["data"][1]["embedding"].as_array().unwrap().len(), 8);
    let values = |index: usize| floats["data"][index]["embedding"].clone();
    assert!(values(0) != values(1) && values(0)[0] != values(0)[1]);
    let packed = provider.post("/v1/embeddings", &ask("base64")).await.json();
    // 8 floats of 4 bytes.
    assert_eq!(packed["data"][0]["embedding"].as_str().unwrap().len(), 44);
    let wrong = provider.post("/v1/embeddings", &json!({ "model": "echo" })).await;
    assert!(wrong.text().starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn refusals_have_their_status_and_code() {
    let provider = Provider::plain().await;
    for (model, status, code) in [
        ("status-429-retry-2", 429, json!("rate_limit_exceeded")),
        ("status-429-quota", 429, json!("insufficient_quota")),
        ("status-400-context", 400, json!("context_length_exceeded")),
        ("status-400-policy", 400, json!("content_policy_violation")),
        ("status-401", 401, json!("invalid_api_key")),
        ("status-500", 500, Value::Null),
        ("gpt-unknown", 404, json!("model_not_found")),
        ("echo+strict-fields", 422, Value::Null),
    ] {
        let options = json!({ "stream": true, "stream_options": {} });
        let got = provider.chat(model, options).await;
        assert!(got.text().starts_with(&format!("HTTP/1.1 {status} ")), "{model}: {}", got.text());
        assert_eq!(got.json()["error"]["code"], code, "{model}");
    }
    let retry = provider.chat("status-429-retry-2", json!({})).await;
    assert!(retry.text().contains("\r\nretry-after: 2\r\n"));
    let retry = provider.chat("status-503-retry-ms-250", json!({})).await;
    assert!(retry.text().contains("\r\nretry-after-ms: 250\r\n"));
    assert!(provider.chat("status-302", json!({})).await.text().contains("\r\nlocation: "));
}

#[tokio::test]
async fn a_wrong_key_is_refused_before_the_body_is_read() {
    let options = Options { expect_key: Some("sk-fake".to_owned()), ..Options::default() };
    let provider = Provider::start(options).await;
    let head = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\nAuthorization: Bearer no\r\n\r\n";
    let got = provider.exchange(head.as_bytes()).await;
    assert_eq!(got.json()["error"]["code"], "invalid_api_key");
    assert!(got.text().contains("\r\nconnection: close\r\n"));
    let body = chat("echo", json!({})).to_string();
    let fields = "Authorization: Bearer sk-fake\r\nConnection: close\r\n";
    let got = provider.exchange(&post("/v1/chat/completions", &body, fields)).await;
    assert!(got.text().starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn streams_break_off_where_they_are_told_to() {
    let provider = Provider::plain().await;
    for (model, events, reset) in [
        ("cut-after-3", 3, true),
        ("fin-after-3", 3, false),
        ("echo+cut-after-0", 0, true),
        ("sse-4x1ms+cut-after-2", 2, true),
    ] {
        let got = provider.chat(model, json!({ "stream": true })).await;
        assert_eq!((got.payloads().len(), got.reset), (events, reset), "{model}");
        assert!(!got.text().ends_with("0\r\n\r\n"), "{model}: the body ended");
    }
    let seen = provider.observed().await;
    assert_eq!((&seen[0]["end"], &seen[0]["events_sent"]), (&json!("reset"), &json!(3)));
    assert_eq!((&seen[1]["end"], &seen[1]["tokens_sent"]), (&json!("cut"), &json!(2)));
    let json = provider.chat("cut-after-1", json!({})).await;
    assert!(json.reset && serde_json::from_slice::<Value>(&json.body()).is_err());
}

#[tokio::test]
async fn a_client_that_leaves_a_stalled_stream_is_noticed() {
    let provider = Provider::plain().await;
    for model in ["stall-after-2", "silence", "done-then-linger", "sse-9x3600000ms"] {
        let mut stream = TcpStream::connect(provider.address).await.unwrap();
        let body = chat(model, json!({ "stream": true })).to_string();
        stream.write_all(&post("/v1/chat/completions", &body, "")).await.unwrap();
        if model != "silence" {
            let mut byte = [0_u8];
            stream.read_exact(&mut byte).await.unwrap();
        }
        drop(stream);
        let seen = provider.observed_ended().await;
        let last = seen.last().unwrap();
        assert_eq!(last["end"], "client_closed", "{model}: {last}");
    }
}

#[tokio::test]
async fn a_stall_may_go_on_with_comments() {
    let provider = Provider::plain().await;
    let mut stream = TcpStream::connect(provider.address).await.unwrap();
    let body = chat("stall-after-2+stall-pings-5", json!({ "stream": true })).to_string();
    stream.write_all(&post("/v1/chat/completions", &body, "")).await.unwrap();
    let mut text = String::new();
    while text.matches(": ping\n\n").count() < 3 {
        let mut part = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
        text.push_str(str::from_utf8(&part[..read]).unwrap());
    }
    assert_eq!(text.matches("data: ").count(), 2);
    assert_eq!(provider.observed().await[0]["end"], "stalled");
    drop(stream);
    assert_eq!(provider.observed_ended().await[0]["end"], "client_closed");
}

#[tokio::test]
async fn odd_framings_are_as_odd_as_they_say() {
    let provider = Provider::plain().await;
    let text = async |model: &str| {
        let got = provider.chat(model, json!({ "stream": true })).await;
        (String::from_utf8(got.bytes).unwrap(), got.reset)
    };
    assert_eq!(text("reset-before-head").await, (String::new(), true));
    assert_eq!(text("fin-before-head").await, (String::new(), false));
    assert_eq!(text("half-head").await, ("HTTP/1.1 200 OK\r\ncontent-ty".to_owned(), true));
    assert!(text("bad-chunk").await.0.contains("\r\nzz\r\n"));
    let (both, _) = text("length-and-chunked").await;
    assert!(both.contains("content-length: ") && both.contains("transfer-encoding: chunked"));
    assert_eq!(text("two-lengths").await.0.matches("content-length: ").count(), 2);
    assert_eq!(text("echo+two-answers").await.0.matches("HTTP/1.1 200 OK").count(), 2);
    let (hints, _) = text("echo+informational").await;
    assert!(hints.starts_with("HTTP/1.1 100 ") && hints.contains("HTTP/1.1 200 OK"));
    assert!(
        text("echo+no-done").await.0.contains("\"stop\"")
            && !text("echo+no-done").await.0.contains("[DONE]")
    );
    assert!(text("echo+crlf").await.0.contains("data: [DONE]\r\n\r\n"));
    assert!(text("echo+comments+no-space").await.0.contains(": keep-alive\n\ndata:{"));
    assert!(text("echo+error-event-at-2").await.0.ends_with("\"code\":null}}\n\n\r\n0\r\n\r\n"));
    assert_eq!(text("garbage-at-1+words-9").await.0.matches("this is no JSON").count(), 1);
    let (garbage, _) = text("garbage-from-3+words-9").await;
    assert!(garbage.matches("this is no JSON").count() > 5 && !garbage.contains("[DONE]"));
    assert!(text("echo+split-7").await.0.contains("\r\n7\r\ndata: {\r\n"));
}

#[tokio::test]
async fn sizes_are_exact() {
    let provider = Provider::plain().await;
    for size in [2_000, 100_000] {
        let got = provider.chat(&format!("json-bytes-{size}"), json!({})).await;
        assert_eq!(got.body().len(), size);
        assert!(got.json()["usage"]["total_tokens"].is_u64());
    }
    let got = provider.chat("big-event-70000", json!({ "stream": true })).await;
    assert_eq!(got.payloads()[1].len() + "data: \n\n".len(), 70_000);
    assert_eq!(got.chunks().len(), 12);
    assert_eq!(provider.chat("load-json-600", json!({})).await.body().len(), 600);
    let got = provider.chat("load-sse-20-0", json!({ "stream": true })).await;
    let chunks = got.chunks();
    let stamps = chunks.iter().filter_map(|chunk| chunk["t"].as_u64()).collect::<Vec<_>>();
    assert_eq!(stamps.len(), 20);
    assert!(stamps.is_sorted() && stamps[0] > 0);
}

#[tokio::test]
async fn faults_before_the_body_are_chosen_by_path() {
    let provider = Provider::plain().await;
    let head = "POST /early-429/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n";
    let got = provider.exchange(head.as_bytes()).await;
    assert!(got.text().starts_with("HTTP/1.1 429 "));
    let leading = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{\"model\":\"early-413\",";
    assert!(provider.exchange(leading.as_bytes()).await.text().starts_with("HTTP/1.1 413 "));
    let body = chat("whatever", json!({}));
    let got = provider.post("/echo/v1/chat/completions", &body).await.json();
    assert_eq!(got["model"], "whatever");
}

#[tokio::test]
async fn the_log_tells_what_arrived_and_can_be_cleared() {
    let provider = Provider::plain().await;
    let body = r#"{"model" : "echo","messages":[]}"#;
    let fields = "X-One: 1\r\nx-one: 2\r\nConnection: close\r\n";
    provider.exchange(&post("/v1/chat/completions", body, fields)).await;
    let chunked = "POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4;x=y\r\n{\"mo\r\n3\r\ndel\r\n0\r\n\r\n";
    provider.exchange(chunked.as_bytes()).await;
    let seen = provider.observed().await;
    assert_eq!(seen[0]["body_bytes"], body.len());
    assert_eq!(
        seen[0]["body_fnv64"],
        format!("{:016x}", tokenroute_provider::fnv64(body.as_bytes()))
    );
    assert_eq!((&seen[0]["model"], &seen[0]["end"]), (&json!("echo"), &json!("finished")));
    assert!(seen[0]["headers"].as_array().unwrap().contains(&json!(["x-one", "2"])));
    assert_eq!(seen[1]["body_bytes"], 7);
    assert_eq!(
        (&seen[1]["body_is_json"], &seen[1]["body_complete"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(provider.get("/__observed/bodies").await[0]["text"], body);

    let mut cut = post("/v1/completions", body, "");
    cut.truncate(cut.len() - 5);
    let mut stream = TcpStream::connect(provider.address).await.unwrap();
    stream.write_all(&cut).await.unwrap();
    drop(stream);
    let seen = loop {
        let seen = provider.observed_ended().await;
        if seen.len() == 3 {
            break seen;
        }
    };
    assert_eq!(seen[2]["body_complete"], false);

    provider.exchange(b"DELETE /__observed HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(provider.observed().await.is_empty());
    assert_eq!(provider.get("/__observed/bodies").await, json!([]));
}

#[tokio::test]
async fn a_connection_is_kept_and_its_reuse_can_fail() {
    let provider = Provider::plain().await;
    let mut stream = TcpStream::connect(provider.address).await.unwrap();
    let body = chat("echo+reset-on-reuse", json!({})).to_string();
    let request = post("/v1/chat/completions", &body, "");
    stream.write_all(&request).await.unwrap();
    let mut bytes = vec![0; 4096];
    let count = stream.read(&mut bytes).await.unwrap();
    assert!(bytes[..count].starts_with(b"HTTP/1.1 200 OK"));
    stream.write_all(&request).await.unwrap();
    let rest = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap();
    assert!(rest.is_err(), "the second exchange was answered");
    let seen = provider.observed().await;
    assert_eq!((&seen[1]["exchange"], &seen[1]["connection"]), (&json!(2), &seen[0]["connection"]));
}

#[tokio::test]
async fn the_first_requests_fail_and_later_ones_do_not() {
    let provider = Provider::plain().await;
    let mut statuses = vec![];
    for _ in 0..3 {
        let got = provider.chat("echo+first-2-status-503", json!({})).await;
        statuses.push(got.text().split(' ').nth(1).unwrap().to_owned());
    }
    assert_eq!(statuses, ["503", "503", "200"]);
}

#[tokio::test]
async fn the_first_requests_meet_any_fault_and_each_name_is_counted_alone() {
    let provider = Provider::plain().await;
    let model = "words-9+first-1-reset-before-head+first-3-cut-after-4";
    let mut ends = vec![];
    for tag in ["a", "b"] {
        for _ in 0..4 {
            let model = format!("{model}+tag-{tag}");
            let got = provider.chat(&model, json!({ "stream": true })).await;
            let payloads = if got.bytes.is_empty() { 0 } else { got.payloads().len() };
            ends.push((payloads, got.reset));
        }
    }
    let once = [(0, true), (4, true), (4, true), (12, false)];
    assert_eq!(ends, [once, once].concat());
    let seen = provider.observed().await;
    let tagged = seen.iter().filter(|one| one["model"] == format!("{model}+tag-b"));
    assert_eq!(tagged.count(), 4);
}

#[tokio::test]
async fn an_outage_lasts_from_its_begin_to_its_end() {
    let provider = Provider::plain().await;
    let status = async || {
        let got = provider.chat("words-3+on-primary", json!({})).await;
        got.text().split(' ').nth(1).unwrap_or("reset").to_owned()
    };
    assert_eq!(status().await, "200");
    for (part, seen) in [("status-503", "503"), ("reset-before-head", "reset")] {
        let begun = provider.small("PUT", "/__fault/primary", part).await;
        assert_eq!(begun, json!({ "begun": "primary" }));
        assert_eq!(status().await, seen);
    }
    let other = provider.chat("words-3+on-secondary", json!({})).await;
    assert!(other.text().starts_with("HTTP/1.1 200 "));
    for ended in [true, false] {
        let end = provider.small("DELETE", "/__fault/primary", "").await;
        assert_eq!(end, json!({ "ended": ended }));
        assert_eq!(status().await, "200");
    }
    for nonsense in ["", "nonsense", "first-1-silence"] {
        let refused = provider.small("PUT", "/__fault/primary", nonsense).await;
        assert_eq!(refused["error"]["type"], "invalid_request_error", "{nonsense}");
    }
}

#[tokio::test]
async fn a_replay_is_the_recorded_stream_to_the_byte_and_breaks_off_anywhere() {
    let provider = Provider::with_recordings().await;
    for name in ["qwen_crlf", "cr_only", "odd_framing", "lang_emoji_halves", "long_code"] {
        let recorded = std::fs::read(fixtures().join(format!("{name}.sse"))).unwrap();
        let got = provider.chat(&format!("replay-{name}"), json!({ "stream": true })).await;
        assert_eq!(got.body(), recorded, "{name}");
        let events = provider.observed().await.last().unwrap()["events_sent"].as_u64().unwrap();
        assert!(events >= 3, "{name}: {events}");
        for at in [0, 1, recorded.len() / 2, recorded.len() - 1, recorded.len()] {
            for (part, reset) in [("cut", true), ("fin", false)] {
                let model = format!("replay-{name}+{part}-at-byte-{at}");
                let got = provider.chat(&model, json!({ "stream": true })).await;
                assert_eq!((got.body(), got.reset), (recorded[..at].to_vec(), reset), "{model}");
                assert!(!got.bytes.ends_with(b"0\r\n\r\n"), "{model}: the body ended");
            }
        }
        let model = format!("replay-{name}+cut-after-2");
        let cut = provider.chat(&model, json!({ "stream": true })).await;
        assert!(cut.reset && recorded.starts_with(&cut.body()), "{name}");
        assert_eq!(provider.observed().await.last().unwrap()["events_sent"], 2);
    }
    let got = provider.chat("replay-nothing", json!({ "stream": true })).await;
    assert_eq!(got.json()["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn a_recorded_answer_is_said_again_in_other_chunks() {
    let provider = Provider::with_recordings().await;
    let text = "Hi 🙂 🚀 🙂 and 👩\u{200d}👧 🇨🇭 ❤\u{fe0f}!";
    for parts in ["", "+pieces-1", "+pieces-3", "+after-reasoning-2", "+crlf+split-5"] {
        let model = format!("said-lang_emoji_halves{parts}");
        let got = provider.chat(&model, json!({ "stream": true })).await;
        let body = String::from_utf8(got.body()).unwrap().replace("\r\n", "\n");
        let chunks = Got { bytes: format!("\r\n\r\n{body}").into_bytes(), reset: false }.chunks();
        assert_eq!(said(&chunks), text, "{model}");
        assert!(chunks[0]["id"].as_str().unwrap().starts_with("chatcmpl-box"));
    }
    let json = provider.chat("replay-lang_emoji_halves", json!({})).await.json();
    assert_eq!(json["choices"][0]["message"]["content"], text);
}

#[tokio::test]
async fn an_answer_goes_on_where_the_assistant_was_left() {
    let provider = Provider::with_recordings().await;
    let ok = |text: &str| ("200".to_owned(), text.to_owned());
    let refused = ("400".to_owned(), String::new());
    assert_eq!(provider.go_on("echo+prefill", "Hello bi").await, ok("g world"));
    assert_eq!(provider.go_on("echo+prefill", "Hello ").await, ok("big world"));
    assert_eq!(provider.go_on("echo+prefill", "Hello\n\n").await, ok(" big world"));
    assert_eq!(provider.go_on("echo+prefill", "Hallo").await, refused);
    assert_eq!(provider.go_on("echo+prefill-reject", "Hello").await, refused);
    assert_eq!(provider.go_on("echo+prefill-prefix", "Hello").await, refused);
    assert_eq!(provider.go_on("echo", "Hello").await, ok("Hello big world"));
    assert_eq!(provider.go_on("replay-openai_plain+prefill", "Blu").await, ok("e."));
    let told = provider.chat("echo+prefill-reject", json!({ "stream": true })).await;
    assert_eq!(said(&told.chunks()), "Hello big world", "a user's last message is no opening");

    for (part, message, more) in [
        ("prefix", json!({ "prefix": true }), json!({})),
        ("partial", json!({ "partial": true }), json!({})),
        (
            "continue",
            json!({}),
            json!({ "continue_final_message": true, "add_generation_prompt": false }),
        ),
    ] {
        let mut opening = json!({ "role": "assistant", "content": "Hello" });
        opening.as_object_mut().unwrap().extend(message.as_object().unwrap().clone());
        let mut more = more;
        more["messages"] = json!([{ "role": "user", "content": "Hello big world" }, opening]);
        let answer = provider.chat(&format!("echo+prefill-{part}"), more).await.json();
        assert_eq!(answer["choices"][0]["message"]["content"], " big world", "{part}");
        let usage = (&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]);
        assert_eq!(usage, (&json!(4), &json!(2)), "{part}");
    }
}

#[tokio::test]
async fn an_answer_diverges_where_it_is_told_to() {
    let provider = Provider::plain().await;
    let text =
        async |model: &str| said(&provider.chat(model, json!({ "stream": true })).await.chunks());
    let plain = "word word1 word2 word3 word4 word5";
    assert_eq!(text("words-6").await, plain);
    assert_eq!(text("words-6+divergent").await, "word word1 word2 word3 otherword4 otherword5");
    assert_eq!(text("words-2+divergent-1").await, "otherword otherword1");
    let thinking = provider.chat("words-1+after-reasoning-2", json!({ "stream": true })).await;
    let deltas = thinking.chunks();
    let thoughts = deltas.iter().filter_map(|chunk| {
        chunk["choices"][0]["delta"]["reasoning_content"].as_str().map(str::to_owned)
    });
    assert_eq!(thoughts.collect::<String>(), "thought0 thought1");
}

#[tokio::test]
async fn the_truth_file_tells_of_each_exchange_before_its_client_can_know() {
    let path = std::env::temp_dir().join(format!("provider-truth-{}.jsonl", std::process::id()));
    let options = Options { truth: Some(path.clone()), ..Options::default() };
    let provider = Provider::start(options).await;
    let of = |lines: &[Value], event: &str| {
        let found = lines.iter().filter(|line| line["event"] == event);
        found.cloned().collect::<Vec<_>>()
    };
    let messages = json!([{ "role": "user", "content": "Say mark-one please" }]);
    provider.chat("echo", json!({ "messages": messages })).await;
    provider.chat("cut-after-3", json!({ "stream": true })).await;
    provider.chat("load-json-600", json!({})).await;
    let lines = tokio::time::timeout(PATIENCE, async {
        loop {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let lines = lines.collect::<Vec<_>>();
            if of(&lines, "end").len() == 3 {
                return lines;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    std::fs::remove_file(&path).unwrap();
    let lines = lines.unwrap();
    let told = of(&lines, "end");
    let told = told.iter().map(|line| (&line["model"], &line["completion_tokens"], &line["end"]));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (&json!("echo"), &json!(3), &json!("finished")),
            (&json!("cut-after-3"), &json!(2), &json!("reset")),
            (&json!("load-json-600"), &json!(20), &json!("finished"))
        ]
    );
    let begun = of(&lines, "begin");
    assert_eq!(begun.len(), 2, "{begun:?}");
    assert_eq!((&begun[0]["mark"], &begun[0]["prompt_tokens"]), (&json!("mark-one"), &json!(3)));
    assert_eq!((&begun[1]["mark"], &begun[1]["stream"]), (&json!(null), &json!(true)));
    // A piece is told before it is sent: of an answer to read at once, all of it; of a stream, each.
    let sending = of(&lines, "sending");
    let tokens = |index: usize| {
        let of_it = sending.iter().filter(|line| line["id"] == begun[index]["id"]);
        of_it.map(|line| line["completion_tokens"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((tokens(0), tokens(1)), (vec![3], vec![1, 2]));
}

#[tokio::test]
async fn gzip_has_the_checksum_and_length_of_what_it_holds() {
    let provider = Provider::plain().await;
    let mut got = provider.chat("echo+gzip", json!({})).await;
    let at = got.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    assert!(String::from_utf8_lossy(&got.bytes[..at]).contains("content-encoding: gzip"));
    let packed = unchunk(&got.bytes.split_off(at));
    assert_eq!(packed[..3], [0x1f, 0x8b, 8]);
    // One stored block: its length, its complement, its bytes; then an empty last one and the trailer.
    let size = usize::from(u16::from_le_bytes([packed[11], packed[12]]));
    let body = &packed[15..15 + size];
    let answer = serde_json::from_slice::<Value>(body).unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello big world");
    let mut trailer = vec![1, 0, 0, 255, 255];
    trailer.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    trailer.extend_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
    assert_eq!(packed[15 + size..], trailer);
}
