//! A whole sampling run with generators whose answers are known.

use super::{
    answers::{Answers, benchmark, go, names, samples},
    runner,
};
use serde_json::Value;
use std::path::Path;
use wmtp::{
    data::PromptStyle,
    eval::{
        Benchmark, Completion, Done, EvalError, EvalRequest, GenerationRequest, Generator, HumanEval, Mbpp,
        MbppVariant, Predictions, Source, StopRule, parse_task_names, parse_tasks, run, sandbox::Runner,
    },
};

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
    assert_eq!((report.pass_at_1, report.exact), (1.0, 1.0));
    // scipy.stats.binomtest(20, 20).proportion_ci(0.95, "wilson"): the bootstrap would have no width.
    let [low, high] = report.ci95;
    assert!(
        (low - 0.838_874_841_947_180_8).abs() < 1e-12 && high == 1.0,
        "{low} {high}"
    );
    assert_eq!(
        (report.tasks, report.samples, report.tokens, report.not_verified),
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
        ("ci95", report.ci95.to_vec().into()),
        ("tokens", 200.into()),
        ("sandbox", runner().level().into()),
        ("python", runner().python().into()),
        ("prompt", "few-shot".into()),
        ("mbpp_exact", 1.0.into()),
        ("not_verified", 0.into()),
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
        ("verified", true.into()),
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
    fn generate(&mut self, _: &[GenerationRequest], _: &StopRule<'_>, done: &mut Done<'_>) -> Result<(), EvalError> {
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
    let problems = wmtp::eval::bench::humaneval::load("builtin:humaneval", false).unwrap();
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
fn a_pass_that_is_not_verified_counts_and_is_counted_apart() {
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
        (
            report.pass_at_1,
            report.not_verified,
            report.verified_pass_at_1,
            report.verified_pass_at_k[&1]
        ),
        (1.0, 1, 0.0, 0.0)
    );
    let line = &samples(&request.output)[0];
    assert_eq!((&line["passed"], &line["verified"]), (&true.into(), &false.into()));
    assert_eq!(report.not_verified_samples, ["HumanEval/0 sample 0"]);
    assert!(line["reason"].as_str().unwrap().contains("__eq__"));
}
