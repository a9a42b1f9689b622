//! Packs rows of a factor so that the kernels read them front to back.
//!
//! Both factors are packed along K: rows of the left factor, columns (rows of the transpose) of the right
//! one. A packed row is a sequence of 32-bit [`Lane`]s. Sixteen rows are interleaved: lane 0 of all of them,
//! then lane 1, and so on. Lanes beyond the end of a row, and rows beyond the last one, are 0.

use crate::{FloatSlice, MatrixView};
use half::bf16;
use std::arch::x86_64::*;

/// Rows that are packed together: the 32-bit lanes of a vector.
pub const GROUP: usize = 16;

/// What a 32-bit lane of a packed row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A value in f32.
    F32,
    /// A value rounded to bf16, in f32.
    RoundedF32,
    /// Two values that follow one another along K, rounded to bf16.
    Bf16Pair,
}

impl Lane {
    /// Values of a row in one lane.
    pub fn values(self) -> usize {
        match self {
            Self::F32 | Self::RoundedF32 => 1,
            Self::Bf16Pair => 2,
        }
    }
}

/// Packs rows `first..first + 16` of `rows` `[count, K]`, values `from..to` of each, interleaved: calls
/// `store(u, _)` with lane u of all sixteen.
///
/// # Safety
/// The machine has AVX-512 F, BW and VL, and BF16 for [`Lane::Bf16Pair`]; `first` is below the number of rows and
/// `from < to <= K`. `MatrixView` guarantees that all elements lie inside its slice.
pub unsafe fn pack_interleaved(
    rows: MatrixView<'_>,
    first: usize,
    range: [usize; 2],
    lane: Lane,
    store: impl FnMut(usize, __m512i),
) {
    // SAFETY: by the caller's promise.
    unsafe {
        match lane {
            Lane::F32 => interleave_values::<false>(rows, first, range, store),
            Lane::RoundedF32 => interleave_values::<true>(rows, first, range, store),
            Lane::Bf16Pair => interleave_pairs(rows, first, range, store),
        }
    }
}

/// [`pack_interleaved`] of values in f32, which `ROUNDS` rounds to bf16.
///
/// # Safety
/// The same; the machine has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn interleave_values<const ROUNDS: bool>(
    rows: MatrixView<'_>,
    first: usize,
    [from, to]: [usize; 2],
    mut store: impl FnMut(usize, __m512i),
) {
    let count = (rows.shape[0] - first).min(GROUP);
    let [row_stride, stride] = rows.strides;
    let length = to - from;
    let start = first * row_stride + from * stride;
    let some = first_16(count);
    // SAFETY: every address below is that of an element [first + i, from + j] with i < count and
    // j < length, or is masked out.
    unsafe {
        match (stride, row_stride, rows.data) {
            // Rows are contiguous: a transpose of sixteen lanes of sixteen rows at a time.
            (1, _, FloatSlice::F32(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * row_stride + u);
                    lanes_of::<ROUNDS>(_mm512_maskz_loadu_ps(first_16(length - u), at))
                };
                transposed(length, count, load, store);
            }
            (1, _, FloatSlice::Bf16(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * row_stride + u);
                    widened(_mm256_maskz_loadu_epi16(first_16(length - u), at.cast()))
                };
                transposed(length, count, load, store);
            }
            // Columns are contiguous: a vector holds the same lane of sixteen rows.
            (_, 1, FloatSlice::F32(data)) => {
                for u in 0..length {
                    let values = _mm512_maskz_loadu_ps(some, data.as_ptr().add(start + u * stride));
                    store(u, lanes_of::<ROUNDS>(values));
                }
            }
            (_, 1, FloatSlice::Bf16(data)) => {
                for u in 0..length {
                    let at = data.as_ptr().add(start + u * stride);
                    store(u, widened(_mm256_maskz_loadu_epi16(some, at.cast())));
                }
            }
            _ => {
                for u in 0..length {
                    let values = gathered(count, |i| rows.at(first + i, from + u).to_bits());
                    store(u, lanes_of::<ROUNDS>(_mm512_castsi512_ps(values)));
                }
            }
        }
    }
}

