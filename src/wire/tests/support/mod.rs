//! What the tests of event streams share: a relay as simple as can be, another reader of event streams
//! to compare with, and ways to split bytes.

#![allow(dead_code, reason = "each of the tests that share this uses a part of it")]

use bytes::Bytes;
use serde_json::Value;
use tokenroute_domain::record::Endpoint;
use tokenroute_domain::usage::Usage;
use tokenroute_wire::meter::{Identity, Meter, Options, Reasoning, Verdict};
use tokenroute_wire::sse::{Block, Piece, Scanner};

/// Where half a surrogate pair is put for a reader that takes whole characters only.
pub(crate) const HALVES: u32 = 0xf_0000;

/// Options of an ordinary chat.
pub(crate) fn chat(strip_usage: bool) -> Options {
    Options {
        endpoint: Endpoint::ChatCompletions,
        strip_usage,
        client_usage: !strip_usage,
        reasoning: Reasoning::Inside,
        text_bytes_max: 1024 * 1024,
        resume: None,
    }
}

/// What a meter knows at the end of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one of the meter's answers")]
pub(crate) struct Facts {
    pub(crate) usage: Option<Usage>,
    pub(crate) suspect: bool,
    pub(crate) text: String,
    pub(crate) text_bytes_total: u64,
    pub(crate) semantic: bool,
    pub(crate) complete: bool,
    pub(crate) done: bool,
    pub(crate) error: bool,
    pub(crate) malformed: u64,
    pub(crate) malformed_run: u32,
    /// What another target could go on from.
    pub(crate) delivered: Option<String>,
    pub(crate) identity: Option<Identity>,
    pub(crate) usage_passed: bool,
    pub(crate) repeating: bool,
    pub(crate) suppressed: String,
}

/// What a client and the books get of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relayed {
    pub(crate) out: Vec<u8>,
    /// Events that were told to wait.
    pub(crate) held: usize,
    /// Whether the answer was told not to be the one that it should be the rest of.
    pub(crate) diverged: bool,
    pub(crate) facts: Facts,
}

struct Relay {
    meter: Meter,
    held: Vec<u8>,
    held_events: usize,
    out: Vec<u8>,
    over: bool,
    diverged: bool,
}

impl Relay {
    fn judge(&mut self, block: &Block) {
        let mut end = 0;
        for piece in block.pieces() {
            let range = piece.range();
            assert_eq!(range.start, end, "a gap between pieces");
            end = range.end;
            let original = &block.bytes[range];
            let verdict = match &piece {
                Piece::Event(event) => self.meter.event(event),
                Piece::Raw { bytes, .. } => self.meter.body(bytes),
                Piece::Quiet { .. } if self.held.is_empty() => Verdict::Pass,
                Piece::Quiet { .. } => {
                    self.held.extend_from_slice(original);
                    continue;
                }
            };
            let out = match &verdict {
                Verdict::Pass | Verdict::End | Verdict::Failed => original,
                Verdict::Replace(bytes) => bytes,
                Verdict::Hold(replaced) => {
                    self.held_events += 1;
                    self.held.extend_from_slice(replaced.as_deref().unwrap_or(original));
                    continue;
                }
                Verdict::Drop => continue,
                Verdict::Diverged => {
                    self.over = true;
                    self.diverged = true;
                    return;
                }
            };
            self.out.append(&mut self.held);
            self.out.extend_from_slice(out);
            self.over = verdict == Verdict::End;
            if self.over {
                return;
            }
        }
        assert_eq!(end, block.bytes.len(), "bytes behind the last piece");
    }

    fn finish(mut self) -> Relayed {
        self.meter.finish();
        self.out.append(&mut self.held);
        let meter = &self.meter;
        let facts = Facts {
            usage: meter.usage(),
            suspect: meter.suspect(),
            text: meter.text().to_owned(),
            text_bytes_total: meter.text_bytes_total(),
            semantic: meter.semantic(),
            complete: meter.complete(),
            done: meter.done(),
            error: meter.error(),
            malformed: meter.malformed(),
            malformed_run: meter.malformed_run(),
            delivered: meter.resumable().map(|delivered| delivered.content.to_owned()),
            identity: meter.identity().cloned(),
            usage_passed: meter.usage_passed(),
            repeating: meter.repeating(),
            suppressed: meter.suppressed().to_owned(),
        };
        Relayed { out: self.out, held: self.held_events, diverged: self.diverged, facts }
    }
}

