//! Named sets of settings for `wmtp eval`.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A protocol; other flags override its settings. Each benchmark has its own ([`super::bench::Spec::profile`]).
///
/// `paper` follows "Better & Faster Large Language Models via Multi-token Prediction" (arXiv
/// 2404.19737): 200 samples of each MBPP and HumanEval problem, pass@1, 10 and 100; 1,000 samples of
/// each CodeContests problem at 0.5, 0.6, 0.7, 0.8 and 0.9 (appendix F). Each k at the temperature
/// with the best test score, which is an oracle choice. Inferred: the grid of MBPP and HumanEval, the
/// only optima in table S12; 3-shot and 0-shot prompts and top-p 0.95, which are Code Llama's (arXiv
/// 2308.12950, table 2). Intervals there are 90% bootstrap intervals, here they are 95%.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The first 100 problems, greedily: minutes, and an interval of plus or minus 0.1.
    Quick,
    /// The protocol of Gloeckle et al. 2024: days on a processor.
    Paper,
}

impl Profile {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Paper => "paper",
        }
    }
}
