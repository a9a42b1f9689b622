//! Borrowed values in one of the two storage types, and strided matrices of them.

use crate::simd::widen;
use half::bf16;

/// A slice of one of the two storage types.
#[derive(Debug, Clone, Copy)]
pub enum FloatSlice<'a> {
    /// 4 bytes a value.
    F32(&'a [f32]),
    /// 2 bytes a value.
    Bf16(&'a [bf16]),
}

/// A mutable slice of one of the two storage types.
#[derive(Debug)]
pub enum FloatSliceMut<'a> {
    /// 4 bytes a value.
    F32(&'a mut [f32]),
    /// 2 bytes a value.
    Bf16(&'a mut [bf16]),
}

impl<'a> FloatSlice<'a> {
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

    /// The values in `range`.
    ///
    /// # Panics
    /// If the range ends beyond the slice.
    pub fn slice(self, range: std::ops::Range<usize>) -> FloatSlice<'a> {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
        }
    }
}

impl FloatSliceMut<'_> {
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
}

/// A read-only `[rows, columns]` matrix with strides, in elements.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    pub(crate) data: FloatSlice<'a>,
    pub(crate) shape: [usize; 2],
    pub(crate) strides: [usize; 2],
}

impl<'a> MatrixView<'a> {
    /// Element `[i, j]` is `data[i * strides[0] + j * strides[1]]`.
    ///
    /// # Panics
    /// If an element lies outside `data`.
    pub fn strided(data: FloatSlice<'a>, shape: [usize; 2], strides: [usize; 2]) -> Self {
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

    /// A row-major f32 matrix without gaps.
    ///
    /// # Panics
    /// If `data` is too short.
    pub fn row_major(data: &'a [f32], shape: [usize; 2]) -> Self {
        Self::strided(FloatSlice::F32(data), shape, [shape[1], 1])
    }

    /// The transpose: the same elements, rows and columns exchanged.
    pub fn transposed(self) -> Self {
        let ([rows, columns], [row_stride, column_stride]) = (self.shape, self.strides);
        Self {
            data: self.data,
            shape: [columns, rows],
            strides: [column_stride, row_stride],
        }
    }

    /// Rows `first..first + count`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn rows(self, first: usize, count: usize) -> Self {
        assert!(
            first + count <= self.shape[0],
            "rows {first} and {count} more of {:?}",
            self.shape
        );
        let start = if count == 0 { 0 } else { first * self.strides[0] };
        Self {
            data: self.data.slice(start..self.data.len()),
            shape: [count, self.shape[1]],
            ..self
        }
    }

    /// Columns `first..first + count`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn columns(self, first: usize, count: usize) -> Self {
        self.transposed().rows(first, count).transposed()
    }

    /// `[rows, columns]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Copies the values of `row` from column `first` on to `to`, as f32.
    pub fn copy_from_row(&self, row: usize, first: usize, to: &mut [f32]) {
        let start = row * self.strides[0] + first;
        match self.data {
            FloatSlice::F32(values) if self.strides[1] == 1 => to.copy_from_slice(&values[start..][..to.len()]),
            FloatSlice::Bf16(values) if self.strides[1] == 1 => widen(&values[start..][..to.len()], to),
            _ => (first..).zip(to).for_each(|(column, to)| *to = self.at(row, column)),
        }
    }

    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        self.data.at(row * self.strides[0] + column * self.strides[1])
    }
}
