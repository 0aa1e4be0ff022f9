//! stub
use std::time::Duration;
/// d
#[derive(Clone, Debug, Default)]
pub struct Latencies {}
impl Latencies {
    /// d
    pub fn observe(&mut self, _: u64, _: u64) {}
    /// d
    pub fn quantile(&self, _: u64, _: u32) -> Option<Duration> {
        None
    }
    /// d
    pub fn mean_micros(&self) -> u64 {
        0
    }
}
/// d
#[derive(Clone, Debug, Default)]
pub struct Share {}
impl Share {
    /// d
    pub fn call(&mut self, _: u32) {}
    /// d
    pub fn take(&mut self) -> bool {
        false
    }
}
