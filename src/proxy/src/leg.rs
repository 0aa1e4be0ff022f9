//! One target's answer on its way in: whole events, a verdict each, and what of it goes out. The same
//! before the call has committed itself to the answer and after.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use pingora_timeout::timeout;
use tokenroute_domain::routing::Failure;
use tokenroute_wire::meter::{Meter, Verdict};
use tokenroute_wire::sse;

use crate::snapshot::Deadlines;
use crate::targets::Ticket;
use crate::upstream::Exchange;

/// Reads that are gathered into one write, if they are there already.
const GATHER_READS_MAX: usize = 32;
/// Bytes that are gathered into one write, the last read beyond it included: what a client that does not read
/// them can cost.
const GATHER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of events that are held because they say nothing yet.
const HELD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer that is no stream and is held until it is whole, so that another target can
/// answer if it breaks off. Nobody can use half of it.
const WHOLE_BYTES_MAX: usize = 256 * 1024;
/// Events in a row that are no JSON, until the answer is taken for garbage.
const GARBAGE_EVENTS_MAX: u32 = 3;
const BLANK_LINE: &[u8] = b"\n\n";
/// How long a provider that has finished its answer may take to say so.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What an answer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Events, which are judged one by one.
    Events,
    /// One document, of which nobody can use a part.
    Whole,
    /// What cannot be read here, such as compressed events: it passes as it comes.
    Raw,
}

/// An answer being read.
pub(crate) struct Leg {
    pub(crate) exchange: Exchange,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) deadlines: Deadlines,
    /// Present for event streams.
    scanner: Option<sse::Scanner>,
    /// What says nothing yet, until something does.
    held: Vec<Bytes>,
    held_bytes: usize,
    /// What goes out with the next write.
    out: Vec<Bytes>,
    /// Whether what comes goes out: the first semantic event has come.
    speaking: bool,
    /// Whether the answer is over, whatever the provider still sends.
    over: bool,
    /// Whether the provider has ended it.
    ended: bool,
    /// A failure that was met behind something that goes out first.
    failed: Option<Failure>,
    /// The provider's own event about its failure.
    error_event: Option<Bytes>,
    /// How much had been said when it was looked at last, and when that was.
    said: u64,
    said_at: Instant,
    sent_at: Instant,
}

impl Leg {
    /// An answer whose head has been read.
    pub(crate) fn new(
        exchange: Exchange,
        (form, sent_at): (Form, Instant),
        deadlines: Deadlines,
    ) -> Self {
        Self {
            exchange,
            ticket: None,
            deadlines,
            scanner: (form == Form::Events).then(sse::Scanner::new),
            held: Vec::new(),
            held_bytes: 0,
            out: Vec::new(),
            speaking: form == Form::Raw,
            over: false,
            ended: false,
            failed: None,
            error_event: None,
            said: 0,
            said_at: Instant::now(),
            sent_at,
        }
    }

    /// Whether it is a stream of events.
    pub(crate) const fn is_stream(&self) -> bool {
        self.scanner.is_some()
    }

    /// Whether there is something that a client can use, so that the call can commit itself.
    pub(crate) const fn has_spoken(&self) -> bool {
        self.speaking || self.ended
    }

    /// Whether all of it has come.
    pub(crate) const fn has_ended(&self) -> bool {
        self.over || self.ended
    }

    /// Waits for more and judges it. `Err` if it will not come, or is no answer; what came before is
    /// in [`Self::take_out`].
    pub(crate) async fn advance(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        if self.exchange.is_done() {
            return self.end(meter);
        }
        let (wait, late) = self.patience(meter);
        match timeout(wait, self.exchange.read()).await {
            Ok(Ok(Some(part))) => {
                let bytes = part.len();
                self.take(meter, part);
                self.gather(meter, bytes);
                self.note_progress(meter);
                // A framed body that is all there ends with the same write.
                if self.failed.is_none() && self.scanner.is_none() && self.exchange.is_done() {
                    return self.end(meter);
                }
                Ok(())
            }
            Ok(Ok(None)) => self.end(meter),
            Ok(Err(_)) | Err(_) if self.is_whole(meter) => self.end(meter),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(late),
        }
    }

