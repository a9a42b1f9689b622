//! Evaluation: problems -> prompts -> generations -> judged programs -> pass@k.
//!
//! One folder per benchmark under [`mod@bench`], behind the [`Benchmark`] trait; [`sandbox`] runs programs
//! and knows no benchmark; [`run()`] draws samples from any [`Generator`], or takes answers from a file.
//! Nothing here knows how a model was trained.

pub mod bench;
mod benchmark;
mod cache;
mod compile;
mod error;
pub mod estimate;
mod extract;
mod generator;
mod judge;
mod judgement;
pub mod label;
mod lengths;
pub mod paired;
pub mod passk;
mod pcg64;
mod predictions;
mod python_json;
mod request;
mod run;
mod stop;
mod tokens;
pub mod training_tasks;
pub mod verdict;
mod verify;

pub use bench::Profile;
pub use bench::{
    contest::{Contest, check as check_contest},
    humaneval::HumanEval,
    mbpp::{Mbpp, MbppVariant, check as check_mbpp},
    own::{Own, begins as begins_function},
    plus::Plus,
};
pub use benchmark::{Answer, Benchmark};
pub use cache::VerdictCache;
pub use error::EvalError;
pub use generator::{Completion, Done, GenerationRequest, Generator, PromptLength};
pub use judge::Judge;
pub use judgement::{Judgement, Stages, TestCount};
pub use lengths::TooLong;
pub use predictions::{Prediction, Predictions};
pub use request::{EvalRequest, parse_task_names, parse_tasks};
pub use run::{
    BaseScores, EvalReport, Finished, Progress, ResultCounts, SampleLine, Shares, Source, TemperatureReport,
    TimeShares, plain_name, run, sample_seed,
};
pub use stop::StopRule;
pub use tokens::same_output;
pub use verdict::Verdict;
pub use wmtp_sandbox as sandbox;
