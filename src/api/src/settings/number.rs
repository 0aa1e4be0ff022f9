//! Numbers that may be written whole or not.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};

/// A length of time in seconds, whole or not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Seconds(
    /// How many.
    pub f64,
);

/// A part of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Fraction(
    /// Which part.
    pub f64,
);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number("a number of seconds")).map(Self)
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number("a number")).map(Self)
    }
}

/// Reads a number, whole or not; says what it should have been.
struct Number(&'static str);

impl Visitor<'_> for Number {
    type Value = f64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_f64<E>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<f64, E> {
        let smaller = |_| E::invalid_value(Unexpected::Unsigned(number), &"a smaller number");
        u32::try_from(number).map(f64::from).map_err(smaller)
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<f64, E> {
        let smaller = |_| E::invalid_value(Unexpected::Signed(number), &"a smaller number");
        i32::try_from(number).map(f64::from).map_err(smaller)
    }
}