    /// How long to wait for the next part, and what it means if it does not come.
    fn patience(&self, meter: &Meter) -> (Duration, Failure) {
        let Deadlines { first_token, stall, .. } = self.deadlines;
        let stalled = stall.saturating_sub(self.said_at.elapsed());
        if self.is_whole(meter) {
            (stalled.min(LAST_WORD), Failure::Stall)
        } else if self.scanner.is_none() || self.speaking || self.said > 0 {
            (stalled, Failure::Stall)
        } else {
            (first_token.saturating_sub(self.sent_at.elapsed()), Failure::FirstTokenTimeout)
        }
    }

    /// Comments, pings and empty events are no progress: a provider can send them for ever.
    fn note_progress(&mut self, meter: &Meter) {
        let said = meter.semantic_events().saturating_add(meter.suppressed_bytes());
        if self.scanner.is_none() || said != self.said {
            self.said = said;
            self.said_at = Instant::now();
        }
    }

    /// Whether nothing is missing of a stream but its end.
    fn is_whole(&self, meter: &Meter) -> bool {
        self.scanner.is_some() && (meter.complete() || meter.done())
    }

    /// Takes what else has already arrived, so that all of it goes in one write. `bytes` have come before.
    fn gather(&mut self, meter: &mut Meter, mut bytes: usize) {
        for _ in 0..GATHER_READS_MAX {
            let enough = self.over || self.failed.is_some() || bytes >= GATHER_BYTES_MAX;
            if enough || self.exchange.is_done() {
                return;
            }
            match self.exchange.read().now_or_never() {
                Some(Ok(Some(part))) => {
                    bytes = bytes.saturating_add(part.len());
                    self.take(meter, part);
                }
                // What came before is written first; the exchange tells its failure only once.
                Some(Err(failure)) => {
                    let whole = self.is_whole(meter);
                    self.failed = (!whole).then_some(failure);
                    self.ended |= whole;
                    return;
                }
                Some(Ok(None)) | None => return,
            }
        }
    }

    /// Meters a part of the answer and decides what of it goes out.
    pub(crate) fn take(&mut self, meter: &mut Meter, part: Bytes) {
        if let Some(scanner) = self.scanner.as_mut() {
            let block = scanner.feed(part);
            self.judge(meter, &block);
        } else {
            // Not a stream: there is nothing to be said about its parts.
            let _pass = meter.body(&part);
            self.push(part);
        }
    }

    /// Asks for a verdict on each event. Neighbours that pass go out as one slice, uncopied.
    fn judge(&mut self, meter: &mut Meter, block: &sse::Block) {
        let (mut run, mut open) = (0..0, false);
        for piece in block.pieces() {
            let range = piece.range();
            let verdict = match &piece {
                sse::Piece::Event(event) => meter.event(event),
                sse::Piece::Raw { bytes, .. } => meter.body(bytes),
                sse::Piece::Quiet { .. } => Verdict::Pass,
            };
            self.over = matches!(verdict, Verdict::End);
            let goes = !matches!(verdict, Verdict::Drop | Verdict::Failed | Verdict::Diverged);
            open = goes && matches!(&piece, sse::Piece::Event(event) if event.unterminated());
            if meter.semantic() || self.over || matches!(piece, sse::Piece::Raw { .. }) {
                self.speak();
            }
            let original = matches!(verdict, Verdict::Pass | Verdict::End);
            if self.speaking && original && run.end == range.start {
                run.end = range.end;
            } else {
                self.push(block.bytes.slice(std::mem::replace(&mut run, range.end..range.end)));
                self.apply(verdict, (block, range));
            }
            if meter.malformed_run() >= GARBAGE_EVENTS_MAX {
                self.failed = Some(Failure::Garbage);
            }
            if self.over || self.failed.is_some() {
                break;
            }
        }
        self.push(block.bytes.slice(run));
        if open {
            // Without its blank line clients ignore the last event.
            self.push(Bytes::from_static(BLANK_LINE));
        }
    }

