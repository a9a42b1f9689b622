//! HumanEval+ and MBPP+ on cut-down files: verdicts as evalplus 0.3.1 gave them, its comparison of numbers as
//! NumPy's, what happens at the edges.

use super::runner;
use rayon::prelude::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use wmtp::{
    data::PromptStyle,
    eval::bench::plus::PlusSet,
    eval::{
        Answer, Benchmark, EvalError, Judge, Judgement, Plus, StopRule, Verdict, VerdictCache,
        sandbox::{Limits, Program, Runner, Status},
    },
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/evalplus")
        .join(name)
}

fn load(set: PlusSet, repaired: bool) -> Plus {
    let file = fixture(match set {
        PlusSet::HumanEval => "humaneval_plus.jsonl",
        PlusSet::Mbpp => "mbpp_plus.jsonl.gz",
    });
    Plus::load(&file, set, repaired, PromptStyle::ZeroShot, None).unwrap()
}

fn limits() -> Limits {
    Limits {
        wall: std::time::Duration::from_secs(60),
        ..Limits::default()
    }
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("expected.json")).unwrap()).unwrap()
}

/// Judges all programs of expected.json on both sets of inputs; returns how many, and who differs.
fn disagreements(set: PlusSet) -> (usize, Vec<String>) {
    let benchmark = load(set, false);
    let limits = limits();
    let judge = Judge::new(runner(), &limits);
    let rows = expected()[set.dataset()].as_array().unwrap().clone();
    let wrong: Vec<String> = rows
        .par_iter()
        .filter_map(|row| {
            let text = |field: &str| row[field].as_str().unwrap();
            let task = benchmark.task_named(text("task_id")).unwrap();
            let judged = benchmark
                .judge(task, Answer::Program(text("solution")), &judge)
                .unwrap();
            let stages = judged.stages.clone().unwrap();
            // Two tasks of MBPP+ take any answer for right: that passes, and proves nothing.
            let proves = ![
                ("Mbpp/164", "def are_equivalent(a, b):\n    return 'anything'\n"),
                ("Mbpp/295", "def sum_div(n):\n    return 0\n"),
            ]
            .contains(&(text("task_id"), text("solution")));
            let agrees = |verdict: &Verdict, field| verdict.passed() == (text(field) == "pass");
            let right = agrees(&stages.base, "base_status")
                && agrees(&stages.plus, "plus_status")
                && judged.verdict.passed() == (stages.base.passed() && stages.plus.passed())
                && judged.unverified.is_none() == proves;
            (!right).then(|| format!("{row}: {judged:?}"))
        })
        .collect();
    (rows.len(), wrong)
}

