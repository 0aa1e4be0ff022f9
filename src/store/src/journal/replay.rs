//! Reads segments again and makes of what they say how each call ended.
//!
//! What is read may be torn or damaged anywhere: what is whole before it counts, and nothing behind it in
//! the same segment.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use tokenroute_domain::id::CallId;
use tokenroute_domain::journal::{Due, Ended, Intent, Mark};
use tokenroute_domain::money::NanoUsd;
use tokenroute_domain::record::{Outcome, Record};
use tokenroute_domain::usage::{Usage, UsageSource};

use super::entry::Entry;
use super::frame::Frames;

/// The word for a call whose edge died.
const EDGE_LOST: &str = "edge_lost";
/// What a client was sent with an answer that had begun.
const STATUS_OK: u16 = 200;

/// What the segments of one run of an edge say, read in the order of their numbers.
#[derive(Debug, Default)]
pub struct Replay {
    calls: BTreeMap<CallId, Trace>,
    dropped_bytes: u64,
    unreadable: u64,
}

/// What is known of one call.
#[derive(Debug, Default)]
struct Trace {
    intent: Option<Intent>,
    mark: Option<Mark>,
    ended: Option<Arc<Ended>>,
}

impl Replay {
    /// Reads a segment of so many bytes. An error means that it could not be read at all now; what was
    /// read of it before stays.
    pub fn read(&mut self, segment: impl Read, bytes: u64) -> io::Result<()> {
        let mut frames = Frames::new(segment);
        while let Some(frame) = frames.next()? {
            match Entry::read(&frame) {
                Some(entry) => self.add(entry),
                None => self.unreadable = self.unreadable.saturating_add(1),
            }
        }
        let dropped = bytes.saturating_sub(frames.whole());
        self.dropped_bytes = self.dropped_bytes.saturating_add(dropped);
        Ok(())
    }

    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Intent(intent) => {
                let trace = self.trace(intent.call);
                trace.intent = Some(intent);
            }
            Entry::Mark(mark) => {
                let trace = self.trace(mark.call);
                trace.mark = Some(mark);
            }
            Entry::Ended(ended) => {
                let trace = self.trace(ended.record.call);
                trace.ended = Some(ended);
            }
            Entry::Forgotten(calls) => {
                for call in calls {
                    self.calls.remove(&call);
                }
            }
            Entry::Pad => {}
        }
    }

    fn trace(&mut self, call: CallId) -> &mut Trace {
        self.calls.entry(call).or_default()
    }

    /// Bytes behind the last whole frame of a segment, in all segments.
    pub const fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }

    /// Whole frames that say nothing to this program.
    pub const fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// How each call ended that nobody is known to have settled for good, in the order of their
    /// identifiers. Of a mark without an intent nobody knows whose it is, so it is left out.
    pub fn into_ended(self) -> Vec<Arc<Ended>> {
        let ended = |trace: Trace| match (trace.ended, trace.intent) {
            (Some(ended), _) => Some(ended),
            (None, Some(intent)) => Some(Arc::new(cut(intent, trace.mark))),
            (None, None) => None,
        };
        self.calls.into_values().filter_map(ended).collect()
    }
}

/// How a call ended that its edge did not live to end: with what it had come to. What it had not cost yet
/// by the last mark is the house's.
fn cut(intent: Intent, mark: Option<Mark>) -> Ended {
    let mark = mark.unwrap_or_else(|| Mark {
        call: intent.call,
        usage: Usage::default(),
        cost: NanoUsd::ZERO,
        target: Arc::from(""),
        streamed: false,
        reported: false,
    });
    let cost = mark.cost.at_least_zero();
    // What else was free beside the hold died with the edge's memory.
    let due = cost.min(intent.hold).at_least_zero();
    let charge = if intent.prepaid { due } else { NanoUsd::ZERO };
    let began = mark.streamed && mark.usage.output_total() > 0;
    let record = Record {
        call: intent.call,
        started: intent.started,
        endpoint: intent.endpoint,
        key: Some(intent.key),
        account: Some(intent.account),
        model: Some(intent.model),
        target: Some(mark.target).filter(|target| !target.is_empty()),
        attempts: Vec::new(),
        status: if began { STATUS_OK } else { 0 },
        outcome: Outcome::Cut,
        error: Some(EDGE_LOST),
        streamed: mark.streamed,
        usage: mark.usage,
        usage_source: if mark.reported { UsageSource::Provider } else { UsageSource::Estimated },
        cost,
        charge,
        price_version: None,
        house_cost: NanoUsd::ZERO,
        latency_micros: 0,
        first_token_micros: None,
    };
    let due = Due { charge: due, purses: intent.purses };
    Ended { record: Arc::new(record), due: Some(due) }
}
