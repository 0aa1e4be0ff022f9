//! The observation log: which requests arrived and how each exchange ended, for tests to read back.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// Most requests remembered; the oldest are forgotten first.
pub(crate) const SEEN_MAX: usize = 10_000;
/// Most bodies kept whole, and the longest that is, bytes.
pub(crate) const BODIES_MAX: usize = 64;
/// See [`BODIES_MAX`].
pub(crate) const BODY_KEPT_BYTES_MAX: usize = 64 * 1024;

/// One request and what became of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// `CLOCK_MONOTONIC` when its head had arrived, microseconds.
    pub(crate) at_us: u64,
    pub(crate) connection: u64,
    /// Which exchange of that connection it is, from 1.
    pub(crate) exchange: u64,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) model: Option<String>,
    /// The caller's own name for the request: a word of its prompt.
    pub(crate) mark: Option<String>,
    pub(crate) body_bytes: usize,
    pub(crate) body_fnv64: u64,
    pub(crate) body_complete: bool,
    pub(crate) body_is_json: bool,
    pub(crate) status: u16,
    pub(crate) prompt_tokens: u64,
    pub(crate) events_sent: u64,
    pub(crate) tokens_sent: u64,
    pub(crate) bytes_sent: u64,
    /// `open` while it goes on.
    pub(crate) end: &'static str,
    pub(crate) end_after_us: u64,
}

impl Seen {
    fn to_json(&self, id: u64) -> Value {
        json!({
            "id": id,
            "at_us": self.at_us,
            "connection": self.connection,
            "exchange": self.exchange,
            "method": self.method,
            "path": self.target,
            "headers": self.fields,
            "model": self.model,
            "body_bytes": self.body_bytes,
            "body_fnv64": format!("{:016x}", self.body_fnv64),
            "body_complete": self.body_complete,
            "body_is_json": self.body_is_json,
            "status": self.status,
            "prompt_tokens": self.prompt_tokens,
            "events_sent": self.events_sent,
            "tokens_sent": self.tokens_sent,
            "bytes_sent": self.bytes_sent,
            "end": self.end,
            "end_after_ms": self.end_after_us / 1_000,
        })
    }

    /// The truth file's line of a request that is about to be answered.
    pub(crate) fn to_begin(&self, id: u64, stream: bool) -> String {
        let line = json!({
            "event": "begin",
            "id": id,
            "at_us": self.at_us,
            "model": self.model,
            "mark": self.mark,
            "stream": stream,
            "prompt_tokens": self.prompt_tokens,
        });
        format!("{line}\n")
    }

    /// The truth file's line of an exchange that ended; `id` is its number, if it is in the log.
    pub(crate) fn to_end(&self, id: Option<u64>) -> String {
        let named = |name: &str| {
            let field = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
            field.map(|(_, value)| value.clone())
        };
        let line = json!({
            "event": "end",
            "id": id,
            "at_us": self.at_us,
            "ended_us": self.at_us.saturating_add(self.end_after_us),
            "model": self.model,
            "mark": self.mark,
            "request_id": named("x-request-id"),
            "idempotency_key": named("idempotency-key"),
            "status": self.status,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens_sent,
            "events_sent": self.events_sent,
            "end": self.end,
        });
        format!("{line}\n")
    }
}

/// The truth file's line of a piece that is about to be sent, written before it: what a client has is never
/// more than the last of these says. `tokens` are all of the answer up to its end.
pub(crate) fn to_sending(id: u64, at_us: u64, tokens: u64) -> String {
    format!(
        "{{\"event\":\"sending\",\"id\":{id},\"at_us\":{at_us},\"completion_tokens\":{tokens}}}\n"
    )
}

/// The log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    first_id: u64,
    seen: VecDeque<Seen>,
    bodies: VecDeque<(u64, Bytes)>,
}

impl Log {
    /// Adds a request and gives it its number.
    pub(crate) fn add(&mut self, seen: Seen) -> u64 {
        if self.seen.len() >= SEEN_MAX {
            self.seen.pop_front();
            self.first_id = self.first_id.saturating_add(1);
        }
        self.seen.push_back(seen);
        let count = u64::try_from(self.seen.len()).unwrap_or(u64::MAX);
        self.first_id.saturating_add(count).saturating_sub(1)
    }

    /// Changes what is remembered of request `id`, if it still is.
    pub(crate) fn update(&mut self, id: u64, change: impl FnOnce(&mut Seen)) {
        let index = id.checked_sub(self.first_id).and_then(|index| usize::try_from(index).ok());
        if let Some(seen) = index.and_then(|index| self.seen.get_mut(index)) {
            change(seen);
        }
    }

    /// Keeps the body of request `id`, unless it is too long.
    pub(crate) fn keep_body(&mut self, id: u64, body: &Bytes) {
        if body.len() > BODY_KEPT_BYTES_MAX {
            return;
        }
        if self.bodies.len() >= BODIES_MAX {
            self.bodies.pop_front();
        }
        self.bodies.push_back((id, Bytes::copy_from_slice(body)));
    }

    /// Forgets everything; numbers go on.
    pub(crate) fn clear(&mut self) {
        let count = u64::try_from(self.seen.len()).unwrap_or(0);
        self.first_id = self.first_id.saturating_add(count);
        self.seen.clear();
        self.bodies.clear();
    }

    pub(crate) fn to_json(&self) -> Value {
        let numbered = (self.first_id..).zip(&self.seen);
        Value::Array(numbered.map(|(id, seen)| seen.to_json(id)).collect())
    }

    pub(crate) fn bodies_to_json(&self) -> Value {
        let body = |(id, body): &(u64, Bytes)| {
            let text = str::from_utf8(body).ok();
            json!({ "id": id, "text": text, "base64": STANDARD.encode(body) })
        };
        Value::Array(self.bodies.iter().map(body).collect())
    }
}

/// FNV-1a, 64 bits.
pub fn fnv64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_numbers_stay() {
        let mut log = Log::default();
        for _ in 0..SEEN_MAX + 5 {
            log.add(Seen::default());
        }
        let id = log.add(Seen::default());
        log.update(id, |seen| seen.status = 200);
        log.update(0, |_| panic!("it was forgotten"));
        let all = log.to_json();
        assert_eq!(all.as_array().unwrap().len(), SEEN_MAX);
        assert_eq!(all[SEEN_MAX - 1]["status"], 200);
        log.clear();
        assert_eq!(log.add(Seen::default()), id + 1);
    }

    #[test]
    fn fnv_of_a_known_text() {
        assert_eq!(fnv64(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
