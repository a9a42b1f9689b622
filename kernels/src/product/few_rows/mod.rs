//! Few rows times the transpose of a weight, at the speed at which memory delivers the weight.
//!
//! `to [R, N] = rows [R, K] * weight [N, K]^T` is what generation with a cache consists of: R is the
//! number of sequences. A weight of f32 or bf16 values is then read for a handful of multiplications
//! each, so nothing is packed or copied: each of its rows is read once, front to back, by one thread,
//! and multiplied with all R rows while it is in the first cache. bf16 values are widened to f32,
//! which is exact; rows, products and sums are f32.
//!
//! Every element of the result is summed in an order that depends on K alone: it is the same for any
//! number of threads and whatever other rows are multiplied beside it. As in [`super`], machines
//! without AVX-512 and `WMTP_PORTABLE=1` take a portable loop with another order.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::Floats;
use rayon::prelude::*;

/// Rows up to which this is faster than [`super::product`], which packs both factors.
pub const FEW: usize = 32;

/// Lines (rows of the weight) that are multiplied at a time.
const TILE: usize = 4;

/// Bytes of the weight that a task reads: large beside the cost of a task, small beside a matrix.
const TASK_BYTES: usize = 1 << 16;

/// Multiplies all rows with rows `first..first + count` of the weight; result `[R, count]`.
type Kernel = fn(&mut [f32], &[f32], Floats<'_>, [usize; 2], [usize; 2]);

/// `to [R, N] = rows [R, K] * weight [N, K]^T`, all row by row without gaps; `shape` is `[R, N, K]`.
/// On all threads of the current rayon pool. Any R is right; above [`FEW`] it is slower than
/// [`super::product`].
///
/// # Panics
/// If a slice's length does not fit its shape.
pub fn rows_by_weight(to: &mut [f32], rows: &[f32], weight: Floats<'_>, [r, n, k]: [usize; 3]) {
    rows_by_weights(&mut [Output { to, weight, n }], rows, [r, k]);
}

/// A weight `[n, K]`, and where its results `[R, n]` go.
pub struct Output<'a> {
    /// `[R, n]`.
    pub to: &'a mut [f32],
    /// `[n, K]`.
    pub weight: Floats<'a>,
    /// Lines of the weight.
    pub n: usize,
}

/// [`rows_by_weight`] of the same rows `[R, K]` with several weights of one type: one division of
/// work among the threads instead of several.
///
/// # Panics
/// If a slice's length does not fit its shape, or weights have different types.
pub fn rows_by_weights(outputs: &mut [Output<'_>], rows: &[f32], [r, k]: [usize; 2]) {
    #[cfg(target_arch = "x86_64")]
    if super::has_avx512_bf16() {
        return multiply(outputs, rows, [r, k], avx512::arranged, avx512::multiply);
    }
    multiply(outputs, rows, [r, k], portable::arranged, portable::multiply);
}

/// How a kernel wants the rows: `(rows, weight, K)`.
type Arranged = for<'a> fn(&'a [f32], Floats<'_>, usize) -> std::borrow::Cow<'a, [f32]>;

fn multiply(outputs: &mut [Output<'_>], rows: &[f32], [r, k]: [usize; 2], arranged: Arranged, kernel: Kernel) {
    for Output { to, weight, n } in outputs.iter() {
        assert!(
            rows.len() == r * k && weight.len() == n * k && to.len() == r * n,
            "[{r}, {k}] times the transpose of [{n}, {k}] with {}, {} and {} elements",
            rows.len(),
            weight.len(),
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
    let rows = arranged(rows, first, k);
    let bytes = match first {
        Floats::F32(_) => 4,
        Floats::Bf16(_) => 2,
    };
    let share = (TASK_BYTES / (k * bytes)).next_multiple_of(TILE).max(TILE);
    let mut tasks = Vec::new();
    for Output { to, weight, n } in outputs {
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
            kernel(part, &rows, weight, [first, count], [r, k]);
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

#[cfg(test)]
mod tests;
