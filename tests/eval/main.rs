//! Evaluation through its public interface: what a verdict proves, MBPP's ground truth, a whole
//! sampling run. Needs `python3` and the sandbox.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod answers;
mod cheats;
mod going_on;
mod ground_truth;
mod own;
mod plus;
mod run;
mod suspects;

use std::{path::PathBuf, sync::OnceLock};
use wmtp::eval::sandbox::Sandbox;

/// One runner for all tests.
fn runner() -> &'static Sandbox {
    static RUNNER: OnceLock<Sandbox> = OnceLock::new();
    RUNNER.get_or_init(|| Sandbox::new().expect("these tests need python3 and every layer of the sandbox"))
}

fn mbpp_file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/mbpp").join(name);
    std::fs::read_to_string(path).unwrap()
}
