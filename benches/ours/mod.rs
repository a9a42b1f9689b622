//! Our training step, for the programs that compare it with others.

use burn::{optim::ModuleOptimizer, train::TrainStep};
use std::time::Instant;
use wmtp::{
    data::{Batch, Document, Tokenizer},
    scorer::{Normaliser, Uniform, WeightGroup, WeightsConfig},
    train::{
        Assets, GradientScale, LossConfig, OptimConfig, StatePrecision, StepBatch, Weigher, WeightedMtp, adamw,
        assign_stable_ids, clip_factor, grads, rates,
    },
};
use wmtp_model::MtpLlama;

/// A model under training on one and the same batch.
pub struct Ours {
    module: Option<WeightedMtp>,
    optimizer: ModuleOptimizer,
    clip: GradientScale,
    batch: StepBatch,
}

impl Ours {
    /// Uniform weights, AdamW with the default settings and moments in `state`, rows of `len` tokens.
    pub fn new(model: MtpLlama, rows: usize, len: usize, state: StatePrecision) -> Self {
        let vocabulary = model.config().vocab_size;
        let weigher = Weigher::new(
            Box::new(Uniform),
            Normaliser::new(WeightsConfig::default()).expect("the default weights"),
            WeightGroup::Document,
            LossConfig::default(),
            None,
        );
        let assets = Assets {
            tokenizer: Tokenizer::builtin_micro().expect("the tokenizer is built in"),
            model_hash: String::new(),
            lora: None,
        };
        let clip = GradientScale::default();
        let optim = OptimConfig {
            state,
            ..OptimConfig::default()
        };
        Self {
            module: Some(assign_stable_ids(WeightedMtp::new(model, None, weigher, assets))),
            optimizer: adamw(&optim, &clip).expect("valid settings"),
            clip,
            batch: StepBatch {
                micro: vec![batch(rows, len, vocabulary)],
                heads_only: false,
            },
        }
    }

    /// One step with clipping: the loss before it, and the seconds from the gradients to its end.
    pub fn step(&mut self) -> (f64, f64) {
        let module = self.module.take().expect("the model is put back");
        let out = TrainStep::step(&module, self.batch.clone());
        let start = Instant::now();
        let norm = grads::global_norm(&module, &out.grads);
        self.clip.set(clip_factor(norm, 1.0));
        let rates = rates(1e-5, None).expect("a rate");
        self.module = Some(self.optimizer.step(rates, module, out.grads));
        (out.item.loss, start.elapsed().as_secs_f64())
    }
}

/// Token ids of a step, the same for every peer: a fixed pseudo-random sequence.
pub fn tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    let mut state = 1u64;
    let mut token = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as u32 % vocabulary as u32
    };
    (0..count).map(|_| token()).collect()
}

/// Every token of a row is trained but the first.
fn batch(rows: usize, len: usize, vocabulary: usize) -> Batch {
    Batch {
        rows,
        seq_len: len,
        tokens: tokens(rows * len, vocabulary),
        positions: (0..rows * len).map(|i| (i % len) as u32).collect(),
        docs: vec![0; rows * len],
        response: (0..rows * len).map(|i| i % len > 0).collect(),
        documents: (0..rows)
            .map(|row| Document {
                sample: row,
                name: format!("row {row}"),
                problem: row as u32,
                row,
                start: 0,
                len,
                prompt_len: 1,
                reward: None,
            })
            .collect(),
    }
}
