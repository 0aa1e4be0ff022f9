//! A connection's exchanges, one after the other: read a request, see what it names, answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::ask::{Ask, Endpoint};
use crate::head::{HEAD_BYTES_MAX, Head, Length};
use crate::load::{self, Load};
use crate::observe::{Seen, fnv64};
use crate::play::Exchange;
use crate::reply::{self, Reply};
use crate::script::{Early, Script};
use crate::state::State;
use crate::wire::{Gone, Wire};
use crate::{monotonic_ns, play};

/// Most exchanges on one connection.
const EXCHANGES_MAX: u64 = 100_000_000;
/// Longest request body, bytes.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bodies from here on are in the log while they arrive.
const LARGE_BODY_BYTES: usize = 256 * 1024;
/// Longest line of a chunk's size.
const CHUNK_LINE_BYTES_MAX: usize = 1024;
/// Wait between reads of a body that is read slowly.
const SLOW_READ_PAUSE: Duration = Duration::from_millis(10);
/// How long what a client still sends is read after the connection's last answer.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Before the name of an outage.
const OUTAGE_PATH: &str = "/__fault/";

/// How a connection goes on after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    KeepAlive,
    /// A FIN.
    Close,
    /// A reset.
    Reset,
}

/// Serves a connection to its end.
pub(crate) async fn run(stream: TcpStream, state: Arc<State>) {
    // Without it events wait for acknowledgements; a socket that refuses it is as good as closed.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut wire = Wire::new(stream);
    let connection = state.next_connection();
    for exchange in 1..=EXCHANGES_MAX {
        match serve(&mut wire, &state, (connection, exchange)).await {
            Ok(Next::KeepAlive) => {}
            Ok(Next::Close) => {
                if wire.finish().await.is_ok() {
                    wire.drain(DRAIN_MAX).await;
                }
                return;
            }
            Ok(Next::Reset) => {
                // A socket that refuses it is closed already.
                drop(wire.arm_reset().await);
                return;
            }
            Err(Gone) => return,
        }
    }
}

