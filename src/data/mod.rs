//! From files to packed batches: `path -> Example -> Tokenized -> Batch`.
//!
//! Prompt tokens are masked, several documents share one row, and neither attention, nor
//! positions, nor any head's target crosses the boundary between two documents.

mod batch;
pub mod chat;
mod config;
pub mod contest;
mod dataset;
pub mod decontaminate;
mod detokenizer;
mod error;
pub mod evaluation;
mod example;
mod file;
pub mod humaneval;
mod jinja;
mod known;
pub mod mbpp;
pub mod own;
mod pack;
pub mod pairs;
pub mod plus;
pub(crate) mod python_json;
pub(crate) mod seeded;
mod special;
mod splits;
pub(crate) mod text;
mod tokenizer;
mod tokenizer_class;

pub use batch::{Batch, Document};
pub use config::{DataConfig, PromptStyle, SpecialInText, SpecialTokens};
pub use dataset::{Dataset, DatasetReport, Epoch, StepShape};
pub use decontaminate::{EvaluationProblem, Overlap, OverlapReport};
pub use detokenizer::Detokenizer;
pub use error::DataError;
pub use example::{Example, Tokenized};
pub use file::TextFile;
pub use jinja::Clock;
pub use mbpp::{Problem, load, prompt};
pub use pairs::Solution;
pub use special::Choice;
pub use splits::{ShortFile, Splits, TokenReport};
pub use tokenizer::{MICRO_CONFIG, Tokenizer};

#[cfg(test)]
mod tests;
