//! Named sets of settings for `wmtp eval`.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A protocol. What is named on the command line besides goes over it.
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

    /// `key=value` settings for a benchmark.
    ///
    /// `paper` follows "Better & Faster Large Language Models via Multi-token Prediction" (arXiv
    /// 2404.19737). From its text: CodeContests with 1000 samples at each temperature of 0.5, 0.6,
    /// 0.7, 0.8, 0.9 and the best temperature for each k (appendix F); MBPP 3-shot and HumanEval
    /// 0-shot with 200 samples and pass@1, 10, 100 (table 1), again each at its best temperature.
    /// Which temperatures were tried for the latter is not known here, nor is the nucleus: the grid
    /// below is this project's.
    pub fn settings(self, benchmark: &str) -> Vec<String> {
        let lines: &[&str] = match (self, benchmark) {
            (Self::Quick, "mbpp") => &[
                "eval.tasks=11-110",
                "eval.temperature=0.0",
                "eval.samples=1",
                "eval.k=[1]",
            ],
            (Self::Quick, "humaneval") => &[
                "eval.tasks=0-99",
                "eval.temperature=0.0",
                "eval.samples=1",
                "eval.k=[1]",
            ],
            (Self::Quick, _) => &["eval.temperature=0.0", "eval.samples=1", "eval.k=[1]"],
            (Self::Paper, "contest") => &[
                "eval.prompt=zero-shot",
                "eval.temperature=[0.5, 0.6, 0.7, 0.8, 0.9]",
                "eval.samples=1000",
                "eval.k=[1, 10, 100, 1000]",
            ],
            (Self::Paper, "humaneval") => &[
                "eval.prompt=zero-shot",
                "eval.temperature=[0.1, 0.2, 0.4, 0.6, 0.8, 1.0]",
                "eval.samples=200",
                "eval.k=[1, 10, 100]",
            ],
            (Self::Paper, _) => &[
                "eval.prompt=few-shot",
                "eval.temperature=[0.1, 0.2, 0.4, 0.6, 0.8, 1.0]",
                "eval.samples=200",
                "eval.k=[1, 10, 100]",
            ],
        };
        lines.iter().map(|line| (*line).to_owned()).collect()
    }
}
