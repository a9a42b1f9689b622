//! Products on machines without AVX-512: the `gemm` crate, in f32.

use super::{FloatSlice, MatrixView, Precision, Threads};
use half::bf16;
use std::borrow::Cow;

/// See [`super::matmul`], which has checked the shapes.
pub fn matmul(
    to: &mut [f32],
    to_stride: usize,
    accumulate: bool,
    [left, right]: [MatrixView<'_>; 2],
    precision: Precision,
    threads: Threads,
) {
    let (left_data, left_strides) = f32s(left, precision);
    let (right_data, right_strides) = f32s(right, precision);
    let ([m, k], [_, n]) = (left.shape, right.shape);
    let signed = |strides: [usize; 2]| strides.map(|stride| stride as isize);
    let ([left_down, left_right], [right_down, right_right]) = (signed(left_strides), signed(right_strides));
    // SAFETY: `gemm` reads both factors and writes `to` at i * row stride + j * column stride for
    // i, j within the shapes. `MatrixView::strided` has checked that these lie inside the views' slices
    // (copies are row-major of the same shape), `super::matmul` that the result lies inside `to`,
    // which is borrowed exclusively and so overlaps neither factor.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.as_mut_ptr(),
            1,
            to_stride as isize,
            accumulate,
            left_data.as_ptr(),
            left_right,
            left_down,
            right_data.as_ptr(),
            right_right,
            right_down,
            1.0,
            1.0,
            false,
            false,
            false,
            match threads {
                Threads::All => gemm::Parallelism::Rayon(0),
                Threads::Calling => gemm::Parallelism::None,
            },
        );
    }
}

/// The view's values as f32, rounded to bf16 if asked for, and the strides at which they lie.
fn f32s<'a>(view: MatrixView<'a>, precision: Precision) -> (Cow<'a, [f32]>, [usize; 2]) {
    let rounded = |x: f32| match precision {
        Precision::F32 => x,
        Precision::Bf16 => bf16::from_f32(x).to_f32(),
    };
    match (view.data, precision) {
        (FloatSlice::F32(data), Precision::F32) => (Cow::Borrowed(data), view.strides),
        _ => {
            let [rows, columns] = view.shape;
            let values = (0..rows).flat_map(|i| (0..columns).map(move |j| rounded(view.at(i, j))));
            (Cow::Owned(values.collect()), [columns, 1])
        }
    }
}
