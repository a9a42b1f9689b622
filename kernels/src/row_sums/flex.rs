//! The sum on flex, in place.

use super::{RowSumsOps, plain};
use crate::backends::cast;
use crate::backends::flex_memory::{dense, floats_mut, is_supported};
use burn::backend::{
    Flex, TensorMetadata,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::DType;
use wmtp_gemm::FloatSliceMut;
use wmtp_gemm::simd::{narrow, widen};

impl RowSumsOps for Flex {
    fn add_rows(matrix: FloatTensor<Self>, ids: IntTensor<Self>, rows: FloatTensor<Self>) -> FloatTensor<Self> {
        if !is_supported(matrix.dtype()) {
            return plain::<Self>(matrix, ids, rows);
        }
        let ids: Vec<i64> = ids.into_data().iter::<i64>().collect();
        let rows = cast::<Self>(rows, DType::F32).to_contiguous();
        let start = rows.layout().start_offset();
        let rows = &rows.storage::<f32>()[start..start + rows.shape().num_elements()];
        let mut matrix = dense(matrix);
        let columns = matrix.shape()[1];
        add(floats_mut(&mut matrix), columns, &ids, rows);
        matrix
    }
}

/// Adds `rows`, of `columns` values each, to the rows `ids` of `to`; those of one id are summed in
/// f32, in their order, and added once.
///
/// # Panics
/// If an id is outside of `to`.
fn add(mut to: FloatSliceMut<'_>, columns: usize, ids: &[i64], rows: &[f32]) {
    let count = to.len() / columns.max(1);
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by_key(|i| ids[*i]);
    let mut sum = vec![0.0f32; columns];
    for same in order.chunk_by(|a, b| ids[*a] == ids[*b]) {
        let id = ids[same[0]];
        assert!(
            (0..count as i64).contains(&id),
            "add_rows: id {id} is not below {count}"
        );
        let range = id as usize * columns..(id as usize + 1) * columns;
        match &mut to {
            FloatSliceMut::F32(to) => sum.copy_from_slice(&to[range.clone()]),
            FloatSliceMut::Bf16(to) => widen(&to[range.clone()], &mut sum),
        }
        for i in same {
            let row = &rows[i * columns..(i + 1) * columns];
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        match &mut to {
            FloatSliceMut::F32(to) => to[range].copy_from_slice(&sum),
            FloatSliceMut::Bf16(to) => narrow(&sum, &mut to[range]),
        }
    }
}
