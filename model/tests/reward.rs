//! A tiny `LlamaForSequenceClassification` made by transformers (`fixtures/make_fixtures.py`) gives
//! the same scores here.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use burn::tensor::Device;
use common::fixture;
use serde::Deserialize;
use wmtp_model::RewardModel;

#[derive(Deserialize)]
struct Reference {
    tokens: Vec<Vec<u32>>,
    scores: Vec<f32>,
}

fn reference() -> Reference {
    let text = std::fs::read_to_string(fixture("reward").join("reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn scores_are_those_of_transformers() {
    let model = RewardModel::load(&fixture("reward"), &Device::flex()).unwrap();
    let Reference { tokens, scores } = reference();
    let got = model.score(&tokens).unwrap();
    for (got, expected) in got.iter().zip(&scores) {
        assert!((got - expected).abs() < 1e-4, "{got} {expected}");
    }
    // More than run at once, in another order.
    let many: Vec<_> = tokens.iter().rev().cycle().take(20).cloned().collect();
    for (got, expected) in model.score(&many).unwrap().iter().zip(scores.iter().rev().cycle()) {
        assert!((got - expected).abs() < 1e-4, "{got} {expected}");
    }
    assert!(model.score(&[]).unwrap().is_empty());
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let model = RewardModel::load(&fixture("reward"), &Device::flex()).unwrap();
    let message = |tokens: Vec<Vec<u32>>| model.score(&tokens).unwrap_err().to_string();
    assert!(message(vec![vec![1], vec![]]).starts_with("text 1 is empty"));
    assert!(message(vec![vec![400]]).contains("token 400, the reward model knows 0 to 95"));
    // A language model has no score.
    let error = RewardModel::load(&fixture("tied-f32"), &Device::flex())
        .unwrap_err()
        .to_string();
    assert!(error.contains("`score.weight` of shape [1, 16] is missing"), "{error}");
}
