//! The body of a request: what routing and price need of it, and how an attempt changes it.
//!
//! `Scanner` reads frames as they arrive and tells `Facts`; `Frames` keeps them; a `Splicer` sends
//! them on with the members changed that an attempt needs changed. Nothing here copies a frame or
//! builds a tree, knows HTTP, or judges whether a member's value makes sense.

mod facts;
mod frames;
mod grammar;
mod key;
mod member;
mod numeral;
mod prefill;
mod prefix;
mod scanner;
mod splicer;
mod text;
mod utf8;

#[cfg(test)]
mod tests;

pub use facts::{Facts, Flag, Messages, Model, Name, Number, Options, Span, StreamOptions};
pub use frames::Frames;
pub use prefill::{Prefill, PrefillForm};
pub use prefix::prefix_hash;
pub use scanner::{Scanner, TRAILING_BYTES_MAX};
pub use splicer::{Change, HELD_BYTES_MAX, Splicer};

pub use grammar::DEPTH_MAX;
pub use member::{MODEL_BYTES_MAX, STREAM_OPTIONS_BYTES_MAX};
pub use numeral::INTEGER_DIGITS_MAX;

/// Why a body is no request. A body that is malformed stays so, whatever follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Not one JSON object as RFC 8259 writes it.
    #[error("not one JSON object")]
    Syntax,
    /// The body ended before the object did.
    #[error("the JSON object has no end")]
    Incomplete,
    /// Not UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// Nested deeper than `DEPTH_MAX`.
    #[error("nested too deeply")]
    Depth,
    /// A member that decides routing or price occurs twice, or its key differs only in case.
    #[error("a member that must be unique occurs twice or in another case")]
    DuplicateKey,
    /// The value of `model` or `stream_options` is longer than its bound.
    #[error("a member is too long")]
    MemberTooLong,
    /// An integer has more than `INTEGER_DIGITS_MAX` digits.
    #[error("an integer has too many digits")]
    NumberTooLong,
}

impl Malformed {
    /// A stable name, for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Incomplete => "incomplete",
            Self::Utf8 => "utf8",
            Self::Depth => "depth",
            Self::DuplicateKey => "duplicate_key",
            Self::MemberTooLong => "member_too_long",
            Self::NumberTooLong => "number_too_long",
        }
    }
}

/// A length as an offset. Lossless wherever a `usize` has at most 64 bits.
fn offset(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
