//! From files to packed batches: `path -> Example -> Tokenized -> Batch`.
//!
//! Prompt tokens are masked, several documents share one row, and neither attention, nor
//! positions, nor any head's target crosses the boundary between two documents.

mod batch;
pub mod chat;
mod collect;
mod config;
mod dataset;
pub mod decontaminate;
mod detokenizer;
mod epoch;
mod error;
mod example;
mod file;
mod from_records;
mod guard;
pub mod labels;
pub mod leak;
mod pack;
mod question;
mod record;
mod render;
mod render_chat;
pub mod samples;
pub mod seeded;
pub mod source;
mod sources;
mod splits;
mod stream;
mod template;
pub mod text;
mod token_cache;
mod tokenizer;

pub use batch::{Batch, Document};
pub use chat::{Conversation, ConversationOptions, TrainOn};
pub use config::{BatchingConfig, Copies, DataConfig, PromptStyle, StepShape, TooLong};
pub use dataset::{Dataset, DatasetReport};
pub use decontaminate::{EvaluationProblem, Overlap, OverlapReport};
pub use detokenizer::Detokenizer;
pub use epoch::Epoch;
pub use error::DataError;
pub use example::{Example, Tokenized};
pub use file::TextFile;
pub use file::rows;
pub use from_records::{Rows, Wanted, splits};
pub use question::{Asked, Prompt, Question};
pub use record::{Body, Instruction, Place, Record, Sample, Span, Tests};
pub use render::{Rendered, Rendering};
pub use sources::{Part, Sources};
pub use splits::{ShortFile, Splits, TokenReport};
pub use template::Clock;
pub use token_cache::{CacheEvent, FileHashes, TokenCache};
pub use tokenizer::{Choice, MICRO_CONFIG, SpecialInText, SpecialTokens, Tokenizer};

#[cfg(test)]
mod tests;
