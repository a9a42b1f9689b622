use super::*;
use crate::{
    VerdictCache,
    sandbox::{Limits, Outcome, Pair, Program, Runner, Sandbox, SandboxError},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use wmtp_data::source::{Source, SourceOptions};

/// A sandbox that counts its programs.
struct Counting {
    sandbox: Sandbox,
    runs: AtomicUsize,
}

impl Counting {
    fn new() -> Self {
        Self {
            sandbox: Sandbox::new().expect("these tests need python3 and every layer of the sandbox"),
            runs: AtomicUsize::new(0),
        }
    }
}

impl Runner for Counting {
    fn run(&self, program: &Program<'_>, limits: &Limits) -> Result<Outcome, SandboxError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        self.sandbox.run(program, limits)
    }

    fn run_pair(&self, pair: &Pair<'_>, limits: &Limits) -> Result<[Outcome; 2], SandboxError> {
        self.sandbox.run_pair(pair, limits)
    }

    fn level(&self) -> &str {
        self.sandbox.level()
    }

    fn python(&self) -> &str {
        self.sandbox.python()
    }
}

struct Home {
    dir: tempfile::TempDir,
    cache: VerdictCache,
    limits: Limits,
    runner: Counting,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            cache: VerdictCache::new(&dir.path().join("verdicts")),
            dir,
            limits: Limits {
                wall: Duration::from_secs(2),
                ..Limits::default()
            },
            runner: Counting::new(),
        }
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("out.jsonl")
    }

    fn labelled(&self, rows: &[Value], columns: &[(&str, &str)], stop: &Stop) -> Result<LabelReport, EvalError> {
        let file = self.dir.path().join("rows.jsonl");
        let text: Vec<String> = rows.iter().map(Value::to_string).collect();
        fs::write(&file, text.join("\n")).unwrap();
        let options = SourceOptions {
            columns: columns.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
            ..SourceOptions::default()
        };
        let source = Source::open(&file, &options).unwrap();
        let judge = Judge::new(&self.runner, &self.limits).with_cache(Some(&self.cache));
        let pool = Pool {
            judge: &judge,
            threads: 2,
            stop,
        };
        label_file(&source, &self.output(), &pool, &mut |_| ())
    }

    fn label(&self, rows: &[Value]) -> Result<LabelReport, EvalError> {
        self.labelled(rows, &[], &Stop::default())
    }

    fn rows(&self) -> Vec<Value> {
        read(&self.output())
    }
}

fn read(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const RIGHT: &str = "def add(a, b):\n    return a + b\n";
const MINUS: &str = "def add(a, b):\n    return a - b\n";
const FOREVER: &str = "def add(a, b):\n    while True: pass\n";
const WORDS: &str = "I would add the two of them.";

#[test]
fn candidates_of_a_row_get_labels_and_results_and_the_row_keeps_its_columns() {
    let home = Home::new();
    let row = json!({
        "note": {"by": "me"},
        "prompt": "Write add.",
        "completions": [RIGHT, MINUS, FOREVER, WORDS, RIGHT, "import os\nos._exit(0)"],
        "rewards": [0.0, 0.25, 0.25, 0.0, 1.0, 0.0],
        "tests": ["assert add(1, 2) == 3"],
        "task_id": "add",
    });
    let report = home.label(&[row]).unwrap();
    let expected = json!({
        "note": {"by": "me"},
        "prompt": "Write add.",
        "completions": [RIGHT, MINUS, FOREVER, WORDS, RIGHT, "import os\nos._exit(0)"],
        "tests": ["assert add(1, 2) == 3"],
        "task_id": "add",
        "labels": [true, false, false, false, true, false],
        "results": ["passed", "wrong", "timeout", "syntax_error", "passed", "error: exit code 0"],
    });
    assert_eq!(home.rows(), std::slice::from_ref(&expected));
    let names = |row: &Value| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&home.rows()[0]),
        names(&expected),
        "in the file's order, labels at the end"
    );
    let counts = LabelCounts {
        candidates: 6,
        right: 2,
        wrong: 2,
        timed_out: 1,
        no_program: 1,
        not_verified: 0,
        changed: 1,
    };
    assert_eq!((report.rows, &report.counts), (1, &counts));
    assert_eq!(
        counts.to_string(),
        "6 candidates: 2 right, 2 wrong, 1 timed out, 1 no program; 1 had another label before"
    );
}

