//! One target among equals: by weight, by load, or by what calls have in common.

use super::places::Places;
use super::rules::Scene;
use super::{Affinity, Balance, Outlook, Why};

/// What a target's failures of late add to its load: if all have failed it counts five times.
const FAILING_FACTOR: u128 = 4;
/// One call in so many goes where it was drawn to, whatever is known: a target that once was slow would
/// never get a call again to show that it is fast.
const LOOK_AGAIN_EVERY: u64 = 16;

/// One of a set of equals, by the route's policy; `None` only of an empty set.
pub(super) fn pick(scene: &Scene<'_>, set: Places) -> Option<(usize, Why)> {
    if set.count() <= 1 {
        return set.first().map(|place| (place, Why::Chosen));
    }
    let policy = &scene.route.policy;
    if let (Affinity::Prefix, Some(key)) = (policy.affinity, scene.walk.key) {
        return by_key(scene, set, key).map(|place| (place, Why::Affinity));
    }
    let first = by_weight(scene, set, scene.walk.chance)?;
    let place = match policy.balance {
        Balance::Weighted => first,
        Balance::LeastLoaded if mix(scene.walk.chance, 3).is_multiple_of(LOOK_AGAIN_EVERY) => first,
        Balance::LeastLoaded => {
            let second = by_weight(scene, set.without(first), mix(scene.walk.chance, 1));
            second.map_or(first, |second| less_loaded(scene, (first, second)))
        }
    };
    Some((place, Why::Chosen))
}

/// Its weight; that of one without weight, which is among equals only if none has any, is 1.
fn weight(scene: &Scene<'_>, place: usize) -> u64 {
    scene.target(place).map_or(1, |target| u64::from(target.weight.max(1)))
}

fn weights(scene: &Scene<'_>, set: Places) -> u64 {
    set.iter().map(|place| weight(scene, place)).fold(0, u64::saturating_add)
}

/// Drawn in proportion to the weights.
fn by_weight(scene: &Scene<'_>, set: Places, chance: u64) -> Option<usize> {
    let mut left = chance.checked_rem(weights(scene, set))?;
    set.iter().find(|place| {
        let share = weight(scene, *place);
        let here = left < share;
        left = left.saturating_sub(share);
        here
    })
}

/// The one of two that has less to do for its weight, and does it faster and better; of two that are
/// alike the first, which was drawn by its weight.
fn less_loaded(scene: &Scene<'_>, (first, second): (usize, usize)) -> usize {
    let (one, other) = ((scene.look)(first), (scene.look)(second));
    let (ours, theirs) = (u128::from(weight(scene, first)), u128::from(weight(scene, second)));
    // Of one that nobody knows yet it is assumed that it is as fast as the other.
    let latency = |own: u64, other: u64| u128::from(if own == 0 { other } else { own }.max(1));
    // Both loads are multiplied with both weights, so that nothing has to be divided.
    let load = |outlook: &Outlook, latency: u128, others_weight: u128| {
        let failing = u128::from(outlook.failing_permille).saturating_mul(FAILING_FACTOR);
        // What is under way, as if both had the mean weight, and the call that is to come.
        u128::from(outlook.outstanding)
            .saturating_mul(ours.saturating_add(theirs))
            .saturating_mul(others_weight)
            .saturating_add(ours.saturating_mul(theirs).saturating_mul(2))
            .saturating_mul(latency)
            .saturating_mul(failing.saturating_add(1_000))
    };
    let of_first = load(&one, latency(one.latency_micros, other.latency_micros), theirs);
    let of_second = load(&other, latency(other.latency_micros, one.latency_micros), ours);
    if of_second < of_first { second } else { first }
}

/// Weighted rendezvous: each target draws a number from the key and its own name, and the best wins,
/// so that a target that comes or goes moves no calls but its own. One that has more than a quarter
/// above its share of what is under way is passed over; not all can have, so one is always found.
fn by_key(scene: &Scene<'_>, set: Places, key: u64) -> Option<usize> {
    let outstanding = |place: usize| u64::from((scene.look)(place).outstanding);
    let sum = set.iter().map(outstanding).fold(0, u64::saturating_add);
    let all = weights(scene, set).saturating_mul(4);
    let has_room = |place: usize| {
        let share = sum.saturating_mul(5).saturating_mul(weight(scene, place));
        outstanding(place).saturating_mul(all) <= share.saturating_add(all)
    };
    let score = |place: usize| {
        let name = scene.target(place).map_or(0, |target| hash(target.name.as_bytes()));
        draw(mix(key, name), weight(scene, place))
    };
    let scored = |set: Places| {
        set.iter().map(|place| (place, score(place))).max_by(|a, b| a.1.total_cmp(&b.1))
    };
    // What is under way may change while it is counted; a preference is never a veto.
    let best = scored(set.only(has_room)).or_else(|| scored(set));
    best.map(|(place, _)| place)
}

/// A number whose maximum over several falls to each in proportion to its weight.
fn draw(bits: u64, weight: u64) -> f64 {
    let upper = u32::try_from(bits >> 32).unwrap_or_default();
    let uniform = (f64::from(upper) + 0.5) / (f64::from(u32::MAX) + 1.0);
    f64::from(u32::try_from(weight).unwrap_or(u32::MAX)) / -uniform.ln()
}

/// FNV-1a of 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finalizer of `SplitMix64` over both.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut bits = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
