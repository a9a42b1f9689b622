//! The learner and its strategy on burn-train: steps, accumulation, schedule, fallback, checkpoints.
//!
//! [`WeightedMtp`] is the module with its scorer; [`StepStrategy`] trains any such module by
//! optimizer steps and knows no scorer. Several devices, and fallbacks for memory and precision, are
//! not here.

mod checkpoint;
mod config;
mod dashboard;
mod display;
mod forward;
pub mod grads;
pub mod histogram;
mod ids;
mod joint;
mod kept;
mod learner;
mod loader;
pub mod loss;
mod observed;
mod optimizer;
mod progress;
mod schedule;
mod steps;
mod strategy;
mod tally;
mod trainable;
mod value;

pub use checkpoint::{CheckpointError, CheckpointStore, Mirror, Recorded, TrainerState, hex, verify};
pub use config::*;
pub use dashboard::Dashboard;
pub use display::Quiet;
pub use forward::{packed, unpadded};
pub use ids::assign_stable_ids;
pub use kept::Kept;
pub use learner::{Assets, LoraAssets, StepBatch, Weigher, WeightedMtp};
pub use loader::{StepLoader, StepSource};
pub use observed::{Observed, Samples};
pub use optimizer::{GradientScale, adamw, clip_factor, rates};
pub use progress::{Lines, Progress, TrainStepDone, ValueStep};
pub use schedule::learning_rate;
pub use steps::{STEPS_FILE, StepDocuments, StepNames, read_steps};
pub use strategy::{Plan, StepStrategy, TrainError, Trainable};
pub use tally::{StepOutput, WeightStats};
pub use value::{CurrentHead, JointValue};
