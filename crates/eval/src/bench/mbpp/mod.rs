//! MBPP (Austin et al. 2021, arXiv 2108.07732): 500 test problems, judged by their asserts; also
//! the authors' 427 hand-verified problems, of which 257 are test problems.
//!
//! Problems and prompts are in `data`; here a completion becomes a verdict.

mod data;
pub mod pairs;
pub mod training;

use crate::bench::{GREEDY, PAPER_CODE, Profiles, Request, Spec};
use crate::{
    Answer, Benchmark, EvalError, Judge, Judgement, StopRule,
    benchmark::normalised,
    extract,
    verdict::{Checked, Names},
};
use wmtp_data::{PromptStyle, Tokenizer};

pub use data::{
    DONE, FEW_SHOT_TASKS, PROBLEMS_FILE, Problem, SANITIZED_FILE, TASKS, TEST_TASKS, content, examples, load,
    load_known, load_sanitized, prompt, response, within,
};

/// MBPP's entry in the list of benchmarks.
pub(super) const SPEC: Spec = Spec {
    name: "mbpp",
    about: "MBPP: short Python functions, judged by their asserts",
    prompt: PromptStyle::FewShot,
    variants: &["full", "sanitized"],
    file: None,
    tests_apart: false,
    timeout_seconds: None,
    profiles: Profiles {
        quick: &[&["eval.tasks=11-110"], GREEDY],
        paper: &[&["eval.prompt=few-shot"], PAPER_CODE],
    },
    load: open,
    evaluation: &[
        ("mbpp", data::evaluation_problems),
        ("sanitized", data::sanitized_evaluation_problems),
    ],
    evaluation_file: None,
};

fn open(request: &Request<'_>) -> Result<Box<dyn Benchmark>, EvalError> {
    let variant = match request.variant(&SPEC)? {
        "sanitized" => MbppVariant::Sanitized,
        _ => MbppVariant::Full,
    };
    let Request {
        source,
        altered,
        style,
        tokenizer,
        ..
    } = *request;
    Ok(Box::new(Mbpp::load(source, variant, altered, style, tokenizer)?))
}

/// Ends a solution, in prompts and in completions.
const STOP: [&str; 1] = ["[DONE]"];

/// Which of MBPP's sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MbppVariant {
    /// All 974 problems.
    Full,
    /// The 427 that the authors verified by hand.
    Sanitized,
}

/// The benchmark, with every prompt written out.
#[derive(Clone, Debug)]
pub struct Mbpp {
    problems: Vec<Problem>,
    prompts: Vec<String>,
    style: PromptStyle,
    variant: MbppVariant,
}

impl Mbpp {
    /// Reads the problems of `source` and writes their prompts in this style.
    ///
    /// # Errors
    /// As [`data::load_known`] and [`data::load_sanitized`]; and as [`Mbpp::new`].
    pub fn load(
        source: &str,
        variant: MbppVariant,
        altered: bool,
        style: PromptStyle,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self, EvalError> {
        let problems = match variant {
            MbppVariant::Full => data::load_known(source, altered)?,
            MbppVariant::Sanitized => data::load_sanitized(source, altered)?,
        };
        Self::new(problems, variant, style, tokenizer)
    }

    /// Writes the prompts of `problems` in this style. Only chat needs the tokenizer.
    ///
    /// # Errors
    /// As [`data::prompt`]: few-shot tasks that are missing, a chat template that is missing or
    /// fails.
    pub fn new(
        mut problems: Vec<Problem>,
        variant: MbppVariant,
        style: PromptStyle,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self, EvalError> {
        problems.sort_by_key(|problem| problem.task_id);
        let prompts = problems
            .iter()
            .map(|problem| data::prompt(&problems, problem, style, tokenizer))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            problems,
            prompts,
            style,
            variant,
        })
    }

    fn index(&self, task: u32) -> Result<usize, EvalError> {
        self.problems
            .binary_search_by_key(&task, |problem| problem.task_id)
            .map_err(|_| match self.variant {
                MbppVariant::Full => {
                    EvalError::Request(format!("MBPP has no task {task}; its test tasks are 11 to 510"))
                }
                MbppVariant::Sanitized => EvalError::Request(format!(
                    "MBPP's sanitized set has no task {task}; leave --tasks out for those of 11 to 510 that it has"
                )),
            })
    }

