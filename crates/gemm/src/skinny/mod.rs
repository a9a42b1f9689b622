//! Few rows times the transpose of a weight, at memory bandwidth.
//!
//! `to [R, N] = rows [R, K] * weight [N, K]^T`. Decoding with a KV cache consists of such products; R is the
//! number of sequences. Each value of the weight is used in R multiplications only, so nothing is packed or
//! copied: one thread reads each row of the weight once, front to back, and multiplies it with all R rows
//! while it is in the L1 cache. bf16 values are widened to f32, which is exact; rows, products and sums are f32.
//! Quantized weights have a form of their own ([`crate::QuantizedMatrix`]).
//!
//! Every element of the result is summed in an order that depends on K alone: it is the same for any number
//! of threads and whatever other rows are in the batch. The order is another one with AVX2,
//! and another one where there is neither, which has a portable loop.

/// Defines `rearrange` and `multiply` of an instruction set, from its `LANES`, `STEP`, `MAX_ROWS`, kernels `multiply_f32`
/// and `multiply_bf16`, and `by_rows!`, which calls one of these with the number of rows as a constant.
#[cfg(target_arch = "x86_64")]
macro_rules! implementation {
    () => {
        /// See [`super::padded`].
        pub fn rearrange<'a>(rows: &'a [f32], weight: FloatSlice<'_>, k: usize) -> Rows<'a> {
            padded(rows, weight, k, LANES)
        }

        /// See [`super::Kernel`]; the rows as [`rearrange`] leaves them. Only for machines with these instructions,
        /// which `super::matmul_skinny_many` has checked.
        pub fn multiply(to: &mut [f32], rows: &[f32], weight: FloatSlice<'_>, range: [usize; 2], shape: [usize; 2]) {
            let k = shape[1];
            let length = k.next_multiple_of(STEP);
            let sizes = [length, MAX_ROWS];
            tiles(
                to,
                rows,
                weight,
                range,
                shape,
                sizes,
                |to, at, rows, tile, is_first| {
                    let count = rows.len() / length;
                    // SAFETY: the machine has been checked.
                    unsafe {
                        match tile {
                            FloatSlice::F32(tile) => by_rows!(multiply_f32, count, is_first, to, at, rows, tile, k),
                            FloatSlice::Bf16(tile) => by_rows!(multiply_bf16, count, is_first, to, at, rows, tile, k),
                        }
                    }
                },
            );
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(test)]
mod tests;

use crate::FloatSlice;
use crate::isa::{Isa, isa};
use crate::quantized::{self, QuantizedMatrix, QuantizedRows};
use half::bf16;
use rayon::prelude::*;

/// Rows up to which this is faster than [`crate::matmul`], which packs both factors.
pub const SKINNY_MAX_ROWS: usize = 32;

/// Rows of the weight that are multiplied at a time.
const TILE: usize = 4;

/// Number of rows from which multiplications delay the hardware's prefetcher.
#[cfg(target_arch = "x86_64")]
const LATE_ROWS: usize = 3;

/// Bytes that the prefetch is ahead.
#[cfg(target_arch = "x86_64")]
const PREFETCH_DISTANCE: usize = 1 << 12;

/// Tasks have a multiple of this many rows of the weight: whole tiles, and whole panels of quantized weights.
const TASK_ROWS: usize = 16;

/// Bytes of the weight that a task reads: large against the cost of a task, small against a matrix.
const TASK_BYTES: usize = 1 << 16;

/// Multiplies all rows with rows `first..first + count` of the weight; result `[R, count]`.
type Kernel = fn(&mut [f32], &[f32], FloatSlice<'_>, [usize; 2], [usize; 2]);

/// A weight `[N, K]`; of floats row-major without gaps.
#[derive(Debug, Clone, Copy)]
pub enum SkinnyWeight<'a> {
    /// 4 bytes a value.
    F32(&'a [f32]),
    /// 2 bytes a value.
    Bf16(&'a [bf16]),
    /// 8 or 4 bits a value, and a scale for every 32 of a row. It may have more than N rows, of which the first N are
    /// multiplied.
    Quantized(&'a QuantizedMatrix),
}

impl<'a> From<FloatSlice<'a>> for SkinnyWeight<'a> {
    fn from(values: FloatSlice<'a>) -> Self {
        match values {
            FloatSlice::F32(values) => Self::F32(values),
            FloatSlice::Bf16(values) => Self::Bf16(values),
        }
    }
}

impl std::fmt::Display for SkinnyWeight<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32(values) => write!(f, "a weight of {} f32 values", values.len()),
            Self::Bf16(values) => write!(f, "a weight of {} bf16 values", values.len()),
            Self::Quantized(matrix) => write!(f, "a quantized weight {:?}", matrix.shape()),
        }
    }
}

impl<'a> From<&'a QuantizedMatrix> for SkinnyWeight<'a> {
    fn from(matrix: &'a QuantizedMatrix) -> Self {
        Self::Quantized(matrix)
    }
}

