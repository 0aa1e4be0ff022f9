//! Reads a body as its frames arrive: one pass, any split, a fixed amount of state.

use super::facts::Facts;
use super::grammar::Grammar;
use super::member::Members;
use super::utf8::{self, Partial, Step};
use super::{Malformed, offset};

/// How much white space after the last `}` is waited through before that is sent on although the
/// body has not ended. Until then a body with something else behind it reaches nobody closed.
pub const TRAILING_BYTES_MAX: u64 = 64 * 1024;

/// The scanner of one body.
#[derive(Clone, Debug)]
pub struct Scanner {
    grammar: Grammar,
    members: Members,
    partial: Partial,
    scanned: u64,
    settled: u64,
    finished: bool,
    failure: Option<Malformed>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner that has seen nothing.
    pub fn new() -> Self {
        Self {
            grammar: Grammar::new(),
            members: Members::new(),
            partial: Partial::default(),
            scanned: 0,
            settled: 0,
            finished: false,
            failure: None,
        }
    }

    /// Reads the next frame, of any length. Once it has failed it fails the same way ever after.
    pub fn feed(&mut self, frame: &[u8]) -> Result<(), Malformed> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let taken = if self.finished && !frame.is_empty() {
            Err(Malformed::Syntax)
        } else {
            self.scanned = self.scanned.saturating_add(offset(frame.len()));
            self.take(frame)
        };
        self.conclude(taken)
    }

    /// Ends the body: the whole object must have been seen.
    pub fn finish(&mut self) -> Result<(), Malformed> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let ended = if self.partial.len() > 0 {
            Err(Malformed::Utf8)
        } else if self.grammar.ended() {
            self.finished = true;
            Ok(())
        } else {
            Err(Malformed::Incomplete)
        };
        self.conclude(ended)
    }

    /// What is known so far; after `finish`, what is so.
    pub fn facts(&self) -> &Facts {
        self.members.facts()
    }

    /// How many bytes were fed.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// The offset up to which bytes may be sent on although the body goes on. It never passes a
    /// value that may have to be changed and is not whole, half a character, or the last `}`
    /// before the end of the body was seen, and it stays once the scanner has failed.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether the last `}` was seen: only white space may follow.
    pub fn closed(&self) -> bool {
        self.grammar.ended()
    }

    /// Whether the body was seen whole and is well formed.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Why the body is no request, if that is known.
    pub fn failure(&self) -> Option<Malformed> {
        self.failure
    }

    /// Lets the grammar see whole characters only, so that a verdict does not depend on the split.
    fn take(&mut self, frame: &[u8]) -> Result<(), Malformed> {
        let mut rest = frame;
        while self.partial.len() > 0 {
            let Some((&byte, after)) = rest.split_first() else { return Ok(()) };
            rest = after;
            match self.partial.push(byte) {
                Step::Partial => {}
                Step::Invalid => return Err(Malformed::Utf8),
                Step::Whole => {
                    let whole = std::mem::take(&mut self.partial);
                    self.grammar.take(whole.bytes(), &mut self.members)?;
                }
            }
        }
        let (whole, partial) = utf8::split_partial(rest);
        if let Some(valid) = utf8::find_fault(whole) {
            self.grammar.take(whole.get(..valid).unwrap_or_default(), &mut self.members)?;
            return Err(Malformed::Utf8);
        }
        self.grammar.take(whole, &mut self.members)?;
        self.partial.keep(partial);
        self.members.check_length(self.grammar.offset())
    }

    fn conclude(&mut self, outcome: Result<(), Malformed>) -> Result<(), Malformed> {
        match outcome {
            Ok(()) => self.settled = self.reach(),
            Err(failure) => self.failure = Some(failure),
        }
        outcome
    }

    fn reach(&self) -> u64 {
        let taken = self.grammar.offset();
        if let Some(start) = self.members.held_from() {
            return start;
        }
        match self.facts().close {
            Some(close) if !self.finished && taken.saturating_sub(close) <= TRAILING_BYTES_MAX => {
                close
            }
            Some(_) | None => taken,
        }
    }
}
