//! Programs whose verdict is known: every reference solution of the benchmarks, labelled programs, evalplus'
//! verdicts, reference solutions written through tokenizers of several kinds. Minutes, so a target of the
//! tier slow. Needs `python3` and the sandbox.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

#[allow(dead_code)] // the tests of cases use the rest
#[path = "../cases/case.rs"]
mod case;
#[path = "../common/mod.rs"]
mod common;
mod completions;
mod contest;
mod ground_truth;
mod plus;
#[path = "../eval/runner.rs"]
mod runner;

use runner::runner;
