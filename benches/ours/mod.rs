//! Our training step, for the programs that compare it with others.

use burn::{optim::ModuleOptimizer, train::TrainStep};
use std::time::Instant;
use wmtp::{
    data::{Batch, Document},
    scorer::{Normaliser, Uniform, WeightGroup, WeightsConfig},
    train::{
        Assets, GradientScale, HeadOrder, LossConfig, OptimConfig, StatePrecision, StepBatch, StepOutput,
        TokenWeighting, WeightedMtp, assign_stable_ids, clip_factor, grads, learning_rate, optimizer, rates,
    },
};
use wmtp_model::{CausalLm, Companions, MtpLlama};

/// A model under training.
pub struct Ours {
    module: Option<WeightedMtp>,
    optimizer: ModuleOptimizer,
    clip: GradientScale,
    optim: OptimConfig,
    steps: Vec<StepBatch>,
    done: usize,
}

impl Ours {
    /// One and the same batch of rows of `len` tokens, AdamW with the default settings at 1e-5 and its
    /// moments in `state`.
    pub fn new(model: MtpLlama, rows: usize, len: usize, state: StatePrecision) -> Self {
        let step = StepBatch {
            micro_batches: vec![batch(rows, len, model.config().vocab_size)],
            ..StepBatch::default()
        };
        let optim = OptimConfig {
            lr: 1e-5,
            min_lr_ratio: 1.0,
            state,
            ..OptimConfig::default()
        };
        Self::on(model, vec![step], optim)
    }

    /// Uniform weights; these steps over and over, with one schedule over the first pass.
    pub fn on(model: MtpLlama, mut steps: Vec<StepBatch>, optim: OptimConfig) -> Self {
        if model.attends_by_document() {
            let batches = steps.iter_mut().flat_map(|step| &mut step.micro_batches);
            batches.for_each(|batch| *batch = batch.ragged());
        }
        let weighting = TokenWeighting::new(
            Box::new(Uniform),
            Normaliser::new(WeightsConfig::default()).expect("the default weights"),
            WeightGroup::Document,
            LossConfig::default(),
            None,
        );
        let assets = Assets {
            companions: Companions::default(),
            model_hash: String::new(),
            lora: None,
        };
        let clip = GradientScale::default();
        Self {
            module: Some(assign_stable_ids(WeightedMtp::new(model, None, weighting, assets))),
            optimizer: optimizer(&optim, &clip).expect("valid settings"),
            clip,
            optim,
            steps,
            done: 0,
        }
    }

    /// The same with heads in this order.
    #[allow(dead_code)] // not every program that compares has the choice
    pub fn with_heads(mut self, heads: HeadOrder) -> Self {
        self.module = self.module.map(|module| module.with_heads(heads));
        self
    }

    /// One step with clipping: what it found, and the seconds from the gradients to its end.
    pub fn step(&mut self) -> (StepOutput, f64) {
        let module = self.module.take().expect("the model is put back");
        let batch = self.steps[self.done % self.steps.len()].clone();
        let out = TrainStep::step(&module, batch);
        let start = Instant::now();
        let norm = grads::global_norm(&module, &out.grads).expect("a device that can be read");
        self.clip.set(clip_factor(norm, self.optim.clip_norm));
        let rates = rates(learning_rate(&self.optim, self.done, self.steps.len()), None).expect("a rate");
        self.module = Some(self.optimizer.step(rates, module, out.grads));
        self.done += 1;
        (out.item, start.elapsed().as_secs_f64())
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
        given: vec![1.0; rows * len],
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
