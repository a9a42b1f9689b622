//! Evaluation through its public interface: what the sandbox holds, what a verdict proves, MBPP's
//! ground truth, a whole sampling run. Needs `python3`.

mod answers;
mod cheats;
mod going_on;
mod ground_truth;
mod run;
mod sandbox;
mod suspects;

use std::{path::PathBuf, sync::OnceLock};
use wmtp::eval::sandbox::ProcessRunner;

/// One runner for all tests.
fn runner() -> &'static ProcessRunner {
    static RUNNER: OnceLock<ProcessRunner> = OnceLock::new();
    RUNNER.get_or_init(|| ProcessRunner::new().expect("these tests need python3"))
}

fn mbpp_file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/mbpp").join(name);
    std::fs::read_to_string(path).unwrap()
}
