//! Money: whole nano-USD, checked arithmetic, one rounding a charge.

use std::fmt;
use std::str::FromStr;

mod price;

pub(crate) use price::nano_up;
#[cfg(test)]
pub(crate) use price::tests as tests_of_prices;
pub use price::{
    Billing, Dated, LongContext, PERMILLE, Price, Prices, RATE_SCALE, Rate, ServiceTier,
    TierFactors,
};

/// An amount in nano-USD (10⁻⁹ USD). A ten-token embedding costs less than a micro-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub i64);

/// Nano-USD in one USD.
pub const NANO_PER_USD: i64 = 1_000_000_000;

/// The most that an account can hold: 9 million USD. Redis compares amounts as doubles, which are exact
/// below 2^53.
pub const ACCOUNT_MAX: NanoUsd = NanoUsd(9_000_000 * NANO_PER_USD);

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

#[cfg(test)]
mod tests {
    use super::*;

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