fn relay(options: Options) -> Relay {
    Relay {
        meter: Meter::new(options),
        held: Vec::new(),
        held_events: 0,
        out: Vec::new(),
        over: false,
        diverged: false,
    }
}

/// Relays a stream of events that comes in these frames.
#[expect(single_use_lifetimes, reason = "an unnamed one is not yet allowed here")]
pub(crate) fn relay_events<'a>(
    frames: impl IntoIterator<Item = &'a [u8]>,
    options: Options,
) -> Relayed {
    let mut scanner = Scanner::new();
    let mut relay = relay(options);
    for frame in frames {
        relay.judge(&scanner.feed(Bytes::copy_from_slice(frame)));
        if relay.over {
            return relay.finish();
        }
    }
    if let Some(rest) = scanner.finish() {
        relay.judge(&rest);
    }
    relay.finish()
}

/// Relays a body that is no stream of events.
#[expect(single_use_lifetimes, reason = "an unnamed one is not yet allowed here")]
pub(crate) fn relay_body<'a>(
    frames: impl IntoIterator<Item = &'a [u8]>,
    options: Options,
) -> Relayed {
    let mut relay = relay(options);
    for frame in frames {
        relay.meter.body(frame);
        relay.out.extend_from_slice(frame);
    }
    relay.finish()
}

/// An event as the standard's own words read it: name and data. Written for clearness alone; the last
/// event counts even if its blank line is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) data: Vec<u8>,
}

/// Reads a whole stream.
pub(crate) fn read_plainly(stream: &[u8]) -> Vec<Plain> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut events, mut name, mut data) = (Vec::new(), None, None::<Vec<u8>>);
    let mut lines = lines(stream);
    lines.push(Vec::new());
    for line in lines {
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"" if line.is_empty() => {
                let name = name.take();
                if let Some(data) = data.take() {
                    events.push(Plain { name, data });
                }
            }
            b"data" => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            },
            b"event" => name = Some(value.to_vec()),
            _ => {}
        }
    }
    events
}

fn lines(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = vec![Vec::new()];
    let mut at = 0;
    while at < stream.len() {
        match stream[at] {
            b'\r' => {
                at += usize::from(stream.get(at + 1) == Some(&b'\n'));
                lines.push(Vec::new());
            }
            b'\n' => lines.push(Vec::new()),
            byte => lines.last_mut().unwrap().push(byte),
        }
        at += 1;
    }
    lines
}

/// Cuts bytes into frames at chance places; equal seeds cut equally.
pub(crate) fn split_at_chance(bytes: &[u8], seed: u64, longest: usize) -> Vec<&[u8]> {
    let mut state = seed | 1;
    let mut rest = bytes;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = usize::try_from(state >> 33).unwrap() % longest.max(1) + 1;
        let (frame, after) = rest.split_at(length.min(rest.len()));
        frames.push(frame);
        rest = after;
    }
    frames
}

/// Reads JSON in which halves of surrogate pairs may stand alone.
pub(crate) fn read_json(data: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(data).ok()?;
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain += rest.get(..at).unwrap_or_default();
        let code = rest.get(at + 2..at + 6).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match code {
            Some(code @ 0xd800..0xe000) if rest.as_bytes()[at + 1] == b'u' => {
                plain.push(char::from_u32(HALVES + code).unwrap());
                rest = rest.get(at + 6..).unwrap_or_default();
            }
            _ => {
                plain += rest.get(at..at + 2)?;
                rest = rest.get(at + 2..)?;
            }
        }
    }
    serde_json::from_str(&(plain + rest)).ok()
}