async fn serve(wire: &mut Wire, state: &State, place: (u64, u64)) -> Result<Next, Gone> {
    let Some(head) = read_head(wire).await? else {
        wire.send(&reply::bad_request("The request head is malformed.").closing().bytes).await?;
        return Ok(Next::Close);
    };
    let at_us = monotonic_ns() / 1_000;
    let (path, scripted) = head.path();
    let Some(endpoint) = Endpoint::of_path(path) else {
        return serve_small(wire, state, &head).await;
    };
    let seen = |body_bytes| Seen {
        at_us,
        connection: place.0,
        exchange: place.1,
        method: head.method.clone(),
        target: head.target.clone(),
        fields: head.fields(),
        model: scripted.map(str::to_owned),
        body_bytes,
        end: "open",
        ..Seen::default()
    };
    if let Some(refusal) = refuse_head(state, &head) {
        let mut exchange = Exchange::begin(wire, state, seen(0));
        exchange.reply(&refusal.closing()).await?;
        return Ok(Next::Close);
    }
    if head.expects_continue && wire.inbox.is_empty() {
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let leading = scripted.or_else(|| load::leading_model(&wire.inbox)).and_then(Script::parse);
    if let Some(Early::Status(code)) = leading.as_ref().map(|script| script.early) {
        let mut exchange = Exchange::begin(wire, state, seen(0));
        return play::early(&mut exchange, code).await;
    }
    let large = match head.length {
        Length::Known(bytes) => bytes >= LARGE_BODY_BYTES,
        Length::Chunked => true,
    };
    let mut arrival = Arrival {
        state,
        id: large.then(|| state.log().add(seen(0))),
        slow: leading.as_ref().is_some_and(|script| script.slow_read),
        seen_bytes: 0,
    };
    let body = match read_body(wire, &head, &mut arrival).await {
        Ok(Some(body)) => body,
        Ok(None) => {
            wire.send(&unreadable_body().bytes).await?;
            return Ok(Next::Close);
        }
        Err(Gone) => {
            let bytes = arrival.seen_bytes;
            let id = arrival.id.unwrap_or_else(|| state.log().add(seen(bytes)));
            state.log().update(id, |seen| seen.end = "client_closed");
            return Err(Gone);
        }
    };
    if let Some(name) = scripted.or_else(|| load::guess_model(&body))
        && let Some(load) = Load::parse(name)
    {
        load::serve(wire, state, (name, load), &body).await?;
        return Ok(next_after(&head));
    }
    let mut exchange = match arrival.id {
        Some(id) => Exchange::resume(wire, state, seen(body.len()), id),
        None => Exchange::begin(wire, state, seen(body.len())),
    };
    answer(&mut exchange, &head, endpoint, &body).await
}

/// Answers a model request whose body is there.
async fn answer(
    exchange: &mut Exchange<'_>,
    head: &Head,
    endpoint: Endpoint,
    body: &Bytes,
) -> Result<Next, Gone> {
    let parsed = serde_json::from_slice::<serde_json::Value>(body);
    let hash = fnv64(body);
    let named = parsed.as_ref().ok().and_then(|body| body.get("model")?.as_str());
    exchange.note(|seen| {
        seen.body_bytes = body.len();
        seen.body_fnv64 = hash;
        seen.body_complete = true;
        seen.body_is_json = parsed.is_ok();
        if let Some(named) = named {
            seen.model = Some(named.to_owned());
        }
    });
    exchange.keep_body(body);
    let keep = next_after(head);
    let Ok(parsed) = parsed else {
        exchange.reply(&reply::bad_request("We could not parse the JSON body.")).await?;
        return Ok(keep);
    };
    let ask = match Ask::read(endpoint, &parsed) {
        Ok(ask) => ask,
        Err(message) => {
            exchange.reply(&reply::bad_request(message)).await?;
            return Ok(keep);
        }
    };
    let name = head.path().1.unwrap_or(&ask.model);
    let Some(script) = Script::parse(name) else {
        exchange.reply(&reply::no_model(name)).await?;
        return Ok(keep);
    };
    let outage = exchange.state().outage(&script.outages);
    let varied = match outage.as_deref().map(|part| script.with(part)) {
        Some(Some(varied)) => varied,
        Some(None) => {
            exchange.reply(&reply::bad_request("The outage does not go with this model.")).await?;
            return Ok(keep);
        }
        None if script.counts() => script.at_count(exchange.state().count(&ask.model)).clone(),
        None => script,
    };
    let next = exchange.answer(&varied, &ask, &parsed).await?;
    Ok(if next == Next::KeepAlive { keep } else { next })
}

/// What the head alone is refused for.
fn refuse_head(state: &State, head: &Head) -> Option<Reply> {
    if head.method != "POST" {
        let message = "Not allowed to use this method on this endpoint.";
        return Some(reply::error(405, "invalid_request_error", None, message));
    }
    match &state.expect_key {
        Some(key) if head.credential.as_ref() != Some(key) => Some(reply::wrong_key()),
        Some(_) | None => None,
    }
}

fn unreadable_body() -> Reply {
    reply::bad_request("The body is too long or badly chunked.").closing()
}

fn next_after(head: &Head) -> Next {
    if head.keeps_alive { Next::KeepAlive } else { Next::Close }
}

/// The endpoints that are no model calls; they are not in the log.
async fn serve_small(wire: &mut Wire, state: &State, head: &Head) -> Result<Next, Gone> {
    let mut arrival = Arrival { state, id: None, slow: false, seen_bytes: 0 };
    let Some(body) = read_body(wire, head, &mut arrival).await? else { return Ok(Next::Close) };
    let (path, _) = head.path();
    let secret = state.expect_key.is_some() && head.credential != state.expect_key;
    let reply = match (head.method.as_str(), path) {
        ("GET", "/healthz") => reply::json(200, &serde_json::json!({ "status": "ok" }), ""),
        ("GET", path) if secret && path.starts_with("/v1/models") => reply::wrong_key(),
        ("GET", "/v1/models") => reply::models(),
        ("GET", "/__observed") => reply::json(200, &state.log().to_json(), ""),
        ("GET", "/__observed/bodies") => reply::json(200, &state.log().bodies_to_json(), ""),
        ("DELETE", "/__observed") => {
            state.clear();
            reply::json(200, &serde_json::json!({ "cleared": true }), "")
        }
        ("PUT" | "DELETE", path) if path.starts_with(OUTAGE_PATH) => {
            switch_outage(state, head, &body)
        }
        ("GET", path) => match path.strip_prefix("/v1/models/") {
            Some(name) => reply::one_model(name),
            None => unknown_url(head),
        },
        _ => unknown_url(head),
    };
    wire.send(&reply.bytes).await?;
    Ok(next_after(head))
}

/// Begins or ends the outage that the path names.
fn switch_outage(state: &State, head: &Head, body: &[u8]) -> Reply {
    let name = head.path().0.strip_prefix(OUTAGE_PATH).unwrap_or_default();
    if head.method == "DELETE" {
        return reply::json(200, &serde_json::json!({ "ended": state.end_outage(name) }), "");
    }
    let part = str::from_utf8(body).unwrap_or_default().trim();
    let known =
        !name.is_empty() && Script::parse("echo").is_some_and(|script| script.with(part).is_some());
    if known && state.begin_outage(name, part) {
        reply::json(200, &serde_json::json!({ "begun": name }), "")
    } else {
        reply::bad_request("The body must be a part of a model's name.")
    }
}

fn unknown_url(head: &Head) -> Reply {
    let message = format!("Invalid URL ({} {})", head.method, head.target);
    reply::error(404, "invalid_request_error", None, &message)
}

/// Reads a head; `None` when it is malformed, `Gone` when the client left between requests.
async fn read_head(wire: &mut Wire) -> Result<Option<Head>, Gone> {
    loop {
        if let Some(end) = Head::find_end(&wire.inbox) {
            let bytes = wire.inbox.split_to(end).freeze();
            return Ok(Head::parse(bytes).ok());
        }
        if wire.inbox.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
        wire.fill().await?;
    }
}

/// A body on its way, and where its progress is noted.
struct Arrival<'a> {
    state: &'a State,
    id: Option<u64>,
    slow: bool,
    seen_bytes: usize,
}

