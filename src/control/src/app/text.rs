//! What people and programs type: names, amounts, times and identifiers, each with its bounds.

use tokenroute_domain::money::{ACCOUNT_MAX, NanoUsd};
use tokenroute_domain::time::{Timestamp, utc};

use super::Problem;

/// Longest name of a key or an account, in characters.
pub(crate) const NAME_LEN_MAX: usize = 100;
/// Longest note, in characters.
const NOTE_LEN_MAX: usize = 1_000;

/// A field that is not as it should be.
pub(crate) fn invalid(
    reason: &'static str,
    param: &'static str,
    message: impl Into<String>,
) -> Problem {
    Problem::Invalid { reason, param: Some(param), message: message.into() }
}

/// A name that people give.
pub(crate) fn name<'a>(param: &'static str, text: &'a str) -> Result<&'a str, Problem> {
    let length = text.chars().count();
    if (1..=NAME_LEN_MAX).contains(&length) && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    let message =
        format!("{param}: write 1 to {NAME_LEN_MAX} characters, none of them a control character");
    Err(invalid("name_invalid", param, message))
}

/// Why money moves.
pub(crate) fn note(text: Option<&str>) -> Result<&str, Problem> {
    let text = text.unwrap_or_default();
    if text.chars().count() <= NOTE_LEN_MAX && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    let message =
        format!("note: write at most {NOTE_LEN_MAX} characters, none of them a control character");
    Err(invalid("note_invalid", "note", message))
}

/// An amount that is not below nothing.
pub(crate) fn amount(param: &'static str, text: &str) -> Result<NanoUsd, Problem> {
    let amount: Result<NanoUsd, _> = text.parse();
    amount.ok().filter(|amount| *amount >= NanoUsd::ZERO && *amount <= ACCOUNT_MAX).ok_or_else(|| {
        let message = format!(
            "{param}: write an amount in USD from 0 to {ACCOUNT_MAX} as a text, with at most nine \
             decimals, such as \"0.15\""
        );
        invalid("amount_invalid", param, message)
    })
}

/// An amount that can be moved.
pub(crate) fn movable(param: &'static str, text: &str) -> Result<NanoUsd, Problem> {
    let amount = amount(param, text)?;
    if amount > NanoUsd::ZERO {
        return Ok(amount);
    }
    Err(invalid("amount_invalid", param, format!("{param}: write an amount above zero")))
}

/// A point in time.
pub(crate) fn time(param: &'static str, text: &str) -> Result<Timestamp, Problem> {
    utc::parse(text).ok_or_else(|| {
        let message =
            format!("{param}: write a time as RFC 3339 does, such as 2026-11-21T20:00:00Z");
        invalid("time_invalid", param, message)
    })
}
