//! The run directory: its files by name, one type per file format, checkpoints with their manifest, and
//! facts about the machine.
//!
//! Writers and readers of a run share the types here. Knows nothing of training, and nothing of who reads
//! what is written: a [`RunObserver`] may be attached, and `track` does so.

use wmtp_base::fs;

mod checkpoint;
mod create;
mod dir;
mod error;
pub mod file;
mod lines;
mod lock;
mod machine;
mod manifest;
mod record;
mod settings_files;
mod steps;
mod trainer;

pub use checkpoint::{CheckpointStore, Mirror, link_files, verify, write_manifest_of_kept};
pub use dir::write_atomically;
pub use dir::{Renewal, RunDir, RunObserver, find, is_run, newest, newest_first, run_of_checkpoint};
pub use error::{CheckpointError, RunError};
pub use lines::{EdgesLine, Event, EventLine, HistogramLine, MetricsLine, Observed, StepLine, TokensLine, ValidLine};
pub use lock::RunLock;
pub use machine::{Machine, memory_limit, peak_memory};
pub use manifest::{FileHash, Manifest};
pub use record::{LongDocument, Resumption, RunRecord, RunTiming};
pub use steps::{StepDocuments, StepNames, read_steps};
pub use trainer::{Recorded, TrainerState};
