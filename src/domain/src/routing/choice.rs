//! One target among equals: by weight, by load, or by what calls have in common.

use std::time::Duration;

use super::{Affinity, Balance, Scene, TARGETS_MAX, Why};

/// A set of a route's targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places(u64);

impl Places {
    pub(super) fn of(places: impl Iterator<Item = usize>) -> Self {
        let bits =
            places.filter(|place| *place < TARGETS_MAX).fold(0, |bits, place| bits | 1 << place);
        Self(bits)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..TARGETS_MAX).filter(move |place| self.0 >> place & 1 == 1)
    }

    pub(super) fn only(self, fit: &dyn Fn(usize) -> bool) -> Self {
        Self::of(self.iter().filter(|place| fit(*place)))
    }

    fn without(self, place: usize) -> Self {
        self.only(&|other| other != place)
    }
}

/// The shortest of some times.
pub(super) fn soonest(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    times.min()
}

/// One of a set of equals, by the route's policy; `None` only of an empty set.
pub(super) fn pick(scene: &Scene<'_>, set: Places) -> Option<(usize, Why)> {
    if set.0.is_power_of_two() {
        return set.iter().next().map(|place| (place, Why::Chosen));
    }
    let policy = &scene.route.policy;
    if let (Affinity::Prefix, Some(key)) = (policy.affinity, scene.walk.key) {
        return by_key(scene, set, key).map(|place| (place, Why::Affinity));
    }
    let first = by_weight(scene, set, scene.walk.chance)?;
    let place = match policy.balance {
        Balance::Weighted => first,
        Balance::LeastLoaded => {
            let second = by_weight(scene, set.without(first), mix(scene.walk.chance, 1));
            second.map_or(first, |second| less_loaded(scene, (first, second)))
        }
    };
    Some((place, Why::Chosen))
}

fn weight(scene: &Scene<'_>, place: usize) -> u64 {
    scene.target(place).map_or(0, |target| u64::from(target.weight))
}

/// Drawn in proportion to the weights; evenly if none has any.
fn by_weight(scene: &Scene<'_>, set: Places, chance: u64) -> Option<usize> {
    let sum: u64 = set.iter().map(|place| weight(scene, place)).fold(0, u64::saturating_add);
    let even = u64::from(sum == 0);
    let all = if sum == 0 { u64::from(set.0.count_ones()) } else { sum };
    let mut left = chance.checked_rem(all)?;
    set.iter().find(|place| {
        let share = weight(scene, *place).max(even);
        let here = left < share;
        left = left.saturating_sub(share);
        here
    })
}

/// The one of two that has less to do for its weight, and does it faster and better.
fn less_loaded(scene: &Scene<'_>, (first, second): (usize, usize)) -> usize {
    let (one, other) = ((scene.look)(first), (scene.look)(second));
    // Of one that nobody knows yet it is assumed that it is as fast as the other.
    let latency = |own: u64, other: u64| u128::from(if own == 0 { other } else { own }.max(1));
    let load = |outlook: &super::Outlook, latency: u128, place: usize| {
        let failing = u128::from(outlook.failing_permille).saturating_mul(4).saturating_add(1_000);
        u128::from(outlook.outstanding)
            .saturating_add(1)
            .saturating_mul(latency)
            .saturating_mul(failing)
            .saturating_mul(1_000)
            .checked_div(u128::from(weight(scene, place).max(1)))
            .unwrap_or(u128::MAX)
    };
    let ours = load(&one, latency(one.latency_micros, other.latency_micros), first);
    let theirs = load(&other, latency(other.latency_micros, one.latency_micros), second);
    if theirs < ours { second } else { first }
}

/// Weighted rendezvous: each target draws a number from the key and its own name, and the best wins,
/// so that a target that comes or goes moves no calls but its own. One that has a quarter more to do
/// than the mean is passed over.
fn by_key(scene: &Scene<'_>, set: Places, key: u64) -> Option<usize> {
    let outstanding = |place: usize| u64::from((scene.look)(place).outstanding);
    let count = u64::from(set.0.count_ones());
    let sum = set.iter().map(outstanding).fold(0, u64::saturating_add);
    let bound = sum.saturating_mul(5).saturating_add(count.saturating_mul(4));
    let has_room =
        |place: usize| outstanding(place).saturating_mul(4).saturating_mul(count) <= bound;
    let score = |place: usize| {
        let name = scene.target(place).map_or(0, |target| hash(target.name.as_bytes()));
        draw(mix(key, name), weight(scene, place))
    };
    set.only(&has_room).iter().max_by(|a, b| score(*a).total_cmp(&score(*b)))
}

/// A number whose maximum over several falls to each in proportion to its weight.
fn draw(bits: u64, weight: u64) -> f64 {
    let upper = u32::try_from(bits >> 32).unwrap_or_default();
    let uniform = (f64::from(upper) + 0.5) / (f64::from(u32::MAX) + 1.0);
    f64::from(u32::try_from(weight.max(1)).unwrap_or(u32::MAX)) / -uniform.ln()
}

/// FNV-1a of 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finalizer of `SplitMix64` over both.
fn mix(a: u64, b: u64) -> u64 {
    let mut bits = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