    fn problem(&self, task: u32) -> Result<&Problem, EvalError> {
        let index = self.index(task)?;
        self.problems
            .get(index)
            .ok_or_else(|| EvalError::Request(format!("MBPP has no task {task}")))
    }
}

impl Benchmark for Mbpp {
    fn name(&self) -> &str {
        "mbpp"
    }

    fn variant(&self) -> &str {
        match self.variant {
            MbppVariant::Full => "full",
            MbppVariant::Sanitized => "sanitized",
        }
    }

    fn has_mbpp_tasks(&self) -> bool {
        true
    }

    fn tasks(&self) -> Vec<u32> {
        self.problems.iter().map(|problem| problem.task_id).collect()
    }

    fn default_tasks(&self) -> Vec<u32> {
        self.tasks()
            .into_iter()
            .filter(|task| (TEST_TASKS.0..=TEST_TASKS.1).contains(task))
            .collect()
    }

    fn task_id(&self, task: u32) -> String {
        format!("Mbpp/{task}")
    }

    fn prompt_style(&self) -> PromptStyle {
        self.style
    }

    fn prompt(&self, task: u32) -> Result<&str, EvalError> {
        let index = self.index(task)?;
        self.prompts
            .get(index)
            .map(String::as_str)
            .ok_or_else(|| EvalError::Request(format!("MBPP has no task {task}")))
    }

    fn stop(&self) -> StopRule<'_> {
        StopRule::Strings(&STOP)
    }

    fn completion(&self, task: u32, text: &str) -> String {
        match self.style {
            PromptStyle::Chat => {
                let wanted = self.problem(task).map(asked_for).unwrap_or_default();
                extract::program(text, &wanted)
            }
            PromptStyle::ZeroShot | PromptStyle::FewShot => text.to_owned(),
        }
    }

    fn judge(&self, task: u32, answer: Answer<'_>, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
        // The prompt is prose: what follows it is the whole program.
        check(self.problem(task)?, answer.text(), false, judge)
    }

    fn is_reference(&self, task: u32, answer: Answer<'_>) -> Result<bool, EvalError> {
        Ok(normalised(answer.text()) == normalised(&self.problem(task)?.code))
    }

    fn material(&self, task: u32) -> Result<Vec<&str>, EvalError> {
        let problem = self.problem(task)?;
        Ok(checks(problem, false).collect())
    }
}

fn checks(problem: &Problem, challenge: bool) -> impl Iterator<Item = &str> {
    let more: &[String] = if challenge { &problem.challenge_test_list } else { &[] };
    std::iter::once(&problem.test_setup_code)
        .chain(&problem.test_list)
        .chain(more)
        .map(String::as_str)
}

/// Runs a solution of `problem`, then its set-up, then its asserts, then, if `challenge`, the
/// asserts of the challenge list, which few problems have and the benchmark does not count.
///
/// The set-up comes after the solution, because that of tasks 367 and 927 uses a class of it.
///
/// # Errors
/// Only when the sandbox fails.
pub fn check(problem: &Problem, code: &str, challenge: bool, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
    let checks: Vec<&str> = checks(problem, challenge).collect();
    judge.check(&Checked {
        code,
        checks: &checks,
        names: Names {
            reference: &problem.code,
            ..Names::default()
        },
    })
}

/// The names that a solution must define: those of the reference that the tests use.
fn asked_for(problem: &Problem) -> Vec<&str> {
    let tests = problem.test_list.concat();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let words: Vec<&str> = tests.split(|c| !is_part(c)).collect();
    defined(&problem.code)
        .into_iter()
        .filter(|name| words.contains(name))
        .collect()
}

/// Names that a program defines with `def` and `class`. MBPP's tests call some by names that are
/// builtins' as well.
fn defined(code: &str) -> Vec<&str> {
    code.lines()
        .filter_map(|line| {
            let line = line.trim_start();
            let rest = line.strip_prefix("def ").or_else(|| line.strip_prefix("class "))?;
            let rest = rest.trim_start();
            let end = rest
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            rest.get(..end)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    mod decontamination;
    mod files;

    use super::*;

    #[test]
    fn the_names_that_a_reference_defines() {
        let code = "import x\nclass Pair(object):\n    def __init__(self): pass\ndef  sum (a, b):\n    return a\n";
        assert_eq!(defined(code), ["Pair", "__init__", "sum"]);
    }
}
