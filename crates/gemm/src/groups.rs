//! Weights of 8 and of 4 bits: groups of 32 values of a row, each with a scale.
//!
//! A value is an integer (8 bits) or one of 16 levels (4 bits) times its group's scale, a bf16 number: 8.5 and 4.5
//! bits a value. The levels are the quantiles of a normal distribution that Dettmers et al. 2023 (QLoRA, NF4) give.

use crate::simd::to_f32;
use half::bf16;

/// Values of a group.
pub const GROUP_VALUES: usize = 32;

/// The levels of 4 bits, times the scale.
pub const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Of the largest magnitude: what a group's scale is chosen from, by its squared error.
const SCALES: [f32; 6] = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8];

/// 32 values of a row in 8 bits each.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Int8Group {
    pub(crate) scale: bf16,
    pub(crate) values: [i8; GROUP_VALUES],
}

/// 32 values of a row in 4 bits each: value i in the lower half of byte i, value i + 16 in the upper one.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Int4Group {
    pub(crate) scale: bf16,
    pub(crate) values: [u8; GROUP_VALUES / 2],
}

/// A group of values with a scale.
pub trait QuantizedGroup: Copy + Send + Sync + 'static {
    /// Rounds up to 32 values; those that there are not are zeros. Values that are not finite are rounded to any.
    fn of(values: &[f32]) -> Self;

    /// The values that it stands for.
    fn values(&self) -> [f32; GROUP_VALUES];
}

/// Up to 32 values, the rest zeros, and their largest magnitude.
fn padded(values: &[f32]) -> ([f32; GROUP_VALUES], f32) {
    let mut all = [0.0; GROUP_VALUES];
    all[..values.len()].copy_from_slice(values);
    let largest = all.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    (all, largest)
}

/// What to multiply with to get from values to multiples of the scale; 0 for a scale of 0.
fn inverse(scale: bf16) -> f32 {
    match to_f32(scale) {
        scale if scale > 0.0 => 1.0 / scale,
        _ => 0.0,
    }
}

impl QuantizedGroup for Int8Group {
    fn of(values: &[f32]) -> Self {
        let (all, largest) = padded(values);
        let scale = bf16::from_f32(largest / 127.0);
        let inverse = inverse(scale);
        Self {
            scale,
            // The scale may have been rounded down.
            values: all.map(|value| (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8),
        }
    }

    fn values(&self) -> [f32; GROUP_VALUES] {
        let scale = to_f32(self.scale);
        self.values.map(|value| f32::from(value) * scale)
    }
}

/// The index of the level that is nearest.
fn nearest(value: f32) -> u8 {
    LEVELS
        .windows(2)
        .filter(|pair| value > (pair[0] + pair[1]) / 2.0)
        .count() as u8
}

impl QuantizedGroup for Int4Group {
    fn of(values: &[f32]) -> Self {
        let (all, largest) = padded(values);
        let with = |share: f32| {
            let scale = bf16::from_f32(largest * share);
            let inverse = inverse(scale);
            let levels = all.map(|value| nearest(value * inverse));
            let group = Self {
                scale,
                values: std::array::from_fn(|i| levels[i] | levels[i + GROUP_VALUES / 2] << 4),
            };
            let errors = all
                .iter()
                .zip(group.values())
                .map(|(value, rounded)| (value - rounded).powi(2));
            (errors.sum::<f32>(), group)
        };
        let mut best = with(SCALES[0]);
        for other in SCALES[1..].iter().map(|share| with(*share)) {
            if other.0 < best.0 {
                best = other;
            }
        }
        best.1
    }

    fn values(&self) -> [f32; GROUP_VALUES] {
        let scale = to_f32(self.scale);
        std::array::from_fn(|i| {
            let byte = self.values[i % (GROUP_VALUES / 2)];
            let level = if i < GROUP_VALUES / 2 { byte & 15 } else { byte >> 4 };
            LEVELS[usize::from(level)] * scale
        })
    }
}

/// Groups of the rows of a weight `[N, K]`, row after row; each row begins with a group.
pub fn quantized<G: QuantizedGroup>(weight: impl Fn(usize) -> Vec<f32> + Sync, rows: usize) -> Vec<G> {
    use rayon::prelude::*;
    let groups = |row: usize| weight(row).chunks(GROUP_VALUES).map(G::of).collect::<Vec<_>>();
    (0..rows).into_par_iter().flat_map_iter(groups).collect()
}

/// Writes the first `to.len()` values of a row's groups.
pub fn dequantize<G: QuantizedGroup>(groups: &[G], to: &mut [f32]) {
    for (to, group) in to.chunks_mut(GROUP_VALUES).zip(groups) {
        to.copy_from_slice(&group.values()[..to.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_values::values;

    /// 127 / 127 = 1 is the scale: integers are themselves, and 0.5 goes to the even one.
    #[test]
    fn eight_bits_by_hand() {
        let group = Int8Group::of(&[127.0, -3.0, 0.5, 1.5, -126.9]);
        assert_eq!(group.values()[..6], [127.0, -3.0, 0.0, 2.0, -127.0, 0.0]);
        assert_eq!(size_of::<Int8Group>(), 34);
    }

    /// The largest magnitude, and levels of it, are themselves where that is the best scale.
    #[test]
    fn four_bits_by_hand() {
        let exact: Vec<f32> = LEVELS.iter().map(|level| 2.0 * level).collect();
        let group = Int4Group::of(&exact);
        assert_eq!(group.values()[..16], exact[..]);
        assert_eq!(group.values()[16..], [0.0; 16]);
        assert_eq!(size_of::<Int4Group>(), 18);
        // Half-way between the levels 0 and 0.0796, and a little above.
        let low = Int4Group::of(&[1.0, -1.0, 0.039, 0.041]);
        assert_eq!(low.values()[2..4], [0.0, LEVELS[8]]);
    }

    /// Errors of random groups against the bounds of their steps: half of a scale for integers (and what a scale that
    /// was rounded down cuts off), half of the widest gap between levels.
    #[test]
    fn errors_are_within_half_a_step() {
        for seed in 0..200 {
            let exact = values(32, seed);
            let largest = exact.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let error = |rounded: [f32; 32]| {
                let errors = exact
                    .iter()
                    .zip(rounded)
                    .map(|(exact, rounded)| (exact - rounded).abs());
                errors.fold(0.0, f32::max) / largest
            };
            assert!(error(Int8Group::of(&exact).values()) <= 0.5 / 127.0 + 1.0 / 256.0);
            // The least scale cuts off a fifth.
            assert!(error(Int4Group::of(&exact).values()) <= 0.2 + 0.003);
        }
    }

    #[test]
    fn nothing_and_what_is_not_finite_makes_no_panic() {
        for odd in [0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 4.0] {
            let (eight, four) = (Int8Group::of(&[odd; 3]), Int4Group::of(&[odd; 3]));
            if odd == 0.0 {
                assert_eq!((eight.values(), four.values()), ([0.0; 32], [0.0; 32]));
            }
        }
    }

    #[test]
    fn rows_begin_with_a_group() {
        let rows = [values(40, 1), values(40, 2)];
        let groups: Vec<Int8Group> = quantized(|row| rows[row].clone(), 2);
        assert_eq!(groups.len(), 4);
        let mut back = vec![0.0; 40];
        dequantize(&groups[2..], &mut back);
        let close = back.iter().zip(&rows[1]).all(|(a, b)| (a - b).abs() < 0.02);
        assert!(close, "{back:?} {:?}", rows[1]);
    }
}
