//! stub
use crate::routing::{Failure, Standing};
use crate::time::Tick;
use std::time::Duration;
/// d
#[derive(Clone, Debug, Default)]
pub struct Breaker {}
/// d
#[derive(Clone, Copy, Debug)]
pub struct Permit {}
impl Permit {
    /// d
    pub fn is_probe(&self) -> bool {
        false
    }
}
/// d
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// d
    Closed,
}
impl Change {
    /// d
    pub fn as_str(&self) -> &'static str {
        ""
    }
    /// d
    pub fn off(&self) -> Option<Duration> {
        None
    }
}
impl Breaker {
    /// d
    pub fn standing(&self, _: Tick) -> Standing {
        Standing::Closed
    }
    /// d
    pub fn admit(&mut self, _: Tick) -> Option<Permit> {
        Some(Permit {})
    }
    /// d
    pub fn succeeded(&mut self, _: Permit, _: Tick) -> Option<Change> {
        None
    }
    /// d
    pub fn failed(
        &mut self,
        _: Permit,
        _: Failure,
        _: Option<Duration>,
        _: Tick,
        _: u64,
    ) -> Option<Change> {
        None
    }
    /// d
    pub fn abandoned(&mut self, _: Permit, _: Tick) {}
    /// d
    pub fn failing_permille(&self, _: Tick) -> u32 {
        0
    }
}
