//! Rearranges a factor so that the kernels read it front to back.
//!
//! A factor is a set of *lines* (rows of the left factor, columns of the right one), each K values
//! long. Sixteen lines are packed together, a [`Unit`] after another, 32 bits each. What is beyond
//! the end of a line, or beyond the last line, is 0.

use super::{Floats, View};
use half::bf16;
use std::arch::x86_64::*;

/// Lines that are packed together.
pub const GROUP: usize = 16;

/// What 32 bits of a packed line hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A value as it is, in f32.
    Value,
    /// A value rounded to bf16, in f32.
    Rounded,
    /// Two values that lie one after the other along K, rounded to bf16.
    Pair,
}

impl Unit {
    /// Values of a line that make one unit.
    pub fn values(self) -> usize {
        match self {
            Self::Value | Self::Rounded => 1,
            Self::Pair => 2,
        }
    }
}

/// Packs rows `line..line + 16` of `lines` `[count, K]`, values `from..to` of each, and hands unit u
/// of all sixteen to `store(u, _)`.
///
/// # Safety
/// The machine has AVX-512 F, BW, VL and BF16; `line` is below the number of rows and
/// `from < to <= K`. `View` guarantees that all elements lie inside its slice.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack(
    lines: View<'_>,
    line: usize,
    [from, to]: [usize; 2],
    unit: Unit,
    mut store: impl FnMut(usize, __m512i),
) {
    let count = (lines.shape[0] - line).min(GROUP);
    let [down, along] = lines.strides;
    let length = to - from;
    let units = length.div_ceil(unit.values());
    let rounds = unit == Unit::Rounded;
    let start = line * down + from * along;
    let some = first_16(count);
    // SAFETY: every address below is that of an element [line + i, from + j] with i < count and
    // j < length, or is masked out.
    unsafe {
        match (along, down, unit, lines.data) {
            // Values of a line lie side by side: sixteen units of sixteen lines at a time.
            (1, _, Unit::Value | Unit::Rounded, Floats::F32(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * down + u);
                    let values = _mm512_maskz_loadu_ps(first_16(length - u), at);
                    if rounds {
                        rounded(values)
                    } else {
                        _mm512_castps_si512(values)
                    }
                };
                transposed(units, count, load, store);
            }
            (1, _, Unit::Value | Unit::Rounded, Floats::Bf16(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * down + u);
                    widened(_mm256_maskz_loadu_epi16(first_16(length - u), at.cast()))
                };
                transposed(units, count, load, store);
            }
            (1, _, Unit::Pair, Floats::F32(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * down + 2 * u);
                    let left = length - 2 * u;
                    let low = _mm512_maskz_loadu_ps(first_16(left), at);
                    let high = _mm512_maskz_loadu_ps(first_16(left.saturating_sub(16)), at.wrapping_add(16));
                    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                };
                transposed(units, count, load, store);
            }
            (1, _, Unit::Pair, Floats::Bf16(data)) => {
                let load = |i: usize, u: usize| {
                    let at = data.as_ptr().add(start + i * down + 2 * u);
                    _mm512_maskz_loadu_epi16(first_32(length - 2 * u), at.cast())
                };
                transposed(units, count, load, store);
            }
            // The lines lie side by side.
            (_, 1, Unit::Value | Unit::Rounded, Floats::F32(data)) => {
                for u in 0..units {
                    let values = _mm512_maskz_loadu_ps(some, data.as_ptr().add(start + u * along));
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
            (_, 1, Unit::Value | Unit::Rounded, Floats::Bf16(data)) => {
                for u in 0..units {
                    let at = data.as_ptr().add(start + u * along);
                    store(u, widened(_mm256_maskz_loadu_epi16(some, at.cast())));
                }
            }
            (_, 1, Unit::Pair, Floats::F32(data)) => {
                let load = |j: usize| {
                    let values = if j < length {
                        _mm512_maskz_loadu_ps(some, data.as_ptr().add(start + j * along))
                    } else {
                        _mm512_setzero_ps()
                    };
                    std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values))
                };
                for u in 0..units {
                    store(u, pairs(load(2 * u), load(2 * u + 1)));
                }
            }
            (_, 1, Unit::Pair, Floats::Bf16(data)) => {
                let load = |j: usize| {
                    if j < length {
                        _mm256_maskz_loadu_epi16(some, data.as_ptr().add(start + j * along).cast())
                    } else {
                        _mm256_setzero_si256()
                    }
                };
                for u in 0..units {
                    store(u, pairs(load(2 * u), load(2 * u + 1)));
                }
            }
            _ => {
                let value = |i: usize, j: usize| lines.at(line + i, from + j);
                let rounded = |i: usize, j: usize| {
                    let value = if j < length { value(i, j) } else { 0.0 };
                    u32::from(bf16::from_f32(value).to_bits())
                };
                for u in 0..units {
                    let mut lanes = [0u32; GROUP];
                    for (i, lane) in lanes.iter_mut().enumerate().take(count) {
                        *lane = match unit {
                            Unit::Value => value(i, u).to_bits(),
                            Unit::Rounded => rounded(i, u) << 16,
                            Unit::Pair => rounded(i, 2 * u) | rounded(i, 2 * u + 1) << 16,
                        };
                    }
                    store(u, _mm512_loadu_si512(lanes.as_ptr().cast()));
                }
            }
        }
    }
}

