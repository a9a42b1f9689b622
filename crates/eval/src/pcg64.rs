//! NumPy's default generator, so that a script with `numpy.random.default_rng(seed)` repeats a bootstrap
//! draw for draw: PCG64 (O'Neill 2014, PCG XSL RR 128/64) behind NumPy's `SeedSequence`, and
//! `Generator.integers` with Lemire's bounded integers (arXiv 1805.10941).

/// The generator's state.
#[derive(Clone, Debug)]
pub struct Pcg64 {
    state: u128,
    increment: u128,
    /// The upper half of the last 64 bits, where only the lower one was used.
    half: Option<u32>,
}

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

impl Pcg64 {
    /// `numpy.random.default_rng(seed)`.
    pub fn new(seed: u64) -> Self {
        let words = seed_words(seed);
        let wide = |high: usize| u128::from(words[high]) << 64 | u128::from(words[high + 1]);
        let (start, stream) = (wide(0), wide(2));
        let mut rng = Self {
            state: 0,
            increment: stream << 1 | 1,
            half: None,
        };
        rng.step();
        rng.state = rng.state.wrapping_add(start);
        rng.step();
        rng
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }

    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(half) = self.half.take() {
            return half;
        }
        let bits = self.next_u64();
        self.half = Some((bits >> 32) as u32);
        bits as u32
    }

    /// One value of `rng.integers(0, n)` with NumPy's default type: uniform in `0..n`; 0 for `n` below 2,
    /// without a draw.
    pub fn below(&mut self, n: u32) -> u32 {
        if n < 2 {
            return 0;
        }
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let threshold = n.wrapping_neg() % n;
            while (product as u32) < threshold {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }
}

/// `SeedSequence(seed).generate_state(4, numpy.uint64)`.
fn seed_words(seed: u64) -> [u64; 4] {
    const POOL: usize = 4;
    let mut multiplier: u32 = 0x43b0_d7e5;
    let mut hash = |value: u32| {
        let value = value ^ multiplier;
        multiplier = multiplier.wrapping_mul(0x931e_8875);
        let value = value.wrapping_mul(multiplier);
        value ^ value >> 16
    };
    // Words of 32 bits that the seed has, zeros after them: the same as no words.
    let mut pool = [seed as u32, (seed >> 32) as u32, 0, 0].map(&mut hash);
    for source in 0..POOL {
        for target in 0..POOL {
            if source != target {
                let hashed = hash(pool[source]);
                let mixed = pool[target]
                    .wrapping_mul(0xca01_f9dd)
                    .wrapping_sub(hashed.wrapping_mul(0x4973_f715));
                pool[target] = mixed ^ mixed >> 16;
            }
        }
    }
    let mut multiplier: u32 = 0x8b51_f9dd;
    let mut words = [0u64; 4];
    for (index, &value) in pool.iter().cycle().take(8).enumerate() {
        let value = value ^ multiplier;
        multiplier = multiplier.wrapping_mul(0x58f3_8ded);
        let value = value.wrapping_mul(multiplier);
        words[index / 2] |= u64::from(value ^ value >> 16) << (32 * (index % 2));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_numpy_s() {
        // numpy.random.default_rng(seed).integers(0, n, 8), NumPy 2.4.
        for (seed, n, expected) in NUMPY {
            let mut rng = Pcg64::new(seed);
            let ours: Vec<u32> = (0..8).map(|_| rng.below(n)).collect();
            assert_eq!(ours, expected, "seed {seed}, n {n}");
        }
    }

    #[test]
    fn a_range_of_one_takes_no_draw() {
        let mut rng = Pcg64::new(5);
        assert_eq!((rng.below(1), rng.below(0)), (0, 0));
        assert_eq!(rng.below(1000), Pcg64::new(5).below(1000));
    }

    const NUMPY: [(u64, u32, [u32; 8]); 5] = [
        (0, 500, [425, 318, 255, 134, 153, 20, 37, 8]),
        (42, 100, [8, 77, 65, 43, 43, 85, 8, 69]),
        (42, 3, [0, 2, 1, 1, 1, 2, 0, 2]),
        (
            1099511627783,
            4000000000,
            [
                826057830, 3319251567, 2438016523, 1021220632, 68041685, 615162863, 3540752507, 2955362875,
            ],
        ),
        (18446744073709551615, 164, [89, 111, 155, 138, 58, 1, 16, 146]),
    ];
}