#[test]
fn a_row_with_one_answer_gets_one_label_and_is_read_with_it() {
    let home = Home::new();
    let test = json!([{"input": "1\n", "output": "2\n"}, {"input": "4", "output": "8"}]);
    let rows = [
        json!({"prompt": "Double.", "completion": "print(2 * int(input()))", "tests": test}),
        json!({"prompt": "Double.", "completion": "print(2)", "tests": test, "reward": 1, "result": "?"}),
        json!({"text": "Add.", "code": RIGHT, "test_list": ["assert add(2, 2) == 4"]}),
        json!({"messages": [
            {"role": "user", "content": "Add."},
            {"role": "assistant", "content": format!("So:\n```python\n{RIGHT}```\n")},
        ], "tests": "assert add(2, 2) == 4"}),
    ];
    let report = home.label(&rows).unwrap();
    assert_eq!((report.rows, report.counts.right, report.counts.changed), (4, 3, 1));
    let found = home.rows();
    let labels: Vec<&Value> = found.iter().map(|row| &row["label"]).collect();
    assert_eq!(labels, [&json!(true), &json!(false), &json!(true), &json!(true)]);
    assert_eq!((&found[1]["result"], found[1].get("reward")), (&json!("wrong"), None));
    let source = Source::open(&home.output(), &SourceOptions::default()).unwrap();
    let rewards: Vec<Option<f32>> = source
        .records()
        .map(|record| record.unwrap().samples[0].reward)
        .collect();
    assert_eq!(rewards, [Some(1.0), Some(0.0), Some(1.0), Some(1.0)]);
}

#[test]
fn equal_candidates_run_once_and_later_runs_find_their_verdicts() {
    let home = Home::new();
    let row = |tests: &str| json!({"prompt": "p", "completions": [RIGHT, MINUS, RIGHT, RIGHT], "tests": [tests]});
    let rows = [
        row("assert add(1, 2) == 3"),
        row("assert add(1, 2) == 3"),
        row("assert add(1, 1) == 2"),
    ];
    let report = home.label(&rows).unwrap();
    assert_eq!(
        (report.counts.candidates, report.counts.right, report.cached),
        (12, 9, 0)
    );
    // Four programs, the compilation of the tests and those of the three harnesses.
    assert_eq!(home.runner.runs.load(Ordering::Relaxed), 8);
    let first = home.rows();
    let again = home.label(&rows).unwrap();
    assert_eq!((again.counts, again.cached), (report.counts, 4));
    assert_eq!(home.runner.runs.load(Ordering::Relaxed), 9);
    assert_eq!(home.rows(), first);
}

