//! What the tests of this crate share: fixtures and plain, independent arithmetic.
#![allow(dead_code)]

pub mod tiny;

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use serde::Deserialize;

/// A folder under `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What transformers computed for one prompt.
#[derive(Debug, Deserialize)]
pub struct Reference {
    pub token_ids: Vec<u32>,
    pub token_ce: Vec<f64>,
    pub top20_ids: Vec<usize>,
    pub top20_logits: Vec<f64>,
    pub greedy_ids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
pub struct References {
    #[serde(default)]
    pub model_hash: String,
    pub prompts: Vec<Reference>,
}

pub fn references(path: &Path) -> References {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Logits `[1, S, V]` as rows of f64.
pub fn rows(logits: Tensor<3>) -> Vec<Vec<f64>> {
    let vocab = logits.dims()[2];
    let values: Vec<f64> = logits.into_data().iter::<f64>().collect();
    values.chunks(vocab).map(<[f64]>::to_vec).collect()
}

/// Cross entropy of `target` under a row of logits, in nats.
pub fn cross_entropy(row: &[f64], target: usize) -> f64 {
    let max = row.iter().copied().fold(f64::MIN, f64::max);
    max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln() - row[target]
}

/// Largest absolute difference.
pub fn max_diff(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The values of a tensor as f64.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}
