//! Sends a body the way the proxy does: frame by frame, from some point on before its end.

use bytes::Bytes;
use tokenroute_wire::request::{Change, Frames, Malformed, Scanner, Splicer};

use crate::chance::Chance;

/// What became of a body.
#[derive(Debug)]
pub struct Attempt {
    /// The scanner at the end of the body, or where it failed.
    pub scanner: Scanner,
    /// The bytes that were sent.
    pub sent: Vec<u8>,
    /// The offset in the body up to which it was sent.
    pub offset: u64,
    /// By how much the body that was sent was announced to be longer.
    pub growth: i64,
    /// Whether it began when the body had ended.
    pub late: bool,
    /// Why the body was refused, if it was.
    pub verdict: Result<(), Malformed>,
}

/// Sends a body in portions of random length, beginning at a random point after its model is known.
pub fn send(body: &[u8], change: &Change<'_>, dice: &mut Chance) -> Attempt {
    let size_max = dice.pick(&[1, 7, 60, 4000, usize::MAX >> 1]);
    let dispatch = dice.below(body.len().saturating_mul(2));
    let (mut scanner, mut frames) = (Scanner::new(), Frames::new());
    let (mut splicer, mut pieces) = (None, Vec::new());
    let mut rest = body;
    let mut verdict = Ok(());
    while !rest.is_empty() && verdict.is_ok() {
        let size = dice.below(size_max).saturating_add(1).min(rest.len());
        let (frame, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
        rest = after;
        verdict = scanner.feed(frame);
        frames.push(Bytes::copy_from_slice(frame));
        let known = scanner.facts().model.is_some();
        if known && body.len().saturating_sub(rest.len()) >= dispatch {
            let splicer = splicer.get_or_insert_with(|| Splicer::new(change, &scanner));
            splicer.advance(&scanner, &frames, &mut pieces);
        }
    }
    verdict = verdict.and_then(|()| scanner.finish());
    let late = splicer.is_none() && scanner.finished();
    let mut splicer = splicer.unwrap_or_else(|| Splicer::new(change, &scanner));
    splicer.advance(&scanner, &frames, &mut pieces);
    let (offset, growth) = (splicer.offset(), splicer.growth());
    Attempt { scanner, sent: pieces.concat(), offset, growth, late, verdict }
}
