//! The sandbox that tests of evaluation share.

use std::sync::OnceLock;
use wmtp::eval::sandbox::Sandbox;

/// One runner for all tests.
pub fn runner() -> &'static Sandbox {
    static RUNNER: OnceLock<Sandbox> = OnceLock::new();
    RUNNER.get_or_init(|| Sandbox::new().expect("these tests need python3 and every layer of the sandbox"))
}