impl<'a> SkinnyWeight<'a> {
    /// Whether it is `[n, k]`.
    fn is(&self, [n, k]: [usize; 2]) -> bool {
        match self {
            Self::F32(values) => values.len() == n * k,
            Self::Bf16(values) => values.len() == n * k,
            Self::Quantized(matrix) => n <= matrix.shape()[0] && matrix.shape()[1] == k,
        }
    }

    /// Bytes of a row of `k` values.
    fn row_bytes(&self, k: usize) -> usize {
        match self {
            Self::F32(_) => k * size_of::<f32>(),
            Self::Bf16(_) => k * size_of::<bf16>(),
            Self::Quantized(matrix) => matrix.row_bytes(),
        }
    }

    fn floats(&self) -> Option<FloatSlice<'a>> {
        match self {
            Self::F32(values) => Some(FloatSlice::F32(values)),
            Self::Bf16(values) => Some(FloatSlice::Bf16(values)),
            Self::Quantized(_) => None,
        }
    }
}

/// `to [R, N] = rows [R, K] * weight [N, K]^T`, all row-major without gaps; `shape` is `[R, N, K]`. On all
/// threads of the current rayon pool. Any R is allowed; above [`SKINNY_MAX_ROWS`] it is slower than
/// [`crate::matmul`].
///
/// # Panics
/// If a slice's length does not fit its shape.
pub fn matmul_skinny<'a>(to: &mut [f32], rows: &[f32], weight: impl Into<SkinnyWeight<'a>>, [r, n, k]: [usize; 3]) {
    let weight = weight.into();
    matmul_skinny_many(&mut [SkinnyOutput { to, weight, n }], rows, [r, k]);
}

/// A weight `[n, K]` and the buffer for its results `[R, n]`.
pub struct SkinnyOutput<'a> {
    /// `[R, n]`.
    pub to: &'a mut [f32],
    /// `[n, K]`.
    pub weight: SkinnyWeight<'a>,
    /// Rows of the weight.
    pub n: usize,
}

/// [`matmul_skinny`] of the same rows `[R, K]` with several weights of one type (8 and 4 bits are one): the work is
/// divided among the threads once instead of several times.
///
/// # Panics
/// If a slice's length does not fit its shape, or weights have different types.
pub fn matmul_skinny_many(outputs: &mut [SkinnyOutput<'_>], rows: &[f32], [r, k]: [usize; 2]) {
    #[cfg(target_arch = "x86_64")]
    if isa() >= Isa::Avx512 {
        return multiply(outputs, rows, [r, k], avx512::rearrange, avx512::multiply);
    }
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx2 {
        return multiply(outputs, rows, [r, k], avx2::rearrange, avx2::multiply);
    }
    multiply(outputs, rows, [r, k], portable::rearrange, portable::multiply);
}

/// Rearranges the rows for a kernel: `(rows, weight, K)`.
type Rearrange = for<'a> fn(&'a [f32], FloatSlice<'_>, usize) -> Rows<'a>;

/// Rows as a kernel reads them.
enum Rows<'a> {
    AsTheyAre(&'a [f32]),
    Rearranged(Vec<Line>),
}

/// A line of the processor's cache. A vector that lies in two of them takes twice as long to load.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl std::ops::Deref for Rows<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::AsTheyAre(rows) => rows,
            // SAFETY: a line is 16 floats without anything between or behind them.
            Self::Rearranged(lines) => unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * 16) },
        }
    }
}

fn multiply(outputs: &mut [SkinnyOutput<'_>], rows: &[f32], [r, k]: [usize; 2], rearrange: Rearrange, kernel: Kernel) {
    for SkinnyOutput { to, weight, n } in outputs.iter() {
        assert!(
            rows.len() == r * k && weight.is([*n, k]) && to.len() == r * n,
            "[{r}, {k}] times the transpose of [{n}, {k}] with {} and {} elements and {weight}",
            rows.len(),
            to.len()
        );
    }
    let Some(first) = outputs.first().map(|output| output.weight) else {
        return;
    };
    let of_first = std::mem::discriminant(&first);
    assert!(
        outputs.iter().all(|o| std::mem::discriminant(&o.weight) == of_first),
        "weights of different types in one product"
    );
    if r == 0 {
        return;
    }
    if k == 0 {
        outputs.iter_mut().for_each(|output| output.to.fill(0.0));
        return;
    }
    if let Some(first) = first.floats() {
        let rows = rearrange(rows, first, k);
        divide(outputs, [r, k], |part, weight, range| {
            if let Some(weight) = weight.floats() {
                kernel(part, &rows, weight, range, [r, k]);
            }
        });
    } else {
        let rows = QuantizedRows::new(rows, k);
        divide(outputs, [r, k], |part, weight, range| {
            if let SkinnyWeight::Quantized(weight) = weight {
                quantized::multiply(part, &rows, weight, range);
            }
        });
    }
}

/// Each row padded with zeros to a multiple of `2 * lanes` values; for a bf16 weight every `2 * lanes` values are
/// rearranged, the even ones first.
#[cfg(target_arch = "x86_64")]
fn padded<'a>(rows: &[f32], weight: FloatSlice<'_>, k: usize, lanes: usize) -> Rows<'a> {
    const LINE: usize = 16;
    let step = 2 * lanes;
    let lines = k.next_multiple_of(step) / LINE;
    let mut to = vec![Line([0.0; LINE]); rows.len() / k * lines];
    for (to, row) in to.chunks_exact_mut(lines).zip(rows.chunks_exact(k)) {
        for (to, values) in to.chunks_exact_mut(step / LINE).zip(row.chunks(step)) {
            for (l, value) in values.iter().enumerate() {
                let at = match weight {
                    FloatSlice::F32(_) => l,
                    FloatSlice::Bf16(_) => l % 2 * lanes + l / 2,
                };
                to[at / LINE].0[at % LINE] = *value;
            }
        }
    }
    Rows::Rearranged(to)
}

