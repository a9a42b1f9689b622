//! What a run leaves behind: its directory, `metrics.jsonl` and `events.jsonl`.

mod memory;
mod run_dir;

pub use memory::peak_memory;
pub use run_dir::{Event, RunDir, RunError, RunTiming, newest, write_atomically};
