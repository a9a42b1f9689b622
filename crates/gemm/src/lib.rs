//! Matrix products on slices in host memory, in f32 or with factors rounded to bf16.
//!
//! `to [M, N] (+)= left [M, K] * right [K, N]`; results and sums are f32. [`Precision::Bf16`] rounds both
//! factors to bf16 (nearest even) while it packs them, whatever type they are stored in: weights can stay
//! f32, and no rounded copy of them ever exists.
//!
//! | machine | f32 | bf16 |
//! |---|---|---|
//! | x86-64 with AVX-512 BF16 and AMX (tiles for bf16) | as below | own kernel, `tdpbf16ps` ([`tiles`]) |
//! | x86-64 with AVX-512 F, BW and VL | own kernel, fused multiply-add | with BF16 own kernel, `vdpbf16ps` (two products a lane); on Intel, where that is slower or missing, the f32 kernel on rounded values |
//! | x86-64 with AVX2 and FMA | own kernel | the same on rounded values |
//! | every other | the `gemm` crate | factors rounded to bf16, then the `gemm` crate in f32 |
//!
//! The choice ([`Isa`]) is made once, at run time. `WMTP_GEMM=amx|avx512|avx2|portable` in the environment selects a row
//! that the machine has; it exists to test them. All rows round the same values and differ in summation order
//! only. Every element is summed by one thread in an order that
//! depends on the shapes alone, so results do not depend on the number of threads.
//!
//! The blocking follows Goto and van de Geijn 2008, Anatomy of high-performance matrix multiplication: the
//! smaller factor is packed once for all threads, the larger one panel by panel. A left factor whose rows are
//! contiguous is read in place.
//!
//! [`matmul_skinny`] multiplies few rows, which is bound by memory bandwidth. This crate depends on no tensor
//! library.
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod isa;
mod options;
#[cfg(target_arch = "x86_64")]
mod panels;
mod portable;
mod processor;
mod quantized;
pub mod simd;
mod skinny;
#[cfg(test)]
mod test_values;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub mod tiles;
mod view;

use half::bf16;
use isa::isa;
pub use isa::{Isa, VARIABLE};
pub use options::{Precision, Threads};
#[cfg(target_arch = "x86_64")]
use processor::bf16_dot_is_faster;
pub use processor::instruction_sets;
pub use quantized::{Bits, GROUP_VALUES, QuantizedMatrix, round_rows};
use rayon::prelude::*;
pub use skinny::{SKINNY_MAX_ROWS, SkinnyOutput, SkinnyWeight, matmul_skinny, matmul_skinny_many};
pub use view::{FloatSlice, FloatSliceMut, MatrixView};

/// `to = left * right`, or `to += left * right` if `accumulate`; row i of the result starts at
/// `to[i * to_stride]`. On all threads of the current rayon pool.
///
/// # Panics
/// If the shapes do not fit together or the result does not fit into `to`.
pub fn matmul(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    left: MatrixView<'_>,
    right: MatrixView<'_>,
    precision: Precision,
) {
    multiply(to, to_stride, accumulate, [left, right], precision, Threads::All);
}

/// [`matmul`] on the calling thread alone, for products inside a task.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_single_threaded(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    left: MatrixView<'_>,
    right: MatrixView<'_>,
    precision: Precision,
) {
    multiply(to, to_stride, accumulate, [left, right], precision, Threads::Calling);
}

/// `left * right` `[M, N]`, row-major without gaps, summed in f32 and rounded to bf16 once. On all threads of the
/// current rayon pool; on tiles no sum goes to memory in f32.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_to_bf16(left: MatrixView<'_>, right: MatrixView<'_>, precision: Precision) -> Vec<bf16> {
    let ([m, k], [_, n]) = (left.shape, right.shape);
    #[cfg(target_arch = "x86_64")]
    if (isa(), precision) == (Isa::Amx, Precision::Bf16) && k <= tiles::LONGEST {
        return tiles_to_bf16::<tiles::Amx>(left, right);
    }
    let mut sums = vec![0.0; m * n];
    if n > 0 {
        matmul(&mut sums, n, false, left, right, precision);
    }
    let mut to = vec![bf16::ZERO; m * n];
    to.par_chunks_mut(ROUNDED_AT_ONCE)
        .zip(sums.par_chunks(ROUNDED_AT_ONCE))
        .for_each(|(to, sums)| simd::narrow(sums, to));
    to
}

/// Values that a task rounds.
const ROUNDED_AT_ONCE: usize = 1 << 14;

#[cfg(target_arch = "x86_64")]
fn tiles_to_bf16<U: tiles::TileUnit>(left: MatrixView<'_>, right: MatrixView<'_>) -> Vec<bf16> {
    let ([m, k], [inner, n]) = (left.shape, right.shape);
    assert!(k == inner, "[{m}, {k}] times [{inner}, {n}] is not a product");
    let mut to = vec![bf16::ZERO; m * n];
    let target = tiles::Target {
        data: to.as_mut_ptr().cast(),
        rows: m,
        columns: n,
        stride: n,
        kind: tiles::Kind::Rounded,
    };
    let factors = [left, right.transposed()].map(tiles::Factor::Lines);
    // SAFETY: `to` has M rows of N, and is borrowed exclusively.
    unsafe { tiles::multiply::<U>(target, factors[0], factors[1], Threads::All) };
    to
}