/// Whether values `from..to` of every line lie in memory as the units that the kernels multiply.
pub fn lies_in_units(lines: View<'_>, [from, to]: [usize; 2], unit: Unit) -> bool {
    let [down, along] = lines.strides;
    along == 1
        && down > 0
        && match (lines.data, unit) {
            (Floats::F32(_), Unit::Value) => true,
            (Floats::Bf16(_), Unit::Pair) => down % 2 == 0 && (to - from) % 2 == 0,
            _ => false,
        }
}

/// Lays lines `line..line + count` (16 at most), whose values lie side by side, one after another at
/// `to`, values `range` of each as units; the lines that there are not, are zeros.
///
/// # Safety
/// As [`pack`], and the lines exist; `to` has room for sixteen times the units of a line.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn lay(lines: View<'_>, [line, count]: [usize; 2], [from, until]: [usize; 2], unit: Unit, to: *mut u32) {
    let length = until - from;
    let units = length.div_ceil(unit.values());
    // SAFETY: every address read is that of an element of a line, or masked out; every one written lies
    // in the units of a line.
    unsafe {
        for i in 0..GROUP {
            let to = to.add(i * units);
            if i >= count {
                to.write_bytes(0, units);
                continue;
            }
            let start = (line + i) * lines.strides[0] + from;
            for u in (0..units).step_by(GROUP) {
                let values = u * unit.values();
                let left = length - values;
                let packed = match (unit, lines.data) {
                    (Unit::Value, Floats::F32(data)) => {
                        _mm512_castps_si512(_mm512_maskz_loadu_ps(first_16(left), data.as_ptr().add(start + values)))
                    }
                    (Unit::Rounded, Floats::F32(data)) => {
                        rounded(_mm512_maskz_loadu_ps(first_16(left), data.as_ptr().add(start + values)))
                    }
                    (Unit::Value | Unit::Rounded, Floats::Bf16(data)) => widened(_mm256_maskz_loadu_epi16(
                        first_16(left),
                        data.as_ptr().add(start + values).cast(),
                    )),
                    (Unit::Pair, Floats::F32(data)) => {
                        let at = data.as_ptr().add(start + values);
                        let low = _mm512_maskz_loadu_ps(first_16(left), at);
                        let high = _mm512_maskz_loadu_ps(first_16(left.saturating_sub(16)), at.wrapping_add(16));
                        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
                    }
                    (Unit::Pair, Floats::Bf16(data)) => {
                        _mm512_maskz_loadu_epi16(first_32(left), data.as_ptr().add(start + values).cast())
                    }
                };
                _mm512_mask_storeu_epi32(to.add(u).cast(), first_16(units - u), packed);
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

/// Loads sixteen units of `count` lines at a time and stores them unit by unit.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
fn transposed(
    units: usize,
    count: usize,
    load: impl Fn(usize, usize) -> __m512i,
    mut store: impl FnMut(usize, __m512i),
) {
    for u in (0..units).step_by(GROUP) {
        let mut lines = [_mm512_setzero_si512(); GROUP];
        for (i, line) in lines.iter_mut().enumerate().take(count) {
            *line = load(i, u);
        }
        let packed = transpose(lines);
        for (i, unit) in packed.into_iter().enumerate().take(units - u) {
            store(u + i, unit);
        }
    }
}

/// Lane j of vector i becomes lane i of vector j.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(r: [__m512i; GROUP]) -> [__m512i; GROUP] {
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
