//! A number that stands for the beginning of a prompt, so that calls that share it can be told to go
//! where it is cached. Not for tables that an attacker must not fill: it is quick and has no secret.

use super::frames::Frames;

/// FNV's offset and prime of 64 bits; here a step takes eight bytes.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of up to `bytes_max` bytes of a body from `start` on. Equal bytes give equal hashes, however
/// they were framed.
pub fn prefix_hash(frames: &Frames, start: u64, bytes_max: usize) -> u64 {
    let (mut state, mut word, mut filled, mut left) = (OFFSET, 0_u64, 0_u32, bytes_max);
    for part in frames.parts_from(start) {
        let part = part.get(..left).unwrap_or(part);
        left = left.saturating_sub(part.len());
        for byte in part {
            word = word.rotate_left(8) | u64::from(*byte);
            filled = filled.saturating_add(1);
            if filled == u64::BITS / 8 {
                state = mix(state, word);
                (word, filled) = (0, 0);
            }
        }
    }
    let state = mix(mix(state, word), u64::from(filled));
    // The high bits know of all that the low ones have seen, but not the other way round.
    mix(state, state >> 32)
}

fn mix(state: u64, word: u64) -> u64 {
    let mixed = (state ^ word).wrapping_mul(PRIME);
    mixed ^ (mixed >> 29)
}
