//! Matrix products on slices in host memory, in f32 or with inputs rounded to bf16.
//!
//! `to [M, N] (+)= left [M, K] * right [K, N]`, f32 results, products accumulated in f32.
//! [`Precision::Bf16`] rounds both inputs to bf16 (nearest even) while it packs them, whatever type
//! they are stored in: weights can stay f32 and no rounded copy of them ever exists.
//!
//! | machine | f32 | bf16 |
//! |---|---|---|
//! | x86-64 with AVX-512 F, BW, VL and BF16 | own kernel, fused multiply-add | own kernel, `vdpbf16ps` (two products a lane); on Intel's cores, where that is the slower one, the kernel for f32 on rounded values |
//! | every other | the `gemm` crate | inputs rounded to bf16, then the `gemm` crate in f32 |
//!
//! Which one runs is found out at run time, once; `WMTP_PORTABLE=1` in the environment takes the
//! second row everywhere. Both rows round the same values and differ in summation order only.
//! Every element is summed by one thread in an order that depends on the shapes alone, so results
//! do not depend on the number of threads.
//!
//! The blocking follows Goto and van de Geijn 2008, Anatomy of high-performance matrix
//! multiplication: the smaller factor is packed once for all threads, the larger one panel by panel, or
//! read as it lies where it is the left one and its rows are.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod few_rows;
#[cfg(target_arch = "x86_64")]
mod pack;
mod portable;

pub use crate::Precision;
pub use few_rows::{FEW, Output, rows_by_weight, rows_by_weights};
use half::bf16;
use std::sync::OnceLock;

/// Values of one of the two storage types.
#[derive(Debug, Clone, Copy)]
pub enum Floats<'a> {
    /// 4 bytes a value.
    F32(&'a [f32]),
    /// 2 bytes a value.
    Bf16(&'a [bf16]),
}

impl Floats<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `index`.
    pub fn at(&self, index: usize) -> f32 {
        match self {
            Self::F32(values) => values[index],
            Self::Bf16(values) => values[index].to_f32(),
        }
    }
}

/// A read-only `[rows, columns]` view with strides, in elements.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: Floats<'a>,
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> View<'a> {
    /// Element `[i, j]` is `data[i * strides[0] + j * strides[1]]`.
    ///
    /// # Panics
    /// If an element lies outside `data`.
    pub fn strided(data: Floats<'a>, shape: [usize; 2], strides: [usize; 2]) -> Self {
        let last: usize = shape
            .iter()
            .zip(&strides)
            .map(|(length, stride)| length.saturating_sub(1) * stride)
            .sum();
        assert!(
            shape.contains(&0) || last < data.len(),
            "a matrix {shape:?} with strides {strides:?} does not fit into {} elements",
            data.len()
        );
        Self { data, shape, strides }
    }

    /// f32 rows one after another.
    pub fn rows(data: &'a [f32], shape: [usize; 2]) -> Self {
        Self::strided(Floats::F32(data), shape, [shape[1], 1])
    }

    /// bf16 rows one after another.
    pub fn bf16_rows(data: &'a [bf16], shape: [usize; 2]) -> Self {
        Self::strided(Floats::Bf16(data), shape, [shape[1], 1])
    }

    /// The same elements with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        let ([rows, columns], [down, right]) = (self.shape, self.strides);
        Self {
            data: self.data,
            shape: [columns, rows],
            strides: [right, down],
        }
    }

    /// The `count` rows from `first` on.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn rows_from(self, first: usize, count: usize) -> Self {
        assert!(
            first + count <= self.shape[0],
            "rows {first} and {count} more of {:?}",
            self.shape
        );
        let start = if count == 0 { 0 } else { first * self.strides[0] };
        let data = match self.data {
            Floats::F32(values) => Floats::F32(&values[start..]),
            Floats::Bf16(values) => Floats::Bf16(&values[start..]),
        };
        Self {
            data,
            shape: [count, self.shape[1]],
            ..self
        }
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The values of `row` from column `first` on, as f32.
    pub(crate) fn copy_from_row(&self, row: usize, first: usize, to: &mut [f32]) {
        let start = row * self.strides[0] + first;
        match self.data {
            Floats::F32(values) if self.strides[1] == 1 => to.copy_from_slice(&values[start..][..to.len()]),
            Floats::Bf16(values) if self.strides[1] == 1 => crate::host::widen(&values[start..][..to.len()], to),
            _ => (first..).zip(to).for_each(|(column, to)| *to = self.at(row, column)),
        }
    }

    fn at(&self, row: usize, column: usize) -> f32 {
        self.data.at(row * self.strides[0] + column * self.strides[1])
    }
}

