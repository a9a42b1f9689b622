//! A matrix view on a slice, and the product of two of them. For f64; f32 takes [`wmtp_gemm`].

use super::exp::Real;
use wmtp_gemm::{FloatSlice, Precision, MatrixView};

/// A read-only `[rows, columns]` view with strides, in elements.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Matrix<'a, T> {
    data: &'a [T],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a, f32> {
    /// The same view for the products of this crate.
    pub fn view(self) -> MatrixView<'a> {
        MatrixView::strided(FloatSlice::F32(self.data), self.shape, self.strides)
    }
}

/// The unembedding `[V, D]`, in the type that is computed in or, for f32, in bf16.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Table<'a, T> {
    /// In the same type.
    Same(Matrix<'a, T>),
    /// In bf16; for f32 alone.
    Bf16(MatrixView<'a>),
}

impl<'a> Table<'a, f32> {
    /// The same for the products of this crate.
    pub fn view(self) -> MatrixView<'a> {
        match self {
            Self::Same(matrix) => matrix.view(),
            Self::Bf16(view) => view,
        }
    }
}

impl<T: Real> Table<'_, T> {
    /// V
    pub fn rows(&self) -> usize {
        match self {
            Self::Same(matrix) => matrix.rows(),
            Self::Bf16(view) => view.shape()[0],
        }
    }

    /// `to` = `left` times this.
    pub fn multiply(self, to: &mut [T], to_stride: usize, left: Matrix<'_, T>, precision: Precision) {
        match self {
            Self::Same(matrix) => T::multiply(to, to_stride, false, left, matrix, precision),
            Self::Bf16(view) => T::multiply_bf16(to, to_stride, left, view, precision),
        }
    }

    /// `to` = `left` times the transpose of this.
    pub fn multiply_transposed(self, to: &mut [T], to_stride: usize, left: Matrix<'_, T>, precision: Precision) {
        match self {
            Self::Same(matrix) => T::multiply(to, to_stride, false, left, matrix.transposed(), precision),
            Self::Bf16(view) => T::multiply_bf16(to, to_stride, left, view.transposed(), precision),
        }
    }
}

impl<'a, T: Real> Matrix<'a, T> {
    /// Element `[i, j]` is `data[i * strides[0] + j * strides[1]]`.
    ///
    /// # Panics
    /// If an element lies outside `data`.
    pub fn strided(data: &'a [T], shape: [usize; 2], strides: [usize; 2]) -> Self {
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

    /// Rows one after another.
    pub fn row_major(data: &'a [T], shape: [usize; 2]) -> Self {
        Self::strided(data, shape, [shape[1], 1])
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.shape[1]
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

    /// The `count` columns from `start` on.
    pub fn columns_from(self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.columns());
        let data = self.data.get(start * self.strides[1]..).unwrap_or_default();
        Self::strided(data, [self.rows(), count], self.strides)
    }

    /// Copies row `index` to `to`.
    pub fn copy_row(&self, index: usize, to: &mut [T]) {
        let from = self.data[index * self.strides[0]..].iter();
        let from = from.step_by(self.strides[1].max(1));
        if self.strides[1] == 0 {
            to.fill(self.data[index * self.strides[0]]);
        } else {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}

/// `to = left * right`, or `to += left * right` if `accumulate`; row i of the result starts at
/// `to[i * to_stride]`. On all threads; each element is summed by one of them, in an order that
/// depends on the shapes alone.
///
/// # Panics
/// If the shapes do not fit together or the result does not fit into `to`.
pub(super) fn multiply<T: Real>(
    to: &mut [T],
    to_stride: usize,
    accumulate: bool,
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
) {
    let ([m, k], [inner, n]) = (left.shape, right.shape);
    assert!(k == inner, "[{m}, {k}] times [{inner}, {n}] is not a product");
    assert!(
        n <= to_stride && m * to_stride <= to.len(),
        "{m} rows of {n}, {to_stride} apart, do not fit into {} elements",
        to.len()
    );
    let strides = |matrix: Matrix<'_, T>| matrix.strides.map(|stride| stride as isize);
    let ([left_down, left_right], [right_down, right_right]) = (strides(left), strides(right));
    // SAFETY: `gemm` reads `left` and `right` and writes `to` at i * row stride + j * column stride
    // for i, j within the shapes. `Matrix::strided` has checked that these lie inside the slices,
    // the assertion above that m rows of `to_stride` elements, of which n are written, lie inside
    // `to`; `to` is borrowed exclusively, so it overlaps neither. `Real` is implemented for f32 and f64 only, two
    // of the types that `gemm` knows.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.as_mut_ptr(),
            1,
            to_stride as isize,
            accumulate,
            left.data.as_ptr(),
            left_right,
            left_down,
            right.data.as_ptr(),
            right_right,
            right_down,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_strided_views_are_those_worked_out_by_hand() {
        // [[1, 2], [3, 4], [5, 6]]^T * [[1, 0], [0, 1], [1, 1]] = [[6, 8], [8, 10]]
        let left = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let right = [1.0f32, 0.0, 0.0, 1.0, 1.0, 1.0];
        let left = Matrix::row_major(&left, [3, 2]).transposed();
        let right = Matrix::row_major(&right, [3, 2]);
        let mut to = [100.0f32; 4];
        multiply(&mut to, 2, false, left, right);
        assert_eq!(to, [6.0, 8.0, 8.0, 10.0]);
        multiply(&mut to, 2, true, left, right);
        assert_eq!(to, [12.0, 16.0, 16.0, 20.0]);
        // The second column of the right factor alone.
        let mut to = [0.0f32; 2];
        multiply(&mut to, 1, false, left, right.columns_from(1, 1));
        assert_eq!(to, [8.0, 10.0]);
        // Rows apart: what lies between them stays.
        let mut to = [7.0f32; 6];
        multiply(&mut to, 3, false, left, right);
        assert_eq!(to, [6.0, 8.0, 7.0, 8.0, 10.0, 7.0]);
    }

    #[test]
    fn rows_are_copied_through_strides() {
        let data = [1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0];
        let mut row = [0.0; 3];
        Matrix::row_major(&data, [3, 2]).transposed().copy_row(1, &mut row);
        assert_eq!(row, [2.0, 4.0, 6.0]);
        Matrix::strided(&data, [2, 3], [1, 0]).copy_row(1, &mut row);
        assert_eq!(row, [2.0; 3]);
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_view_outside_its_slice_is_refused() {
        Matrix::strided(&[0.0f32; 5], [3, 2], [2, 1]);
    }

    #[test]
    #[should_panic(expected = "[3, 2] times [3, 2] is not a product")]
    fn shapes_that_do_not_fit_are_refused() {
        let data = [0.0f32; 6];
        let matrix = Matrix::row_major(&data, [3, 2]);
        multiply(&mut [0.0; 9], 3, false, matrix, matrix);
    }

    #[test]
    #[should_panic(expected = "3 rows of 3, 3 apart, do not fit into 8 elements")]
    fn a_result_larger_than_its_slice_is_refused() {
        let data = [0.0f32; 6];
        let matrix = Matrix::row_major(&data, [3, 2]);
        multiply(&mut [0.0; 8], 3, false, matrix, matrix.transposed());
    }
}