#[test]
fn verdicts_on_humaneval_plus_are_those_of_evalplus() {
    let (judged, wrong) = disagreements(PlusSet::HumanEval);
    assert_eq!(judged, 88);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn verdicts_on_mbpp_plus_are_those_of_evalplus() {
    let (judged, wrong) = disagreements(PlusSet::Mbpp);
    assert!(judged >= 103, "{judged}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_repaired_variant_judges_the_task_that_evalplus_does_not_count() {
    let limits = limits();
    let judge = Judge::new(runner(), &limits);
    let root = "def find_zero(xs):\n    low, high = -1.0, 1.0\n    f = lambda x: sum(c * x ** i for i, c in enumerate(xs))\n    \
                while f(low) * f(high) > 0:\n        low, high = low * 2, high * 2\n    for _ in range(200):\n        \
                middle = (low + high) / 2\n        if f(low) * f(middle) > 0:\n            low = middle\n        else:\n            \
                high = middle\n    return (low + high) / 2\n";
    let verdict = |repaired, code: &str| {
        let benchmark = load(PlusSet::HumanEval, repaired);
        let judged = benchmark.judge(32, Answer::Program(code), &judge).unwrap();
        judged.stages.unwrap().base
    };
    assert_eq!(verdict(true, root), Verdict::Passed);
    assert_eq!(
        verdict(false, root),
        Verdict::Error("not counted by evalplus 0.3.1".into())
    );
    assert_eq!(verdict(true, "def find_zero(xs): return 1e9"), Verdict::Wrong);
}

#[test]
fn numbers_are_compared_as_numpy_compares_them() {
    let cases = std::fs::read_to_string(fixture("allclose.json")).unwrap();
    let program = format!(
        "{}\n\nimport json, sys\nfor pair, atol, wanted in json.load(sys.stdin):\n    a, b = eval(pair)\n    try:\n        \
         got = close(a, b, atol)\n    except Exception:\n        got = 'raises'\n    if got != wanted:\n        \
         print(pair, atol, got, wanted)\nprint('compared')\n",
        include_str!("../../crates/eval/src/calls.py")
    );
    let program = Program {
        source: &program,
        stdin: cases.as_bytes(),
    };
    let outcome = runner().run(&program, &limits()).unwrap();
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert_eq!(
        (outcome.status, String::from_utf8_lossy(&outcome.stdout).as_ref()),
        (Status::Exit(0), "compared\n"),
        "{said}"
    );
    assert!(cases.lines().count() > 90);
}

#[test]
fn prompts_are_as_published_and_completions_follow_them() {
    let limits = limits();
    let judge = Judge::new(runner(), &limits);
    let mbpp = load(PlusSet::Mbpp, false);
    assert!(mbpp.prompt(2).unwrap().starts_with("'''\nWrite a function"));
    let stop = mbpp.stop();
    assert_eq!(
        stop.cut("import x\ndef f():\n    return 1\n\nassert f() == 1"),
        "import x\ndef f():\n    return 1\n"
    );
    let solution = "def similar_elements(a, b):\n    return tuple(set(a) & set(b))\n";
    let passed = |benchmark: &Plus, task, text: &str| {
        benchmark
            .judge(task, Answer::Completion(text), &judge)
            .unwrap()
            .verdict
            .passed()
    };
    assert!(passed(&mbpp, 2, solution));
    let humaneval = load(PlusSet::HumanEval, false);
    assert_eq!(humaneval.stop(), StopRule::TopLevel);
    assert!(passed(&humaneval, 2, "    return number % 1.0\n"));
    assert!(!passed(&humaneval, 2, "    return number\n"));
    let error = Plus::load(
        &fixture("mbpp_plus.jsonl.gz"),
        PlusSet::Mbpp,
        false,
        PromptStyle::FewShot,
        None,
    );
    assert!(error.unwrap_err().to_string().contains("no few-shot prompt"));
}

#[test]
fn a_call_has_a_second_or_four_times_the_references_time_and_writing_is_nobodys_business() {
    let limits = limits();
    let judge = Judge::new(runner(), &limits);
    let benchmark = load(PlusSet::HumanEval, false);
    let stages = |code: &str| {
        let judged = benchmark.judge(2, Answer::Program(code), &judge).unwrap();
        judged.stages.unwrap()
    };
    let endless = stages("def truncate_number(n):\n    while n < 4 or True: pass\n");
    assert_eq!((endless.base, endless.plus), (Verdict::Timeout, Verdict::Timeout));
    // It hides that it is late, but the clock was looked at.
    let asleep = "import time\ndef truncate_number(n):\n    time.sleep(1.3)\n    return n % 1.0\n";
    assert_eq!(stages(asleep).base, Verdict::Timeout);
    let loud = "def truncate_number(n):\n    print('x' * 3000000)\n    return n % 1.0\n";
    assert_eq!(stages(loud).base, Verdict::Passed);
    assert_eq!(stages("x = (").base, Verdict::Syntax);
    assert_eq!(stages("raise SystemExit").base, Verdict::Error("SystemExit".into()));
    assert_eq!(
        stages("import os\nos._exit(0)").base,
        Verdict::Error("exit code 0".into())
    );
}

#[test]
fn verdicts_and_reference_results_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = VerdictCache::new(dir.path());
    let limits = limits();
    let judged = || -> Judgement {
        let judge = Judge::new(runner(), &limits).with_cache(Some(&cache));
        let benchmark = load(PlusSet::Mbpp, false);
        benchmark.prepare(&[88], &judge, 2).unwrap();
        let code = "from collections import Counter\ndef freq_count(l):\n    return Counter(l)\n";
        benchmark.judge(88, Answer::Program(code), &judge).unwrap()
    };
    let first = judged();
    assert!(first.verdict.passed() && cache.hits() == 0, "{first:?}");
    assert_eq!((judged(), cache.hits()), (first, 2), "base and plus");
}

#[test]
fn a_reference_solution_that_fails_is_a_fault_of_the_file_named_by_line() {
    let row = |solution: &str| {
        serde_json::json!({
            "task_id": "HumanEval/5", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": solution,
            "base_input": [[1]], "plus_input": [[2], [0]], "atol": 0,
        })
        .to_string()
    };
    let limits = limits();
    let judge = Judge::new(runner(), &limits);
    for (solution, expected) in [
        (
            "    return 1 / x\n",
            "line 1: the reference solution of HumanEval/5 fails on plus_input 2: ZeroDivisionError",
        ),
        ("    return (\n", "HumanEval/5 fails on base_input: SyntaxError"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), row(solution)).unwrap();
        let benchmark = Plus::load(file.path(), PlusSet::HumanEval, false, PromptStyle::ZeroShot, None).unwrap();
        let error: EvalError = benchmark.prepare(&[5], &judge, 1).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
