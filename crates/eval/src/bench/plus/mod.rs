//! HumanEval+ and MBPP+ (Liu et al. 2023, arXiv 2305.01210): the functions of HumanEval and MBPP, judged
//! on many more inputs by what their reference solutions return.
//!
//! The rules are those of evalplus 0.3.1, verdict for verdict (`tests/agreement/evalplus_judge.py`): how
//! inputs become arguments (`reference.py`), how results are compared (`calls.py`), four times the
//! reference's time and at least a second for a call. Base and added inputs are run apart, and an answer
//! passes if it passes both.
//!
//! evalplus 0.3.1 fails every program on HumanEval/32, whose own oracle it applies but does not count as
//! run. So does the variant `full`; the variant `repaired` counts it, as later source of evalplus does.

mod data;
mod reference;

use crate::bench::{GREEDY, PAPER_CODE, Profiles, Request, Spec};
use crate::{
    Answer, Benchmark, EvalError, Judge, Judgement, StopRule, Verdict,
    benchmark::normalised,
    extract,
    judgement::Stages,
    sandbox::map_bounded,
    verdict::{Calls, HARNESS},
    verify,
};
use wmtp_data::{PromptStyle, Tokenizer};

pub(super) use data::is_identifier;
pub use data::{PlusSet, Problem, load};
use reference::{Reference, Set};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// HumanEval+'s entry in the list of benchmarks.
pub(super) const HUMANEVAL: Spec = Spec {
    name: "humaneval+",
    about: "HumanEval+: HumanEval with many more tests, from its published file (--data FILE)",
    variants: &["full", "repaired"],
    file: Some("humaneval+ is not built in: give its published file, --data HumanEvalPlus.jsonl.gz"),
    profiles: Profiles {
        quick: &[&["eval.tasks=0-99"], GREEDY],
        ..MBPP.profiles
    },
    load: open_humaneval,
    evaluation_file: Some(|file| data::evaluation_problems_of(file, PlusSet::HumanEval)),
    ..MBPP
};

/// MBPP+'s entry in the list of benchmarks.
pub(super) const MBPP: Spec = Spec {
    name: "mbpp+",
    about: "MBPP+: MBPP with many more tests, from its published file (--data FILE)",
    prompt: PromptStyle::ZeroShot,
    variants: &["full"],
    file: Some("mbpp+ is not built in: give its published file, --data MbppPlus.jsonl.gz"),
    tests_apart: false,
    // evalplus' limit for all calls of a set; each call has one of its own.
    timeout_seconds: Some(60),
    profiles: Profiles {
        quick: &[GREEDY],
        paper: &[&["eval.prompt=zero-shot"], PAPER_CODE],
    },
    load: open_mbpp,
    evaluation: &[],
    evaluation_file: Some(|file| data::evaluation_problems_of(file, PlusSet::Mbpp)),
};

fn open_humaneval(request: &Request<'_>) -> Result<Box<dyn Benchmark>, EvalError> {
    let repaired = request.variant(&HUMANEVAL)? == "repaired";
    open(request, PlusSet::HumanEval, repaired)
}

fn open_mbpp(request: &Request<'_>) -> Result<Box<dyn Benchmark>, EvalError> {
    request.variant(&MBPP)?;
    open(request, PlusSet::Mbpp, false)
}

fn open(request: &Request<'_>, set: PlusSet, repaired: bool) -> Result<Box<dyn Benchmark>, EvalError> {
    let Request {
        source,
        style,
        tokenizer,
        ..
    } = *request;
    Ok(Box::new(Plus::load(
        Path::new(source),
        set,
        repaired,
        style,
        tokenizer,
    )?))
}

/// What ends a program of MBPP+ that follows its docstring: another docstring, tests, or code that is only
/// for a run as a script. They are evalplus' own.
const STOP: [&str; 6] = [
    "\n\"\"\"",
    "\n'''",
    "\nassert",
    "\nif __name__",
    "\ndef main(",
    "\nprint(",
];

/// The function whose results evalplus 0.3.1 does not count.
const UNCOUNTED: &str = "find_zero";

/// The benchmark, with every prompt written out.
#[derive(Debug)]
pub struct Plus {
    set: PlusSet,
    entries: Vec<PromptedProblem>,
    style: PromptStyle,
    repaired: bool,
    /// For messages.
    file: String,
    /// SHA-256 of the file.
    sha256: String,
}

#[derive(Debug)]
struct PromptedProblem {
    problem: Problem,
    prompt: String,
    reference: Mutex<Option<Arc<Reference>>>,
}

impl Plus {
    /// Reads the problems of a file in its published form and writes their prompts: as given
    /// (`zero-shot`) or `chat`. `repaired` judges HumanEval/32 by its oracle.
    ///
    /// # Errors
    /// As [`data::load`]; a few-shot prompt, which there is none of; a chat template that is missing or
    /// fails.
    pub fn load(
        file: &Path,
        set: PlusSet,
        repaired: bool,
        style: PromptStyle,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self, EvalError> {
        let (problems, file) = data::load(file, set)?;
        let entry = |problem: Problem| {
            let prompt = match style {
                PromptStyle::ZeroShot => begun(&problem),
                PromptStyle::Chat => Tokenizer::chat_of(tokenizer, &[("user", &instruction(set, &problem))])?,
                PromptStyle::FewShot => {
                    return Err(EvalError::Request(format!(
                        "{} has no few-shot prompt: take --prompt zero-shot, the prompt as published, or chat",
                        set.name()
                    )));
                }
            };
            Ok(PromptedProblem {
                prompt,
                reference: Mutex::new(None),
                problem,
            })
        };
        Ok(Self {
            set,
            entries: problems.into_iter().map(entry).collect::<Result<_, _>>()?,
            style,
            repaired,
            file: file.name(),
            sha256: file.sha256,
        })
    }

    fn entry(&self, task: u32) -> Result<&PromptedProblem, EvalError> {
        self.entries
            .binary_search_by_key(&task, |entry| entry.problem.number)
            .ok()
            .and_then(|index| self.entries.get(index))
            .ok_or_else(|| EvalError::Request(format!("{} of {} has no task {task}", self.file, self.set.name())))
    }

    fn reference(&self, entry: &PromptedProblem, judge: &Judge<'_>) -> Result<Arc<Reference>, EvalError> {
        // Other threads that need the same one wait for it.
        let mut kept = entry.reference.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reference) = kept.as_ref() {
            return Ok(reference.clone());
        }
        let reference = Arc::new(Reference::of(&entry.problem, self.set.dataset(), &self.file, judge)?);
        *kept = Some(reference.clone());
        Ok(reference)
    }