impl Arrival<'_> {
    async fn fill(&mut self, wire: &mut Wire, before: usize) -> Result<(), Gone> {
        wire.fill().await?;
        self.seen_bytes = before.saturating_add(wire.inbox.len());
        if let Some(id) = self.id {
            let bytes = self.seen_bytes;
            self.state.log().update(id, |seen| seen.body_bytes = bytes);
        }
        if self.slow {
            tokio::time::sleep(SLOW_READ_PAUSE).await;
        }
        Ok(())
    }
}

/// Reads a body to its end; `None` when it is too long or badly chunked.
async fn read_body(
    wire: &mut Wire,
    head: &Head,
    arrival: &mut Arrival<'_>,
) -> Result<Option<Bytes>, Gone> {
    let length = match head.length {
        Length::Known(length) => length,
        Length::Chunked => return read_chunks(wire, arrival).await,
    };
    if length > BODY_BYTES_MAX {
        return Ok(None);
    }
    arrival.seen_bytes = wire.inbox.len();
    let missing = length.saturating_sub(wire.inbox.len());
    wire.inbox.reserve(missing);
    while wire.inbox.len() < length {
        arrival.fill(wire, 0).await?;
    }
    Ok(Some(wire.inbox.split_to(length).freeze()))
}

async fn read_chunks(wire: &mut Wire, arrival: &mut Arrival<'_>) -> Result<Option<Bytes>, Gone> {
    let mut body = BytesMut::new();
    loop {
        let Some(size) = read_chunk_size(wire, arrival, body.len()).await? else { return Ok(None) };
        if body.len().saturating_add(size) > BODY_BYTES_MAX {
            return Ok(None);
        }
        let with_end = size.saturating_add(2);
        while wire.inbox.len() < with_end {
            arrival.fill(wire, body.len()).await?;
        }
        body.extend_from_slice(&wire.inbox.split_to(size));
        if !wire.inbox.starts_with(b"\r\n") {
            // Trailers are not understood.
            return Ok(None);
        }
        wire.inbox.advance(2);
        if size == 0 {
            return Ok(Some(body.freeze()));
        }
    }
}

async fn read_chunk_size(
    wire: &mut Wire,
    arrival: &mut Arrival<'_>,
    before: usize,
) -> Result<Option<usize>, Gone> {
    loop {
        if let Some(at) = memchr::memmem::find(&wire.inbox, b"\r\n") {
            let line = wire.inbox.split_to(at);
            wire.inbox.advance(2);
            let digits = line.as_ref().split(|byte| *byte == b';').next().unwrap_or_default();
            let text = str::from_utf8(digits).unwrap_or_default().trim();
            return Ok(usize::from_str_radix(text, 16).ok());
        }
        if wire.inbox.len() > CHUNK_LINE_BYTES_MAX {
            return Ok(None);
        }
        arrival.fill(wire, before).await?;
    }
}