/// [`pack_interleaved`] of pairs of bf16 values.
///
/// # Safety
/// The same; the machine has AVX-512 F, BW, VL and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn interleave_pairs(
    rows: MatrixView<'_>,
    first: usize,
    [from, to]: [usize; 2],
    mut store: impl FnMut(usize, __m512i),
) {
    let count = (rows.shape[0] - first).min(GROUP);
    let [row_stride, stride] = rows.strides;
    let length = to - from;
    let lanes = length.div_ceil(2);
    let start = first * row_stride + from * stride;
    let some = first_16(count);
    // SAFETY: as in `interleave_values`.
    unsafe {
        match (stride, row_stride, rows.data) {
            (1, _, FloatSlice::F32(data)) => {
                let load = |i: usize, u: usize| {
                    rounded_pairs(data.as_ptr().add(start + i * row_stride + 2 * u), length - 2 * u)
                };
                transposed(lanes, count, load, store);
            }
            (1, _, FloatSlice::Bf16(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * row_stride + 2 * u);
                    _mm512_maskz_loadu_epi16(first_32(length - 2 * u), at.cast())
                };
                transposed(lanes, count, load, store);
            }
            (_, 1, FloatSlice::F32(data)) => {
                let load = |j: usize| {
                    let values = if j < length {
                        _mm512_maskz_loadu_ps(some, data.as_ptr().add(start + j * stride))
                    } else {
                        _mm512_setzero_ps()
                    };
                    std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values))
                };
                for u in 0..lanes {
                    store(u, pairs(load(2 * u), load(2 * u + 1)));
                }
            }
            (_, 1, FloatSlice::Bf16(data)) => {
                let load = |j: usize| {
                    if j < length {
                        _mm256_maskz_loadu_epi16(some, data.as_ptr().add(start + j * stride).cast())
                    } else {
                        _mm256_setzero_si256()
                    }
                };
                for u in 0..lanes {
                    store(u, pairs(load(2 * u), load(2 * u + 1)));
                }
            }
            _ => {
                let bits = |i: usize, j: usize| {
                    let value = if j < length { rows.at(first + i, from + j) } else { 0.0 };
                    u32::from(bf16::from_f32(value).to_bits())
                };
                for u in 0..lanes {
                    store(u, gathered(count, |i| bits(i, 2 * u) | bits(i, 2 * u + 1) << 16));
                }
            }
        }
    }
}

/// A lane of each of `count` rows; those that there are not are zeros.
#[target_feature(enable = "avx512f")]
#[inline]
fn gathered(count: usize, lane: impl Fn(usize) -> u32) -> __m512i {
    let mut lanes = [0; GROUP];
    for (i, to) in lanes.iter_mut().enumerate().take(count) {
        *to = lane(i);
    }
    // SAFETY: sixteen lanes are a vector.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

/// Whether values `from..to` of every row are contiguous in memory in the format of `lane`, so that the
/// kernels can read the rows in place.
pub fn is_in_place(rows: MatrixView<'_>, [from, to]: [usize; 2], lane: Lane) -> bool {
    let [row_stride, stride] = rows.strides;
    stride == 1
        && row_stride > 0
        && match (rows.data, lane) {
            (FloatSlice::F32(_), Lane::F32) => true,
            (FloatSlice::Bf16(_), Lane::Bf16Pair) => row_stride % 2 == 0 && (to - from) % 2 == 0,
            _ => false,
        }
}

/// Packs contiguous rows `first..first + count` (16 at most), values `from..until` of each, row-major at
/// `to`: one row after another, not interleaved. Missing rows are zeros.
///
/// # Safety
/// As [`pack_interleaved`], and the rows exist; `to` has room for sixteen packed rows.
pub unsafe fn pack_row_major(rows: MatrixView<'_>, some: [usize; 2], range: [usize; 2], lane: Lane, to: *mut u32) {
    // SAFETY: by the caller's promise.
    unsafe {
        match lane {
            Lane::F32 => row_major_values::<false>(rows, some, range, to),
            Lane::RoundedF32 => row_major_values::<true>(rows, some, range, to),
            Lane::Bf16Pair => row_major_pairs(rows, some, range, to),
        }
    }
}

/// [`pack_row_major`] of values in f32, which `ROUNDS` rounds to bf16.
///
/// # Safety
/// The same; the machine has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn row_major_values<const ROUNDS: bool>(
    rows: MatrixView<'_>,
    some: [usize; 2],
    [from, until]: [usize; 2],
    to: *mut u32,
) {
    let stride = rows.strides[0];
    // SAFETY: of the values from the address on, as many as are left are read.
    let load = |row: usize, u: usize| unsafe {
        let at = row * stride + from + u;
        let left = first_16(until - from - u);
        match rows.data {
            FloatSlice::F32(data) => lanes_of::<ROUNDS>(_mm512_maskz_loadu_ps(left, data.as_ptr().add(at))),
            FloatSlice::Bf16(data) => widened(_mm256_maskz_loadu_epi16(left, data.as_ptr().add(at).cast())),
        }
    };
    // SAFETY: by the caller's promise.
    unsafe { row_after_row(some, until - from, load, to) };
}

/// [`pack_row_major`] of pairs of bf16 values.
///
/// # Safety
/// The same; the machine has AVX-512 F, BW, VL and BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn row_major_pairs(rows: MatrixView<'_>, some: [usize; 2], [from, until]: [usize; 2], to: *mut u32) {
    let stride = rows.strides[0];
    // SAFETY: as in `row_major_values`.
    let load = |row: usize, u: usize| unsafe {
        let at = row * stride + from + 2 * u;
        let left = until - from - 2 * u;
        match rows.data {
            FloatSlice::F32(data) => rounded_pairs(data.as_ptr().add(at), left),
            FloatSlice::Bf16(data) => _mm512_maskz_loadu_epi16(first_32(left), data.as_ptr().add(at).cast()),
        }
    };
    // SAFETY: by the caller's promise.
    unsafe { row_after_row(some, (until - from).div_ceil(2), load, to) };
}