/// Calls `kernel(to, [column, stride], rows, tile, is_first)` for up to four weight rows of `first..first + count` and
/// up to `most` of the rows, each `length` values long, at a time; `is_first` with the first rows that see a tile.
#[cfg(target_arch = "x86_64")]
fn tiles<'w>(
    to: &mut [f32],
    rows: &[f32],
    weight: FloatSlice<'w>,
    [first, count]: [usize; 2],
    [r, k]: [usize; 2],
    [length, most]: [usize; 2],
    kernel: impl Fn(&mut [f32], [usize; 2], &[f32], FloatSlice<'w>, bool),
) {
    assert!(k > 0 && rows.len() == r * length && to.len() == r * count);
    // As even as possible: nine rows are five and four, not eight and one.
    let group = r.div_ceil(r.div_ceil(most)).max(1);
    for j in (0..count).step_by(TILE) {
        let range = (first + j) * k..(first + j + TILE.min(count - j)) * k;
        let tile = match weight {
            FloatSlice::F32(values) => FloatSlice::F32(&values[range]),
            FloatSlice::Bf16(values) => FloatSlice::Bf16(&values[range]),
        };
        for (i, rows) in rows.chunks(group * length).enumerate() {
            kernel(&mut to[i * group * count..], [j, count], rows, tile, i == 0);
        }
    }
}

/// Divides the rows of the weights among the threads. `kernel` computes the product `[R, count]` with rows
/// `first..first + count` of a weight.
fn divide(
    outputs: &mut [SkinnyOutput<'_>],
    [r, k]: [usize; 2],
    kernel: impl Fn(&mut [f32], SkinnyWeight<'_>, [usize; 2]) + Sync,
) {
    let bytes = outputs
        .iter()
        .map(|output| output.weight.row_bytes(k))
        .max()
        .unwrap_or(1);
    let share = (TASK_BYTES / bytes.max(1)).next_multiple_of(TASK_ROWS).max(TASK_ROWS);
    let mut tasks = Vec::new();
    for SkinnyOutput { to, weight, n } in outputs {
        let columns = Columns {
            data: to.as_mut_ptr(),
            shape: [r, *n],
        };
        let firsts = (0..*n).step_by(share);
        tasks.extend(firsts.map(|first| (columns, *weight, [first, share.min(*n - first)])));
    }
    tasks.into_par_iter().for_each_init(
        || vec![0.0; r * share],
        |part, (columns, weight, [first, count])| {
            let part = &mut part[..r * count];
            kernel(part, weight, [first, count]);
            // SAFETY: tasks have columns of their own, and each `to` is borrowed exclusively.
            unsafe { columns.write(first, part) };
        },
    );
}

/// A result `[R, N]` whose columns several threads write.
#[derive(Clone, Copy)]
struct Columns {
    data: *mut f32,
    shape: [usize; 2],
}

// SAFETY: `write` is the only access, and its callers write to columns of their own.
unsafe impl Send for Columns {}
// SAFETY: as above.
unsafe impl Sync for Columns {}

impl Columns {
    /// Copies `part` `[R, count]` to the columns from `first` on.
    ///
    /// # Safety
    /// The matrix is alive, and nothing else accesses these columns meanwhile.
    unsafe fn write(self, first: usize, part: &[f32]) {
        let [r, n] = self.shape;
        let count = part.len() / r;
        assert!(first + count <= n);
        for (i, row) in part.chunks_exact(count).enumerate() {
            // SAFETY: i is below R and `first + count` at most N, so this lies inside the matrix.
            unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), self.data.add(i * n + first), count) };
        }
    }
}
