//! A whole sampling run with generators whose answers are known.

use super::runner;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};
use wmtp::{
    data::{PromptStyle, mbpp},
    eval::{
        Benchmark, Completion, Done, EvalError, EvalRequest, Finished, GenerationRequest, Generator, HumanEval, Mbpp,
        MbppVariant, Predictions, Source, Stop, parse_task_names, parse_tasks, run,
        sandbox::{Limits, Outcome, Program, Runner, SandboxError},
    },
};

fn benchmark() -> Mbpp {
    Mbpp::load("builtin:mbpp", MbppVariant::Full, false, PromptStyle::FewShot, None).unwrap()
}

/// Answers from the prompt alone: the reference, or by the seed's parity something wrong. The last
/// request is answered first.
struct Answers {
    by_prompt: BTreeMap<String, String>,
    wrong_at_odd_seeds: bool,
    /// Fails when asked for more than so many.
    most: usize,
    answered: usize,
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
            most: usize::MAX,
            answered: 0,
        }
    }
}

impl Generator for Answers {
    fn generate(
        &mut self,
        requests: &[GenerationRequest],
        stop: &Stop<'_>,
        done: &mut Done<'_>,
    ) -> Result<(), EvalError> {
        assert_eq!(*stop, Stop::Strings(&["[DONE]"]));
        for (index, request) in requests.iter().enumerate().rev() {
            if self.answered == self.most {
                return Err(EvalError::Generate("the power went".into()));
            }
            self.answered += 1;
            let wrong = self.wrong_at_odd_seeds && (request.seed + (request.temperature * 10.0) as u64) % 2 == 1;
            let completion = match wrong {
                true => Completion {
                    text: "def nothing(): pass".into(),
                    tokens: 4,
                },
                false => Completion {
                    text: format!("{}\n[DONE]\n\nYou are", self.by_prompt[&request.prompt]),
                    tokens: 10,
                },
            };
            done(index, completion)?;
        }
        Ok(())
    }
}

fn go(benchmark: &dyn Benchmark, request: &EvalRequest, generator: &mut dyn Generator) -> Result<Finished, EvalError> {
    run(benchmark, request, Source::Generator(generator), runner(), &mut |_| ())
}

