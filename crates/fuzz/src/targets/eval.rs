//! Predictions, files of problems, and what programs in the sandbox say.

use super::{file, none, words};
use crate::{
    Kind, Outcome, Target,
    mutate::{Shape, named, split},
    scratch::put,
    target::FIRST,
};
use std::{collections::VecDeque, path::Path, sync::Mutex};
use wmtp_data::{DataError, PromptStyle};
use wmtp_eval::{
    Answer, Benchmark, Contest, HumanEval, Judge, Own, Plus, Predictions, VerdictCache,
    bench::{contest, humaneval, mbpp, plus::PlusSet},
    sandbox::{Limits, Outcome as Ended, Pair, Program, Runner, SandboxError, Status},
    verdict::{Checked, Names},
};

/// What is done with each problem before anything is drawn.
fn walked(benchmark: &dyn Benchmark) {
    for task in benchmark.tasks().into_iter().take(5) {
        let _ = (
            benchmark.prompt(task).map(str::len),
            benchmark.material(task).map(|m| m.len()),
        );
        let completion = benchmark.completion(task, "```python\ndef f():\n    return 1\n```");
        let _ = benchmark.is_reference(task, Answer::Completion(&completion));
        let _ = benchmark.task_meant(&benchmark.task_id(task));
    }
    let _ = (
        benchmark.stop().end("def f():\n    return 1\n\n\nx"),
        benchmark.origin(),
    );
}

pub(super) const PREDICTIONS: Target = Target {
    name: "predictions",
    what: "answers made elsewhere",
    kind: Kind::Memory,
    shape: Shape::JsonLines,
    words: words::BENCHMARKS,
    stack: FIRST,
    seeds: none,
    open: |dir| {
        let Ok(benchmark) = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None) else {
            panic!("the built-in problems are read");
        };
        let path = dir.join("predictions.jsonl");
        Box::new(move |input| {
            put(&path, input);
            let read = Predictions::read(&path, &benchmark, Some(&[0, 1]), Some(3));
            Outcome::of(&read)
        })
    },
};

pub(super) const MBPP: Target = Target {
    name: "mbpp",
    what: "MBPP's problems",
    seeds: || vec![file("data/mbpp/mbpp.jsonl"), file("tests/data/mbpp.jsonl")],
    open: |dir| {
        let (dir, path) = (dir.display().to_string(), dir.join("mbpp.jsonl"));
        Box::new(move |input| {
            put(&path, input);
            match mbpp::load(&dir) {
                // Every row was read: that there are 974 of them is asked last.
                Err(DataError::MissingTasks { .. }) => Outcome::Accepted,
                read => Outcome::of(&read),
            }
        })
    },
    ..PREDICTIONS
};

pub(super) const SANITIZED: Target = Target {
    name: "mbpp-sanitized",
    what: "the sanitized problems of MBPP",
    shape: Shape::Json,
    seeds: none,
    open: |dir| {
        let (dir, path) = (dir.display().to_string(), dir.join("sanitized-mbpp.json"));
        Box::new(move |input| {
            put(&path, input);
            Outcome::of(&mbpp::load_sanitized(&dir, true))
        })
    },
    ..PREDICTIONS
};

pub(super) const HUMANEVAL: Target = Target {
    name: "humaneval",
    what: "HumanEval's problems",
    seeds: || {
        vec![
            file("data/humaneval/HumanEval.jsonl"),
            file("tests/data/humaneval.jsonl"),
        ]
    },
    open: |dir| {
        let (dir, path) = (dir.display().to_string(), dir.join("HumanEval.jsonl"));
        Box::new(move |input| {
            put(&path, input);
            let read = humaneval::load(&dir, true);
            if read.is_ok()
                && let Ok(benchmark) = HumanEval::load(&dir, true, PromptStyle::ZeroShot, None)
            {
                walked(&benchmark);
            }
            Outcome::of(&read)
        })
    },
    ..PREDICTIONS
};

