//! A micro-batch's integers as tensors on a device, each `[B, S]`.

use burn::tensor::{Device, Int, Tensor, TensorData};
use wmtp_data::Batch;

/// Token ids.
pub fn tokens(batch: &Batch, device: &Device) -> Tensor<2, Int> {
    int_tensor(batch, batch.tokens.iter().map(|&t| t as i32).collect(), device)
}

/// Positions, restarting at 0 in each document.
pub fn positions(batch: &Batch, device: &Device) -> Tensor<2, Int> {
    int_tensor(batch, batch.positions.iter().map(|&t| t as i32).collect(), device)
}

/// Document numbers, [`Batch::PADDING`] where there is no document.
pub fn docs(batch: &Batch, device: &Device) -> Tensor<2, Int> {
    int_tensor(batch, batch.docs.clone(), device)
}

fn int_tensor(batch: &Batch, values: Vec<i32>, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values, [batch.rows, batch.seq_len]), device)
}
