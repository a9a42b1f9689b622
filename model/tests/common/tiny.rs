//! Random tiny models, and generation by running the whole model again for every token.

use burn::tensor::{DType, Device};
use wmtp_model::{CausalLm, Decoding, Generation, LlamaConfig, MtpLlama, Packed, Request, Sampling, generate_all};

pub const VOCABULARY: usize = 61;

/// Weights large enough that random logits are far apart.
pub fn config(layers: usize, heads: usize, kv_heads: usize) -> LlamaConfig {
    let mut config = LlamaConfig::new(VOCABULARY, 8 * heads, layers, heads);
    config.num_key_value_heads = kv_heads;
    config.initializer_range = 0.4;
    config.n_heads = 2;
    config.tie_word_embeddings = false;
    config
}

/// Tokens that repeat nowhere near each other.
pub fn prompt(length: usize, offset: usize) -> Vec<u32> {
    (0..length)
        .map(|i| ((offset + i * (i + 7)) % VOCABULARY) as u32)
        .collect()
}

pub fn request(tokens: Vec<u32>, seed: u64, sampling: Sampling) -> Request {
    Request { tokens, seed, sampling }
}

/// All of them, without end tokens.
pub fn run(model: &MtpLlama, requests: &[Request], decoding: &Decoding) -> Vec<Generation> {
    generate_all(model, requests, decoding, &mut |_, _| false).unwrap()
}

/// Greedy continuations by the default way.
pub fn greedy(model: &MtpLlama, prompts: &[Vec<u32>], tokens: usize) -> Vec<Vec<u32>> {
    let requests: Vec<Request> = prompts
        .iter()
        .map(|prompt| request(prompt.clone(), 0, Sampling::greedy(tokens)))
        .collect();
    let made = run(model, &requests, &Decoding::default());
    made.into_iter().map(|made| made.tokens).collect()
}

/// Logits of head `k` after each token of `text`, by the public forward pass on the whole text.
pub fn logits(model: &MtpLlama, k: usize, text: &[u32]) -> Vec<Vec<f64>> {
    let input = Packed::from_documents(&[text.to_vec()], &model.device());
    let ctx = model.context(&input);
    super::rows(model.logits(model.head(k, model.trunk(&input, &ctx), &ctx)))
}

/// The highest logit, the lowest id among equals.
pub fn best(logits: &[f64]) -> u32 {
    let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    best.unwrap() as u32
}

/// Greedy tokens by the public forward pass on the whole text, once a token.
pub fn without_cache(model: &MtpLlama, prompt: &[u32], tokens: usize) -> Vec<u32> {
    let mut text = prompt.to_vec();
    for _ in 0..tokens {
        text.push(best(logits(model, 1, &text).last().unwrap()));
    }
    text.split_off(prompt.len())
}

/// A model of so many heads, one of the two ways to compute: f64 in a backend's own operations, f32
/// on flex on slices of memory.
pub fn with_heads(heads: usize, dtype: DType, seed: u64) -> MtpLlama {
    let mut config = config(2, 4, 2);
    config.n_heads = heads;
    config.init_dtype(seed, dtype, &Device::flex())
}
