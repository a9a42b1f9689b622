//! wmtp: weighted multi-token prediction.
//!
//! Fine-tunes Llama-style code models that predict several tokens at once, giving every token its
//! own weight in the loss. One direction of knowledge: `cli -> settings -> pipeline`, and the
//! pipeline asks `storage`, `data`, the model crate, `scorer`, `train`, `eval` and `track`, in that
//! order; none of them knows the pipeline or the command line.
//!
//! All below `settings` are crates of their own under `crates/`, named here as modules.

pub mod cli;
mod clock;
pub mod pipeline;
pub mod report;
pub mod settings;
pub mod sweep;

use wmtp_base::{fs, statistics};
pub use wmtp_base::{paths, redact, stop, text, validate};
pub use {
    wmtp_data as data, wmtp_device as device, wmtp_eval as eval, wmtp_run as run, wmtp_scorer as scorer,
    wmtp_storage as storage, wmtp_track as track, wmtp_train as train,
};
