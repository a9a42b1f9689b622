//! The benchmarks: one folder each (problems, prompts, verdict) and one entry in the list below.

pub mod contest;
pub mod humaneval;
mod known;
pub mod mbpp;
pub mod own;
pub mod plus;
pub mod world;

use super::{Benchmark, EvalError};
use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use wmtp_data::{DataError, EvaluationProblem, PromptStyle, Tokenizer};

/// All benchmarks, in the order of `wmtp eval --help`.
pub const ALL: [Spec; 7] = [
    mbpp::SPEC,
    humaneval::SPEC,
    contest::SPEC,
    plus::MBPP,
    plus::HUMANEVAL,
    own::SPEC,
    world::SPEC,
];

/// Reads problems that are built in, for the comparison with training data.
pub type ReadBuiltIn = fn() -> Result<Vec<EvaluationProblem>, DataError>;

/// Reads problems from a file, for the comparison with training data.
pub type ReadFile = fn(&Path) -> Result<Vec<EvaluationProblem>, DataError>;

/// What the program has to know of a benchmark before its problems are read.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name on the command line, in settings and in reports.
    pub name: &'static str,
    /// Its line in the help.
    pub about: &'static str,
    /// The style of its prompts where none is chosen.
    pub prompt: PromptStyle,
    /// Its sets, the default first.
    pub variants: &'static [&'static str],
    /// Its problems come from a file that is not built in: what to say where none is given.
    pub file: Option<&'static str>,
    /// The tests of a problem are run one by one, so that all of them can be run.
    pub tests_apart: bool,
    /// Time limit in seconds where none is given on the command line; the recipe's if None.
    pub timeout_seconds: Option<u64>,
    /// Its named protocols.
    pub profiles: Profiles,
    /// Reads the problems and writes the prompts.
    pub load: fn(&Request<'_>) -> Result<Box<dyn Benchmark>, EvalError>,
    /// Sets that training data is compared with, by name: what it must not have.
    pub evaluation: &'static [(&'static str, ReadBuiltIn)],
    /// The same of a file in the benchmark's form.
    pub evaluation_file: Option<ReadFile>,
}

/// `key=value` settings of each [`Profile`], in groups.
#[derive(Clone, Copy, Debug)]
pub struct Profiles {
    /// See [`Profile::Quick`].
    pub quick: &'static [&'static [&'static str]],
    /// See [`Profile::Paper`].
    pub paper: &'static [&'static [&'static str]],
}

/// A protocol; other flags override its settings. Each benchmark has its own ([`Spec::profile`]).
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

/// One greedy completion.
const GREEDY: &[&str] = &["eval.temperature=0.0", "eval.samples=1", "eval.k=[1]"];
/// Gloeckle et al. 2024 on MBPP and HumanEval, but for the prompt.
const PAPER_CODE: &[&str] = &[
    "eval.temperature=[0.1, 0.2, 0.4, 0.8]",
    "eval.samples=200",
    "eval.k=[1, 10, 100]",
];

/// Which problems are read, and how they become prompts.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `builtin:NAME`, a directory or a file.
    pub source: &'a str,
    /// Which of the benchmark's sets, if one is named.
    pub variant: Option<&'a str>,
    /// Problems that are not the known ones are allowed.
    pub altered: bool,
    /// How prompts are written.
    pub style: PromptStyle,
    /// For the chat template.
    pub tokenizer: Option<&'a Tokenizer>,
    /// All tests of a problem are run, where they run one by one.
    pub all_tests: bool,
}

impl Request<'_> {
    /// The set that is named, or the benchmark's first.
    fn variant(&self, of: &Spec) -> Result<&'static str, EvalError> {
        let Some(variant) = self.variant else {
            return Ok(of.variants.first().copied().unwrap_or_default());
        };
        of.variants
            .iter()
            .copied()
            .find(|name| *name == variant)
            .ok_or_else(|| {
                EvalError::Request(format!(
                    "`eval.variant` is {variant}, which {} does not have: there is {}",
                    of.name,
                    of.variants.join(" or ")
                ))
            })
    }
}

impl Spec {
    /// The benchmark of this name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|spec| spec.name == name)
    }

    /// Names of the benchmarks whose problems are built in.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        ALL.into_iter().filter(|spec| spec.file.is_none()).map(|spec| spec.name)
    }

    /// The `key=value` settings of a protocol.
    pub fn profile(&self, profile: Profile) -> Vec<String> {
        let groups = match profile {
            Profile::Quick => self.profiles.quick,
            Profile::Paper => self.profiles.paper,
        };
        groups
            .iter()
            .copied()
            .flatten()
            .map(|line| (*line).to_owned())
            .collect()
    }
}

/// Names of the sets that training data is compared with.
pub fn evaluation_names() -> Vec<&'static str> {
    let sets = ALL.iter().flat_map(|spec| spec.evaluation);
    sets.map(|(name, _)| *name).collect()
}

/// Whether training data can be compared with it: one of [`evaluation_names`], or `NAME=FILE` for a benchmark
/// that is not built in.
pub fn is_evaluation_name(name: &str) -> bool {
    evaluation_names().contains(&name) || of_file(name).is_some()
}

