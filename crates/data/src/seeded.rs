//! Random generators as pure functions of a seed and what they are for.

use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

/// A generator for `seed` and the numbers that say what it is for (an epoch, a sample). Equal
/// arguments give equal draws, whatever was drawn before, in whatever order or on which machine.
pub fn generator(seed: u64, purpose: &[u64]) -> Xoshiro256PlusPlus {
    let mixed = purpose
        .iter()
        .fold(mix(seed), |state, &part| mix(state.rotate_left(17) ^ mix(part)));
    Xoshiro256PlusPlus::seed_from_u64(mixed)
}

/// One step of SplitMix64 (Steele, Lea and Flood 2014): near seeds become far ones.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    fn first(seed: u64, purpose: &[u64]) -> u64 {
        generator(seed, purpose).random()
    }

    #[test]
    fn splitmix_gives_the_published_first_value() {
        // First output of SplitMix64 seeded with 0, e.g. Vigna's reference code.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn draws_depend_on_seed_and_purpose_and_on_nothing_else() {
        assert_eq!(first(1, &[2, 3]), first(1, &[2, 3]));
        assert_ne!(first(1, &[2, 3]), first(1, &[3, 2]));
        assert_ne!(first(1, &[2]), first(2, &[1]));
        assert_ne!(first(1, &[]), first(1, &[0]));
    }
}