fn samples(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("samples.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|f| f.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_references_score_one_and_the_files_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let benchmark = benchmark();
    let request = EvalRequest {
        temperatures: vec![0.0],
        ..EvalRequest::new(parse_tasks("11-30").unwrap(), dir.path().join("new/run"))
    };
    let mut seen = Vec::new();
    let mut generator = Answers::new(&benchmark, false);
    let finished = run(
        &benchmark,
        &request,
        Source::Generator(&mut generator),
        runner(),
        &mut |progress| seen.push(*progress),
    )
    .unwrap();
    let report = &finished.report;
    assert_eq!((report.pass_at_1, report.ci95, report.exact), (1.0, [1.0, 1.0], 1.0));
    assert_eq!(
        (report.tasks, report.samples, report.tokens, report.suspect),
        (20, 1, 200, 0)
    );
    assert_eq!(
        seen.iter().map(|p| p.done).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
    assert!(
        seen.iter()
            .all(|p| p.total == 20 && p.passed == p.done && p.resumed == 0)
    );

    let file = std::fs::read_to_string(request.output.join("eval.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&file).unwrap(), report.to_json().unwrap());
    let json = finished.to_json().unwrap();
    for (key, expected) in [
        ("benchmark", Value::from("mbpp")),
        ("variant", "full".into()),
        ("tasks", 20.into()),
        ("samples", 1.into()),
        ("temperature", 0.0.into()),
        ("pass_at_1", 1.0.into()),
        ("ci95", vec![1.0, 1.0].into()),
        ("tokens", 200.into()),
        ("sandbox", runner().level().into()),
        ("python", runner().python().into()),
        ("prompt", "few-shot".into()),
        ("mbpp_exact", 1.0.into()),
        ("suspect", 0.into()),
        ("run_dir", request.output.to_str().unwrap().into()),
    ] {
        assert_eq!(json.get(key), Some(&expected), "{key}");
    }
    assert!(json["seconds"].as_f64().unwrap() > 0.0);
    assert!(!file.contains("seconds\": 0."), "time is not in eval.json: {file}");
    assert_eq!(
        (&json["results"]["passed"], &json["results"]["timeout"]),
        (&20.into(), &0.into())
    );
    assert_eq!(json["shares"]["parse"], 1.0);

    let lines = samples(&request.output);
    assert_eq!(lines.len(), 20);
    let first = &lines[0];
    for (key, expected) in [
        ("task_id", Value::from("Mbpp/11")),
        ("passed", true.into()),
        ("result", "passed".into()),
        ("suspect", false.into()),
        ("exact", true.into()),
        ("tokens", 10.into()),
        ("temperature", 0.0.into()),
    ] {
        assert_eq!(first[key], expected, "{key}");
    }
    assert!(first["seed"].is_u64() && !first["completion"].as_str().unwrap().contains("[DONE]"));
    assert_eq!(
        names(&request.output),
        ["eval.json", "run.json", "samples.jsonl", "timing.json"]
    );
}

#[test]
fn samples_and_score_do_not_depend_on_the_judges_or_the_other_tasks() {
    let benchmark = benchmark();
    let go = |judges, tasks: &str| {
        let dir = tempfile::tempdir().unwrap();
        let request = EvalRequest {
            samples: 4,
            k: vec![2, 4],
            judges: Some(judges),
            ..EvalRequest::new(parse_tasks(tasks).unwrap(), dir.path().to_owned())
        };
        let finished = go(&benchmark, &request, &mut Answers::new(&benchmark, true)).unwrap();
        (finished.report, samples(dir.path()))
    };
    let (one, lines) = go(1, "11-14");
    let (all, same) = go(7, "11-14");
    assert_eq!((&lines, &one), (&same, &all));
    let (_, fewer) = go(3, "13-14");
    assert_eq!(lines[8..], fewer);

    // The score is what the parity of the seeds makes it.
    let passed = lines
        .iter()
        .filter(|line| (line["seed"].as_u64().unwrap() + 2) % 2 == 0)
        .count();
    assert!(passed > 0 && passed < 16, "{passed}");
    assert!((one.pass_at_1 - passed as f64 / 16.0).abs() < 1e-12);
    assert_eq!(one.results.0["passed"], passed);
    assert_eq!(one.errors["NameError"], 16 - passed);
    assert_eq!(one.pass_at_k.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
    assert!(one.pass_at_k[&2] >= one.pass_at_1 && one.pass_at_k[&4] >= one.pass_at_k[&2]);
    assert!(one.ci95[0] <= one.pass_at_1 && one.pass_at_1 <= one.ci95[1]);
}

#[test]
fn each_k_has_its_best_temperature() {
    let dir = tempfile::tempdir().unwrap();
    let benchmark = benchmark();
    let request = EvalRequest {
        samples: 2,
        k: vec![1, 2],
        temperatures: vec![0.2, 0.7],
        ..EvalRequest::new(parse_tasks("11-20").unwrap(), dir.path().to_owned())
    };
    let report = go(&benchmark, &request, &mut Answers::new(&benchmark, true))
        .unwrap()
        .report;
    let lines = samples(dir.path());
    assert_eq!(lines.len(), 40);
    assert!(lines[..20].iter().all(|line| line["temperature"] == 0.2));
    // The same seeds, and with this generator opposite answers.
    for (a, b) in lines[..20].iter().zip(&lines[20..]) {
        assert_eq!((&a["seed"], &a["task_id"]), (&b["seed"], &b["task_id"]));
        assert_ne!(a["passed"], b["passed"]);
    }
    let [low, high] = report.temperatures.as_slice() else {
        panic!("{report:?}")
    };
    assert!((low.pass_at_k[&1] + high.pass_at_k[&1] - 1.0).abs() < 1e-12);
    for k in [1, 2] {
        let best = if high.pass_at_k[&k] > low.pass_at_k[&k] {
            high
        } else {
            low
        };
        assert_eq!(report.best_temperature[&k], best.temperature);
        assert_eq!(
            (report.pass_at_k[&k], report.ci95_at_k[&k]),
            (best.pass_at_k[&k], best.ci95_at_k[&k])
        );
    }
    assert_eq!(
        (report.pass_at_1, report.temperature),
        (report.pass_at_k[&1], report.best_temperature[&1])
    );
}

/// Fails after so many programs, as a killed process would end.
struct Breaks(AtomicUsize);

impl Runner for Breaks {
    fn run(&self, program: &Program<'_>, limits: &Limits) -> Result<Outcome, SandboxError> {
        let left = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_err() {
            return Err(SandboxError::Io {
                action: "start the interpreter",
                source: std::io::Error::other("the power went"),
            });
        }
        runner().run(program, limits)
    }

    fn level(&self) -> &str {
        runner().level()
    }

    fn python(&self) -> &str {
        runner().python()
    }
}

#[test]
fn a_run_that_broke_off_goes_on_to_the_same_files() {
    let benchmark = benchmark();
    let whole = tempfile::tempdir().unwrap();
    let broken = tempfile::tempdir().unwrap();
    let request = |dir: &Path, resume| EvalRequest {
        samples: 3,
        k: vec![1, 3],
        temperatures: vec![0.2, 0.7],
        resume,
        ..EvalRequest::new(parse_tasks("11-16").unwrap(), dir.to_owned())
    };
    go(
        &benchmark,
        &request(whole.path(), false),
        &mut Answers::new(&benchmark, true),
    )
    .unwrap();

    // The sandbox breaks, then the generator, then the last line is torn.
    let error = run(
        &benchmark,
        &request(broken.path(), false),
        Source::Generator(&mut Answers::new(&benchmark, true)),
        &Breaks(8.into()),
        &mut |_| (),
    )
    .unwrap_err();
    assert!(error.to_string().contains("the power went"), "{error}");
    assert_eq!(names(broken.path()), ["run.json", "samples.jsonl.part"]);
    let mut tired = Answers::new(&benchmark, true);
    tired.most = 9;
    let error = go(&benchmark, &request(broken.path(), true), &mut tired).unwrap_err();
    assert!(error.to_string().contains("the power went"), "{error}");
    let part = broken.path().join("samples.jsonl.part");
    let bytes = std::fs::read(&part).unwrap();
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 16);
    std::fs::write(&part, &bytes[..bytes.len() - 5]).unwrap();

    let mut generator = Answers::new(&benchmark, true);
    let mut first = None;
    let finished = run(
        &benchmark,
        &request(broken.path(), true),
        Source::Generator(&mut generator),
        runner(),
        &mut |progress| first = first.or(Some(*progress)),
    )
    .unwrap();
    assert_eq!((generator.answered, finished.resumed), (36 - 15, 15));
    assert_eq!(first.map(|p| (p.done, p.resumed)), Some((15, 15)));
    for name in ["samples.jsonl", "eval.json"] {
        let read = |dir: &Path| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read(whole.path()), read(broken.path()), "{name}");
    }
    assert_eq!(names(whole.path()), names(broken.path()));
    let again = go(
        &benchmark,
        &request(broken.path(), true),
        &mut Answers::new(&benchmark, true),
    )
    .unwrap_err();
    assert!(again.to_string().contains("has ended"), "{again}");
}

#[test]
fn a_run_does_not_go_on_with_another_request() {
    let benchmark = benchmark();
    let dir = tempfile::tempdir().unwrap();
    let request = || EvalRequest {
        resume: true,
        origin: BTreeMap::from([("model_hash".into(), "abc".into())]),
        ..EvalRequest::new(vec![11, 12], dir.path().to_owned())
    };
    let attempt = |request: EvalRequest| {
        go(&benchmark, &request, &mut Answers::new(&benchmark, false))
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let fresh = attempt(request()).unwrap_err();
    assert!(fresh.contains("holds no evaluation"), "{fresh}");
    let mut nothing = Answers::new(&benchmark, false);
    nothing.most = 0;
    go(
        &benchmark,
        &EvalRequest {
            resume: false,
            ..request()
        },
        &mut nothing,
    )
    .unwrap_err();

    let twice = attempt(EvalRequest {
        resume: false,
        ..request()
    })
    .unwrap_err();
    assert!(
        twice.contains("holds a run already") && twice.contains("--resume"),
        "{twice}"
    );
    let cases = [
        ("seed", EvalRequest { seed: 1, ..request() }),
        (
            "temperature",
            EvalRequest {
                temperatures: vec![0.3],
                ..request()
            },
        ),
        (
            "tasks",
            EvalRequest {
                tasks: vec![11],
                ..request()
            },
        ),
        (
            "samples",
            EvalRequest {
                samples: 2,
                ..request()
            },
        ),
        (
            "top_p",
            EvalRequest {
                top_p: 0.9,
                ..request()
            },
        ),
        (
            "max_new_tokens",
            EvalRequest {
                max_new_tokens: 9,
                ..request()
            },
        ),
        (
            "limits",
            EvalRequest {
                limits: Limits {
                    wall: std::time::Duration::from_secs(3),
                    ..Limits::default()
                },
                ..request()
            },
        ),
        (
            "origin",
            EvalRequest {
                origin: BTreeMap::from([("model_hash".into(), "abd".into())]),
                ..request()
            },
        ),
    ];
    for (key, request) in cases {
        let error = attempt(request).unwrap_err();
        assert!(error.contains(&format!("with another `{key}`")), "{key}: {error}");
    }
    assert_eq!(attempt(request()), Ok(()));
}

#[test]
fn known_verdicts_are_not_found_out_again() {
    let benchmark = benchmark();
    let cache = tempfile::tempdir().unwrap();
    let evaluate = |limits: Limits| {
        let dir = tempfile::tempdir().unwrap();
        let request = EvalRequest {
            samples: 2,
            limits,
            verdict_cache: Some(cache.path().to_owned()),
            judges: Some(1),
            ..EvalRequest::new(parse_tasks("11-14").unwrap(), dir.path().join("run"))
        };
        let finished = go(&benchmark, &request, &mut Answers::new(&benchmark, false)).unwrap();
        (finished.cached_verdicts, finished.report, samples(&request.output))
    };
    let (none, report, lines) = evaluate(Limits::default());
    // The second sample of a task is the same program.
    assert_eq!(none, 4);
    let (all, same, same_lines) = evaluate(Limits::default());
    assert_eq!((all, &same, &same_lines), (8, &report, &lines));
    let other = Limits {
        memory_bytes: 1 << 29,
        ..Limits::default()
    };
    assert_eq!(evaluate(other).0, 4);
}

#[test]
fn an_unknown_task_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let benchmark = benchmark();
    let request = EvalRequest::new(vec![11, 975], dir.path().join("run"));
    let mut generator = Answers::new(&benchmark, false);
    let error = go(&benchmark, &request, &mut generator).unwrap_err();
    assert!(error.to_string().contains("MBPP has no task 975"), "{error}");
    assert_eq!(generator.answered, 0);
    assert!(!request.output.exists());
}

/// Hands over what it is told to.
struct Hands(Vec<usize>);

impl Generator for Hands {
    fn generate(&mut self, _: &[GenerationRequest], _: &Stop<'_>, done: &mut Done<'_>) -> Result<(), EvalError> {
        self.0.iter().try_for_each(|&index| {
            done(
                index,
                Completion {
                    text: String::new(),
                    tokens: 0,
                },
            )
        })
    }
}

#[test]
fn a_generator_that_loses_or_doubles_completions_is_an_error_and_no_result_appears() {
    for (indices, expected) in [
        (vec![], "0 completions came back for 2 prompts"),
        (vec![1], "1 completions came back for 2 prompts"),
        (vec![0, 0], "came unasked or twice"),
        (vec![0, 2], "came unasked or twice"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let request = EvalRequest::new(vec![11, 12], dir.path().to_owned());
        let error = go(&benchmark(), &request, &mut Hands(indices)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!dir.path().join("samples.jsonl").exists() && !dir.path().join("eval.json").exists());
    }
}

#[test]
fn the_default_tasks_are_the_test_split() {
    let tasks = benchmark().default_tasks();
    assert_eq!((tasks.len(), tasks.first(), tasks.last()), (500, Some(&11), Some(&510)));
    assert_eq!(benchmark().tasks().len(), 974);
    let sanitized = Mbpp::load(
        "builtin:mbpp",
        MbppVariant::Sanitized,
        false,
        PromptStyle::FewShot,
        None,
    )
    .unwrap();
    assert_eq!((sanitized.tasks().len(), sanitized.default_tasks().len()), (427, 257));
    assert_eq!(parse_task_names("Mbpp/12, 14-15", &sanitized).unwrap(), [12, 14, 15]);
}

#[test]
fn predictions_are_judged_and_read_back() {
    let benchmark = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).unwrap();
    let problems = wmtp::data::humaneval::load("builtin:humaneval", false).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("given.jsonl");
    let mut text = String::new();
    for problem in &problems[..5] {
        let program = format!("{}{}", problem.prompt, problem.canonical_solution);
        text += &format!(
            "{}\n",
            serde_json::json!({"task_id": problem.task_id, "completion": problem.canonical_solution})
        );
        text += &format!(
            "{}\n",
            serde_json::json!({"task_id": problem.task_id, "solution": program})
        );
        text += &format!(
            "{}\n",
            serde_json::json!({"task_id": problem.task_id, "completion": "    return None\n"})
        );
    }
    std::fs::write(&file, text).unwrap();
    let judge = |file: &Path, out: &Path| {
        let tasks: Vec<u32> = (0..5).collect();
        let predictions = Predictions::read(file, &benchmark, Some(&tasks), Some(3)).unwrap();
        let request = EvalRequest {
            samples: 3,
            k: vec![1, 3],
            temperatures: vec![],
            ..EvalRequest::new(tasks, out.to_owned())
        };
        run(&benchmark, &request, Source::Given(&predictions), runner(), &mut |_| ())
            .unwrap()
            .report
    };
    let report = judge(&file, &dir.path().join("a"));
    assert!(
        (report.pass_at_1 - 2.0 / 3.0).abs() < 1e-12 && report.pass_at_k[&3] == 1.0,
        "{report:?}"
    );
    assert_eq!((report.temperature, report.prompt, report.tokens), (None, None, 0));
    let lines = samples(&dir.path().join("a"));
    assert!(lines[0]["completion"].is_string() && lines[1]["solution"].is_string());
    assert!(lines.iter().all(|line| line["seed"].is_null()));
    // Our own file is such a file.
    let again = judge(&dir.path().join("a/samples.jsonl"), &dir.path().join("b"));
    assert_eq!(again, report);
}

#[test]
fn a_suspect_pass_counts_and_is_counted_apart() {
    let benchmark = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("given.jsonl");
    let cheat = "    class Yes:\n        def __eq__(self, other):\n            return True\n    return Yes()\n";
    let row = serde_json::json!({"task_id": "HumanEval/0", "completion": cheat});
    std::fs::write(&file, row.to_string()).unwrap();
    let predictions = Predictions::read(&file, &benchmark, Some(&[0]), None).unwrap();
    let request = EvalRequest {
        temperatures: vec![],
        ..EvalRequest::new(vec![0], dir.path().join("run"))
    };
    let finished = run(&benchmark, &request, Source::Given(&predictions), runner(), &mut |_| ()).unwrap();
    let report = &finished.report;
    assert_eq!(
        (report.pass_at_1, report.suspect, report.pass_at_k_without_suspect[&1]),
        (1.0, 1, 0.0)
    );
    let line = &samples(&request.output)[0];
    assert_eq!((&line["passed"], &line["suspect"]), (&true.into(), &true.into()));
    assert!(line["suspicion"].as_str().unwrap().contains("__eq__"));
}
