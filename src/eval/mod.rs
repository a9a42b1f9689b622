//! Evaluation: problems -> prompts -> generations -> judged programs -> pass@k.
//!
//! One file per benchmark behind the [`Benchmark`] trait; [`sandbox`] runs programs and knows no
//! benchmark; [`run()`] draws samples from whatever [`Generator`] it is given. Nothing here knows
//! how a model was trained.

mod benchmark;
mod error;
mod mbpp;
pub mod passk;
mod request;
mod run;
pub mod verdict;

pub use benchmark::Benchmark;
pub use error::EvalError;
pub use mbpp::{Mbpp, judge as judge_mbpp};
pub use request::{EvalRequest, parse_tasks};
pub use run::{Completion, EvalReport, Generator, Progress, ResultCounts, run, sample_seed};
pub use verdict::Verdict;
pub use wmtp_sandbox as sandbox;
