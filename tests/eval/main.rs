//! Evaluation through its public interface: what a verdict proves, a whole sampling run. Needs `python3` and
//! the sandbox.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod answers;
mod cheats;
mod going_on;
mod own;
mod run;
mod runner;
mod verified;

use runner::runner;