    /// The verdict on one of the two sets of inputs.
    fn on(
        &self,
        entry: &PromptedProblem,
        name: &str,
        set: impl Fn(&Reference) -> &Set,
        code: &str,
        judge: &Judge<'_>,
    ) -> Result<Judgement, EvalError> {
        let dataset = self.set.dataset();
        let parts = [
            "calls",
            HARNESS,
            verify::ANSWER,
            verify::CHECK,
            reference::PROGRAM,
            dataset,
            name,
            &entry.problem.row,
            code,
        ];
        judge.known(parts.into_iter(), || {
            let reference = self.reference(entry, judge)?;
            let set = set(&reference);
            judge.calls(&Calls {
                code,
                function: &entry.problem.entry_point,
                dataset,
                tolerance: entry.problem.atol,
                data: &set.data,
                seconds: set.seconds,
            })
        })
    }

    /// What evalplus 0.3.1 makes of a pass: none where it counts no test as run.
    fn counted(&self, entry: &PromptedProblem, inputs: usize, verdict: Verdict) -> Verdict {
        let uncounted = self.set == PlusSet::HumanEval && entry.problem.entry_point == UNCOUNTED && inputs > 0;
        match verdict {
            Verdict::Passed if uncounted && !self.repaired => Verdict::Error("not counted by evalplus 0.3.1".into()),
            verdict => verdict,
        }
    }
}

/// The prompt up to the beginning of a line: some files leave the last line end out.
fn begun(problem: &Problem) -> String {
    let end = if problem.prompt.ends_with('\n') { "" } else { "\n" };
    format!("{}{end}", problem.prompt)
}

/// The task, for an assistant.
fn instruction(set: PlusSet, problem: &Problem) -> String {
    let what = match set {
        PlusSet::HumanEval => "Complete this Python function.",
        PlusSet::Mbpp => "Write this Python function.",
    };
    format!(
        "{what} Answer with the whole function in one code block.\n\n```python\n{}\n```",
        problem.prompt.trim()
    )
}

impl Benchmark for Plus {
    fn name(&self) -> &str {
        self.set.name()
    }

    fn variant(&self) -> &str {
        if self.repaired { "repaired" } else { "full" }
    }

    fn has_mbpp_tasks(&self) -> bool {
        self.set == PlusSet::Mbpp
    }

    fn tasks(&self) -> Vec<u32> {
        self.entries.iter().map(|entry| entry.problem.number).collect()
    }

    fn task_id(&self, task: u32) -> String {
        format!("{}{task}", self.set.prefix())
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
        match (self.style, self.set) {
            // An assistant ends its answer itself.
            (PromptStyle::Chat, _) => StopRule::Strings(&[]),
            (_, PlusSet::HumanEval) => StopRule::TopLevel,
            (_, PlusSet::Mbpp) => StopRule::Strings(&STOP),
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

    fn prepare(&self, tasks: &[u32], judge: &Judge<'_>, threads: usize) -> Result<(), EvalError> {
        tracing::info!(problems = tasks.len(), "running the reference solutions");
        let done = map_bounded(tasks, threads, |&task| {
            self.reference(self.entry(task)?, judge).map(|_| ())
        });
        done.into_iter().collect()
    }

    fn judge(&self, task: u32, answer: Answer<'_>, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
        let entry = self.entry(task)?;
        let code = answer.program_with(&begun(&entry.problem));
        let base = self.on(entry, "base", |reference| &reference.base, &code, judge)?;
        let plus = self.on(entry, "plus", |reference| &reference.plus, &code, judge)?;
        let [base_inputs, plus_inputs] = entry.problem.inputs;
        let stages = Stages {
            base: self.counted(entry, base_inputs, base.verdict),
            plus: self.counted(entry, plus_inputs, plus.verdict),
        };
        let verdict = match stages.base.passed() {
            true => stages.plus.clone(),
            false => stages.base.clone(),
        };
        let unverified = base.unverified.or(plus.unverified).filter(|_| verdict.passed());
        Ok(Judgement {
            stages: Some(stages),
            repeats: base.repeats && plus.repeats,
            ..Judgement::of(verdict, unverified)
        })
    }

    fn is_reference(&self, task: u32, answer: Answer<'_>) -> Result<bool, EvalError> {
        let problem = &self.entry(task)?.problem;
        Ok(match answer {
            Answer::Completion(text) => normalised(text) == normalised(&problem.canonical_solution),
            Answer::Program(text) => {
                let text = normalised(text);
                text == normalised(&problem.reference())
                    || self.set == PlusSet::Mbpp && text == normalised(&problem.canonical_solution)
            }
        })
    }

    fn material(&self, task: u32) -> Result<Vec<&str>, EvalError> {
        Ok(vec![&self.entry(task)?.problem.row, reference::PROGRAM])
    }
}
