//! Matrix products on slices in host memory, in f32 or with factors rounded to bf16.
//!
//! `to [M, N] (+)= left [M, K] * right [K, N]`; results and sums are f32. [`Precision::Bf16`] rounds both
//! factors to bf16 (nearest even) while it packs them, whatever type they are stored in: weights can stay
//! f32, and no rounded copy of them ever exists.
//!
//! | machine | f32 | bf16 |
//! |---|---|---|
//! | x86-64 with AVX-512 F, BW, VL and BF16 | own kernel, fused multiply-add | own kernel, `vdpbf16ps` (two products a lane); on Intel, where that is slower, the f32 kernel on rounded values |
//! | every other | the `gemm` crate | factors rounded to bf16, then the `gemm` crate in f32 |
//!
//! The choice is made once, at run time. `WMTP_PORTABLE=1` in the environment selects the second row on every
//! machine; it exists to test that row ([`has_avx512_bf16`] is the one place that reads it). Both rows round
//! the same values and differ in summation order only. Every element is summed by one thread in an order that
//! depends on the shapes alone, so results do not depend on the number of threads.
//!
//! The blocking follows Goto and van de Geijn 2008, Anatomy of high-performance matrix multiplication: the
//! smaller factor is packed once for all threads, the larger one panel by panel. A left factor whose rows are
//! contiguous is read in place.
//!
//! [`matmul_skinny`] multiplies few rows, which is bound by memory bandwidth. This crate depends on no tensor
//! library.
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
pub mod simd;
mod skinny;
#[cfg(test)]
mod test_values;
#[cfg(test)]
mod tests;
mod view;

pub use skinny::{SKINNY_MAX_ROWS, SkinnyOutput, matmul_skinny, matmul_skinny_many};
use std::sync::OnceLock;
pub use view::{FloatSlice, FloatSliceMut, MatrixView};

/// How the factors of a product are rounded before they are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To bf16; sums stay f32.
    Bf16,
}

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

/// A right factor that is packed once and multiplied with many left ones.
pub struct PackedRight<'a> {
    right: MatrixView<'a>,
    precision: Precision,
    #[cfg(target_arch = "x86_64")]
    packed: Option<avx512::PackedRight>,
}

impl<'a> PackedRight<'a> {
    /// Packs `right` `[K, N]` on all threads of the current rayon pool.
    pub fn new(right: MatrixView<'a>, precision: Precision) -> Self {
        Self {
            right,
            precision,
            #[cfg(target_arch = "x86_64")]
            packed: (has_avx512_bf16() && !right.shape.contains(&0))
                .then(|| avx512::PackedRight::new(right, lane(precision))),
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
            packed.multiply(to, to_stride, accumulate, factors, lane(self.precision));
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

/// The threads that compute a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threads {
    /// Those of the current rayon pool.
    All,
    /// The calling one alone.
    Calling,
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
    if has_avx512_bf16() {
        avx512::matmul(to, to_stride, accumulate, [left, right], lane(precision), threads);
        return;
    }
    portable::matmul(to, to_stride, accumulate, [left, right], precision, threads);
}

/// Whether the AVX-512 kernels run: the machine has AVX-512 F, BW, VL and BF16, and `WMTP_PORTABLE` is not
/// `1`.
pub fn has_avx512_bf16() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| std::env::var_os("WMTP_PORTABLE").is_none_or(|value| value != "1") && detected())
}

/// The vector instruction sets that computing chooses from and that this machine has, by the names that rustc
/// gives them.
pub fn instruction_sets() -> Vec<&'static str> {
    macro_rules! found {
        ($detected:ident: $($name:tt)*) => {
            [$(($name, std::arch::$detected!($name))),*]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let sets = found!(is_x86_feature_detected: "avx2" "fma" "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512bf16");
    #[cfg(target_arch = "aarch64")]
    let sets = found!(is_aarch64_feature_detected: "neon" "fp16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let sets: [(&'static str, bool); 0] = [];
    sets.into_iter()
        .filter(|(_, found)| *found)
        .map(|(name, _)| name)
        .collect()
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

/// Whether `vdpbf16ps` has a higher throughput than the fused multiply-add in f32. On Intel it has half of it
/// (measured on an Emerald Rapids: one `vdpbf16ps` in two cycles against two multiply-adds a cycle), and
/// products of values that are rounded to bf16 are exact in f32 as well.
#[cfg(target_arch = "x86_64")]
fn bf16_dot_is_faster() -> bool {
    static FAST: OnceLock<bool> = OnceLock::new();
    *FAST.get_or_init(|| {
        let vendor = std::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx] != [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes)
    })
}

#[cfg(target_arch = "x86_64")]
fn detected() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> bool {
    false
}
