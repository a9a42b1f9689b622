//! CodeContests (Li et al. 2022, arXiv 2203.07814): programs that read standard input and write
//! standard output.
//!
//! A program runs as it stands, once for each test, with the test's input as a regular file (human
//! solutions ask for its size). A test is passed by the right output and exit code 0: the output is
//! its own proof. Nothing of a test is in the sandbox but its input.

mod data;

use crate::bench::{GREEDY, Profiles, Request, Spec};
use crate::{
    Answer, Benchmark, EvalError, Judge, Judgement, StopRule, TestCount, Verdict,
    benchmark::normalised,
    extract,
    sandbox::{Outcome, Program, Status},
    tokens::same_output,
};
use wmtp_data::{PromptStyle, Tokenizer};

pub use data::{Problem, Solutions, Tests, load};

/// CodeContests' entry in the list of benchmarks.
pub(super) const SPEC: Spec = Spec {
    name: "contest",
    about: "CodeContests: programs that read standard input and write standard output",
    prompt: PromptStyle::ZeroShot,
    variants: &["test", "valid"],
    file: None,
    tests_apart: true,
    timeout_seconds: None,
    profiles: Profiles {
        quick: &[GREEDY],
        paper: &[&[
            "eval.prompt=zero-shot",
            "eval.temperature=[0.5, 0.6, 0.7, 0.8, 0.9]",
            "eval.samples=1000",
            "eval.k=[1, 10, 100, 1000]",
        ]],
    },
    load: open,
    evaluation: &[("contest", data::evaluation_problems)],
    evaluation_file: None,
};

fn open(request: &Request<'_>) -> Result<Box<dyn Benchmark>, EvalError> {
    let Request {
        source,
        altered,
        style,
        tokenizer,
        all_tests,
        ..
    } = *request;
    // Any file of a directory, where altered sets are allowed.
    let split = match request.variant {
        Some(split) if altered && !source.starts_with("builtin:") && !split.contains(['/', '.']) => split,
        _ => request.variant(&SPEC)?,
    };
    Ok(Box::new(Contest::load(
        source, split, altered, style, tokenizer, all_tests,
    )?))
}

/// Ends a solution.
const STOP: [&str; 1] = ["[DONE]"];

/// The benchmark, with every prompt written out. Tasks are numbered from 0 in the file's order.
#[derive(Clone, Debug)]
pub struct Contest {
    problems: Vec<Problem>,
    prompts: Vec<String>,
    style: PromptStyle,
    split: String,
    all_tests: bool,
}

impl Contest {
    /// Reads a split of `source` and writes its prompts. A program is judged by its tests up to the
    /// first that it fails, or by `all_tests`; the verdict is the same.
    ///
    /// # Errors
    /// As [`data::load`]; a few-shot prompt, which there is none of; a chat template that is
    /// missing or fails.
    pub fn load(
        source: &str,
        split: &str,
        altered: bool,
        style: PromptStyle,
        tokenizer: Option<&Tokenizer>,
        all_tests: bool,
    ) -> Result<Self, EvalError> {
        let problems = data::load(source, split, altered)?;
        let prompt = |problem: &Problem| {
            let task = task(problem);
            match style {
                PromptStyle::ZeroShot => Ok(self::prompt(&task)),
                PromptStyle::Chat => Ok(Tokenizer::chat_of(tokenizer, &[("user", &task)])?),
                PromptStyle::FewShot => Err(EvalError::Request(
                    "CodeContests has no few-shot prompt: take --prompt zero-shot or chat".into(),
                )),
            }
        };
        Ok(Self {
            prompts: problems.iter().map(prompt).collect::<Result<_, _>>()?,
            problems,
            style,
            split: split.to_owned(),
            all_tests,
        })
    }

    fn problem(&self, task: u32) -> Result<&Problem, EvalError> {
        self.problems.get(task as usize).ok_or_else(|| {
            let last = self.problems.len().saturating_sub(1);
            EvalError::Request(format!(
                "there is no contest task {task}; those of `{}` are 0 to {last}",
                self.split
            ))
        })
    }
}

