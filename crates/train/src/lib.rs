//! The learner and its strategy on burn-train: steps, accumulation, schedule, fallback, checkpoints.
//!
//! [`WeightedMtp`] is the model with its scorer, [`ValueLearner`] the value head of the critic's first
//! stage; [`train`] trains either by optimizer steps and knows no scorer. Several devices, and fallbacks
//! for memory and precision, are not here.

mod config;
mod display;
mod error;
mod files;
mod forward;
pub mod grads;
mod hidden_cache;
pub mod histogram;
mod joint_value;
mod kept;
mod learner;
mod loader;
pub mod loss;
mod optimizer;
mod plan;
mod progress;
mod samples;
mod schedule;
mod step;
mod strategy;
mod tally;
mod tensors;
mod trainable;
mod value_stage;
mod weighting;

pub use config::*;
pub use display::Quiet;
pub use error::TrainError;
pub use files::assign_stable_ids;
pub use forward::packed;
pub use joint_value::{CurrentHead, JointValue};
pub use kept::Kept;
pub use learner::{Assets, LoraAssets, WeightedMtp};
pub use loader::{StepLoader, StepResult, StepSource};
pub use optimizer::{
    AdamW, GradientScale, OptimConfig, PatternError, StatePrecision, UpdateRule, clip_factor, optimizer, rates,
    state_bytes,
};
pub use plan::{Plan, Stage};
pub use progress::{Progress, Silent, TrainStepDone, ValueStep};
pub use samples::Samples;
pub use schedule::learning_rate;
pub use step::{StepBatch, StepOutput, step_names};
pub use strategy::{SessionSetup, train};
pub use trainable::{Trainable, Validation};
pub use value_stage::{ValueLearner, ValueMetrics};
pub use weighting::TokenWeighting;
