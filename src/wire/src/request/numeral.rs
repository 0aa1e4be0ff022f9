//! A JSON number by its grammar, and its value where it is a plain count.

use super::Malformed;
use super::facts::Number;

/// Most digits of an integer. `CPython` refuses to read longer ones, so an upstream would too.
pub const INTEGER_DIGITS_MAX: u32 = 4300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// After the minus sign.
    Minus,
    /// After an integer's leading zero, which has no second digit.
    Zero,
    /// In an integer's digits.
    Integer,
    /// After the point.
    Point,
    /// In the digits after the point.
    Fraction,
    /// After the `e`.
    Exponent,
    /// After the exponent's sign.
    Sign,
    /// In the exponent's digits.
    Power,
}

/// A number that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numeral {
    part: Part,
    negative: bool,
    digits: u32,
    /// `None` once it has more than 64 bits.
    value: Option<u64>,
}

impl Default for Numeral {
    fn default() -> Self {
        Self { part: Part::Minus, negative: false, digits: 0, value: Some(0) }
    }
}

impl Numeral {
    /// Begins anew with `byte`. Whether a number can.
    pub(super) fn begin(&mut self, byte: u8) -> bool {
        self.part = Part::Minus;
        self.negative = byte == b'-';
        self.digits = 0;
        self.value = Some(0);
        self.negative || self.take(byte)
    }

    /// Reads on. `Some` is how many bytes belong to the number; `None` if all do, so far.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut integer = 0;
        if self.part == Part::Integer {
            integer = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
            bytes.iter().take(integer).for_each(|byte| self.count(*byte));
        }
        let rest = bytes.get(integer..).unwrap_or_default();
        let more = rest.iter().position(|&byte| !self.take(byte))?;
        Some(integer.saturating_add(more))
    }

    /// Takes one more byte, if it belongs to the number.
    fn take(&mut self, byte: u8) -> bool {
        let next = match (self.part, byte) {
            (Part::Minus, b'0') => Part::Zero,
            (Part::Minus, b'1'..=b'9') | (Part::Integer, b'0'..=b'9') => {
                self.count(byte);
                Part::Integer
            }
            (Part::Zero | Part::Integer, b'.') => Part::Point,
            (Part::Point | Part::Fraction, b'0'..=b'9') => Part::Fraction,
            (Part::Zero | Part::Integer | Part::Fraction, b'e' | b'E') => Part::Exponent,
            (Part::Exponent, b'+' | b'-') => Part::Sign,
            (Part::Exponent | Part::Sign | Part::Power, b'0'..=b'9') => Part::Power,
            (
                Part::Minus
                | Part::Zero
                | Part::Integer
                | Part::Point
                | Part::Fraction
                | Part::Exponent
                | Part::Sign
                | Part::Power,
                _,
            ) => return false,
        };
        self.part = next;
        true
    }

    fn count(&mut self, digit: u8) {
        self.digits = self.digits.saturating_add(1);
        let digit = u64::from(digit.saturating_sub(b'0'));
        self.value = self.value.and_then(|value| value.checked_mul(10)?.checked_add(digit));
    }

    /// What it was, once a byte that does not belong to it was seen.
    pub(super) fn end(self) -> Result<Number, Malformed> {
        match self.part {
            Part::Minus | Part::Point | Part::Exponent | Part::Sign => Err(Malformed::Syntax),
            Part::Integer if self.digits > INTEGER_DIGITS_MAX => Err(Malformed::NumberTooLong),
            Part::Zero | Part::Integer if !self.negative => {
                Ok(self.value.map_or(Number::Other, Number::Integer))
            }
            Part::Zero | Part::Integer | Part::Fraction | Part::Power => Ok(Number::Other),
        }
    }
}
