//! A whole sampling run with generators whose answers are known.

use super::runner;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use wmtp::{
    data::{PromptStyle, Tokenizer, mbpp},
    eval::{Benchmark, Completion, EvalError, EvalRequest, Generator, Mbpp, parse_tasks, run, sandbox::Runner},
};

fn benchmark() -> Mbpp {
    let tokenizer = Tokenizer::builtin_micro().unwrap();
    Mbpp::new(mbpp::load("builtin:mbpp").unwrap(), PromptStyle::FewShot, &tokenizer).unwrap()
}

/// Answers from the prompt alone: the reference, or by the seed's parity something wrong.
struct Answers {
    by_prompt: BTreeMap<String, String>,
    wrong_at_odd_seeds: bool,
    calls: usize,
}

impl Answers {
    fn new(benchmark: &Mbpp, wrong_at_odd_seeds: bool) -> Self {
        let by_prompt = mbpp::load("builtin:mbpp")
            .unwrap()
            .into_iter()
            .map(|problem| (benchmark.prompt(problem.task_id).unwrap().to_owned(), problem.code))
            .collect();
        Self {
            by_prompt,
            wrong_at_odd_seeds,
            calls: 0,
        }
    }
}

impl Generator for Answers {
    fn generate(&mut self, prompts: &[(String, u64)], stop: &[&str]) -> Result<Vec<Completion>, EvalError> {
        self.calls += 1;
        let stop = stop.first().unwrap();
        let answer = |(prompt, seed): &(String, u64)| match seed % 2 == 1 && self.wrong_at_odd_seeds {
            true => Completion {
                text: "def nothing(): pass".into(),
                tokens: 4,
            },
            false => Completion {
                text: format!("{}\n{stop}\n\nYou are", self.by_prompt[prompt]),
                tokens: 10,
            },
        };
        Ok(prompts.iter().map(answer).collect())
    }
}

fn samples(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("samples.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_references_score_one_and_both_files_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let benchmark = benchmark();
    let request = EvalRequest {
        temperature: 0.0,
        batch_size: 8,
        ..EvalRequest::new(parse_tasks("11-30").unwrap(), dir.path().join("new/run"))
    };
    let mut seen = Vec::new();
    let mut generator = Answers::new(&benchmark, false);
    let report = run(&benchmark, &request, &mut generator, runner(), &mut |progress| {
        seen.push(*progress)
    })
    .unwrap();

    assert_eq!((report.pass_at_1, report.ci95, report.exact), (1.0, [1.0, 1.0], 1.0));
    assert_eq!((report.tasks, report.samples, report.tokens), (20, 1, 200));
    assert_eq!(generator.calls, 3);
    assert_eq!(seen.iter().map(|p| p.done).collect::<Vec<_>>(), [8, 16, 20]);
    assert!(seen.iter().all(|p| p.total == 20 && p.passed == p.done));

    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(request.output.join("eval.json")).unwrap()).unwrap();
    assert_eq!(json, report.to_json().unwrap());
    for (key, expected) in [
        ("benchmark", Value::from("mbpp")),
        ("tasks", 20.into()),
        ("samples", 1.into()),
        ("temperature", 0.0.into()),
        ("pass_at_1", 1.0.into()),
        ("ci95", vec![1.0, 1.0].into()),
        ("tokens", 200.into()),
        ("sandbox", runner().level().into()),
        ("prompt", "few-shot".into()),
        ("mbpp_exact", 1.0.into()),
        ("run_dir", request.output.to_str().unwrap().into()),
    ] {
        assert_eq!(json.get(key), Some(&expected), "{key}");
    }
    assert!(json["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(json["results"]["passed"], 20);
    assert_eq!(json["results"]["timeout"], 0);

    let lines = samples(&request.output);
    assert_eq!(lines.len(), 20);
    let first = &lines[0];
    let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["task_id", "completion", "passed", "result", "seed"]);
    assert_eq!(
        (&first["task_id"], &first["passed"], &first["result"]),
        (&"Mbpp/11".into(), &true.into(), &"passed".into())
    );
    assert!(!first["completion"].as_str().unwrap().contains("[DONE]"));
    let left: Vec<_> = std::fs::read_dir(&request.output)
        .unwrap()
        .flatten()
        .map(|f| f.file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn samples_and_score_do_not_depend_on_the_batch_size_or_the_other_tasks() {
    let benchmark = benchmark();
    let go = |batch_size, tasks: &str| {
        let dir = tempfile::tempdir().unwrap();
        let request = EvalRequest {
            samples: 4,
            k: vec![2, 4],
            batch_size,
            ..EvalRequest::new(parse_tasks(tasks).unwrap(), dir.path().to_owned())
        };
        let report = run(
            &benchmark,
            &request,
            &mut Answers::new(&benchmark, true),
            runner(),
            &mut |_| (),
        )
        .unwrap();
        (report, samples(dir.path()))
    };
    let (one, lines) = go(1, "11-14");
    let (all, same) = go(100, "11-14");
    assert_eq!(lines, same);
    assert_eq!(
        (one.pass_at_1, one.ci95, &one.pass_at_k),
        (all.pass_at_1, all.ci95, &all.pass_at_k)
    );
    let (_, fewer) = go(3, "13-14");
    assert_eq!(lines[8..], fewer);

    // The score is what the parity of the seeds makes it.
    let passed = lines
        .iter()
        .filter(|line| line["seed"].as_u64().unwrap() % 2 == 0)
        .count();
    assert!(passed > 0 && passed < 16, "{passed}");
    assert!((one.pass_at_1 - passed as f64 / 16.0).abs() < 1e-12);
    assert_eq!(one.results.0["passed"], passed);
    assert_eq!(one.results.0["error"], 16 - passed);
    assert_eq!(one.pass_at_k.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
    assert!(one.pass_at_k[&2] >= one.pass_at_1 && one.pass_at_k[&4] >= one.pass_at_k[&2]);
    assert!(one.ci95[0] <= one.pass_at_1 && one.pass_at_1 <= one.ci95[1]);
}

#[test]
fn an_unknown_task_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let benchmark = benchmark();
    let request = EvalRequest::new(vec![11, 975], dir.path().join("run"));
    let mut generator = Answers::new(&benchmark, false);
    let error = run(&benchmark, &request, &mut generator, runner(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("MBPP has no task 975"), "{error}");
    assert_eq!(generator.calls, 0);
    assert!(!request.output.exists());
}

struct Short;

impl Generator for Short {
    fn generate(&mut self, _: &[(String, u64)], _: &[&str]) -> Result<Vec<Completion>, EvalError> {
        Ok(vec![])
    }
}

#[test]
fn a_generator_that_loses_completions_is_an_error_and_no_result_appears() {
    let dir = tempfile::tempdir().unwrap();
    let request = EvalRequest::new(vec![11, 12], dir.path().to_owned());
    let error = run(&benchmark(), &request, &mut Short, runner(), &mut |_| ()).unwrap_err();
    assert!(
        error.to_string().contains("0 completions came back for 2 prompts"),
        "{error}"
    );
    assert!(!dir.path().join("samples.jsonl").exists() && !dir.path().join("eval.json").exists());
}

#[test]
fn the_default_tasks_are_the_test_split() {
    let tasks = benchmark().default_tasks();
    assert_eq!((tasks.len(), tasks.first(), tasks.last()), (500, Some(&11), Some(&510)));
    assert_eq!(benchmark().tasks().len(), 974);
}
