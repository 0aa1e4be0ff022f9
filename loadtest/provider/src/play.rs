//! Plays an answer on the wire as its script says, and notes in the log what was sent and how it ended.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::answer::{self, Said};
use crate::ask::{Ask, Endpoint};
use crate::connection::Next;
use crate::frame::{self, Frame, Framing};
use crate::observe::Seen;
use crate::recorded::Recording;
use crate::reply::{self, Reply};
use crate::script::{AfterDone, Answer, Ending, Fault, Script};
use crate::state::State;
use crate::stream::{self, Event};
use crate::wire::{Gone, Wire};
use crate::{embeddings, faults, monotonic_ns, observe};

/// What a JSON answer that is written slowly is written in, and the wait between.
const SLOW_PART_BYTES: usize = 16;
const SLOW_PAUSE: Duration = Duration::from_millis(10);
/// Most comments in a stream that stalls.
const PINGS_MAX: usize = 100_000;
/// Blank lines before a JSON answer, one each pause.
const BLANK_LINES: usize = 4;

/// The fields of a good answer. Those with a secret look are for leak tests.
const ANSWER_FIELDS: &str = "openai-processing-ms: 3\r\nopenai-version: 2020-10-01\r\nopenai-organization: org-box\r\nx-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\nx-ratelimit-reset-requests: 6ms\r\nserver: box\r\nset-cookie: box=1; Path=/\r\n";

/// A logged exchange under way.
pub(crate) struct Exchange<'a> {
    pub(crate) wire: &'a mut Wire,
    state: &'a State,
    seen: Seen,
    id: u64,
    sent_before: u64,
}

impl<'a> Exchange<'a> {
    /// Enters a request into the log.
    pub(crate) fn begin(wire: &'a mut Wire, state: &'a State, seen: Seen) -> Self {
        let id = state.log().add(seen.clone());
        Self::resume(wire, state, seen, id)
    }

    /// Goes on with a request that is in the log as `id`.
    pub(crate) fn resume(wire: &'a mut Wire, state: &'a State, seen: Seen, id: u64) -> Self {
        let sent_before = wire.sent_bytes;
        Self { wire, state, seen, id, sent_before }
    }

