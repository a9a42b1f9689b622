//! The peak resident memory of a training run on the CPU, estimated from its sizes.
//!
//! Three moments can be the peak, and the largest one is it:
//!
//! 1. the loss of a micro-batch: every activation is there, with the loss's chunk of exponentials and the
//!    unembedding's gradient;
//! 2. the end of a backward pass: every gradient is there, with one layer's activations;
//! 3. a checkpoint: gradients and activations are gone, and the optimizer's state is there twice.
//!
//! Attention is computed in blocks, so nothing grows with the square of the length. The formula counts
//! what `wmtp_model` and `wmtp_kernels` keep on flex; docs/performance.md compares it with measured peaks.

use crate::{
    settings::Recipe,
    train::{HeadOrder, PrecisionConfig, Recompute, state_bytes},
};
use serde::{Deserialize, Serialize};
use wmtp_model::LlamaConfig;

/// Resident bytes of the program with its data and a tokenizer without vocabulary.
const PROGRAM: usize = 46 << 20;
/// Bytes of the tokenizer's tables for each token of the vocabulary.
const PER_TOKEN: usize = 320;
/// Bytes of the loss's chunk, and its rows in f32 and in bf16 (`wmtp_kernels::weighted_ce`).
const CHUNK_BYTES: usize = 48 << 20;
const CHUNK_ROWS: [usize; 2] = [256, 512];
const F32: usize = 4;
const BF16: usize = 2;

/// What of a micro-batch is computed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MicroBatch {
    /// Tokens that enter the model, N.
    pub tokens: usize,
    /// Rows at which each head's feed-forward block and loss are computed.
    pub rows: Vec<usize>,
}

impl MicroBatch {
    /// The larger one in every figure.
    #[must_use]
    pub fn or_larger(mut self, other: &Self) -> Self {
        self.tokens = self.tokens.max(other.tokens);
        self.rows.resize(self.rows.len().max(other.rows.len()), 0);
        for (rows, other) in self.rows.iter_mut().zip(&other.rows) {
            *rows = (*rows).max(*other);
        }
        self
    }
}

/// Bytes by purpose, and the peak. The parts are not all there at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// The largest resident size: the largest of the three moments.
    pub peak: u64,
    /// Which moment that is: `loss`, `backward` or `checkpoint`.
    pub at: &'static str,
    /// Program, data and tokenizer.
    pub program: u64,
    /// The model's weights, and a reference model's.
    pub weights: u64,
    /// Gradients of what is trained; twice where several micro-batches make a step.
    pub gradients: u64,
    /// The optimizer's state.
    pub optimizer: u64,
    /// What a micro-batch keeps for its backward pass.
    pub activations: u64,
    /// What the loss, or one layer, needs while it is computed.
    pub work: u64,
    /// The micro-batch that the figures are for.
    pub micro_batch: MicroBatch,
}

/// The estimate. `config` has the heads that are trained, `reference` is the number of parameters of
/// a model that scores meanwhile, `accumulates` says that a step has several micro-batches.
pub fn estimate(
    config: &LlamaConfig,
    recipe: &Recipe,
    micro_batch: MicroBatch,
    accumulates: bool,
    reference: usize,
) -> MemoryEstimate {
    let s = Sizes::new(config, recipe);
    let trained = s.adapters.unwrap_or(s.parameters);
    let weights = s.parameters * s.weight + s.adapters.map_or(0, |n| n * s.weight) + reference * F32;
    let optimizer = state_bytes(&recipe.optim, trained);
    let gradients = trained * s.gradient;
    let before = if accumulates { gradients } else { 0 };
    let activations = s.activations(&micro_batch);
    let layer = s.layer_work(micro_batch.tokens);
    let unembedding = s.unembedding_gradient();
    let program = PROGRAM + PER_TOKEN * config.vocab_size;

    let always = program + weights + optimizer;
    let at_loss = {
        let rows: usize = s.of_heads(micro_batch.rows.iter().copied());
        let loss = s.loss_work(rows) + unembedding.making;
        always + before + activations + s.before_last_head() + loss.max(unembedding.made + layer)
    };
    let backward = always + before + gradients + layer + s.layer(micro_batch.tokens);
    let checkpoint = always + optimizer + F32 * s.vocabulary * s.d;
    let moments = [("loss", at_loss), ("backward", backward), ("checkpoint", checkpoint)];
    let (at, peak) = moments.into_iter().fold(("", 0), |a, b| if b.1 > a.1 { b } else { a });
    MemoryEstimate {
        peak: peak as u64,
        at,
        program: program as u64,
        weights: weights as u64,
        gradients: (before + gradients) as u64,
        optimizer: optimizer as u64,
        activations: activations as u64,
        work: layer.max(s.loss_work(micro_batch.rows.iter().sum())) as u64,
        micro_batch,
    }
}

