//! One's own problems: each kind of test, and tests that are no Python.

use super::runner;
use std::path::Path;
use wmtp::{
    data::PromptStyle,
    eval::{Answer, Benchmark, Judge, Own, StopRule, Verdict, sandbox::Limits},
};

fn load(rows: &[&str]) -> Own {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.jsonl");
    std::fs::write(&file, rows.join("\n")).unwrap();
    Own::load(&file, PromptStyle::ZeroShot, None, false).unwrap()
}

const WORDS: [&str; 4] = [
    r#"{"id": "sum of two", "prompt": "Write add(a, b).\n", "setup": "seen = add(0, 0)", "tests": ["assert add(1, 2) == 3", "assert seen == 0"], "solution": "def add(a, b):\n    return a + b"}"#,
    r#"{"id": "Mine/7", "prompt": "Write twice(x).\n", "entry_point": "twice", "test": "def check(f):\n    assert f(2) == 4\n    assert f('a') == 'aa'\n"}"#,
    r#"{"id": 3, "prompt": "Double the number.\n", "tests": [{"input": "1\n", "output": "2\n"}, {"input": "4", "output": "8"}]}"#,
    r#"{"id": "true", "prompt": "Define truth.\n", "test": "assert truth"}"#,
];

#[test]
fn every_kind_of_test_judges_and_ids_are_names() {
    let benchmark = load(&WORDS);
    assert_eq!((benchmark.name(), benchmark.variant()), ("jsonl", "mine"));
    assert_eq!(benchmark.default_tasks(), [0, 1, 2, 3]);
    assert_eq!(
        (benchmark.task_named("sum of two"), benchmark.task_named("3")),
        (Some(0), Some(2))
    );
    assert_eq!(benchmark.stop(), StopRule::Strings(&["[DONE]"]));
    let limits = Limits::default();
    let judge = Judge::new(runner(), &limits);
    benchmark.prepare(&[0, 1, 2, 3], &judge, 1).unwrap();
    let verdict = |task, text: &str| benchmark.judge(task, Answer::Completion(text), &judge).unwrap();
    let add = "def add(a, b):\n    return a + b\n";
    for (task, text, expected) in [
        (0, add, Verdict::Passed),
        (0, "def add(a, b):\n    return a - b\n", Verdict::Wrong),
        (0, "add = 1", Verdict::Error("TypeError".into())),
        (1, "def twice(x): return 2 * x", Verdict::Passed),
        (1, "def twice(x): return x ** 2", Verdict::Error("TypeError".into())),
        (1, "def twice(x): return 5", Verdict::Wrong),
        (2, "print(2 * int(input()))", Verdict::Passed),
        (2, "print(2)", Verdict::Wrong),
        (3, "truth = 1", Verdict::Passed),
        (3, "truth = 0", Verdict::Wrong),
        (3, "import os\nos._exit(0)", Verdict::Error("exit code 0".into())),
    ] {
        let judged = verdict(task, text);
        assert_eq!(judged.verdict, expected, "{task} {text}");
        assert_eq!(judged.unverified, None, "{task} {text}");
    }
    let count = verdict(2, "print(2)").tests.unwrap();
    assert_eq!((count.passed, count.first_failed.as_deref()), (1, Some("test 2")));
    assert!(benchmark.is_reference(0, Answer::Completion(add)).unwrap());
    assert!(!benchmark.is_reference(1, Answer::Completion(add)).unwrap());
    assert!(benchmark.prompt(4).unwrap_err().to_string().contains("0 to 3"));
}

#[test]
fn an_answer_continues_a_prompt_that_begins_the_function() {
    let benchmark = load(&[
        r#"{"id": "f", "prompt": "import math\n\ndef f(x):\n    \"\"\"Root.\"\"\"\n", "entry_point": "f", "tests": ["assert f(9) == 3"], "solution": "import math\n\ndef f(x):\n    \"\"\"Root.\"\"\"\n    return math.sqrt(x)"}"#,
    ]);
    assert_eq!(benchmark.stop(), StopRule::TopLevel);
    let limits = Limits::default();
    let judge = Judge::new(runner(), &limits);
    let rest = "    return math.sqrt(x)\n";
    assert!(
        benchmark
            .judge(0, Answer::Completion(rest), &judge)
            .unwrap()
            .verdict
            .passed()
    );
    assert!(benchmark.is_reference(0, Answer::Completion(rest)).unwrap());
    let program = benchmark
        .judge(0, Answer::Program("def f(x): return 3"), &judge)
        .unwrap();
    assert!(program.verdict.passed());
}

#[test]
fn tests_that_are_no_python_are_found_before_any_answer() {
    let benchmark = load(&[
        WORDS[0],
        "",
        r#"{"id": "b", "prompt": "p", "tests": ["assert f(1)", "assert f(1 == 2"]}"#,
    ]);
    let limits = Limits::default();
    let judge = Judge::new(runner(), &limits);
    benchmark.prepare(&[0], &judge, 1).unwrap();
    let error = benchmark.prepare(&[0, 1], &judge, 1).unwrap_err().to_string();
    assert!(
        error.contains("line 3: the test `assert f(1 == 2` of `b` is not Python"),
        "{error}"
    );
    assert!(Own::load(Path::new("none.jsonl"), PromptStyle::ZeroShot, None, false).is_err());
}
