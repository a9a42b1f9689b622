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
/// The machine has AVX-512 F, BW, VL and BF16; `first` is below the number of rows and `from < to <= K`.
/// `MatrixView` guarantees that all elements lie inside its slice.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_interleaved(
    rows: MatrixView<'_>,
    first: usize,
    [from, to]: [usize; 2],
    lane: Lane,
    mut store: impl FnMut(usize, __m512i),
) {
    let count = (rows.shape[0] - first).min(GROUP);
    let [row_stride, stride] = rows.strides;
    let length = to - from;
    let lanes = length.div_ceil(lane.values());
    let rounds = lane == Lane::RoundedF32;
    let start = first * row_stride + from * stride;
    let some = first_16(count);
    // SAFETY: every address below is that of an element [first + i, from + j] with i < count and
    // j < length, or is masked out.
    unsafe {
        match (stride, row_stride, lane, rows.data) {
            // Rows are contiguous: a transpose of sixteen lanes of sixteen rows at a time.
            (1, _, Lane::F32 | Lane::RoundedF32, FloatSlice::F32(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * row_stride + u);
                    let values = _mm512_maskz_loadu_ps(first_16(length - u), at);
                    if rounds {
                        rounded(values)
                    } else {
                        _mm512_castps_si512(values)
                    }
                };
                transposed(lanes, count, load, store);
            }
            (1, _, Lane::F32 | Lane::RoundedF32, FloatSlice::Bf16(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * row_stride + u);
                    widened(_mm256_maskz_loadu_epi16(first_16(length - u), at.cast()))
                };
                transposed(lanes, count, load, store);
            }
            (1, _, Lane::Bf16Pair, FloatSlice::F32(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * row_stride + 2 * u);
                    let left = length - 2 * u;
                    let low = _mm512_maskz_loadu_ps(first_16(left), at);
                    let high = _mm512_maskz_loadu_ps(first_16(left.saturating_sub(16)), at.wrapping_add(16));
                    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                };
                transposed(lanes, count, load, store);
            }
            (1, _, Lane::Bf16Pair, FloatSlice::Bf16(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * row_stride + 2 * u);
                    _mm512_maskz_loadu_epi16(first_32(length - 2 * u), at.cast())
                };
                transposed(lanes, count, load, store);
            }
            // Columns are contiguous: a vector holds the same lane of sixteen rows.
            (_, 1, Lane::F32 | Lane::RoundedF32, FloatSlice::F32(data)) => {
                for u in 0..lanes {
                    let values = _mm512_maskz_loadu_ps(some, data.as_ptr().add(start + u * stride));
                    store(
                        u,
                        if rounds {
                            rounded(values)
                        } else {
                            _mm512_castps_si512(values)
                        },
                    );
                }
            }
            (_, 1, Lane::F32 | Lane::RoundedF32, FloatSlice::Bf16(data)) => {
                for u in 0..lanes {
                    let at = data.as_ptr().add(start + u * stride);
                    store(u, widened(_mm256_maskz_loadu_epi16(some, at.cast())));
                }
            }
            (_, 1, Lane::Bf16Pair, FloatSlice::F32(data)) => {
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
            (_, 1, Lane::Bf16Pair, FloatSlice::Bf16(data)) => {
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
                let value = |i: usize, j: usize| rows.at(first + i, from + j);
                let rounded = |i: usize, j: usize| {
                    let value = if j < length { value(i, j) } else { 0.0 };
                    u32::from(bf16::from_f32(value).to_bits())
                };
                for u in 0..lanes {
                    let mut packed = [0u32; GROUP];
                    for (i, packed) in packed.iter_mut().enumerate().take(count) {
                        *packed = match lane {
                            Lane::F32 => value(i, u).to_bits(),
                            Lane::RoundedF32 => rounded(i, u) << 16,
                            Lane::Bf16Pair => rounded(i, 2 * u) | rounded(i, 2 * u + 1) << 16,
                        };
                    }
                    store(u, _mm512_loadu_si512(packed.as_ptr().cast()));
                }
            }
        }
    }
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_row_major(
    rows: MatrixView<'_>,
    [first, count]: [usize; 2],
    [from, until]: [usize; 2],
    lane: Lane,
    to: *mut u32,
) {
    let length = until - from;
    let lanes = length.div_ceil(lane.values());
    // SAFETY: every address read is that of an element of a row, or masked out; every one written lies in the
    // room of a packed row.
    unsafe {
        for i in 0..GROUP {
            let to = to.add(i * lanes);
            if i >= count {
                to.write_bytes(0, lanes);
                continue;
            }
            let start = (first + i) * rows.strides[0] + from;
            for u in (0..lanes).step_by(GROUP) {
                let values = u * lane.values();
                let left = length - values;
                let packed = match (lane, rows.data) {
                    (Lane::F32, FloatSlice::F32(data)) => {
                        _mm512_castps_si512(_mm512_maskz_loadu_ps(first_16(left), data.as_ptr().add(start + values)))
                    }
                    (Lane::RoundedF32, FloatSlice::F32(data)) => {
                        rounded(_mm512_maskz_loadu_ps(first_16(left), data.as_ptr().add(start + values)))
                    }
                    (Lane::F32 | Lane::RoundedF32, FloatSlice::Bf16(data)) => widened(_mm256_maskz_loadu_epi16(
                        first_16(left),
                        data.as_ptr().add(start + values).cast(),
                    )),
                    (Lane::Bf16Pair, FloatSlice::F32(data)) => {
                        let at = data.as_ptr().add(start + values);
                        let low = _mm512_maskz_loadu_ps(first_16(left), at);
                        let high = _mm512_maskz_loadu_ps(first_16(left.saturating_sub(16)), at.wrapping_add(16));
                        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                    }
                    (Lane::Bf16Pair, FloatSlice::Bf16(data)) => {
                        _mm512_maskz_loadu_epi16(first_32(left), data.as_ptr().add(start + values).cast())
                    }
                };
                _mm512_mask_storeu_epi32(to.add(u).cast(), first_16(lanes - u), packed);
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

/// f32 values rounded to the nearest even bf16, still in f32.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn rounded(values: __m512) -> __m512i {
    // SAFETY: both are 256 bits of any value.
    widened(unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values)) })
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn transposed(
    lanes: usize,
    count: usize,
    load: impl Fn(usize, usize) -> __m512i,
    mut store: impl FnMut(usize, __m512i),
) {
    for u in (0..lanes).step_by(GROUP) {
        let mut rows = [_mm512_setzero_si512(); GROUP];
        for (i, row) in rows.iter_mut().enumerate().take(count) {
            *row = load(i, u);
        }
        let packed = transpose(rows);
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
