//! What a session of training follows, with the learning rate of every step.

use super::{
    FallbackConfig, OptimConfig, TrainConfig,
    schedule::{learning_rate, rise},
};
use wmtp_run::file;

/// A stage of a run. All are trained by one loop; this is where their files and settings differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The unweighted stage before everything else: a model with random weights learns.
    Pretrain,
    /// The critic's value stage: a value head learns, the model is frozen.
    Value,
    /// The weighted stage: the model learns.
    Weighted,
}

impl Stage {
    /// The file with a line for every step and every validation, in the run's directory.
    pub fn metrics_file(self) -> &'static str {
        match self {
            Self::Pretrain => file::PRETRAIN_METRICS,
            Self::Value => file::VALUE_STAGE_METRICS,
            Self::Weighted => file::METRICS,
        }
    }

    /// The file that takes the batch of a step that was not applied.
    pub(super) fn dump_file(self, step: usize) -> String {
        match self {
            Self::Pretrain => format!("pretrain/skipped-step-{step:06}.json"),
            Self::Value => format!("critic/skipped-step-{step:06}.json"),
            Self::Weighted => format!("skipped-step-{step:06}.json"),
        }
    }

    /// The setting of the peak learning rate.
    pub(super) fn lr_key(self) -> &'static str {
        match self {
            Self::Value => "scorer.lr",
            Self::Pretrain | Self::Weighted => "optim.lr",
        }
    }
}

/// What a session of training follows.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which stage of a run it is.
    pub stage: Stage,
    /// Optimizer settings.
    pub optim: OptimConfig,
    /// Length, checkpoints, validation, early stopping.
    pub train: TrainConfig,
    /// What happens when a step fails.
    pub fallback: FallbackConfig,
    /// The value head's peak learning rate, where it is trained along.
    pub value_lr: Option<f64>,
    /// Optimizer steps in all.
    pub total_steps: usize,
    /// Epochs after which training ends, however many steps were done; None: `total_steps` alone says.
    pub max_epochs: Option<usize>,
    /// The scorer's name, for errors.
    pub scorer: String,
    /// Share of groups that may fall back to weight 1.
    pub max_fallback_share: f64,
}

impl Plan {
    /// The learning rate of an optimizer step (from 0): the head warm-up's, then the schedule of
    /// `optim` over the steps that are left. A warm-up that is the whole run falls as `optim` would.
    pub fn learning_rate(&self, step: usize) -> f64 {
        let warmup = &self.train.head_warmup;
        let heads = warmup.steps.min(self.total_steps);
        match step.checked_sub(heads) {
            None if heads == self.total_steps => {
                let optim = OptimConfig {
                    lr: warmup.lr,
                    ..self.optim.clone()
                };
                learning_rate(&optim, step, heads)
            }
            None => warmup.lr * rise(&self.optim, step, heads),
            Some(step) => learning_rate(&self.optim, step, self.total_steps - heads),
        }
    }

    /// The value head's learning rate at an optimizer step (from 0), where it is trained along: the
    /// schedule of `optim` from its own peak over all steps, a head warm-up or not.
    pub fn value_rate(&self, step: usize) -> Option<f64> {
        let optim = OptimConfig {
            lr: self.value_lr?,
            ..self.optim.clone()
        };
        Some(learning_rate(&optim, step, self.total_steps))
    }
}
