//! Puts the parts together: data, model, scorer, learner. A page per pipeline; none knows how any
//! part works inside.
//!
//! `baseline` trains with a control scorer (uniform, random, shuffled, position), `rho1` against a
//! reference model, `critic` first trains a value head and then weights tokens by value differences.

mod builtin_labels;
mod contract;
mod data_store;
mod error;
mod experiment;
mod export;
mod finish;
mod generate;
mod heads;
mod inputs;
mod learned;
mod memory;
mod memory_room;
mod model_dirs;
mod offline;
mod plan;
mod pretrain;
mod request;
mod resume;
mod rewards;
mod sample;
mod scoring;
mod scoring_models;
mod sources;
mod stage_scores;
mod start;
mod steps;
mod tracking;
mod train;
mod upload;
mod value_stage;
mod world;

pub use contract::{OnResume, RESUME_CONTRACT, ResumeRule, on_resume, resume_contract_table};
pub use data_store::DataStore;
pub use error::PipelineError;
pub use experiment::Experiment;
pub(crate) use experiment::default_name;
pub use export::{BUILTIN_MODELS, builtin_config, builtin_model, export_merged, load_model};
pub use finish::TrainSummary;
pub use generate::{ModelGenerator, ScoreReport, TokenWriter, Written, score_text};
pub use heads::{BINS, Bin, HeadFigures, HeadsReport, judge_heads};
pub use learned::{CriticFigures, Learned};
pub use memory::{MemoryEstimate, MicroBatch};
pub use model_dirs::{ModelDir, ModelDirs, weights_hash};
pub use plan::{PlanReport, ValueStagePlan};
pub use pretrain::PretrainReport;
pub use request::RunUpload;
pub use sample::{SampleProgress, SampleReport, SampleRequest, asks_by_chat, sample};
pub use sources::{
    TRAINING_SETS, is_mbpp, problems as training_documents, solutions as labelled_documents, texts as training_texts,
};
pub use stage_scores::{MeasuredStage, StageScore};
pub use tracking::{describe, sync};
pub use upload::UploadSummary;
pub use value_stage::ValueReport;