    /// Changes what is known of the request, in the log too.
    pub(crate) fn note(&mut self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen);
        let seen = self.seen.clone();
        self.state.log().update(self.id, |entry| *entry = seen);
    }

    pub(crate) fn state(&self) -> &'a State {
        self.state
    }

    pub(crate) fn keep_body(&self, body: &Bytes) {
        self.state.log().keep_body(self.id, body);
    }

    /// Notes how the exchange ended.
    pub(crate) fn end(&mut self, end: &'static str) {
        let now_us = monotonic_ns() / 1_000;
        let bytes = self.wire.sent_bytes.saturating_sub(self.sent_before);
        self.note(|seen| {
            seen.end = end;
            seen.end_after_us = now_us.saturating_sub(seen.at_us);
            seen.bytes_sent = bytes;
        });
        self.state.tell(|| self.seen.to_end(Some(self.id)));
    }

    /// Ends the exchange with its last bytes. The log is written before the client can have them, so that a
    /// test that has its answer finds the exchange ended.
    pub(crate) async fn end_with(&mut self, bytes: &[u8], end: &'static str) -> Result<(), Gone> {
        self.note(|seen| seen.end = end);
        match self.wire.send(bytes).await {
            Ok(()) => {
                self.end(end);
                Ok(())
            }
            Err(gone) => {
                self.end("client_closed");
                Err(gone)
            }
        }
    }

    /// Sends a whole reply.
    pub(crate) async fn reply(&mut self, reply: &Reply) -> Result<(), Gone> {
        self.note(|seen| seen.status = reply.status);
        self.end_with(&reply.bytes, "finished").await
    }

    /// Answers as `script` says, and tells how the connection goes on.
    pub(crate) async fn answer(
        &mut self,
        script: &Script,
        ask: &Ask,
        body: &Value,
    ) -> Result<Next, Gone> {
        self.note(|seen| {
            seen.prompt_tokens = ask.prompt_tokens;
            seen.mark.clone_from(&ask.mark);
        });
        self.state.tell(|| self.seen.to_begin(self.id, ask.stream));
        let played = self.play(script, ask, body).await;
        if played.is_err() && self.seen.end == "open" {
            self.end("client_closed");
        }
        let next = played?;
        match script.idle_close {
            Some(pause) if next == Next::KeepAlive => {
                self.wire.pause(pause).await?;
                Ok(Next::Close)
            }
            Some(_) | None if script.closes && next == Next::KeepAlive => Ok(Next::Close),
            Some(_) | None => Ok(next),
        }
    }

    async fn play(&mut self, script: &Script, ask: &Ask, body: &Value) -> Result<Next, Gone> {
        self.wire.pause(script.late_head).await?;
        let Ok(recording) = self.recording(script) else {
            self.reply(&reply::no_model(&ask.model)).await?;
            return Ok(Next::KeepAlive);
        };
        let said = Said::new(script, ask, recording);
        let reused = self.seen.exchange > 1;
        let fault = script.fault.filter(|fault| reused || *fault != Fault::ResetOnReuse);
        if let Some(fault) = fault {
            let number = self.state.next_answer();
            let text = said.as_ref().map(|said| answer::body(script, ask, said, number));
            let text = text.unwrap_or_default();
            if let Some(next) = faults::play(self, fault, &text).await? {
                return Ok(next);
            }
        }
        if script.strict_fields && ask.has_stream_options {
            let message = "Extra inputs are not permitted: stream_options";
            self.reply(&reply::error(422, "invalid_request_error", None, message)).await?;
            return Ok(Next::KeepAlive);
        }
        match &script.answer {
            Answer::Status(status) => {
                self.reply(&reply::status(status)).await?;
                return Ok(Next::KeepAlive);
            }
            Answer::BaseResp => {
                let body = serde_json::json!({ "id": "", "choices": null,
                    "base_resp": { "status_code": 1002, "status_msg": "rate limit" } });
                self.reply(&reply::json(200, &body, "")).await?;
                return Ok(Next::KeepAlive);
            }
            Answer::Echo
            | Answer::Words(_)
            | Answer::Unicode
            | Answer::JsonBytes(_)
            | Answer::Replay(_)
            | Answer::Said(_) => {}
        }
        let said = match said {
            Ok(said) => said,
            Err(message) => {
                self.reply(&reply::bad_request(message)).await?;
                return Ok(Next::KeepAlive);
            }
        };
        let number = self.state.next_answer();
        if ask.endpoint == Endpoint::Embeddings {
            return self.play_embeddings(script, ask, body).await;
        }
        if ask.stream {
            let events = stream::events(script, ask, &said, number);
            return self.play_stream(script, &events).await;
        }
        let text = answer::body(script, ask, &said, number);
        let tokens = said.tokens().saturating_mul(ask.choices);
        self.play_json(script, &text, tokens).await
    }

    /// The recording that a script names, if it does; `Err` when there is none of that name.
    fn recording(&self, script: &Script) -> Result<Option<&'a Recording>, ()> {
        match &script.answer {
            Answer::Replay(name) | Answer::Said(name) => {
                self.state.recording(name).map(Some).ok_or(())
            }
            Answer::Echo
            | Answer::Words(_)
            | Answer::Unicode
            | Answer::JsonBytes(_)
            | Answer::Status(_)
            | Answer::BaseResp => Ok(None),
        }
    }

    async fn play_embeddings(
        &mut self,
        script: &Script,
        ask: &Ask,
        body: &Value,
    ) -> Result<Next, Gone> {
        match embeddings::answer(&ask.model, body) {
            Ok((answer, prompt_tokens)) => {
                self.note(|seen| seen.prompt_tokens = prompt_tokens);
                self.play_json(script, &answer.to_string(), 0).await
            }
            Err(message) => {
                self.reply(&reply::bad_request(message)).await?;
                Ok(Next::KeepAlive)
            }
        }
    }

    async fn play_json(&mut self, script: &Script, text: &str, tokens: u64) -> Result<Next, Gone> {
        self.tell_sending(tokens);
        self.note(|seen| {
            seen.status = 200;
            seen.tokens_sent = tokens;
        });
        let framing = match () {
            () if script.no_length => Framing::UntilClose,
            () if script.chunked_json || script.gzip || script.blank_lines => Framing::Chunked,
            () => Framing::Length(text.len()),
        };
        let fields = answer_fields(script, self.id);
        let mut out = frame::head(200, "application/json", framing, &fields);
        let mut frame = Frame::new(framing, script.gzip);
        if script.blank_lines {
            for _ in 0..BLANK_LINES {
                frame.part(b"\n", &mut out);
                self.wire.send(&out).await?;
                out.clear();
                self.wire.pause(SLOW_PAUSE).await?;
            }
        }
        let cut = script.ending != Ending::Whole;
        let kept = if cut { text.len() / 2 } else { text.len() };
        let kept = byte_of_end(script.ending).unwrap_or(kept);
        let body = text.as_bytes().get(..kept).unwrap_or(text.as_bytes());
        if script.slow_json {
            for part in body.chunks(SLOW_PART_BYTES) {
                frame.part(part, &mut out);
                self.wire.send(&out).await?;
                out.clear();
                self.wire.pause(SLOW_PAUSE).await?;
            }
        } else {
            frame.part(body, &mut out);
        }
        if cut {
            self.wire.send(&out).await?;
            return self.break_off(script.ending).await;
        }
        frame.end(&mut out);
        self.end_with(&out, "finished").await?;
        Ok(if framing == Framing::UntilClose { Next::Close } else { Next::KeepAlive })
    }

    /// Ends an exchange in the middle.
    async fn break_off(&mut self, ending: Ending) -> Result<Next, Gone> {
        match ending {
            Ending::Whole => Ok(Next::KeepAlive),
            Ending::ResetAfter(_) | Ending::ResetAtByte(_) => {
                self.end("reset");
                Ok(Next::Reset)
            }
            Ending::FinAfter(_) | Ending::FinAtByte(_) => {
                self.end("cut");
                Ok(Next::Close)
            }
            Ending::StallAfter(_) | Ending::StallAtByte(_) => {
                self.note(|seen| seen.end = "stalled");
                let gone = self.wire.hang().await;
                self.end("client_closed");
                Err(gone)
            }
        }
    }

    /// Ends a stream in the middle; one that stalls may go on with comments.
    async fn break_stream(&mut self, script: &Script, frame: &mut Frame) -> Result<Next, Gone> {
        if let (Ending::StallAfter(_), Some(pause)) = (script.ending, script.stall_pings) {
            self.note(|seen| seen.end = "stalled");
            for _ in 0..PINGS_MAX {
                let mut out = vec![];
                frame.part(b": ping\n\n", &mut out);
                let pinged = match self.wire.pause(pause).await {
                    Ok(()) => self.wire.send(&out).await,
                    Err(gone) => Err(gone),
                };
                if let Err(gone) = pinged {
                    self.end("client_closed");
                    return Err(gone);
                }
            }
        }
        self.break_off(script.ending).await
    }

    async fn play_stream(&mut self, script: &Script, events: &[Event]) -> Result<Next, Gone> {
        self.note(|seen| seen.status = 200);
        let framing = if script.no_length { Framing::UntilClose } else { Framing::Chunked };
        let fields = format!("cache-control: no-cache\r\n{}", answer_fields(script, self.id));
        let mut out = frame::head(200, "text/event-stream; charset=utf-8", framing, &fields);
        let mut frame = Frame::new(framing, script.gzip);
        if !script.late_first.is_zero() {
            self.wire.send(&out).await?;
            out.clear();
            self.wire.pause(script.late_first).await?;
        }
        let mut due = Instant::now();
        let mut room = byte_of_end(script.ending).unwrap_or(usize::MAX);
        for (index, event) in events.iter().enumerate() {
            if ends_at(script.ending) == Some(index) {
                self.wire.send(&out).await?;
                return self.break_stream(script, &mut frame).await;
            }
            if index > 0 && !script.pace.is_zero() && !script.one_write {
                due = due.checked_add(script.pace).unwrap_or(due);
                self.wire.pause_until(due).await?;
            }
            if event.tokens > 0 {
                self.tell_sending(event.tokens);
            }
            let Some(left) = room.checked_sub(event.bytes.len()) else {
                let part = event.bytes.get(..room).unwrap_or_default();
                self.put(script, &mut frame, part, &mut out).await?;
                self.wire.send(&out).await?;
                return self.break_stream(script, &mut frame).await;
            };
            room = left;
            self.put(script, &mut frame, &event.bytes, &mut out).await?;
            self.count(event);
            if event.is_role && !script.after_role.is_zero() {
                self.wire.pause(script.after_role).await?;
                due = Instant::now();
            }
        }
        if script.ending != Ending::Whole {
            self.wire.send(&out).await?;
            return self.break_stream(script, &mut frame).await;
        }
        if script.after_done == AfterDone::Linger {
            self.wire.send(&out).await?;
            return self.break_off(Ending::StallAfter(0)).await;
        }
        frame.end(&mut out);
        self.end_with(&out, "finished").await?;
        Ok(if framing == Framing::UntilClose { Next::Close } else { Next::KeepAlive })
    }

    async fn put(
        &mut self,
        script: &Script,
        frame: &mut Frame,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Gone> {
        let part_bytes = script.split_bytes.unwrap_or(usize::MAX);
        for part in bytes.chunks(part_bytes) {
            frame.part(part, out);
            if !script.one_write {
                self.wire.send(out).await?;
                out.clear();
                // Other tasks run between writes, so that readers see the parts apart.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Writes down that so many more tokens are about to be sent.
    fn tell_sending(&self, more: u64) {
        let tokens = self.seen.tokens_sent.saturating_add(more);
        self.state.tell(|| observe::to_sending(self.id, monotonic_ns() / 1_000, tokens));
    }

    /// Counts an event that was sent.
    fn count(&mut self, event: &Event) {
        self.seen.events_sent = self.seen.events_sent.saturating_add(1);
        self.seen.tokens_sent = self.seen.tokens_sent.saturating_add(event.tokens);
        let (events, tokens) = (self.seen.events_sent, self.seen.tokens_sent);
        self.state.log().update(self.id, |seen| {
            seen.events_sent = events;
            seen.tokens_sent = tokens;
        });
    }
}

/// The header lines of a good answer beside its type and length.
fn answer_fields(script: &Script, id: u64) -> String {
    let encoding = if script.gzip { "content-encoding: gzip\r\n" } else { "" };
    let close = if script.closes { "connection: close\r\n" } else { "" };
    format!("x-request-id: req_box{id}\r\n{encoding}{close}{ANSWER_FIELDS}")
}

/// The index of the event before which the stream breaks off.
fn ends_at(ending: Ending) -> Option<usize> {
    match ending {
        Ending::ResetAfter(at) | Ending::FinAfter(at) | Ending::StallAfter(at) => Some(at),
        Ending::Whole | Ending::ResetAtByte(_) | Ending::FinAtByte(_) | Ending::StallAtByte(_) => {
            None
        }
    }
}

/// How many bytes of the body are sent of one that breaks off after so many.
fn byte_of_end(ending: Ending) -> Option<usize> {
    match ending {
        Ending::ResetAtByte(at) | Ending::FinAtByte(at) | Ending::StallAtByte(at) => Some(at),
        Ending::Whole | Ending::ResetAfter(_) | Ending::FinAfter(_) | Ending::StallAfter(_) => None,
    }
}

/// Refuses before the body is read, and closes.
pub(crate) async fn early(exchange: &mut Exchange<'_>, code: u16) -> Result<Next, Gone> {
    let refusal = match code {
        413 => reply::error(code, "invalid_request_error", Some("request_too_large"), "Too large."),
        429 => reply::error(code, "requests", Some("rate_limit_exceeded"), "Rate limit reached."),
        _ => reply::error(code, "server_error", None, "Refused before the body was read."),
    };
    exchange.reply(&refusal.closing()).await?;
    Ok(Next::Close)
}
