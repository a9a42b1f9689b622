//! One's own problems: a JSONL file of prompts with tests (`data` has the fields).
//!
//! Tests in Python are judged as MBPP's and HumanEval's, tests of input and output as CodeContests'.

mod data;

use crate::bench::{GREEDY, PAPER_CODE, Profiles, Request, Spec, contest::check_output};
use crate::{
    Answer, Benchmark, EvalError, Judge, Judgement, StopRule,
    benchmark::normalised,
    compile::{self, NotPython},
    extract,
    verdict::{Checked, Names},
};
pub use data::begins;
use data::{OwnTests, Problem};
use std::path::Path;
use wmtp_data::{DataError, PromptStyle, Tokenizer};

/// The entry in the list of benchmarks.
pub(super) const SPEC: Spec = Spec {
    name: "jsonl",
    about: "Your own problems: JSONL with prompts and tests (--data FILE; docs/evaluation.md has the fields)",
    prompt: PromptStyle::ZeroShot,
    variants: &[],
    file: Some(
        "jsonl evaluates problems of your own: give their file, --data FILE (docs/evaluation.md has its fields)",
    ),
    tests_apart: true,
    timeout_seconds: None,
    profiles: Profiles {
        quick: &[GREEDY],
        paper: &[&["eval.prompt=zero-shot"], PAPER_CODE],
    },
    load: open,
    evaluation: &[],
    evaluation_file: None,
};

fn open(request: &Request<'_>) -> Result<Box<dyn Benchmark>, EvalError> {
    let Request {
        source,
        style,
        tokenizer,
        all_tests,
        ..
    } = *request;
    if let Some(variant) = request.variant {
        return Err(EvalError::Request(format!(
            "`eval.variant` is {variant}, and jsonl has no variants: each file is a set"
        )));
    }
    Ok(Box::new(Own::load(Path::new(source), style, tokenizer, all_tests)?))
}

/// Ends a program that answers a task in words, in addition to the model's own end token.
const STOP: [&str; 1] = ["[DONE]"];

/// The benchmark, with every prompt written out. Tasks are numbered from 0 in the file's order.
#[derive(Clone, Debug)]
pub struct Own {
    entries: Vec<PromptedProblem>,
    style: PromptStyle,
    all_tests: bool,
    /// For messages.
    file: String,
    /// The file's name without its endings.
    variant: String,
    sha256: String,
}

#[derive(Clone, Debug)]
struct PromptedProblem {
    problem: Problem,
    prompt: String,
}

impl Own {
    /// Reads the problems of a file and writes their prompts: as they stand (`zero-shot`) or `chat`.
    /// Tests of input and output run up to the first that fails, or all of them (`all_tests`).
    ///
    /// # Errors
    /// As `data::load`; a few-shot prompt, which there is none of; a chat template that is missing or
    /// fails.
    pub fn load(
        file: &Path,
        style: PromptStyle,
        tokenizer: Option<&Tokenizer>,
        all_tests: bool,
    ) -> Result<Self, EvalError> {
        let (problems, file) = data::load(file)?;
        let entry = |problem: Problem| {
            let prompt = match style {
                PromptStyle::ZeroShot => problem.prompt.clone(),
                PromptStyle::Chat => Tokenizer::chat_of(tokenizer, &[("user", &instruction(&problem))])?,
                PromptStyle::FewShot => {
                    return Err(EvalError::Request(
                        "a file of one's own problems has no few-shot prompt: write the shots into `prompt`, and take \
                         --prompt zero-shot"
                            .into(),
                    ));
                }
            };
            Ok(PromptedProblem { prompt, problem })
        };
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.strip_suffix(".gz").unwrap_or(&name);
        Ok(Self {
            entries: problems.into_iter().map(entry).collect::<Result<_, _>>()?,
            style,
            all_tests,
            variant: stem.strip_suffix(".jsonl").unwrap_or(stem).to_owned(),
            file: file.name(),
            sha256: file.sha256,
        })
    }

    fn entry(&self, task: u32) -> Result<&PromptedProblem, EvalError> {
        self.entries.get(task as usize).ok_or_else(|| {
            let last = self.entries.len().saturating_sub(1);
            EvalError::Request(format!(
                "{} has no task {task}: its tasks are numbered 0 to {last}, and have their ids as names",
                self.file
            ))
        })
    }

    /// Whether answers continue prompts: one file has one kind.
    fn continues(&self) -> bool {
        self.entries.first().is_some_and(|entry| entry.problem.continues)
    }
}

