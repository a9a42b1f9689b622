//! Puts the parts together: data, model, scorer, learner. A page per pipeline; none knows how any
//! part works inside.
//!
//! `baseline` trains with a control scorer (uniform, random, shuffled, position), `rho1` against a
//! reference model, `critic` first learns a value head and then weighs by value differences.

mod builtin;
mod critic;
mod ending;
mod error;
mod export;
mod followed;
mod generate;
mod heads;
mod learn_value;
mod learned;
mod memory;
mod mirror;
mod offline;
mod open;
mod plan;
mod reference;
mod resume;
mod scoring;
mod sources;
mod steps;
mod train;
mod values;

pub use builtin::micro_model;
pub use critic::ValueReport;
pub use error::PipelineError;
pub use export::export_merged;
pub use followed::{describe, sync, weights_hash};
pub use generate::{ModelGenerator, ScoreReport, TokenWriter, Written, score_text};
pub use heads::{BINS, Bin, HeadFigures, HeadsReport, judge_heads};
pub use learned::Learned;
pub use memory::{MemoryEstimate, MicroBatch};
pub use mirror::{Copy, CopySummary};
pub use open::open_model;
pub use plan::{PlanReport, ValueStagePlan, plan};
pub use sources::Sources;
pub use train::{Show, TrainRequest, TrainSummary, train, train_tracked, train_with};