/// The zero-shot prompt of a problem, and what a model has to write after it for the program `code`; the end token
/// follows.
pub fn zero_shot(description: &str, code: &str) -> (String, String) {
    let stop = STOP.concat();
    (prompt(&words(description)), format!("{}\n{stop}", code.trim_end()))
}

fn prompt(task: &str) -> String {
    format!("{task}\n[BEGIN]\n")
}

fn task(problem: &Problem) -> String {
    words(&problem.description)
}

fn words(description: &str) -> String {
    format!(
        "You are an expert Python programmer, and here is your task:\n\n{}\n\nWrite a Python program that reads the \
         input from standard input and writes the answer to standard output.",
        description.trim()
    )
}

impl Benchmark for Contest {
    fn name(&self) -> &str {
        "contest"
    }

    fn variant(&self) -> &str {
        &self.split
    }

    fn tasks(&self) -> Vec<u32> {
        (0..).zip(&self.problems).map(|(task, _)| task).collect()
    }

    fn task_id(&self, task: u32) -> String {
        self.problem(task)
            .map_or_else(|_| task.to_string(), |problem| problem.name.clone())
    }

    fn task_named(&self, name: &str) -> Option<u32> {
        let named = |problem: &&Problem| {
            problem.name.eq_ignore_ascii_case(name) || problem.short_name().eq_ignore_ascii_case(name)
        };
        (0..)
            .zip(&self.problems)
            .find(|(_, problem)| named(problem))
            .map(|(task, _)| task)
    }

    fn prompt_style(&self) -> PromptStyle {
        self.style
    }

    fn prompt(&self, task: u32) -> Result<&str, EvalError> {
        self.problem(task)?;
        Ok(self.prompts.get(task as usize).map_or("", String::as_str))
    }

    fn stop(&self) -> StopRule<'_> {
        StopRule::Strings(&STOP)
    }

    fn completion(&self, _task: u32, text: &str) -> String {
        match self.style {
            PromptStyle::Chat => extract::program(text, &[]),
            PromptStyle::ZeroShot | PromptStyle::FewShot => text.to_owned(),
        }
    }

    fn judge(&self, task: u32, answer: Answer<'_>, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
        check(self.problem(task)?, answer.text(), self.all_tests, judge)
    }

    fn is_reference(&self, task: u32, answer: Answer<'_>) -> Result<bool, EvalError> {
        let program = normalised(answer.text());
        Ok(self
            .problem(task)?
            .solutions
            .python()
            .any(|solution| normalised(solution) == program))
    }

    fn material(&self, task: u32) -> Result<Vec<&str>, EvalError> {
        let problem = self.problem(task)?;
        Ok(problem.tests().flat_map(|(_, input, output)| [input, output]).collect())
    }
}

/// Runs a program on every test of `problem`, or up to the first that it fails. The verdict is that
/// of the first failure.
///
/// # Errors
/// Only when the sandbox fails.
pub fn check(problem: &Problem, code: &str, all_tests: bool, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
    check_output(problem.tests(), code, all_tests, judge)
}

/// The same for tests as (name, input, expected output).
pub(crate) fn check_output<'t>(
    tests: impl Iterator<Item = (String, &'t str, &'t str)> + Clone,
    code: &str,
    all_tests: bool,
    judge: &Judge<'_>,
) -> Result<Judgement, EvalError> {
    let mode = if all_tests { "all tests" } else { "to the first failure" };
    let texts: Vec<&str> = tests.clone().flat_map(|(_, input, output)| [input, output]).collect();
    judge.known(["output", mode, code].into_iter().chain(texts), || {
        let mut count = TestCount::default();
        let mut verdict = Verdict::Passed;
        for (name, input, expected) in tests {
            let program = Program {
                source: code,
                stdin: input.as_bytes(),
            };
            let outcome = judge.runner.run(&program, judge.limits)?;
            count.run += 1;
            match of_test(&outcome, expected) {
                Verdict::Passed => count.passed += 1,
                failure => {
                    if verdict.passed() {
                        verdict = failure;
                        count.first_failed = Some(name);
                    }
                    if !all_tests {
                        break;
                    }
                }
            }
        }
        Ok(Judgement {
            tests: Some(count),
            ..Judgement::of(verdict, None)
        })
    })
}

