//! Weights of 8 and of 4 bits, and their products with few rows.
//!
//! A weight is an integer (8 bits) or one of 16 integer levels (4 bits) times its group's scale, a bf16 number; a
//! group is 32 values of a row: 8.5 and 4.5 bits a value. The 4-bit levels are the quantiles of a normal distribution
//! that Dettmers et al. 2023 (QLoRA, NF4) give, rounded to multiples of 1/127.
//!
//! In a product the rows are rounded to integers of 8 bits too, each 32 values with a scale in f32. So within a group
//! products and sums are exact integers, which a processor with VNNI computes 64 at a time, and reading the weights is
//! what takes the time. Results are the same on every machine, for any number of threads and whatever other rows there
//! are.

/// Calls a kernel with the number of rows and whether weights have four bits as constants. The caller has checked what
/// the kernel needs of the machine.
#[cfg(target_arch = "x86_64")]
macro_rules! by_rows {
    ($kernel:ident($panel:expr, $rows:expr, $bits:expr, $sums:expr): $($count:literal)*) => {
        match ($rows.count(), $bits) {
            $(
                // SAFETY: the machine has been checked.
                ($count, Bits::Eight) => unsafe { $kernel::<$count, false>($panel, $rows, $sums) },
                // SAFETY: as above.
                ($count, Bits::Four) => unsafe { $kernel::<$count, true>($panel, $rows, $sums) },
            )*
            (count, _) => unreachable!("{count} rows at a time, of at most {}", super::MAX_ROWS),
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod layout;
mod portable;
mod rows;
#[cfg(test)]
mod tests;

use crate::simd::to_f32;
use half::bf16;
pub use layout::QuantizedMatrix;
use layout::{Line, PANEL_ROWS};
pub(crate) use rows::QuantizedRows;
pub use rows::round_rows;

/// Values of a group.
pub const GROUP_VALUES: usize = 32;

/// The levels of 4 bits: those of NF4 times 127, rounded.
const LEVELS: [i8; 16] = [-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127];

/// Of the largest magnitude: what a group's scale is chosen from, by its squared error.
const SCALES: [f32; 6] = [1.0, 0.96, 0.92, 0.88, 0.84, 0.8];

/// What is added to an integer of 8 bits, so that it is not negative.
const OFFSET: i32 = 128;

/// How many bits a weight has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Integers from -127 to 127.
    Eight,
    /// Sixteen levels.
    Four,
}

/// 32 values of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Group {
    scale: bf16,
    integers: [i8; GROUP_VALUES],
}

impl Group {
    fn values(&self) -> [f32; GROUP_VALUES] {
        let scale = to_f32(self.scale);
        self.integers.map(|integer| f32::from(integer) * scale)
    }
}

impl Bits {
    /// Rounds rows of `inner` values in place, to what a [`QuantizedMatrix`] of them stands for.
    pub fn round(self, values: &mut [f32], inner: usize) {
        for row in values.chunks_mut(inner.max(1)) {
            for values in row.chunks_mut(GROUP_VALUES) {
                let rounded = self.group(values).values();
                values.copy_from_slice(&rounded[..values.len()]);
            }
        }
    }

    /// Rounds up to 32 values; those that there are not are zeros. Values that are not finite are rounded to any.
    fn group(self, values: &[f32]) -> Group {
        let mut all = [0.0; GROUP_VALUES];
        all[..values.len()].copy_from_slice(values);
        let largest = all.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let with = |scale: bf16, nearest: fn(f32) -> i8| {
            let inverse = match to_f32(scale) {
                scale if scale > 0.0 => 1.0 / scale,
                _ => 0.0,
            };
            Group {
                scale,
                integers: all.map(|value| nearest(value * inverse)),
            }
        };
        if self == Self::Eight {
            // The scale may have been rounded down.
            let nearest = |value: f32| value.round_ties_even().clamp(-127.0, 127.0) as i8;
            return with(bf16::from_f32(largest / 127.0), nearest);
        }
        let error = |group: &Group| {
            let errors = all
                .iter()
                .zip(group.values())
                .map(|(value, rounded)| (value - rounded).powi(2));
            errors.sum::<f32>()
        };
        let mut best = with(bf16::from_f32(largest / 127.0), nearest_level);
        let mut least = error(&best);
        for share in &SCALES[1..] {
            let group = with(bf16::from_f32(largest / 127.0 * share), nearest_level);
            let of_group = error(&group);
            if of_group < least {
                (best, least) = (group, of_group);
            }
        }
        best
    }

    /// What a weight is stored as: the integer plus 128, or the level's index.
    fn code(self, integer: i8) -> u8 {
        match self {
            Self::Eight => (i32::from(integer) + OFFSET) as u8,
            Self::Four => index(f32::from(integer)) as u8,
        }
    }
}

/// The index of the level that is nearest, the lower one of two.
fn index(value: f32) -> usize {
    let between = |pair: &[i8]| f32::from(pair[0]) + (f32::from(pair[1]) - f32::from(pair[0])) / 2.0;
    LEVELS.windows(2).filter(|pair| value > between(pair)).count()
}

fn nearest_level(value: f32) -> i8 {
    LEVELS[index(value)]
}

/// Multiplies all rows with rows `first..first + count` of the weight; `to` `[R, count]`. `first` is a multiple of
/// [`PANEL_ROWS`].
pub(crate) fn multiply(to: &mut [f32], rows: &QuantizedRows, weight: &QuantizedMatrix, [first, count]: [usize; 2]) {
    #[cfg(target_arch = "x86_64")]
    if avx512::is_present() {
        return panels(to, rows, weight, [first, count], |panel, group, sums| {
            avx512::multiply(panel, group, weight.bits(), sums);
        });
    }
    #[cfg(target_arch = "x86_64")]
    if avx2::is_present() {
        return panels(to, rows, weight, [first, count], |panel, group, sums| {
            avx2::multiply(panel, group, weight.bits(), sums);
        });
    }
    panels(to, rows, weight, [first, count], |panel, group, sums| {
        portable::multiply(panel, group, weight.bits(), sums);
    });
}

/// Rows that are multiplied at a time, at most.
const MAX_ROWS: usize = 8;

/// Calls `kernel` with a panel, some rows and their sums.
fn panels(
    to: &mut [f32],
    rows: &QuantizedRows,
    weight: &QuantizedMatrix,
    [first, count]: [usize; 2],
    kernel: impl Fn(&[Line], rows::Some<'_>, &mut [[f32; PANEL_ROWS]]),
) {
    assert!(first.is_multiple_of(PANEL_ROWS) && to.len() == rows.count() * count);
    // As even as possible: nine rows are five and four, not eight and one.
    let at_a_time = rows.count().div_ceil(rows.count().div_ceil(MAX_ROWS)).max(1);
    for j in (0..count).step_by(PANEL_ROWS) {
        let panel = weight.panel((first + j) / PANEL_ROWS);
        let some = PANEL_ROWS.min(count - j);
        for r in (0..rows.count()).step_by(at_a_time) {
            let group = rows.some(r, at_a_time.min(rows.count() - r));
            let mut sums = [[0.0; PANEL_ROWS]; MAX_ROWS];
            let sums = &mut sums[..group.count()];
            kernel(panel, group, sums);
            for (i, sums) in sums.iter().enumerate() {
                to[(r + i) * count + j..][..some].copy_from_slice(&sums[..some]);
            }
        }
    }
}
