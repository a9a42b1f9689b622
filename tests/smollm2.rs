//! Parity with transformers on the real SmolLM2-135M: token ids, per-token cross-entropy, logits,
//! greedy generation. Needs the model directory and what transformers computed with it;
//! `tests/compat/smollm2.sh` makes both and runs this.

use serde_json::Value;
use std::path::{Path, PathBuf};
use wmtp::{
    data::Tokenizer,
    pipeline::{ModelGenerator, score_text},
};
use wmtp_model::{LoadOptions, Sampling};

fn path(variable: &str) -> PathBuf {
    PathBuf::from(
        std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set; run tests/compat/smollm2.sh")),
    )
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .expect("an array of ids")
        .iter()
        .map(|v| v.as_u64().expect("an id") as u32)
        .collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .expect("an array of numbers")
        .iter()
        .map(|v| v.as_f64().expect("a number"))
        .collect()
}

#[test]
fn agrees_with_transformers() {
    let dir = path("WMTP_SMOLLM2_DIR");
    let text = std::fs::read_to_string(path("WMTP_SMOLLM2_REFERENCE")).expect("the reference can be read");
    let reference: Value = serde_json::from_str(&text).expect("the reference is JSON");
    let generator = open(&dir);
    let prompts = reference["prompts"].as_array().expect("prompts");
    assert!(!prompts.is_empty());
    for prompt in prompts {
        let name = prompt["name"].as_str().expect("a name");
        let text = prompt["text"].as_str().expect("a text");
        let report = score_text(&generator.model, &generator.tokenizer, text).expect("the text can be scored");
        assert_eq!(report.token_ids, ids(&prompt["token_ids"]), "{name}: token ids");

        let expected = floats(&prompt["token_ce"]);
        assert_eq!(report.ce[0].len(), expected.len(), "{name}");
        let ce = max_difference(report.ce[0].iter().map(|&c| f64::from(c)), &expected);
        assert!(ce < 1e-3, "{name}: per-token CE is off by {ce}");

        let logits = floats(&prompt["top20_logits"]);
        let of = |id: u32| {
            report
                .top20_ids
                .iter()
                .position(|&i| i == id)
                .map(|i| f64::from(report.top20_logits[i]))
        };
        let mut worst: f64 = 0.0;
        for (id, expected) in ids(&prompt["top20_ids"]).into_iter().zip(logits) {
            // Two logits closer than the tolerance may change places at the end of the list.
            let found = of(id).unwrap_or_else(|| f64::from(report.top20_logits[19]));
            worst = worst.max((found - expected).abs());
        }
        assert!(worst < 1e-2, "{name}: top-20 logits are off by {worst}");

        let expected = ids(&prompt["greedy_ids"]);
        let written = generator
            .write(&[(text.to_string(), 0)], &wmtp::eval::StopRule::Strings(&[]))
            .expect("generation works");
        let shown: Vec<u32> = expected
            .iter()
            .copied()
            .take_while(|id| !generator.tokenizer.eos_ids().contains(id))
            .collect();
        let found: Vec<u32> = written[0]
            .tokens
            .iter()
            .copied()
            .take_while(|id| !generator.tokenizer.eos_ids().contains(id))
            .collect();
        assert_eq!(found, shown, "{name}: greedy ids");
        println!(
            "{name}: {} ids equal, CE within {ce:.1e}, logits within {worst:.1e}, {} greedy ids equal",
            report.token_ids.len(),
            shown.len()
        );
    }
}

fn max_difference(found: impl Iterator<Item = f64>, expected: &[f64]) -> f64 {
    found.zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn open(dir: &Path) -> ModelGenerator {
    let device = burn::tensor::Device::flex();
    let options = LoadOptions {
        n_heads: Some(1),
        ..LoadOptions::default()
    };
    ModelGenerator::new(
        wmtp_model::load(dir, &options, &device).expect("the model can be loaded"),
        Tokenizer::load(dir).expect("the tokenizer can be loaded"),
        Sampling::greedy(48),
    )
}
