//! Your own benchmark: implement `Benchmark`, and hand it to the evaluation.
//!
//!     cargo run --release --example own_benchmark -- runs
//!
//! Its problems ask for functions that add a constant. The example first judges the reference solutions,
//! which must all pass, then two kinds of answers from a generator that solves every second problem. To
//! evaluate a model, hand in a `ModelGenerator` instead. Needs Python 3 and the sandbox.
//!
//! Problems that a file can hold need no code: `wmtp eval jsonl --data FILE` (docs/evaluation.md).

use std::path::PathBuf;
use wmtp::{
    data::PromptStyle,
    eval::{
        Answer, Benchmark, Completion, Done, EvalError, EvalRequest, GenerationRequest, Generator, Judge, Judgement,
        Source, StopRule, run,
        sandbox::{Limits, Sandbox},
        verdict::{Checked, Names},
    },
};

/// A problem: the task in words, a right program and its checks.
struct Problem {
    prompt: String,
    solution: String,
    checks: Vec<String>,
}

/// Functions that add a constant.
struct Addition {
    problems: Vec<Problem>,
}

impl Addition {
    fn new(problems: u32) -> Self {
        let problem = |n: u32| Problem {
            prompt: format!("# A function f(x) that returns x + {n}.\n"),
            solution: format!("def f(x):\n    return x + {n}\n"),
            checks: vec![format!("assert f(0) == {n}"), format!("assert f(-{n}) == 0")],
        };
        Self {
            problems: (1..=problems).map(problem).collect(),
        }
    }

    fn problem(&self, task: u32) -> Result<&Problem, EvalError> {
        self.problems
            .get(task as usize)
            .ok_or_else(|| EvalError::Request(format!("there is no problem {task}")))
    }
}

impl Benchmark for Addition {
    fn name(&self) -> &str {
        "addition"
    }

    fn variant(&self) -> &str {
        "full"
    }

    fn tasks(&self) -> Vec<u32> {
        (0..self.problems.len() as u32).collect()
    }

    fn task_id(&self, task: u32) -> String {
        format!("Addition/{task}")
    }

    fn prompt_style(&self) -> PromptStyle {
        PromptStyle::ZeroShot
    }

    fn prompt(&self, task: u32) -> Result<&str, EvalError> {
        Ok(&self.problem(task)?.prompt)
    }

    fn stop(&self) -> StopRule<'_> {
        StopRule::TopLevel
    }

    fn completion(&self, _task: u32, text: &str) -> String {
        self.stop().cut(text).to_owned()
    }

    fn judge(&self, task: u32, answer: Answer<'_>, judge: &Judge<'_>) -> Result<Judgement, EvalError> {
        let checks: Vec<&str> = self.problem(task)?.checks.iter().map(String::as_str).collect();
        judge.check(&Checked {
            code: answer.text(),
            checks: &checks,
            names: Names {
                entry_point: Some("f"),
                ..Names::default()
            },
        })
    }

    fn is_reference(&self, task: u32, answer: Answer<'_>) -> Result<bool, EvalError> {
        Ok(answer.text().trim() == self.problem(task)?.solution.trim())
    }

    fn material(&self, task: u32) -> Result<Vec<&str>, EvalError> {
        Ok(self.problem(task)?.checks.iter().map(String::as_str).collect())
    }
}

/// Solves the problems whose constant is even.
struct EvenOnly;

impl Generator for EvenOnly {
    fn generate(
        &mut self,
        requests: &[GenerationRequest],
        _stop: &StopRule<'_>,
        done: &mut Done<'_>,
    ) -> Result<(), EvalError> {
        for (index, request) in requests.iter().enumerate() {
            let digits: String = request.prompt.chars().filter(char::is_ascii_digit).collect();
            let even: u32 = digits.parse::<u32>().unwrap_or(0) / 2 * 2;
            let text = format!("def f(x):\n    return x + {even}\n");
            done(index, Completion { text, tokens: 10 })?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let output: PathBuf = std::env::args().nth(1).unwrap_or_else(|| "runs".into()).into();
    let benchmark = Addition::new(6);
    let runner = Sandbox::new()?;

    // The ground truth first: a benchmark whose own solutions fail measures nothing.
    let limits = Limits::default();
    let judge = Judge::new(&runner, &limits);
    for task in benchmark.tasks() {
        let solution = &benchmark.problem(task)?.solution;
        let verdict = benchmark.judge(task, Answer::Program(solution), &judge)?.verdict;
        assert!(
            verdict.passed(),
            "the solution of {}: {verdict}",
            benchmark.task_id(task)
        );
    }

    let request = EvalRequest {
        temperatures: vec![0.0],
        ..EvalRequest::new(benchmark.default_tasks(), output.join("own-benchmark"))
    };
    let source = Source::Generator(&mut EvenOnly);
    let finished = run(&benchmark, &request, source, &runner, &mut |_| ())?;
    println!("pass@1 {:.2}", finished.report.pass_at_1);
    assert_eq!(finished.report.pass_at_1, 0.5);
    Ok(())
}
