//! The shared side: what a bucket or a number of slots gives to an edge that asks. The hot store does the
//! same in a script of its own, and a test holds the two together.

use std::collections::BTreeMap;
use std::time::Duration;

use super::gcra::Gcra;
use super::{slice, slots};
use crate::time::Tick;

/// How much of what is `free` of a `limit` may be given for calls to come: a third while at least half is
/// there, else a sixteenth, so that nobody hoards what others need.
const fn spare(free: u64, limit: u64) -> u64 {
    if free.saturating_mul(2) >= limit { free.div_ceil(3) } else { free / 16 }
}

/// Answers one edge's question to a bucket.
pub fn draw(bucket: &mut Gcra, ask: &slice::Ask, now: Tick) -> slice::Told {
    let rate = ask.rate;
    if ask.correction >= 0 {
        bucket.force(rate, ask.correction.unsigned_abs(), now);
    } else {
        bucket.give_back(rate, ask.correction.unsigned_abs(), now);
    }
    let available = bucket.available(rate, now);
    let needed = if available >= ask.least { ask.need.min(available) } else { 0 };
    let free = available.saturating_sub(needed);
    let ahead = if needed == ask.need { ask.ahead.min(spare(free, rate.limit())) } else { 0 };
    let granted = needed.saturating_add(ahead);
    bucket.force(rate, granted, now);
    slice::Told { granted, taken_milli: bucket.taken_milli(rate, now) }
}

/// Calls at the same time, by edge: how many slots it holds and until when.
#[derive(Clone, Debug, Default)]
pub struct Leases(BTreeMap<u64, (u32, Tick)>);

impl Leases {
    /// Answers one edge's question. A call that runs keeps its slot, even beyond the limit.
    pub fn hold(&mut self, edge: u64, ask: &slots::Ask, lease: Duration, now: Tick) -> slots::Told {
        self.0.remove(&edge);
        self.0.retain(|_, (_, end)| *end > now);
        let others = self.0.values().fold(0_u32, |sum, (held, _)| sum.saturating_add(*held));
        let room = ask.limit.saturating_sub(others);
        let needed = ask.need.min(room).max(ask.in_use);
        let free = room.saturating_sub(needed);
        let spare = spare(free.into(), ask.limit.into());
        let ahead = ask.ahead.min(u32::try_from(spare).unwrap_or(u32::MAX));
        let held = needed.saturating_add(if needed >= ask.need { ahead } else { 0 });
        if held > 0 {
            self.0.insert(edge, (held, now.plus(lease)));
        }
        slots::Told { held, left: room.saturating_sub(held) }
    }
}