/// A right factor that is packed once and multiplied with many left ones.
pub struct PackedRight<'a> {
    right: MatrixView<'a>,
    precision: Precision,
    #[cfg(target_arch = "x86_64")]
    packed: Option<PackedFor>,
}

/// What a right factor is packed for.
#[cfg(target_arch = "x86_64")]
enum PackedFor {
    Avx2(avx2::PackedRight),
    Avx512(avx512::PackedRight),
    Tiles(tiles::Packed),
}

impl<'a> PackedRight<'a> {
    /// Packs `right` `[K, N]` on all threads of the current rayon pool.
    pub fn new(right: MatrixView<'a>, precision: Precision) -> Self {
        Self {
            right,
            precision,
            #[cfg(target_arch = "x86_64")]
            packed: Self::pack(right, precision),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn pack(right: MatrixView<'a>, precision: Precision) -> Option<PackedFor> {
        if right.shape.contains(&0) {
            return None;
        }
        match (isa(), precision) {
            (Isa::Portable, _) => None,
            (Isa::Avx2, _) => Some(PackedFor::Avx2(avx2::PackedRight::new(right, precision))),
            (Isa::Amx, Precision::Bf16) => (right.shape[0] <= tiles::LONGEST).then(|| {
                let mut packed = tiles::Packed::default();
                packed.fill(right.transposed(), tiles::Side::Right, Threads::All);
                PackedFor::Tiles(packed)
            }),
            _ => Some(PackedFor::Avx512(avx512::PackedRight::new(right, lane(precision)))),
        }
    }

    /// `to = left * right`, or `to += left * right` if `accumulate`, on the calling thread; row i starts at
    /// `to[i * to_stride]`. A left factor with contiguous rows in the precision's own type is read in place.
    ///
    /// # Panics
    /// As [`matmul`].
    pub fn matmul(&self, to: &mut [f32], to_stride: usize, accumulate: bool, left: MatrixView<'_>) {
        #[cfg(target_arch = "x86_64")]
        if let (Some(packed), false) = (&self.packed, left.shape.contains(&0)) {
            check(to, to_stride, left, self.right);
            let factors = [left, self.right];
            match packed {
                PackedFor::Avx2(packed) => packed.multiply(to, to_stride, accumulate, factors, self.precision),
                PackedFor::Avx512(packed) => {
                    packed.multiply(to, to_stride, accumulate, factors, lane(self.precision));
                }
                PackedFor::Tiles(packed) => {
                    let right = tiles::Factor::Packed(packed);
                    on_tiles(to, to_stride, accumulate, left, right, Threads::Calling);
                }
            }
            return;
        }
        matmul_single_threaded(to, to_stride, accumulate, left, self.right, self.precision);
    }
}

/// # Panics
/// If the shapes do not fit together or the result does not fit into `to`.
fn check(to: &[f32], to_stride: usize, left: MatrixView<'_>, right: MatrixView<'_>) {
    let ([m, k], [inner, n]) = (left.shape, right.shape);
    assert!(k == inner, "[{m}, {k}] times [{inner}, {n}] is not a product");
    assert!(
        m == 0 || (n <= to_stride && (m - 1) * to_stride + n <= to.len()),
        "{m} rows of {n}, {to_stride} apart, do not fit into {} elements",
        to.len()
    );
}

fn multiply(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    [left, right]: [MatrixView<'_>; 2],
    precision: Precision,
    threads: Threads,
) {
    check(to, to_stride, left, right);
    let ([m, k], [_, n]) = (left.shape, right.shape);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            to.chunks_mut(to_stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    #[cfg(target_arch = "x86_64")]
    match (isa(), precision) {
        (Isa::Portable, _) => {}
        (Isa::Avx2, _) => return avx2::matmul(to, to_stride, accumulate, [left, right], precision, threads),
        (Isa::Amx, Precision::Bf16) => {
            let right = tiles::Factor::Lines(right.transposed());
            return on_tiles(to, to_stride, accumulate, left, right, threads);
        }
        _ => return avx512::matmul(to, to_stride, accumulate, [left, right], lane(precision), threads),
    }
    portable::matmul(to, to_stride, accumulate, [left, right], precision, threads);
}

/// A product in bf16 on the processor's tiles; `multiply` has checked the shapes, `isa` the machine.
#[cfg(target_arch = "x86_64")]
fn on_tiles(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    left: MatrixView<'_>,
    right: tiles::Factor<'_>,
    threads: Threads,
) {
    /// Values from which on a result leaves the caches before it is read.
    const STREAMED: usize = 4 << 20;
    let (rows, columns) = (left.shape[0], right.count());
    let target = tiles::Target {
        data: to.as_mut_ptr().cast(),
        rows,
        columns,
        stride: to_stride,
        kind: match accumulate {
            true => tiles::Kind::Add,
            false if rows * columns > STREAMED => tiles::Kind::Stream,
            false => tiles::Kind::Set,
        },
    };
    // SAFETY: `check` has found that the rows lie inside `to`, which is borrowed exclusively.
    unsafe { tiles::multiply::<tiles::Amx>(target, tiles::Factor::Lines(left), right, threads) };
}

/// How factors are packed for a precision.
#[cfg(target_arch = "x86_64")]
fn lane(precision: Precision) -> avx512::Lane {
    match precision {
        Precision::F32 => avx512::Lane::F32,
        Precision::Bf16 if bf16_dot_is_faster() => avx512::Lane::Bf16Pair,
        Precision::Bf16 => avx512::Lane::RoundedF32,
    }
}
