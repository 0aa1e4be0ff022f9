//! Finds where an answer that begins with a text that the client has already says something new.

use std::sync::Arc;

use crate::value::{Piece, Text as JsonText, join_halves};

/// How far an answer has repeated what the client has.
#[derive(Debug)]
pub(super) struct Repeat {
    known: Arc<str>,
    /// How much of `known` has come again, in bytes.
    at: usize,
    /// The answer must repeat all of `known`; else it may go on from any point in it.
    whole: bool,
    /// Half a surrogate pair that the answer ended in.
    half: Option<u16>,
}

/// The answer is not the one that the client has the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Diverged;

impl Repeat {
    /// An answer that must repeat all of a text before it says anything new.
    pub(super) fn whole(known: Arc<str>) -> Self {
        Self { known, at: 0, whole: true, half: None }
    }

    /// An answer that may begin with the beginning of a text.
    pub(super) fn perhaps(known: &str) -> Self {
        Self { known: known.into(), at: 0, whole: false, half: None }
    }

    /// Whether the answer must still say what the client has.
    pub(super) fn is_open(&self) -> bool {
        self.whole && self.at < self.known.len()
    }

    /// The answer says something that is no text: from here on all is new.
    pub(super) fn end(&mut self) {
        self.at = self.known.len();
    }

    /// Where in the next string of the answer, as it is written, the first new thing stands; at its end
    /// if it says nothing new.
    pub(super) fn take(&mut self, said: JsonText<'_>) -> Result<usize, Diverged> {
        for (piece, start) in said.pieces() {
            let known = self.known.get(self.at..).unwrap_or_default();
            if known.is_empty() {
                return Ok(start);
            }
            let pair = match (self.half.take(), piece) {
                (None, Piece::Half(unit)) if self.whole => {
                    self.half = Some(unit);
                    continue;
                }
                (Some(first), Piece::Half(second)) => join_halves(first, second),
                (None, Piece::Escaped(character)) => Some(character),
                (None, Piece::Plain(part)) => {
                    let same = common_length(part, known);
                    self.at += same;
                    if same < part.len() && same < known.len() {
                        return self.depart(start + same);
                    }
                    if same < part.len() {
                        return Ok(start + same);
                    }
                    continue;
                }
                (None | Some(_), Piece::Half(_) | Piece::Plain(_) | Piece::Escaped(_)) => None,
            };
            match pair {
                Some(character) if known.starts_with(character) => self.at += character.len_utf8(),
                Some(_) | None => return self.depart(start),
            }
        }
        Ok(said.raw().len())
    }

    /// The answer goes another way than the text.
    fn depart(&mut self, at: usize) -> Result<usize, Diverged> {
        if self.whole {
            return Err(Diverged);
        }
        self.end();
        Ok(at)
    }
}

/// How many bytes of whole characters two texts begin with alike.
fn common_length(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    a.floor_char_boundary(same)
}