pub(super) const CONTEST: Target = Target {
    name: "contest",
    what: "CodeContests' problems",
    seeds: || vec![file("data/contest/valid.jsonl"), file("tests/data/contest.jsonl")],
    open: |dir| {
        let (dir, path) = (dir.display().to_string(), dir.join("valid.jsonl"));
        Box::new(move |input| {
            put(&path, input);
            let read = contest::load(&dir, "valid", true);
            if read.is_ok()
                && let Ok(benchmark) = Contest::load(&dir, "valid", true, PromptStyle::ZeroShot, None, true)
            {
                walked(&benchmark);
            }
            Outcome::of(&read)
        })
    },
    ..PREDICTIONS
};

pub(super) const OWN: Target = Target {
    name: "own-problems",
    what: "a file of one's own problems",
    seeds: none,
    open: |dir| {
        let path = dir.join("own.jsonl");
        Box::new(move |input| {
            put(&path, input);
            let read = Own::load(&path, PromptStyle::ZeroShot, None, true);
            if let Ok(benchmark) = &read {
                walked(benchmark);
            }
            Outcome::of(&read)
        })
    },
    ..PREDICTIONS
};

pub(super) const PLUS: Target = Target {
    name: "evalplus",
    what: "evalplus' files of problems",
    seeds: none,
    open: |dir| {
        let path = dir.join("plus.jsonl");
        Box::new(move |input| {
            put(&path, input);
            let both = [PlusSet::HumanEval, PlusSet::Mbpp]
                .map(|set| Plus::load(&path, set, false, PromptStyle::ZeroShot, None));
            both.iter().flatten().for_each(|benchmark| walked(benchmark));
            match both {
                [Ok(_), _] | [_, Ok(_)] => Outcome::Accepted,
                [first, _] => Outcome::of(&first),
            }
        })
    },
    ..PREDICTIONS
};

/// Programs whose ends and words are given.
struct Said(Mutex<VecDeque<(Status, Vec<u8>)>>);

impl Said {
    fn new(parts: Vec<(String, Vec<u8>)>) -> Self {
        Self(Mutex::new(
            parts.into_iter().map(|(name, said)| (status(&name), said)).collect(),
        ))
    }

    fn next(&self, proof: &[u8]) -> Ended {
        let next = self.0.lock().ok().and_then(|mut said| said.pop_front());
        let (status, said) = next.unwrap_or((Status::Exit(0), Vec::new()));
        let said = with_proof(&said, proof);
        Ended {
            status,
            breach: None,
            stdout: said.clone(),
            stderr: said,
            seconds: 0.01,
        }
    }
}

fn status(name: &str) -> Status {
    match name.split_once(' ') {
        Some(("exit", code)) => Status::Exit(code.parse().unwrap_or(-1)),
        Some(("signal", number)) => Status::Signal(number.parse().unwrap_or(0)),
        _ if name == "time" => Status::TimedOut,
        _ if name == "output" => Status::OutputLimit,
        _ => Status::Exit(0),
    }
}

/// The word `PROOF` as the number that the harness was given.
fn with_proof(said: &[u8], proof: &[u8]) -> Vec<u8> {
    const WORD: &[u8] = b"PROOF";
    match said.windows(WORD.len()).position(|window| window == WORD) {
        Some(at) => [&said[..at], proof, &said[at + WORD.len()..]].concat(),
        None => said.to_vec(),
    }
}

impl Runner for Said {
    fn run(&self, program: &Program<'_>, _: &Limits) -> Result<Ended, SandboxError> {
        // Lengths, then the parts: the number is the first one.
        let begin = program
            .stdin
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        Ok(self.next(program.stdin.get(begin..begin + 32).unwrap_or_default()))
    }

    fn run_pair(&self, _: &Pair<'_>, _: &Limits) -> Result<[Ended; 2], SandboxError> {
        Ok([self.next(b""), self.next(b"")])
    }

