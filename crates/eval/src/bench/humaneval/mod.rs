//! HumanEval (Chen et al. 2021, arXiv 2107.03374): 164 functions to complete, judged by
//! `check(entry_point)`.
//!
//! The prompt is as given, or the model's chat template around it. A completion is what follows the
//! prompt, in OpenAI's own files too. A program that an assistant wrote is one as well: it stands
//! after the prompt, whose docstring is a body already, and defines the function anew.

mod data;

use crate::bench::{GREEDY, PAPER_CODE, Profiles, Request, Spec};
use crate::{
    Answer, Benchmark, EvalError, Judge, Judgement, StopRule,
    benchmark::normalised,
    extract,
    verdict::{Checked, Names},
};
use wmtp_data::{PromptStyle, Tokenizer};

pub use data::{PROBLEMS_FILE, Problem, load};

/// HumanEval's entry in the list of benchmarks.
pub(super) const SPEC: Spec = Spec {
    name: "humaneval",
    about: "HumanEval: functions to complete, judged by their unit tests",
    prompt: PromptStyle::ZeroShot,
    variants: &["full"],
    file: None,
    tests_apart: false,
    timeout_seconds: None,
    profiles: Profiles {
        quick: &[&["eval.tasks=0-99"], GREEDY],
        paper: &[&["eval.prompt=zero-shot"], PAPER_CODE],
    },
    load: open,
    evaluation: &[("humaneval", data::evaluation_problems)],
    evaluation_file: None,
};

fn open(request: &Request<'_>) -> Result<Box<dyn Benchmark>, EvalError> {
    request.variant(&SPEC)?;
    let Request {
        source,
        altered,
        style,
        tokenizer,
        ..
    } = *request;
    Ok(Box::new(HumanEval::load(source, altered, style, tokenizer)?))
}

/// Around the prompt, for an assistant.
const INSTRUCTION: &str = "Complete this Python function. Answer with the whole function in one code block.";

/// The benchmark, with every prompt written out.
#[derive(Clone, Debug)]
pub struct HumanEval {
    problems: Vec<(u32, PromptedProblem)>,
    style: PromptStyle,
}

#[derive(Clone, Debug)]
struct PromptedProblem {
    problem: Problem,
    prompt: String,
    /// `check(entry_point)`.
    call: String,
}

impl HumanEval {
    /// Reads the problems of `source` and writes their prompts: as given (`zero-shot`) or `chat`.
    ///
    /// # Errors
    /// As [`data::load`]; a few-shot prompt, which HumanEval does not have; a chat template that
    /// is missing or fails.
    pub fn load(
        source: &str,
        altered: bool,
        style: PromptStyle,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self, EvalError> {
        let entry = |problem: Problem| {
            let prompt = match style {
                PromptStyle::ZeroShot => problem.prompt.clone(),
                PromptStyle::Chat => {
                    let message = format!("{INSTRUCTION}\n\n```python\n{}\n```", problem.prompt.trim_end());
                    Tokenizer::chat_of(tokenizer, &[("user", &message)])?
                }
                PromptStyle::FewShot => {
                    return Err(EvalError::Request(
                        "HumanEval has no few-shot prompt: take --prompt zero-shot, the prompt as given, or chat"
                            .into(),
                    ));
                }
            };
            Ok((
                problem.number().unwrap_or_default(),
                PromptedProblem {
                    prompt,
                    call: format!("check({})", problem.entry_point),
                    problem,
                },
            ))
        };
        Ok(Self {
            problems: data::load(source, altered)?
                .into_iter()
                .map(entry)
                .collect::<Result<_, _>>()?,
            style,
        })
    }

    fn entry(&self, task: u32) -> Result<&PromptedProblem, EvalError> {
        self.problems
            .iter()
            .find(|(number, _)| *number == task)
            .map(|(_, entry)| entry)
            .ok_or_else(|| EvalError::Request(format!("HumanEval has no task {task}; its tasks are 0 to 163")))
    }
}

impl Benchmark for HumanEval {
    fn name(&self) -> &str {
        "humaneval"
    }

    fn variant(&self) -> &str {
        "full"
    }

    fn tasks(&self) -> Vec<u32> {
        self.problems.iter().map(|(number, _)| *number).collect()
    }

    fn task_id(&self, task: u32) -> String {
        format!("HumanEval/{task}")
    }

    fn prompt_style(&self) -> PromptStyle {
        self.style
    }

    fn prompt(&self, task: u32) -> Result<&str, EvalError> {
        Ok(&self.entry(task)?.prompt)
    }

    fn stop(&self) -> StopRule<'_> {
        match self.style {
            // An assistant ends its answer itself.
            PromptStyle::Chat => StopRule::Strings(&[]),
            PromptStyle::ZeroShot | PromptStyle::FewShot => StopRule::TopLevel,
        }
    }

    fn completion(&self, task: u32, text: &str) -> String {
        match self.style {
            PromptStyle::Chat => {
                let wanted = self.entry(task).ok().map(|entry| entry.problem.entry_point.as_str());
                format!("\n{}", extract::program(text, wanted.as_slice()))
            }
            PromptStyle::ZeroShot | PromptStyle::FewShot => text.to_owned(),
        }
    }

    fn judge(&self, task: u32, answer: Answer<'_>, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
        let entry = self.entry(task)?;
        let problem = &entry.problem;
        judge.check(&Checked {
            code: &answer.program_with(&problem.prompt),
            checks: &[&problem.test, &entry.call],
            names: Names {
                entry_point: Some(&problem.entry_point),
                given: &problem.prompt,
                ..Names::default()
            },
        })
    }

    fn is_reference(&self, task: u32, answer: Answer<'_>) -> Result<bool, EvalError> {
        let problem = &self.entry(task)?.problem;
        Ok(match answer {
            Answer::Completion(text) => normalised(text) == normalised(&problem.canonical_solution),
            Answer::Program(text) => {
                normalised(text) == normalised(&format!("{}{}", problem.prompt, problem.canonical_solution))
            }
        })
    }

    fn material(&self, task: u32) -> Result<Vec<&str>, EvalError> {
        let entry = self.entry(task)?;
        Ok(vec![&entry.problem.prompt, &entry.problem.test, &entry.call])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_as_given() {
        let benchmark = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).unwrap();
        assert_eq!(benchmark.default_tasks().len(), 164);
        assert_eq!(benchmark.task_named("HumanEval/163"), Some(163));
        assert!(benchmark.prompt(0).unwrap().starts_with("from typing import List"));
        let error = benchmark.prompt(164).unwrap_err().to_string();
        assert!(error.contains("0 to 163"), "{error}");
    }

    #[test]
    fn few_shot_is_refused() {
        let error = HumanEval::load("builtin:humaneval", false, PromptStyle::FewShot, None).unwrap_err();
        assert!(error.to_string().contains("no few-shot prompt"), "{error}");
    }
}
