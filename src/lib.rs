//! wmtp: weighted multi-token prediction.
//!
//! Fine-tunes Llama-style code models that predict several tokens at once, giving every token its
//! own weight in the loss. One direction of knowledge: `cli -> settings -> pipeline`, and the
//! pipeline asks `storage`, `data`, the model crate, `scorer`, `train`, `eval` and `track`, in that
//! order; none of them knows the pipeline or the command line.

#![deny(missing_docs)]

pub mod cli;
pub mod data;
pub mod device;
pub mod eval;
mod format;
mod fs;
pub mod paths;
pub mod pipeline;
pub mod redact;
pub mod report;
pub mod run;
pub mod scorer;
pub mod settings;
mod statistics;
pub mod stop;
pub mod storage;
pub mod suggest;
pub mod sweep;
pub mod track;
pub mod train;
pub mod validate;