    fn level(&self) -> &'static str {
        "none"
    }

    fn python(&self) -> &'static str {
        "3"
    }
}

/// A row of HumanEval+ with one input in each of its two sets.
const PLUS_ROW: &str = r#"{"task_id": "HumanEval/0", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "    return x\n", "base_input": [[1]], "plus_input": [[2]], "atol": 0}"#;

pub(super) const VERDICT: Target = Target {
    name: "verdict",
    what: "what the harness, the compiler, the reference and the second interpreter say",
    shape: Shape::Parts,
    words: &[
        "PROOF",
        "passed",
        "wrong",
        "syntax",
        "timeout",
        "error ValueError",
        "verified",
        "unclear ",
        "failed ",
        "null",
        "{\"sets\": [{\"tests\": 1, \"seconds\": 0.1, \"bytes\": 2}, {\"tests\": 1, \"seconds\": 0.1, \"bytes\": 2}]}",
        "{\"failed\": \"x\"}",
        "[0, 0, \"x\"]",
        "1e308",
        "18446744073709551615",
        "\n",
        " ",
    ],
    seeds: || {
        let header: &[u8] =
            br#"{"sets": [{"tests": 1, "seconds": 0.1, "bytes": 2}, {"tests": 1, "seconds": 0.1, "bytes": 2}]}
aabb"#;
        let passed: (&str, &[u8]) = ("exit 0", b"PROOF passed\n");
        let compiled: (&str, &[u8]) = ("exit 0", b"print(1)");
        vec![
            named(&[
                compiled,
                passed,
                compiled,
                compiled,
                ("exit 0", b""),
                ("exit 0", b"verified\n"),
            ]),
            named(&[compiled, ("exit 1", b"PROOF error ValueError\n")]),
            named(&[
                compiled,
                passed,
                compiled,
                compiled,
                ("exit 0", b""),
                ("exit 0", b"unclear x\n"),
            ]),
            named(&[compiled, ("exit 1", b"PROOF wrong\n"), ("exit 0", header), passed]),
        ]
    },
    open: |dir| {
        let path = put(&dir.join("plus.jsonl"), PLUS_ROW.as_bytes());
        let limits = Limits::default();
        Box::new(move |input| judged(&path, Said::new(split(input)), &limits))
    },
    ..PREDICTIONS
};

/// A candidate judged by its checks, and one by its calls.
fn judged(path: &Path, runner: Said, limits: &Limits) -> Outcome {
    let judge = Judge::new(&runner, limits);
    let checked = Checked {
        code: "def f(x):\n    return x\n",
        checks: &["assert f(1) == 1"],
        names: Names {
            entry_point: Some("f"),
            ..Names::default()
        },
    };
    let judgement = judge.check(&checked);
    if let Ok(plus) = Plus::load(path, PlusSet::HumanEval, false, PromptStyle::ZeroShot, None) {
        let _ = plus.prepare(&[0], &judge, 1);
        let _ = plus.judge(0, Answer::Completion("    return x\n"), &judge);
    }
    match judgement {
        Ok(judgement) if judgement.verdict.passed() => Outcome::Accepted,
        Ok(judgement) => Outcome::refused(judgement.verdict.class()),
        Err(error) => Outcome::refused(&error.to_string()),
    }
}

pub(super) const CACHED: Target = Target {
    name: "cached-verdict",
    what: "a verdict of the cache",
    shape: Shape::Json,
    seeds: none,
    open: |dir| {
        let cache = VerdictCache::new(dir);
        let made = std::fs::create_dir_all(dir.join("ab"));
        assert!(made.is_ok(), "a directory for verdicts");
        let path = dir.join("ab/cd.json");
        Box::new(move |input| {
            put(&path, input);
            Outcome::of_option(&cache.get("abcd"))
        })
    },
    ..PREDICTIONS
};