fn of_test(outcome: &Outcome, expected: &str) -> Verdict {
    match outcome.status {
        Status::TimedOut => Verdict::Timeout,
        Status::OutputLimit => Verdict::OutputLimit,
        Status::Signal(signal) => Verdict::Killed(signal),
        Status::Exit(0) if same_output(&String::from_utf8_lossy(&outcome.stdout), expected) => Verdict::Passed,
        Status::Exit(0) => Verdict::Wrong,
        Status::Exit(code) => failure(code, &String::from_utf8_lossy(&outcome.stderr)),
    }
}

/// What Python said when it ended with an error: the exception's type is on the last line, and one
/// of compiling comes without a traceback.
fn failure(code: i32, stderr: &str) -> Verdict {
    let last = stderr.trim_end().lines().next_back().unwrap_or_default();
    let name = last.split(':').next().unwrap_or_default().trim();
    let name = name.rsplit('.').next().unwrap_or_default();
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let compiling = !stderr.contains("Traceback (most recent call last)");
    match name {
        "SyntaxError" | "IndentationError" | "TabError" if compiling => Verdict::Syntax,
        _ if code == 1 && is_name && !compiling => Verdict::Error(name.to_owned()),
        _ => Verdict::Error(format!("exit code {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, stdout: &str, stderr: &str) -> Verdict {
        let outcome = Outcome {
            breach: None,
            status: Status::Exit(code),
            stdout: stdout.into(),
            stderr: stderr.into(),
            seconds: 0.0,
        };
        of_test(&outcome, "1 2\n")
    }

    #[test]
    fn the_right_output_passes_only_with_exit_code_0() {
        assert_eq!(ended(0, "1\n2\n", "noise"), Verdict::Passed);
        assert_eq!(ended(0, "1\n3\n", ""), Verdict::Wrong);
        assert_eq!(ended(3, "1\n2\n", ""), Verdict::Error("exit code 3".into()));
    }

    #[test]
    fn an_error_is_called_by_its_type() {
        let traceback = "Traceback (most recent call last):\n  File \"main.py\", line 1, in <module>\n";
        assert_eq!(
            ended(1, "", &format!("{traceback}KeyError: 'x'\n")),
            Verdict::Error("KeyError".into())
        );
        assert_eq!(
            ended(1, "", &format!("{traceback}json.decoder.JSONDecodeError: x\n")),
            Verdict::Error("JSONDecodeError".into())
        );
        assert_eq!(
            ended(
                1,
                "",
                "  File \"main.py\", line 1\n    x x\nSyntaxError: invalid syntax\n"
            ),
            Verdict::Syntax
        );
        assert_eq!(
            ended(1, "", &format!("{traceback}SyntaxError: in an eval\n")),
            Verdict::Error("SyntaxError".into())
        );
        assert_eq!(ended(1, "", ""), Verdict::Error("exit code 1".into()));
    }

    #[test]
    fn tasks_have_numbers_names_and_short_names() {
        let contest = Contest::load("builtin:contest", "test", false, PromptStyle::ZeroShot, None, false).unwrap();
        assert_eq!(contest.default_tasks().len(), 40);
        let name = contest.task_id(3);
        assert_eq!(contest.task_named(&name), Some(3));
        assert_eq!(contest.task_named(name.split(". ").next().unwrap()), Some(3));
        assert_eq!(contest.task_named("no such"), None);
        assert!(contest.prompt(3).unwrap().ends_with("[BEGIN]\n"));
        assert!(contest.prompt(40).unwrap_err().to_string().contains("0 to 39"));
    }
}