/// `to = left * right`, or `to += left * right` if `accumulate`; row i of the result starts at
/// `to[i * to_stride]`. On all threads of the current rayon pool.
///
/// # Panics
/// If the shapes do not fit together or the result does not fit into `to`.
pub fn product(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    left: View<'_>,
    right: View<'_>,
    precision: Precision,
) {
    multiply(to, to_stride, accumulate, [left, right], precision, Threads::All);
}

/// [`product`] on the calling thread alone, for products inside a task.
///
/// # Panics
/// As [`product`].
pub fn product_here(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    left: View<'_>,
    right: View<'_>,
    precision: Precision,
) {
    multiply(to, to_stride, accumulate, [left, right], precision, Threads::This);
}

/// A right factor that is multiplied with many left ones, packed once.
pub struct PackedColumns<'a> {
    right: View<'a>,
    precision: Precision,
    #[cfg(target_arch = "x86_64")]
    packed: Option<avx512::PackedColumns>,
}

impl<'a> PackedColumns<'a> {
    /// Packs `right` `[K, N]` on all threads of the current rayon pool.
    pub fn new(right: View<'a>, precision: Precision) -> Self {
        Self {
            right,
            precision,
            #[cfg(target_arch = "x86_64")]
            packed: (has_avx512_bf16() && !right.shape.contains(&0))
                .then(|| avx512::PackedColumns::new(right, unit(precision))),
        }
    }

    /// `to = left * right`, or `to += left * right` if `accumulate`, on the calling thread; row i starts
    /// at `to[i * to_stride]`. A left factor in the precision's own type, rows one after another, is read
    /// as it lies.
    ///
    /// # Panics
    /// As [`product`].
    pub fn times(&self, to: &mut [f32], to_stride: usize, accumulate: bool, left: View<'_>) {
        #[cfg(target_arch = "x86_64")]
        if let (Some(packed), false) = (&self.packed, left.shape.contains(&0)) {
            check(to, to_stride, left, self.right);
            let factors = [left, self.right];
            packed.multiply(to, to_stride, accumulate, factors, unit(self.precision));
            return;
        }
        product_here(to, to_stride, accumulate, left, self.right, self.precision);
    }
}

/// # Panics
/// If the shapes do not fit together or the result does not fit into `to`.
fn check(to: &[f32], to_stride: usize, left: View<'_>, right: View<'_>) {
    let ([m, k], [inner, n]) = (left.shape, right.shape);
    assert!(k == inner, "[{m}, {k}] times [{inner}, {n}] is not a product");
    assert!(
        m == 0 || (n <= to_stride && (m - 1) * to_stride + n <= to.len()),
        "{m} rows of {n}, {to_stride} apart, do not fit into {} elements",
        to.len()
    );
}

/// Who computes a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threads {
    /// Those of the current rayon pool.
    All,
    /// The calling one.
    This,
}

fn multiply(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    [left, right]: [View<'_>; 2],
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
        avx512::product(to, to_stride, accumulate, [left, right], unit(precision), threads);
        return;
    }
    portable::product(to, to_stride, accumulate, [left, right], precision, threads);
}

/// Whether the AVX-512 kernels run on this machine (and were not turned off by `WMTP_PORTABLE=1`).
pub fn has_avx512_bf16() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| std::env::var_os("WMTP_PORTABLE").is_none_or(|value| value != "1") && detected())
}

/// How factors are packed for a precision.
#[cfg(target_arch = "x86_64")]
fn unit(precision: Precision) -> pack::Unit {
    match precision {
        Precision::F32 => pack::Unit::Value,
        Precision::Bf16 if multiplies_pairs_fast() => pack::Unit::Pair,
        Precision::Bf16 => pack::Unit::Rounded,
    }
}

/// Whether `vdpbf16ps` computes more than the multiply-add in f32. On Intel's cores (measured on an
/// Emerald Rapids: one in two cycles, beside two multiply-adds a cycle) it computes half as much, and
/// products of values rounded to bf16 are exact in f32 just as well.
#[cfg(target_arch = "x86_64")]
fn multiplies_pairs_fast() -> bool {
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

#[cfg(test)]
mod tests;