/// The benchmark and the file of `mbpp+=FILE`.
fn of_file(name: &str) -> Option<(ReadFile, &Path)> {
    let (name, file) = name.split_once('=')?;
    Some((Spec::named(name)?.evaluation_file?, Path::new(file)))
}

/// The evaluation problems of one of [`evaluation_names`], as shipped: MBPP's test split (full or sanitized),
/// all of HumanEval, CodeContests' valid and test; or of a file of HumanEval+ or MBPP+, without MBPP's own
/// training tasks (601 and up). A problem with several solutions, or with one that stands alone as well as in
/// its prompt, comes several times under its name.
///
/// # Errors
/// [`DataError::UnknownBuiltin`] for another name; a file that cannot be read.
pub fn evaluation_problems_of(name: &str) -> Result<Vec<EvaluationProblem>, DataError> {
    if let Some((load, file)) = of_file(name) {
        return load(file);
    }
    let mut sets = ALL.iter().flat_map(|spec| spec.evaluation);
    let (_, load) = sets
        .find(|(known, _)| *known == name)
        .ok_or_else(|| DataError::UnknownBuiltin {
            name: name.to_owned(),
            known: evaluation_names().join(", builtin:"),
        })?;
    load()
}

/// The evaluation problems of every built-in set.
///
/// # Errors
/// None for the data that are built in.
pub fn evaluation_problems() -> Result<Vec<EvaluationProblem>, DataError> {
    let mut all = Vec::new();
    for (_, load) in ALL.iter().flat_map(|spec| spec.evaluation) {
        all.extend(load()?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wmtp_data::{Example, decontaminate::compare};

    fn example(name: &str, sample: usize, task: String, code: String) -> Example {
        Example {
            sample,
            name: name.to_owned(),
            problem: 0,
            prompt: task.clone(),
            response: code.clone(),
            task,
            code,
            reward: None,
        }
    }

    #[test]
    fn every_benchmark_recognises_its_own_solutions() {
        for (benchmark, names) in [("mbpp", 500), ("sanitized", 257), ("humaneval", 164), ("contest", 80)] {
            let problems = evaluation_problems_of(benchmark).unwrap();
            let distinct: std::collections::BTreeSet<_> = problems.iter().map(|p| &p.name).collect();
            assert_eq!(distinct.len(), names, "{benchmark}");
            let own: Vec<Example> = problems
                .iter()
                .filter(|p| !p.code.is_empty())
                .map(|p| example("mine", 0, String::new(), p.code.clone()))
                .collect();
            assert!(own.len() > 60);
            let report = compare(&own, &problems);
            assert_eq!(report.copies, own.len(), "{benchmark}");
            assert!(report.found.iter().all(|overlap| overlap.equal_code));
        }
        assert!(evaluation_problems_of("apps").is_err());
        assert!(
            !is_evaluation_name("apps")
                && !is_evaluation_name("apps=x")
                && is_evaluation_name("mbpp+=x")
                && is_evaluation_name("mbpp")
        );
    }

    #[test]
    fn mbpp_plus_is_compared_without_mbpps_training_tasks() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/evalplus/mbpp_plus.jsonl.gz"
        );
        let problems = evaluation_problems_of(&format!("mbpp+={file}")).unwrap();
        let numbers: Vec<u32> = problems
            .iter()
            .map(|p| p.name.strip_prefix("mbpp+/").unwrap().parse().unwrap())
            .collect();
        assert_eq!(
            (numbers.first(), numbers.last(), numbers.len()),
            (Some(&2), Some(&590), 19)
        );
        let copy = example("mine", 0, String::new(), problems[0].code.clone());
        assert_eq!(compare(&[copy], &problems).copies, 1);
    }

    #[test]
    fn a_humaneval_solution_is_recognised_without_its_docstring_and_by_its_task() {
        let problems = evaluation_problems_of("humaneval").unwrap();
        let bare = "def truncate_number(number: float) -> float:\n    return number % 1.0\n";
        let report = compare(&[example("mine", 0, String::new(), bare.into())], &problems);
        assert_eq!(report.found.first().map(|o| o.problem.as_str()), Some("humaneval/2"));
        let prompt = humaneval::load("builtin:humaneval", false).unwrap()[0].prompt.clone();
        let report = compare(&[example("mine", 0, prompt, "pass".into())], &problems);
        assert_eq!(
            report.found.first().map(|o| (o.problem.as_str(), o.equal_code)),
            Some(("humaneval/0", false))
        );
    }

    #[test]
    fn names_are_distinct_and_each_benchmark_has_a_default() {
        let names: std::collections::BTreeSet<&str> = ALL.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert_eq!(
            Spec::built_in().collect::<Vec<_>>(),
            ["mbpp", "humaneval", "contest", "world"]
        );
        assert!(Spec::named("apps").is_none());
        let mbpp = Spec::named("mbpp").unwrap();
        assert_eq!(mbpp.profile(Profile::Quick)[0], "eval.tasks=11-110");
        assert_eq!(mbpp.profile(Profile::Paper).len(), 4);
    }
}