/// Parameters of the adapters of rank `rank` on all linear maps.
pub(super) fn adapter_parameters(config: &LlamaConfig, rank: usize) -> usize {
    let (d, i) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.query_size(), config.key_value_size());
    let per_layer = rank * ((d + q) + 2 * (d + kv) + (q + d) + 2 * (d + i) + (i + d));
    per_layer * (config.num_hidden_layers + config.n_heads - 1)
}

/// Widths of the model and bytes of its numbers.
struct Sizes {
    /// Hidden size D, feed-forward size F, vocabulary V.
    d: usize,
    f: usize,
    vocabulary: usize,
    /// Width of queries, keys, values and mixed values together.
    attention: usize,
    /// Layers below the heads.
    trunk: usize,
    heads: usize,
    parameters: usize,
    layer_matrices: usize,
    adapters: Option<usize>,
    /// Bytes of a weight, of an element of a gradient, of a kept activation.
    weight: usize,
    gradient: usize,
    kept: usize,
    recompute: bool,
    in_turn: bool,
}

/// Bytes of the unembedding's gradient.
struct UnembeddingGradient {
    /// While the loss makes it.
    making: usize,
    /// Afterwards.
    made: usize,
}

impl Sizes {
    fn new(config: &LlamaConfig, recipe: &Recipe) -> Self {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.query_size(), config.key_value_size());
        let train = &recipe.train;
        let rounded = train.precision != PrecisionConfig::F32;
        let adapters = train.lora.as_ref().map(|lora| adapter_parameters(config, lora.rank));
        let bytes = |is_bf16: bool| if is_bf16 { BF16 } else { F32 };
        Self {
            d,
            f,
            vocabulary: config.vocab_size,
            attention: 2 * (q + kv),
            trunk: config.num_hidden_layers.saturating_sub(1),
            heads: config.n_heads,
            parameters: config.num_params(),
            layer_matrices: 2 * d * (q + kv) + 3 * d * f,
            adapters,
            weight: bytes(train.precision == PrecisionConfig::PureBf16),
            gradient: bytes(rounded && adapters.is_none()),
            kept: bytes(rounded),
            recompute: train.recompute == Recompute::Block,
            in_turn: train.heads == HeadOrder::Sequential,
        }
    }

    /// Of figures of all heads, what is in memory at the same time: the sum, or one head's.
    fn of_heads(&self, each: impl Iterator<Item = usize>) -> usize {
        if self.in_turn {
            each.max().unwrap_or(0)
        } else {
            each.sum()
        }
    }

    /// What the attention and feed-forward sublayers keep for a token in addition to their inputs.
    fn sublayers(&self) -> [usize; 2] {
        if self.recompute {
            [0; 2]
        } else {
            [self.kept * self.attention, self.kept * 2 * self.f]
        }
    }

    /// What a layer keeps for `tokens`: the inputs of both sublayers, in f32, and what they keep.
    fn layer(&self, tokens: usize) -> usize {
        tokens * (2 * F32 * self.d + self.sublayers().iter().sum::<usize>())
    }

    fn activations(&self, batch: &MicroBatch) -> usize {
        let [attention, feed_forward] = self.sublayers();
        let (n, row) = (batch.tokens, F32 * self.d);
        // A head's attention is computed everywhere; its feed-forward block, norm and states where it is
        // asked for. Of the states there are the heads' own, all of them side by side, and their gradient.
        let head = |rows: usize| n * attention + rows * (feed_forward + 4 * row);
        let heads = self.of_heads(batch.rows.iter().map(|&rows| head(rows)));
        // Adapters are multiplied out and added to their weights: products and sums of every layer are kept
        // for the backward pass.
        let sums = self
            .adapters
            .map_or(0, |_| 2 * (self.trunk + self.heads) * self.layer_matrices * F32);
        self.trunk * self.layer(n) + heads + 2 * n * row + sums
    }

    /// What a layer's backward pass needs on top of what was kept.
    fn layer_work(&self, tokens: usize) -> usize {
        let again = if self.recompute || self.kept == BF16 {
            2 * self.f
        } else {
            0
        };
        tokens * F32 * (self.f + again + 4 * self.d)
    }

    /// Bytes of the loss's chunk for `rows` rows in all.
    fn loss_work(&self, rows: usize) -> usize {
        let most = CHUNK_ROWS[usize::from(self.kept == BF16)];
        let fit = (CHUNK_BYTES / (self.vocabulary * self.kept).max(1)).clamp(1, most);
        let chunk = rows.div_ceil(rows.div_ceil(fit).max(1));
        chunk * (self.vocabulary * self.kept + 4 * F32 * self.d)
    }

    /// None where the embedding is not trained.
    fn unembedding_gradient(&self) -> UnembeddingGradient {
        if self.adapters.is_some() {
            return UnembeddingGradient { making: 0, made: 0 };
        }
        let elements = self.vocabulary * self.d;
        let made = elements * self.gradient;
        UnembeddingGradient {
            // It is summed up in f32 and then rounded.
            making: elements * F32 + if self.gradient == BF16 { made } else { 0 },
            made,
        }
    }

    /// With heads one after another, what the heads before left: their gradients, and the unembedding's.
    fn before_last_head(&self) -> usize {
        if !self.in_turn || self.adapters.is_some() || self.heads < 2 {
            return 0;
        }
        let heads = (self.heads - 1) * self.layer_matrices;
        (heads + self.vocabulary * self.d) * self.gradient
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Sources;

    /// Peaks of whole runs, measured by benches/peers/plan_memory.py, with the micro-batch of each.
    const MEASURED: &str = include_str!("fixtures/memory.json");

    #[derive(Deserialize)]
    struct Case {
        name: String,
        model: String,
        settings: Vec<String>,
        reference: bool,
        accumulate: usize,
        micro_batch: MicroBatch,
        measured: u64,
    }

    fn smollm2() -> LlamaConfig {
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "rms_norm_eps": 1e-5, "rope_theta": 1e5,
            "max_position_embeddings": 8192, "tie_word_embeddings": true, "eos_token_id": 2
        });
        LlamaConfig::parse(&config.to_string()).unwrap()
    }

    fn recipe(settings: &[String]) -> Recipe {
        let sources = settings.iter().fold(Sources::new(None), |sources, text| {
            // Settings of the critic alone do not reach memory.
            if text.starts_with("scorer.") {
                sources
            } else {
                sources.set(text)
            }
        });
        sources.load().unwrap().recipe
    }

    fn estimated(case: &Case) -> MemoryEstimate {
        let recipe = recipe(&case.settings);
        let mut config = match case.model.as_str() {
            "micro" => LlamaConfig::parse(crate::data::MICRO_CONFIG).unwrap(),
            _ => smollm2(),
        };
        config.n_heads = 1;
        let reference = if case.reference { config.num_params() } else { 0 };
        config.n_heads = recipe.model.mtp.n_heads;
        estimate(
            &config,
            &recipe,
            case.micro_batch.clone(),
            case.accumulate > 1,
            reference,
        )
    }

    #[test]
    fn estimates_are_within_a_tenth_of_measured_peaks() {
        let cases: Vec<Case> = serde_json::from_str(MEASURED).unwrap();
        assert!(cases.len() >= 10, "{} cases", cases.len());
        let mut wrong = Vec::new();
        for case in &cases {
            let ratio = estimated(case).peak as f64 / case.measured as f64;
            println!("{}: {ratio:.3}", case.name);
            if !(0.9..=1.1).contains(&ratio) {
                wrong.push(format!("{}: {ratio:.3}", case.name));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Attention is computed in blocks: one row of 4096 tokens needs what 16 rows of 256 need.
    #[test]
    fn nothing_grows_with_the_square_of_the_length() {
        let at = |tokens: usize| {
            let batch = MicroBatch {
                tokens,
                rows: vec![tokens; 4],
            };
            let mut config = smollm2();
            config.n_heads = 4;
            estimate(&config, &recipe(&[]), batch, false, 0)
        };
        let (one, two, four) = (at(4096), at(8192), at(16384));
        assert_eq!(one.at, "loss");
        assert_eq!(four.activations, 2 * two.activations);
        assert!(two.peak - one.peak <= (four.peak - two.peak) / 2 + (1 << 20));
    }
}
