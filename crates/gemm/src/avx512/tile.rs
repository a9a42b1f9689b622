//! The register tile: 8 x 48 results, summed over K in 24 vector registers.

use super::pack::GROUP;
use std::arch::x86_64::*;

/// Rows of the register tile.
pub const ROWS: usize = 8;

/// Columns of the register tile: three vectors.
pub const COLUMNS: usize = 3 * GROUP;

/// A result matrix that several threads write to, each its own part.
#[derive(Clone, Copy)]
pub struct Target {
    pub data: *mut f32,
    pub stride: usize,
    pub add: bool,
}

// SAFETY: each tile is written by the one task that computes it.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// Eight rows of the left factor.
#[derive(Clone, Copy)]
pub struct LeftRows {
    pub start: *const u32,
    /// Lanes from a row to the next where they are row-major; 0 where they are interleaved.
    pub row_stride: usize,
}

impl LeftRows {
    /// Eight interleaved rows.
    pub fn interleaved(start: *const u32) -> Self {
        Self { start, row_stride: 0 }
    }
}

/// `(lanes, rows, columns, target, [row, column] of the tile, [rows, columns] to write)`.
pub type TileKernel = unsafe fn(usize, LeftRows, *const u32, Target, [usize; 2], [usize; 2]);

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $features:literal, |$sum:ident, $left:ident, $right:ident| $step:expr) => {
        $(#[$doc])*
        ///
        /// Writes (or adds) the first `count` rows and columns of the tile at `at` of the target.
        ///
        /// # Safety
        /// The machine has the features; `rows` holds `lanes` lanes of 8 rows, row-major if
        /// `ROW_MAJOR`, else interleaved; `columns` holds `lanes` times 48 lanes on the bounds of cache
        /// lines, of which the first `16 V` are multiplied; the tile lies inside the target, and nothing else
        /// accesses that part of it.
        #[target_feature(enable = $features)]
        pub unsafe fn $name<const ROW_MAJOR: bool, const V: usize>(
            lanes: usize,
            rows: LeftRows,
            columns: *const u32,
            target: Target,
            at: [usize; 2],
            count: [usize; 2],
        ) {
            let first = target.data.wrapping_add(at[0] * target.stride + at[1]);
            // The results' cache lines are prefetched while the products are summed up.
            for i in 0..count[0] {
                for j in 0..V {
                    _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(i * target.stride + GROUP * j).cast());
                }
            }
            let (lane_stride, row_stride) = if ROW_MAJOR { (1, rows.row_stride) } else { (ROWS, 1) };
            let mut sums = [[_mm512_setzero_ps(); V]; ROWS];
            for u in 0..lanes {
                // SAFETY: u is below `lanes`.
                unsafe {
                    let column = columns.add(u * COLUMNS);
                    let right: [__m512i; V] =
                        std::array::from_fn(|j| _mm512_load_si512(column.add(j * GROUP).cast()));
                    // Eight lanes ahead, perhaps in the next panel: a prefetch may go anywhere.
                    for j in 0..V {
                        _mm_prefetch::<_MM_HINT_T0>(column.wrapping_add(8 * COLUMNS + j * GROUP).cast());
                    }
                    let row = rows.start.add(u * lane_stride);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let $left = _mm512_set1_epi32(row.add(i * row_stride).read_unaligned() as i32);
                        for (sum, $right) in sums.iter_mut().zip(right) {
                            let $sum = *sum;
                            *sum = $step;
                        }
                    }
                }
            }
            let masks: [u16; V] =
                std::array::from_fn(|j| ((1u32 << count[1].saturating_sub(GROUP * j).min(GROUP)) - 1) as u16);
            for (i, sums) in sums.iter().enumerate() {
                if i >= count[0] {
                    break;
                }
                for (j, sum) in sums.iter().enumerate() {
                    let to = first.wrapping_add(i * target.stride + GROUP * j);
                    // SAFETY: by the caller's promise; lanes beyond the last column are masked out.
                    unsafe {
                        let sum = if target.add {
                            _mm512_add_ps(*sum, _mm512_maskz_loadu_ps(masks[j], to))
                        } else {
                            *sum
                        };
                        _mm512_mask_storeu_ps(to, masks[j], sum);
                    }
                }
            }
        }
    };
}

kernel!(
    /// A lane is one f32 value: multiply and add.
    multiply_f32,
    "avx512f,avx512bw,avx512vl",
    |sum, left, right| _mm512_fmadd_ps(_mm512_castsi512_ps(left), _mm512_castsi512_ps(right), sum)
);

kernel!(
    /// A lane is a pair of bf16 values: both products are added to its sum.
    multiply_bf16,
    "avx512f,avx512bw,avx512vl,avx512bf16",
    |sum, left, right| _mm512_dpbf16_ps(
        sum,
        std::mem::transmute::<__m512i, __m512bh>(left),
        std::mem::transmute::<__m512i, __m512bh>(right)
    )
);