/// The prompt, for an assistant.
fn instruction(problem: &Problem) -> String {
    match problem.continues {
        true => format!(
            "Complete this Python function. Answer with the whole function in one code block.\n\n```python\n{}\n```",
            problem.prompt.trim_end()
        ),
        false => problem.prompt.trim_end().to_owned(),
    }
}

/// The whole program.
fn program(problem: &Problem, answer: Answer<'_>) -> String {
    match problem.continues {
        true => answer.program_with(&problem.prompt),
        false => answer.text().to_owned(),
    }
}

fn pairs(tests: &[(String, String)]) -> impl Iterator<Item = (String, &str, &str)> + Clone {
    (1..)
        .zip(tests)
        .map(|(number, (input, output))| (format!("test {number}"), input.as_str(), output.as_str()))
}

impl Benchmark for Own {
    fn name(&self) -> &str {
        "jsonl"
    }

    fn variant(&self) -> &str {
        &self.variant
    }

    fn tasks(&self) -> Vec<u32> {
        (0..).zip(&self.entries).map(|(task, _)| task).collect()
    }

    fn task_id(&self, task: u32) -> String {
        self.entry(task)
            .map_or_else(|_| task.to_string(), |entry| entry.problem.id.clone())
    }

    fn origin(&self) -> Vec<(String, String)> {
        vec![
            ("data".into(), self.file.clone()),
            ("data_sha256".into(), self.sha256.clone()),
        ]
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
            _ if self.continues() => StopRule::TopLevel,
            _ => StopRule::Strings(&STOP),
        }
    }

    fn completion(&self, task: u32, text: &str) -> String {
        if self.style != PromptStyle::Chat {
            return text.to_owned();
        }
        let entry = self.entry(task).ok();
        let wanted = entry.and_then(|entry| entry.problem.entry_point.as_deref());
        let program = extract::program(text, wanted.as_slice());
        if self.continues() {
            format!("\n{program}")
        } else {
            program
        }
    }

    fn prepare(&self, tasks: &[u32], judge: &Judge<'_>, _threads: usize) -> Result<(), EvalError> {
        let mut pieces: Vec<(&PromptedProblem, &[String])> = Vec::new();
        for &task in tasks {
            let entry = self.entry(task)?;
            if let OwnTests::Code(code) = &entry.problem.tests {
                pieces.push((entry, code));
            }
        }
        let lists: Vec<Vec<&str>> = pieces
            .iter()
            .map(|(_, code)| code.iter().map(String::as_str).collect())
            .collect();
        let Some(NotPython { list, piece, why }) = compile::first_that_is_not_python(&self.file, &lists, judge)? else {
            return Ok(());
        };
        let Some((entry, code)) = pieces.get(list) else {
            return Ok(());
        };
        let text = code.get(piece).map(|code| code.lines().next().unwrap_or_default());
        Err(EvalError::Data(DataError::Row {
            file: self.file.clone(),
            line: entry.problem.line,
            problem: format!(
                "the test `{}` of `{}` is not Python: {}",
                text.unwrap_or_default(),
                entry.problem.id,
                why
            ),
        }))
    }

    fn judge(&self, task: u32, answer: Answer<'_>, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
        let entry = self.entry(task)?;
        let problem = &entry.problem;
        let program = program(problem, answer);
        match &problem.tests {
            OwnTests::Code(code) => judge.check(&Checked {
                code: &program,
                checks: &code.iter().map(String::as_str).collect::<Vec<_>>(),
                names: Names {
                    entry_point: problem.entry_point.as_deref(),
                    reference: problem.solution.as_deref().unwrap_or_default(),
                    given: if problem.continues { &problem.prompt } else { "" },
                },
            }),
            OwnTests::Output(tests) => check_output(pairs(tests), &program, self.all_tests, judge),
        }
    }

    fn is_reference(&self, task: u32, answer: Answer<'_>) -> Result<bool, EvalError> {
        let problem = &self.entry(task)?.problem;
        let program = program(problem, answer);
        Ok(problem
            .solution
            .as_deref()
            .is_some_and(|solution| normalised(solution) == normalised(&program)))
    }

    fn material(&self, task: u32) -> Result<Vec<&str>, EvalError> {
        let problem = &self.entry(task)?.problem;
        let mut material = vec![
            problem.prompt.as_str(),
            problem.entry_point.as_deref().unwrap_or_default(),
        ];
        match &problem.tests {
            OwnTests::Code(code) => material.extend(code.iter().map(String::as_str)),
            OwnTests::Output(tests) => material.extend(tests.iter().flat_map(|(i, o)| [i.as_str(), o.as_str()])),
        }
        Ok(material)
    }
}
