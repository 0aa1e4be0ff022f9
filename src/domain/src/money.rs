//! Money: whole nano-USD, checked arithmetic, one rounding a charge.

use std::fmt;
use std::str::FromStr;

use crate::usage::Usage;

/// An amount in nano-USD (10⁻⁹ USD). A ten-token embedding costs less than a micro-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub i64);

/// Nano-USD in one USD.
pub const NANO_PER_USD: i64 = 1_000_000_000;

/// The most that an account can hold: 9 million USD. Redis compares amounts as doubles, which are exact
/// below 2^53.
pub const ACCOUNT_MAX: NanoUsd = NanoUsd(9_000_000 * NANO_PER_USD);

/// Units that a [`Rate`] is quoted for.
const RATE_UNITS: i128 = 1_000_000;

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum, or `None` beyond the representable range.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The largest amount there is.
    pub const MAX: Self = Self(i64::MAX);

    /// The sum, at most what can be represented. Accounts hold far less ([`ACCOUNT_MAX`]), so the
    /// bound is met only by wants, never by balances.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least what can be represented.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// This amount, or nothing if it is negative.
    #[must_use]
    pub const fn at_least_zero(self) -> Self {
        if self.0 < 0 { Self::ZERO } else { self }
    }
}

impl fmt::Display for NanoUsd {
    /// A decimal string in USD with at least two and at most nine decimals, never an exponent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nano = self.0.unsigned_abs();
        let scale = NANO_PER_USD.unsigned_abs();
        let (whole, fraction) = (nano.checked_div(scale), nano.checked_rem(scale));
        let digits = format!("{:09}", fraction.unwrap_or_default());
        let short = digits.trim_end_matches('0');
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{short:0<2}", whole.unwrap_or_default())
    }
}

/// Why a text is not an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount in USD: write digits with at most nine decimals, such as \"0.15\"")]
pub struct NotAnAmount;

impl FromStr for NanoUsd {
    type Err = NotAnAmount;

    /// Reads a plain decimal such as `12`, `0.15` or `-3.000000001`; no exponent, no sign but `-`.
    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(fraction) || fraction.len() > 9 {
            return Err(NotAnAmount);
        }
        let whole: i64 = whole.parse().map_err(|_| NotAnAmount)?;
        let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| NotAnAmount)?;
        whole
            .checked_mul(NANO_PER_USD)
            .and_then(|nano| nano.checked_add(fraction))
            .and_then(|nano| nano.checked_mul(sign))
            .map(Self)
            .ok_or(NotAnAmount)
    }
}

/// A price in nano-USD per million units (tokens). `$0.15 / 1M tokens` is `Rate(150_000_000)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub i64);

/// What a model costs, by the kinds of [`Usage`]. Every kind has a rate: where a provider names
/// none, the configuration check has filled in the one that the provider bills instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Uncached input.
    pub input: Rate,
    /// Input read from a prompt cache.
    pub input_cache_read: Rate,
    /// Input written to a short-lived prompt cache.
    pub input_cache_write: Rate,
    /// Input written to a long-lived prompt cache.
    pub input_cache_write_long: Rate,
    /// Audio input.
    pub input_audio: Rate,
    /// Image input.
    pub input_image: Rate,
    /// Output.
    pub output: Rate,
    /// Reasoning output.
    pub output_reasoning: Rate,
    /// Audio output.
    pub output_audio: Rate,
    /// Image output.
    pub output_image: Rate,
    /// A fixed amount for each answered request.
    pub request: NanoUsd,
}

impl Price {
    /// A price with one input and one output rate for all kinds.
    pub const fn flat(input: Rate, output: Rate) -> Self {
        Self {
            input,
            input_cache_read: input,
            input_cache_write: input,
            input_cache_write_long: input,
            input_audio: input,
            input_image: input,
            output,
            output_reasoning: output,
            output_audio: output,
            output_image: output,
            request: NanoUsd::ZERO,
        }
    }

    /// What `usage` costs: exact products, one rounding up to the next nano-USD. `None` if the sum
    /// is beyond what an account can hold, which no real call is.
    pub fn charge(&self, usage: &Usage) -> Option<NanoUsd> {
        let parts = [
            (usage.input, self.input),
            (usage.input_cache_read, self.input_cache_read),
            (usage.input_cache_write, self.input_cache_write),
            (usage.input_cache_write_long, self.input_cache_write_long),
            (usage.input_audio, self.input_audio),
            (usage.input_image, self.input_image),
            (usage.output, self.output),
            (usage.output_reasoning, self.output_reasoning),
            (usage.output_audio, self.output_audio),
            (usage.output_image, self.output_image),
        ];
        let scaled = parts.iter().try_fold(0_i128, |sum, (count, rate)| {
            sum.checked_add(i128::from(*count).checked_mul(i128::from(rate.0))?)
        })?;
        let tokens = scaled.checked_add(RATE_UNITS.checked_sub(1)?)?.div_euclid(RATE_UNITS);
        NanoUsd(i64::try_from(tokens).ok()?).checked_add(self.request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_embedding_costs_less_than_a_micro_usd() {
        let price = Price::flat(Rate(20_000_000), Rate(0));
        let usage = Usage { input: 10, ..Usage::default() };
        assert_eq!(price.charge(&usage), Some(NanoUsd(200)));
    }

    #[test]
    fn rounds_up_once() {
        let price = Price::flat(Rate(1), Rate(1));
        let usage = Usage { input: 1, output: 1, ..Usage::default() };
        assert_eq!(price.charge(&usage), Some(NanoUsd(1)));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let price = Price::flat(Rate(i64::MAX), Rate(0));
        assert_eq!(price.charge(&Usage { input: u64::MAX, ..Usage::default() }), None);
    }

    #[test]
    fn amounts_are_decimal_strings() {
        for (text, nano) in
            [("0.00", 0), ("5.00", 5_000_000_000), ("0.15", 150_000_000), ("-0.000000001", -1)]
        {
            assert_eq!(NanoUsd(nano).to_string(), text);
            assert_eq!(text.parse(), Ok(NanoUsd(nano)));
        }
        for bad in ["", ".", "1.", ".5", "1e3", "+1", "1.0000000001", "NaN", "1_0", "99999999999"] {
            assert_eq!(bad.parse::<NanoUsd>(), Err(NotAnAmount), "{bad}");
        }
    }
}
