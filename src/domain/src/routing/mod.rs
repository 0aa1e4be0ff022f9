//! stub
mod failure;
mod policy;
use crate::catalog::Route;
pub use failure::{Blame, Failure, Why};
pub use policy::{Affinity, Balance, Hedge, OnBreak, Patience, Policy};
use std::time::Duration;
/// d
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// d
    pub place: usize,
    /// d
    pub failure: Failure,
    /// d
    pub retry_after: Option<Duration>,
}
/// d
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// d
    pub tried: &'a [Tried],
    /// d
    pub replayable: bool,
    /// d
    pub elapsed: Duration,
    /// d
    pub may_retry: bool,
    /// d
    pub key: Option<u64>,
    /// d
    pub chance: u64,
}
/// d
#[derive(Clone, Copy, Debug)]
pub enum Standing {
    /// d
    Closed,
    /// d
    HalfOpen,
    /// d
    Open {
        /// d
        left: Duration,
    },
    /// d
    Cooling {
        /// d
        left: Duration,
    },
}
/// d
#[derive(Clone, Copy, Debug)]
pub struct Outlook {
    /// d
    pub standing: Standing,
    /// d
    pub hinted: bool,
    /// d
    pub outstanding: u32,
    /// d
    pub latency_micros: u64,
    /// d
    pub failing_permille: u32,
}
/// d
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// d
    Try {
        /// d
        place: usize,
        /// d
        pooled: bool,
        /// d
        wait: Duration,
        /// d
        why: Why,
    },
    /// d
    GiveUp {
        /// d
        retry_after: Option<Duration>,
    },
}
/// d
pub fn next(route: &Route, walk: &Walk<'_>, _: &dyn Fn(usize) -> Outlook) -> Step {
    let n = walk.tried.len();
    if let Some(t) = walk.tried.last()
        && t.failure == Failure::Stale
    {
        return Step::Try {
            place: t.place,
            pooled: false,
            wait: Duration::ZERO,
            why: Why::Reconnect,
        };
    }
    if n < route.targets.len() && walk.replayable {
        Step::Try {
            place: n,
            pooled: true,
            wait: Duration::ZERO,
            why: if n == 0 { Why::Chosen } else { Why::Fallback },
        }
    } else {
        Step::GiveUp { retry_after: None }
    }
}
/// d
pub fn hedge(_: &Route, _: &Walk<'_>, _: usize, _: &dyn Fn(usize) -> Outlook) -> Option<usize> {
    None
}
/// d
pub fn continuation(route: &Route, walk: &Walk<'_>, _: &dyn Fn(usize) -> Outlook) -> Option<usize> {
    (0..route.targets.len()).find(|p| !walk.tried.iter().any(|t| t.place == *p))
}
