//! Which rows are kept, and how many of them make a chunk. Shared by all implementations.

use burn::backend::{
    Backend, ExecutionError,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{TensorData, read_sync};

/// Maximum size of one chunk's logits in bytes, without padding (a single row may be larger).
pub(super) const CHUNK_BYTES: usize = 48 << 20;

/// Maximum rows of a chunk; more make the products no faster.
pub(super) const CHUNK_ROWS: usize = 256;

/// A row that takes part in the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct KeptRow {
    /// Row of the hidden states.
    pub index: usize,
    /// Id of the correct token, below the size of the vocabulary.
    pub target: usize,
    /// Its weight: not zero, may be negative or a NaN.
    pub weight: f64,
}

/// The rows with `target >= 0` and `weight != 0`, in order.
///
/// # Panics
/// If a kept row's target is not below `vocabulary`.
pub(super) fn kept_rows(targets: &TensorData, weights: &TensorData, vocabulary: usize) -> Vec<KeptRow> {
    targets
        .iter::<i64>()
        .zip(weights.iter::<f64>())
        .enumerate()
        .filter(|(_, (target, weight))| *target >= 0 && *weight != 0.0)
        .map(|(index, (target, weight))| {
            let target = target as usize;
            assert!(
                target < vocabulary,
                "weighted_linear_cross_entropy: target {target} of row {index} is outside the vocabulary of {vocabulary}"
            );
            KeptRow {
                index,
                target,
                weight,
            }
        })
        .collect()
}

/// Rows per chunk for `kept` rows of logits, `vocabulary` wide and `element_bytes` per logit: as many as
/// [`CHUNK_ROWS`] and [`CHUNK_BYTES`] allow, then evened out so that the last chunk is not a small remainder.
pub(super) fn rows_per_chunk(kept: usize, vocabulary: usize, element_bytes: usize) -> usize {
    even_rows(kept, CHUNK_BYTES / (vocabulary * element_bytes), CHUNK_ROWS)
}

/// Rows per chunk for `kept` rows, of which `fit` into memory, but at most `max` and at least one.
pub(super) fn even_rows(kept: usize, fit: usize, max: usize) -> usize {
    let chunks = kept.div_ceil(fit.clamp(1, max)).max(1);
    kept.div_ceil(chunks).max(1)
}

/// The kept rows, read back from the device.
pub(super) fn read_rows<B: Backend>(targets: IntTensor<B>, weights: FloatTensor<B>, vocabulary: usize) -> Vec<KeptRow> {
    let targets = arrived(read_sync(B::int_into_data(targets)));
    kept_rows(&targets, &read_floats::<B>(weights), vocabulary)
}

/// The values of `tensor`, read back from the device.
pub(super) fn read_floats<B: Backend>(tensor: FloatTensor<B>) -> TensorData {
    arrived(read_sync(B::float_into_data(tensor)))
}

/// Panics as `Tensor::into_data` does where the device fails.
fn arrived(data: Result<TensorData, ExecutionError>) -> TensorData {
    data.unwrap_or_else(|error| panic!("weighted_linear_cross_entropy: reading from the device failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_even_and_bounded() {
        assert_eq!(rows_per_chunk(512, 49152, 4), 256);
        assert_eq!(rows_per_chunk(257, 100, 4), 129);
        assert_eq!(rows_per_chunk(100, 100, 4), 100);
        assert_eq!(rows_per_chunk(0, 100, 4), 1);
        // A vocabulary of 128256 in f64: 49 rows are 50.3 MB, one more would pass 48 MiB.
        assert_eq!(rows_per_chunk(490, 128_256, 8), 49);
        // One row alone may be larger than the buffer is meant to be.
        assert_eq!(rows_per_chunk(9, 100_000_000, 4), 1);
    }

    #[test]
    fn rows_without_target_or_weight_are_dropped() {
        let targets = TensorData::from([3i64, -1, 0, 2, -100]);
        let weights = TensorData::from([0.5f32, 1.0, 0.0, -2.0, 0.0]);
        let kept = kept_rows(&targets, &weights, 4);
        let row = |index, target, weight| KeptRow { index, target, weight };
        assert_eq!(kept, [row(0, 3, 0.5), row(3, 2, -2.0)]);
    }

    #[test]
    fn a_weight_that_is_not_a_number_is_kept() {
        let kept = kept_rows(&TensorData::from([0i64]), &TensorData::from([f32::NAN]), 1);
        assert!(matches!(kept[..], [row] if row.weight.is_nan()));
    }

    #[test]
    #[should_panic(expected = "target 4 of row 1 is outside the vocabulary of 4")]
    fn a_target_outside_the_vocabulary_is_named() {
        kept_rows(&TensorData::from([3i64, 4]), &TensorData::from([1.0f32, 1.0]), 4);
    }
}