#[test]
fn what_can_have_no_labels_is_refused_with_its_row_and_leaves_nothing() {
    let home = Home::new();
    let good = json!({"prompt": "p", "completion": RIGHT, "tests": ["assert add(1, 2) == 3"]});
    let with = |name: &str, value: Value| {
        let mut row = good.clone();
        row[name] = value;
        row
    };
    for (row, expected) in [
        (
            json!({"prompt": "p", "completion": RIGHT}),
            "row 2: has no tests to find labels by; give `tests`, or leave the row out",
        ),
        (with("tests", json!([])), "row 2: has no tests to find labels by"),
        (
            with("language", json!("C++")),
            "row 2: is in `c++`, and only Python is run; leave the row out",
        ),
        (
            with("tests", json!(["assert True", "assert add(1"])),
            "row 2: the test `assert add(1` is not Python: '(' was never closed",
        ),
        (
            with("entry_point", json!("add()")),
            "row 2, column `entry_point`: found the text `add()`, give the name of a function",
        ),
        (
            json!({"prompt": "p", "chosen": RIGHT, "rejected": MINUS, "tests": ["assert add(1, 2) == 3"]}),
            "row 2: has its labels in the columns `chosen` and `rejected`",
        ),
        (
            json!({"prompt": "p", "tests": ["assert True"]}),
            "row 2: no schema has the columns",
        ),
    ] {
        let error = home.label(&[good.clone(), row]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n{expected}");
        assert!(!home.output().exists(), "{expected}");
    }
    // Nothing but tests was compiled.
    let compilations = home.runner.runs.load(Ordering::Relaxed);
    assert!(compilations <= 2, "{compilations}");
}

#[test]
fn a_stop_leaves_no_file_but_what_was_found() {
    let home = Home::new();
    let row = json!({"prompt": "p", "completion": RIGHT, "tests": ["assert add(1, 2) == 3"]});
    let stop = Stop::default();
    stop.ask();
    let error = home.labelled(std::slice::from_ref(&row), &[], &stop).unwrap_err();
    assert!(matches!(error, EvalError::Stopped), "{error}");
    let left: Vec<_> = fs::read_dir(home.dir.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["rows.jsonl"]);
}

#[test]
fn mapped_columns_keep_their_names() {
    let home = Home::new();
    let row = json!({"question": "p", "answer": RIGHT, "checks": ["assert add(1, 2) == 3"], "ok": false});
    let columns = [
        ("prompt", "question"),
        ("completion", "answer"),
        ("tests", "checks"),
        ("label", "ok"),
    ];
    home.labelled(std::slice::from_ref(&row), &columns, &Stop::default())
        .unwrap();
    let mut expected = row;
    expected["ok"] = json!(true);
    expected["result"] = json!("passed");
    assert_eq!(home.rows(), [expected]);
}

#[test]
fn rewards_of_records_are_found_once() {
    let home = Home::new();
    let file = home.dir.path().join("rows.jsonl");
    let row = json!({"prompt": "p", "completions": [RIGHT, MINUS, FOREVER], "tests": ["assert add(1, 2) == 3"]});
    fs::write(&file, row.to_string()).unwrap();
    let source = Source::open(&file, &SourceOptions::default()).unwrap();
    let records = || source.records().collect::<Result<Vec<_>, _>>().unwrap();
    let labeller = Labeller::new(Sandbox::new().unwrap(), home.limits, None);
    let far = std::sync::Mutex::new(Vec::new());
    let mut labelled = records();
    let tell = |progress: &LabelProgress| far.lock().unwrap().push(*progress);
    let counts = labeller.label(&mut labelled, &Stop::default(), &tell).unwrap();
    let rewards = |records: &[Record]| records[0].samples.iter().map(|s| s.reward).collect::<Vec<_>>();
    assert_eq!(rewards(&labelled), [Some(1.0), Some(0.0), Some(0.0)]);
    assert_eq!((counts.right, counts.wrong, counts.timed_out), (1, 1, 1));
    let last = far.lock().unwrap().last().copied();
    let whole = LabelProgress {
        done: 3,
        total: 3,
        passed: 1,
    };
    assert_eq!(last, Some(whole));
    // Also the one that ran out of time, which no cache keeps.
    let mut again = records();
    labeller
        .label(&mut again, &Stop::default(), &|_| panic!("nothing is run again"))
        .unwrap();
    assert_eq!(again, labelled);
    // As a run that is resumed knows them.
    let other = Labeller::new(Sandbox::new().unwrap(), home.limits, None);
    let found = labeller.found();
    assert_eq!(found.values().filter(|(result, _)| result == "timeout").count(), 1);
    other.know(found);
    let mut resumed = records();
    other
        .label(&mut resumed, &Stop::default(), &|_| panic!("nothing is run again"))
        .unwrap();
    assert_eq!(resumed, labelled);
    let mut without = records();
    without[0].tests = None;
    let error = labeller
        .label(&mut without, &Stop::default(), &|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("row 1: has no tests to find labels by"), "{error}");
}
