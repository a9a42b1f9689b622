//! What all layers share about a batch.

use crate::attention::Compute;
use crate::config::LlamaConfig;
use crate::rope::angles;
use std::ops::Range;
use wmtp_kernels::{Precision, attention::flex::Heads};

/// Documents, rotary tables and sizes of one batch.
#[derive(Debug)]
pub struct Plan {
    pub(crate) heads: Heads,
    pub(crate) eps: f32,
    /// Rows of each document.
    pub(crate) documents: Vec<Range<usize>>,
    /// Cosines and sines `[N, W / 2]` for the keys.
    pub(crate) keys: [Vec<f32>; 2],
    /// The same times `1 / sqrt(W)` for the queries.
    pub(crate) queries: [Vec<f32>; 2],
    pub(crate) precision: Precision,
    /// The type of the matrices' gradients.
    pub(crate) gradients: Precision,
    /// Keep the inputs of both halves only, and compute the rest again in the backward pass.
    pub(crate) recompute: bool,
}

impl Plan {
    /// `positions` and `docs` row by row, rows of `seq` tokens; a negative document is padding.
    pub fn new(config: &LlamaConfig, positions: &[i64], docs: &[i64], seq: usize, compute: Compute) -> Self {
        let Compute {
            precision,
            gradients,
            recompute,
        } = compute;
        let scale = 1.0 / (config.head_dim as f64).sqrt();
        let angles = angles(config, positions);
        let table = |f: fn(f64) -> f64, scale: f64| angles.iter().map(|a| (f(*a) * scale) as f32).collect();
        Self {
            heads: Heads {
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                width: config.head_dim,
            },
            eps: config.rms_norm_eps as f32,
            documents: documents(docs, seq),
            keys: [table(f64::cos, 1.0), table(f64::sin, 1.0)],
            queries: [table(f64::cos, scale), table(f64::sin, scale)],
            precision,
            gradients,
            recompute,
        }
    }
}

/// The runs of equal, non-negative documents in each row of `seq` tokens.
fn documents(docs: &[i64], seq: usize) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (i, doc) in docs.iter().enumerate() {
        let goes_on = i % seq.max(1) > 0 && docs[i - 1] == *doc;
        match found.last_mut() {
            _ if *doc < 0 => {}
            Some(last) if goes_on => last.end = i + 1,
            _ => found.push(i..i + 1),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::documents;

    #[test]
    fn documents_end_at_boundaries_rows_and_padding() {
        assert_eq!(documents(&[0, 0, 1, 1, 1, 2, -1, -1], 4), [0..2, 2..4, 4..5, 5..6]);
        assert!(documents(&[-1, -1], 2).is_empty());
        assert!(documents(&[], 0).is_empty());
    }
}
