//! Random draws whose values depend on the seed and this file alone.

use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};

/// A stream of draws from xoshiro256++ (Blackman and Vigna 2019). Whole numbers and orders are made from its
/// bits here, because libraries may change how they do that, and a world has to stay the same.
#[derive(Clone, Debug)]
pub struct Draw(Xoshiro256PlusPlus);

impl Draw {
    /// Stream `stream` of `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut seeds = Xoshiro256PlusPlus::seed_from_u64(seed);
        let start = (0..stream).fold(seeds.next_u64(), |_, _| seeds.next_u64());
        Self(Xoshiro256PlusPlus::seed_from_u64(start))
    }

    /// A number from 0 to `n` - 1 (0 where `n` is 0). The bias is below 2⁻⁵⁰ for the `n` of this crate.
    pub fn below(&mut self, n: usize) -> usize {
        let product = u128::from(self.0.next_u64()) * n as u128;
        (product >> 64) as usize
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let values = usize::try_from(high - low + 1).unwrap_or(0);
        low + self.below(values) as i64
    }

    /// True in `percent` of 100 draws.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `values`.
    pub fn pick<T: Copy, const N: usize>(&mut self, values: &[T; N]) -> T {
        const { assert!(N > 0, "nothing to pick from") };
        values[self.below(N)]
    }

    /// Puts `values` into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_stream_decide_every_draw() {
        let draws = |seed, stream| {
            let mut draw = Draw::new(seed, stream);
            (0..8).map(|_| draw.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        assert_ne!(draws(1, 2), draws(2, 2));
    }

    #[test]
    fn numbers_reach_both_ends_and_nothing_beyond() {
        let mut draw = Draw::new(0, 0);
        let drawn: Vec<i64> = (0..1000).map(|_| draw.between(-2, 3)).collect();
        for value in -2..=3 {
            let times = drawn.iter().filter(|&&v| v == value).count();
            assert!((100..240).contains(&times), "{value}: {times} of 1000");
        }
        assert!(drawn.iter().all(|v| (-2..=3).contains(v)));
    }

    #[test]
    fn shuffling_keeps_the_values() {
        let mut values: Vec<usize> = (0..20).collect();
        Draw::new(0, 0).shuffle(&mut values);
        assert_ne!(values, (0..20).collect::<Vec<_>>());
        values.sort_unstable();
        assert_eq!(values, (0..20).collect::<Vec<_>>());
    }
}