    /// Does what a verdict says with the event at `range`.
    fn apply(&mut self, verdict: Verdict, (block, range): (&sse::Block, Range<usize>)) {
        match verdict {
            Verdict::Pass | Verdict::End | Verdict::Hold(None) => {
                self.push(block.bytes.slice(range));
            }
            Verdict::Replace(bytes) | Verdict::Hold(Some(bytes)) => self.push(bytes),
            Verdict::Drop => {}
            Verdict::Failed => {
                self.error_event = Some(block.bytes.slice(range));
                self.failed = Some(Failure::ErrorEvent);
            }
            Verdict::Diverged => self.failed = Some(Failure::Diverged),
        }
    }

    /// Lets out what was held: from here on everything goes out as it comes.
    fn speak(&mut self) {
        if !self.speaking {
            self.speaking = true;
            self.out.append(&mut self.held);
        }
    }

    fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
        } else if self.speaking {
            self.out.push(bytes);
        } else {
            self.held_bytes = self.held_bytes.saturating_add(bytes.len());
            self.held.push(bytes);
            let max = if self.scanner.is_some() { HELD_BYTES_MAX } else { WHOLE_BYTES_MAX };
            if self.held_bytes > max {
                self.speak();
            }
        }
    }

    /// The provider has ended. An event stream that is not complete was cut, however politely.
    fn end(&mut self, meter: &mut Meter) -> Result<(), Failure> {
        if let Some(rest) = self.scanner.as_mut().and_then(sse::Scanner::finish) {
            self.judge(meter, &rest);
        }
        meter.finish();
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        if self.scanner.is_none() && meter.error() {
            return Err(Failure::ErrorEvent);
        }
        if self.scanner.is_none() && self.gives_us_away() {
            return Err(Failure::Garbage);
        }
        if self.scanner.is_some() && !self.is_whole(meter) {
            return Err(Failure::Cut);
        }
        self.speak();
        self.ended = true;
        Ok(())
    }

    /// Whether a held body has our secret in it, as that of a server has that answers with what it was sent.
    fn gives_us_away(&mut self) -> bool {
        let whole = join(&mut self.held);
        let leaks = self.exchange.provider().leaks_credential(&whole);
        self.held.extend((!whole.is_empty()).then_some(whole));
        leaks
    }

    /// Puts bytes behind everything that goes out.
    pub(crate) fn append(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.out.push(bytes);
        }
    }

    /// What goes out now, as one buffer.
    pub(crate) fn take_out(&mut self) -> Bytes {
        join(&mut self.out)
    }

    /// Whether something goes out now.
    pub(crate) const fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// What the provider itself said about its failure: an event of a stream, or a whole body.
    pub(crate) fn take_error(&mut self) -> Option<Bytes> {
        if self.scanner.is_none() && !self.held.is_empty() {
            return Some(join(&mut self.held));
        }
        self.error_event.take()
    }

    /// How long after the request the answer began to speak; none if it has not.
    pub(crate) fn spoke_after(&self) -> Duration {
        self.said_at.saturating_duration_since(self.sent_at)
    }

    /// Reads the rest for its usage although nobody is there to receive it.
    pub(crate) async fn drain(&mut self, meter: &mut Meter) {
        let wait = self.deadlines.drain;
        let drained = async {
            while !self.over && !self.exchange.is_done() {
                let Ok(Some(part)) = self.exchange.read().await else { break };
                self.take(meter, part);
                self.out.clear();
            }
        };
        // Out of time, what was received until then counts.
        let _in_time = timeout(wait, drained).await;
    }
}

/// One buffer of several; a single one is passed on as it is.
fn join(parts: &mut Vec<Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts.drain(..) {
        joined.extend_from_slice(&part);
    }
    joined.freeze()
}