/// Stores the lanes of rows `first..first + count`, sixteen of a row at a time, one row after another, and zeros for
/// rows that are missing of sixteen.
///
/// # Safety
/// `to` has room for sixteen rows; `load(row, u)`, whose features this is inlined into, gives lanes from u on.
#[inline(always)]
unsafe fn row_after_row(
    [first, count]: [usize; 2],
    lanes: usize,
    load: impl Fn(usize, usize) -> __m512i,
    to: *mut u32,
) {
    // SAFETY: every address lies in the room of a packed row.
    unsafe {
        for i in 0..GROUP {
            let to = to.add(i * lanes);
            if i >= count {
                to.write_bytes(0, lanes);
                continue;
            }
            for u in (0..lanes).step_by(GROUP) {
                _mm512_mask_storeu_epi32(to.add(u).cast(), first_16(lanes - u), load(first + i, u));
            }
        }
    }
}

/// A mask of the first `count` of 16 lanes.
fn first_16(count: usize) -> u16 {
    ((1u32 << count.min(16)) - 1) as u16
}

/// A mask of the first `count` of 32 lanes.
fn first_32(count: usize) -> u32 {
    ((1u64 << count.min(32)) - 1) as u32
}

/// f32 values, rounded to the nearest bf16 if asked for.
#[target_feature(enable = "avx512f")]
#[inline]
fn lanes_of<const ROUNDS: bool>(values: __m512) -> __m512i {
    if ROUNDS {
        rounded(values)
    } else {
        _mm512_castps_si512(values)
    }
}

/// f32 values rounded to the nearest bf16, ties to even, still in f32. What is no number stays what it is.
#[target_feature(enable = "avx512f")]
#[inline]
fn rounded(values: __m512) -> __m512i {
    let bits = _mm512_castps_si512(values);
    let is_odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), is_odd);
    let nearest = _mm512_and_si512(up, _mm512_set1_epi32(0xffff_0000_u32 as i32));
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
    _mm512_mask_mov_epi32(nearest, is_nan, bits)
}

/// Up to 32 f32 values from `at` on, of which `left` exist, rounded to the nearest bf16 in sixteen pairs.
///
/// # Safety
/// `left` values are there, one at least.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
unsafe fn rounded_pairs(at: *const f32, left: usize) -> __m512i {
    // SAFETY: what is beyond the last one is masked out; both are 512 bits of any value.
    unsafe {
        let low = _mm512_maskz_loadu_ps(first_16(left), at);
        let high = _mm512_maskz_loadu_ps(first_16(left.saturating_sub(16)), at.wrapping_add(16));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// bf16 values in f32.
#[target_feature(enable = "avx512f")]
#[inline]
fn widened(values: __m256i) -> __m512i {
    _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(values))
}

/// `low` and `high`, 16 bits a lane, side by side in 32 bits a lane.
#[target_feature(enable = "avx512f")]
#[inline]
fn pairs(low: __m256i, high: __m256i) -> __m512i {
    _mm512_or_si512(
        _mm512_cvtepu16_epi32(low),
        _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high)),
    )
}

/// Loads sixteen lanes of `count` rows at a time, transposes them and stores them lane by lane.
///
/// # Safety
/// The machine has AVX-512 F; `load` may need more, which the caller, that this is inlined into, has.
#[inline(always)]
unsafe fn transposed(
    lanes: usize,
    count: usize,
    load: impl Fn(usize, usize) -> __m512i,
    mut store: impl FnMut(usize, __m512i),
) {
    for u in (0..lanes).step_by(GROUP) {
        // SAFETY: by the caller's promise.
        let packed = unsafe {
            let mut rows = [_mm512_setzero_si512(); GROUP];
            for (i, row) in rows.iter_mut().enumerate().take(count) {
                *row = load(i, u);
            }
            transpose(rows)
        };
        for (i, lane) in packed.into_iter().enumerate().take(lanes - u) {
            store(u + i, lane);
        }
    }
}

/// Lane j of vector i becomes lane i of vector j.
#[target_feature(enable = "avx512f")]
#[inline]
pub fn transpose(r: [__m512i; GROUP]) -> [__m512i; GROUP] {
    // Within each 128-bit part: 2 x 2 blocks, then 4 x 4 blocks.
    let mut t = r;
    for i in (0..GROUP).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    let mut s = t;
    for i in (0..GROUP).step_by(4) {
        s[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        s[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        s[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        s[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // Part b of s[4 g + c] holds lane 4 b + c of vectors 4 g to 4 g + 3: gather the parts.
    let mut out = s;
    for c in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(s[c], s[4 + c]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(s[c], s[4 + c]);
        let more_even = _mm512_shuffle_i32x4::<0x88>(s[8 + c], s[12 + c]);
        let more_odd = _mm512_shuffle_i32x4::<0xdd>(s[8 + c], s[12 + c]);
        out[c] = _mm512_shuffle_i32x4::<0x88>(even, more_even);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd, more_odd);
        out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even, more_even);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd, more_odd);
    }
    out
}
