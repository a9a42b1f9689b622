//! MBPP (Austin et al. 2021, arXiv 2108.07732): 500 test problems, judged by their asserts.
//!
//! Problems and prompts are `data`'s; here a completion becomes a verdict.

use super::{
    Benchmark, EvalError, Verdict,
    sandbox::{Limits, Runner},
    verdict,
};
use crate::data::{
    PromptStyle, Tokenizer,
    mbpp::{self, Problem, TEST_TASKS},
};

/// Ends a solution, in prompts and in completions.
const STOP: [&str; 1] = ["[DONE]"];

/// The benchmark, with every prompt written out.
#[derive(Clone, Debug)]
pub struct Mbpp {
    problems: Vec<Problem>,
    prompts: Vec<String>,
    style: PromptStyle,
}

impl Mbpp {
    /// Writes the prompts of `problems` in this style.
    ///
    /// # Errors
    /// As [`mbpp::prompt`]: few-shot tasks that are missing, a chat template that is missing or
    /// fails.
    pub fn new(mut problems: Vec<Problem>, style: PromptStyle, tokenizer: &Tokenizer) -> Result<Self, EvalError> {
        problems.sort_by_key(|problem| problem.task_id);
        let prompts = problems
            .iter()
            .map(|problem| mbpp::prompt(&problems, problem, style, tokenizer))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            problems,
            prompts,
            style,
        })
    }

    fn index(&self, task: u32) -> Result<usize, EvalError> {
        self.problems
            .binary_search_by_key(&task, |problem| problem.task_id)
            .map_err(|_| EvalError::Request(format!("MBPP has no task {task}; its test tasks are 11 to 510")))
    }

    fn problem(&self, task: u32) -> Result<&Problem, EvalError> {
        let index = self.index(task)?;
        self.problems
            .get(index)
            .ok_or_else(|| EvalError::Request(format!("MBPP has no task {task}")))
    }

    /// The program in a completion: all of it, or for an assistant's answer its first fenced block.
    fn program<'a>(&self, completion: &'a str) -> &'a str {
        match self.style {
            PromptStyle::Chat => fenced(completion).unwrap_or(completion),
            PromptStyle::ZeroShot | PromptStyle::FewShot => completion,
        }
    }
}

impl Benchmark for Mbpp {
    fn name(&self) -> &str {
        "mbpp"
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

    fn stop(&self) -> &[&str] {
        &STOP
    }

    fn judge(&self, task: u32, completion: &str, runner: &dyn Runner, limits: &Limits) -> Result<Verdict, EvalError> {
        judge(self.problem(task)?, self.program(completion), false, runner, limits)
    }

    fn is_reference(&self, task: u32, completion: &str) -> Result<bool, EvalError> {
        Ok(normalised(self.program(completion)) == normalised(&self.problem(task)?.code))
    }
}

/// Runs a solution of `problem`, then its set-up, then its asserts, then, if `challenge`, the
/// asserts of the challenge list, which few problems have and the benchmark does not count.
///
/// The set-up comes after the solution, because that of tasks 367 and 927 uses a class of it.
///
/// # Errors
/// Only when the sandbox fails.
pub fn judge(
    problem: &Problem,
    code: &str,
    challenge: bool,
    runner: &dyn Runner,
    limits: &Limits,
) -> Result<Verdict, EvalError> {
    let more: &[String] = if challenge { &problem.challenge_test_list } else { &[] };
    let checks: Vec<&str> = std::iter::once(&problem.test_setup_code)
        .chain(&problem.test_list)
        .chain(more)
        .map(String::as_str)
        .collect();
    Ok(verdict::check(runner, limits, code, &checks)?)
}

/// What stands between the first pair of ``` lines; to the end where the second is missing.
fn fenced(text: &str) -> Option<&str> {
    let (_, after) = text.split_once("```")?;
    let (_language, body) = after.split_once('\n')?;
    Some(body.split_once("```").map_or(body, |(body, _)| body))
}

/// LF line ends, nothing after the last character of a line, no blank lines around it.
fn normalised(code: &str) -> String {
    let lines: Vec<&str> = code.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_block_is_found_with_and_without_its_end() {
        assert_eq!(fenced("Sure:\n```python\nx = 1\n```\nDone"), Some("x = 1\n"));
        assert_eq!(fenced("```\nx = 1\ny = 2"), Some("x = 1\ny = 2"));
        assert_eq!(fenced("x = 1"), None);
    }

    #[test]
    fn normalising_forgets_line_ends_and_outer_blank_lines_only() {
        assert_eq!(
            normalised("\r\ndef f(x): \r\n    return x\r\n\r\n"),
            "def f(x):\n    return x"
        );
        assert_ne!(
            normalised("def f(x):\n    return x"),
            normalised("def f(x):\n\treturn x")
        );
        assert_ne!(normalised("a\n\nb"), normalised("a\nb"));
    }
}
