//! Sweeps with the built program: their table, kills, failures, changes, and jobs of a cluster.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use common::{json, lines, succeed, wmtp};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use wmtp::{
    sweep::{Overlay, Sweep},
    validate::Validate,
};

/// Four settings, three seeds, three steps each.
const TWELVE: &str = "
pipeline: baseline
set: {scorer.kind: random, train.steps: 3, train.validate_every: 1, data.seq_len: 128, batching.micro_batch: 1, data.valid_tasks: [511, 520]}
grid:
  optim.lr: [1.0e-3, 5.0e-3]
  weights.temperature: [0.5, 1.0]
seeds: [1, 2, 3]
parallel: 2
";

/// One arm, long enough to be interrupted.
const LONG: &str = "
set: {train.steps: 150, data.seq_len: 128, batching.micro_batch: 1, data.valid_tasks: [511, 520], train.checkpoint.last_every: 0}
seeds: [5]
parallel: 1
";

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn with(sweep: &str) -> Self {
        let home = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        home.write(sweep);
        home
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, sweep: &str) {
        fs::write(self.path().join("sweep.try.yaml"), sweep).unwrap();
    }

    fn sweep(&self, args: &[&str]) -> Command {
        let mut command = wmtp(self.path());
        command.args(["sweep", "sweep.try.yaml", "--json"]).args(args);
        command
    }

    fn logs(&self, runs: &str) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.path().join(runs).join("try/logs"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .map(|e| {
                let name = e.file_name().to_string_lossy().into_owned();
                (name, fs::read_to_string(e.path()).unwrap_or_default())
            })
            .collect()
    }

    /// Names of the arms whose training has ended.
    fn trained(&self, runs: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path().join(runs).join("try"))
            .into_iter()
            .flatten()
            .flatten();
        let finished = |run: &Path| {
            let text = fs::read_to_string(run.join("checkpoints/last/trainer.json")).unwrap_or_default();
            serde_json::from_str::<Value>(&text).is_ok_and(|state| state["finished"] == true)
        };
        entries
            .filter(|e| finished(&e.path()))
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

/// Without what depends on the machine and its load.
fn repeatable(mut table: Value) -> Value {
    let strip = |rows: &mut Value| {
        for row in rows.as_array_mut().unwrap() {
            row.as_object_mut().unwrap().remove("cost").expect("rows have costs");
        }
    };
    strip(&mut table["settings"]);
    strip(&mut table["arms"]);
    table.as_object_mut().unwrap().remove("dir");
    table
}

fn start(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(
            started.elapsed() < Duration::from_secs(240),
            "waited too long until {what}"
        );
        sleep(Duration::from_millis(10));
    }
}

fn terminate(child: &Child) {
    succeed(Command::new("kill").args(["-TERM", &child.id().to_string()]));
}

fn sweep_json(home: &Home, runs: &str) -> Value {
    let text = fs::read_to_string(home.path().join(runs).join("try/sweep.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn twelve_arms_survive_a_kill_repeat_nothing_and_give_the_same_table_again() {
    let home = Home::with(TWELVE);
    // Killed half-way, at once and without warning.
    let mut child = start(&mut home.sweep(&["--output", "killed"]));
    wait_until("four arms are trained", || home.trained("killed").len() >= 4);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let before = home.logs("killed");
    let done = home.trained("killed");
    assert!(done.len() < 12, "the kill came too late to show anything");

    let resumed = json(&succeed(&mut home.sweep(&["--output", "killed"])));
    let after = home.logs("killed");
    assert_eq!(after.len(), 12);
    for run in &done {
        let name = format!("{run}.log");
        let starts = |logs: &BTreeMap<String, String>| logs[&name].matches("\n$ wmtp ").count();
        assert_eq!((starts(&before), starts(&after)), (1, 1), "{run} was trained again");
    }

    // In a fresh directory, undisturbed and with another number of arms at once.
    let fresh = json(&succeed(&mut home.sweep(&["--output", "fresh", "--parallel", "1"])));
    assert_eq!(repeatable(resumed.clone()), repeatable(fresh));

    let settings = resumed["settings"].as_array().unwrap();
    assert_eq!(settings.len(), 4);
    let losses: Vec<f64> = settings
        .iter()
        .map(|row| row["metrics"]["valid_loss"]["mean"].as_f64().unwrap())
        .collect();
    assert!(losses.is_sorted(), "best first: {losses:?}");
    assert!(losses[0] < losses[3], "settings that differ give losses that differ");
    for row in settings {
        let loss = &row["metrics"]["valid_loss"];
        assert_eq!(loss["n"], 3);
        let mean = loss["mean"].as_f64().unwrap();
        let own: Vec<f64> = resumed["arms"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|arm| arm["label"] == row["label"])
            .map(|arm| arm["results"]["valid_loss"].as_f64().unwrap())
            .collect();
        assert_eq!(own.len(), 3);
        assert!((mean - own.iter().sum::<f64>() / 3.0).abs() < 1e-12);
        assert!(loss["ci95"][0].as_f64().unwrap() < mean, "{loss}");
        assert_eq!(
            row["difference"]["valid_loss"]["n"].as_u64(),
            (row["is_baseline"] == false).then_some(3)
        );
        for cost in ["train_seconds", "tokens_per_second", "peak_memory"] {
            assert!(row["cost"][cost]["mean"].as_f64().unwrap() > 0.0, "{cost}");
        }
    }

    // The table for people, and plots that ask nothing of the network.
    let dir = home.path().join("killed/try");
    let markdown = fs::read_to_string(dir.join("sweep.md")).unwrap();
    assert!(markdown.contains("12 arms, 12 finished, 0 failed"), "{markdown}");
    assert_eq!(fs::read_to_string(dir.join("sweep.csv")).unwrap().lines().count(), 5);
    assert_eq!(fs::read_to_string(dir.join("arms.csv")).unwrap().lines().count(), 13);
    let html = fs::read_to_string(dir.join("sweep.html")).unwrap();
    assert!(
        html.matches("<svg").count() >= 4,
        "{} charts",
        html.matches("<svg").count()
    );
    for outside in ["src=", "href=\"http", "href=\"/", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    let linked = html.matches("/report.html\">").count();
    assert_eq!(linked, 12, "a link to every arm's report");
    let charts = fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "svg"));
    assert!(charts.count() >= 4);

    // Nothing is left to do.
    let again = json(&succeed(&mut home.sweep(&["--output", "killed"])));
    assert_eq!(again, resumed, "times included: they are read from the runs");
    assert_eq!(home.logs("killed"), after);
}

#[test]
fn a_terminated_sweep_saves_its_arm_which_goes_on_bit_for_bit() {
    let home = Home::with(LONG);
    succeed(&mut home.sweep(&["--output", "whole"]));
    let whole = sweep_json(&home, "whole");

    let child = start(&mut home.sweep(&["--output", "asked"]));
    let name = whole["arms"][0]["run_name"].as_str().unwrap().to_owned();
    let run: PathBuf = home.path().join("asked/try").join(&name);
    wait_until("some steps are done", || {
        fs::read_to_string(run.join("metrics.jsonl")).is_ok_and(|text| text.lines().count() > 5)
    });
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let table = json(&output);
    assert_eq!(table["arms"][0]["status"], "unfinished");
    let events = lines(&run.join("events.jsonl"));
    assert!(events.iter().any(|e| e["event"] == "interrupted"), "{events:?}");
    let state: Value =
        serde_json::from_str(&fs::read_to_string(run.join("checkpoints/last/trainer.json")).unwrap()).unwrap();
    let step = state["step"].as_u64().unwrap();
    assert!(
        (5..150).contains(&step),
        "saved at step {step} though no checkpoint was due"
    );

    succeed(&mut home.sweep(&["--output", "asked"]));
    assert_eq!(repeatable(sweep_json(&home, "asked")), repeatable(whole));
}

#[test]
fn a_killed_sweep_leaves_no_arm_running() {
    let home = Home::with(LONG);
    let mut child = start(&mut home.sweep(&[]));
    let metrics = |home: &Home| {
        let entries = fs::read_dir(home.path().join("runs/try"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .map(|e| e.path().join("metrics.jsonl"))
            .find(|path| path.is_file())
    };
    wait_until("an arm trains", || metrics(&home).is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    let run = metrics(&home).unwrap().parent().unwrap().to_path_buf();
    // It notices by itself, and says so in its log.
    wait_until("the arm has ended", || {
        home.logs("runs")
            .values()
            .any(|log| log.contains("asked to stop after step"))
    });
    assert!(run.join("checkpoints/last/trainer.json").is_file());
    assert_eq!(home.trained("runs"), [""; 0]);
}

#[test]
fn failed_arms_are_named_with_their_reason_and_the_others_go_on() {
    // How many positions the micro model has is only known once it is there.
    let home = Home::with(
        "set: {train.steps: 1, batching.micro_batch: 1, data.valid_tasks: [511, 520]}\ngrid: {data.seq_len: [100000, 128]}\nseeds: [1]\nparallel: 1\n",
    );
    let output = home.sweep(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", message(&output));
    let table = json(&output);
    assert_eq!(
        (&table["arms"][0]["status"], &table["arms"][1]["status"]),
        (&"failed".into(), &"finished".into())
    );
    let reason = table["arms"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("`data.seq_len` is 100000") && reason.contains("lower it"),
        "{reason}"
    );
    assert!(message(&output).contains("1 failed"), "{}", message(&output));
    let markdown = fs::read_to_string(home.path().join("runs/try/sweep.md")).unwrap();
    assert!(markdown.contains(reason) && markdown.contains("One seed"), "{markdown}");
    assert_eq!(table["settings"][0]["rank"], 1);
    assert_eq!(table["settings"][1]["rank"], Value::Null);
    assert_eq!(table["settings"][0]["metrics"]["valid_loss"]["ci95"], Value::Null);

    // The failure of the first ends the sweep where the file says so.
    let text = fs::read_to_string(home.path().join("sweep.try.yaml")).unwrap();
    home.write(&format!("{text}on_failure: stop\n"));
    let output = home.sweep(&["--output", "stopping"]).output().unwrap();
    assert_eq!(json(&output)["arms"][1]["status"], "missing");
}

#[test]
fn arms_are_evaluated_run_as_jobs_and_collected() {
    let file = "
set: {train.steps: 1, data.seq_len: 128, batching.micro_batch: 1, data.valid_tasks: [511, 520]}
grid: {optim.lr: [1.0e-3, 2.0e-3, 4.0e-3]}
seeds: [1]
evaluate: [{benchmark: mbpp, tasks: '11-12', temperature: 0.0, max_new_tokens: 4, prompt: zero-shot}]
rank_by: mbpp.pass_at_1
";
    let home = Home::with(file);
    let emitted = json(&succeed(&mut home.sweep(&["--emit", "jobs", "--output", "it's here"])));
    let jobs: Vec<&str> = emitted["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|j| j.as_str().unwrap())
        .collect();
    assert_eq!(jobs.len(), 3);
    assert!(!home.path().join("it's here").exists(), "nothing is run");
    for job in &jobs[..2] {
        let mut shell = wmtp(home.path());
        let environment: Vec<_> = shell
            .get_envs()
            .map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned)))
            .collect();
        shell = Command::new("sh");
        shell.current_dir(home.path()).args(["-c", job]);
        for (key, value) in environment {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        succeed(&mut shell);
    }

    let output = home
        .sweep(&["--collect", "it's here", "--output", "table"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "one is missing: {}", message(&output));
    let table = json(&output);
    let statuses: Vec<&str> = table["arms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["finished", "finished", "missing"]);
    assert!(message(&output).contains("1 are missing"), "{}", message(&output));
    let evaluated = &table["arms"][0];
    assert_eq!(evaluated["results"]["mbpp.pass_at_1"], 0.0, "four tokens solve nothing");
    assert!(evaluated["cost"]["eval_seconds"].as_f64().unwrap() > 0.0);

    // Where they ran, the sweep has one arm left.
    let rest = json(&succeed(&mut home.sweep(&["--output", "it's here"])));
    assert_eq!(rest["arms"][2]["status"], "finished");
    let starts: usize = home
        .logs("it's here")
        .values()
        .map(|log| log.matches("\n$ wmtp ").count())
        .sum();
    assert_eq!(starts, 6, "each arm was trained and evaluated once");

    // Another evaluation of the same arms trains nothing.
    home.write(&file.replace("11-12", "11-11"));
    succeed(&mut home.sweep(&["--output", "it's here"]));
    let logs = home.logs("it's here");
    let count = |what: &str| {
        logs.values()
            .map(|log| log.matches(&format!("\n$ wmtp {what} ")).count())
            .sum::<usize>()
    };
    assert_eq!((count("train"), count("eval")), (3, 6));
}

#[test]
fn a_changed_sweep_takes_no_old_arm() {
    let home = Home::with(
        "set: {train.steps: 1, data.seq_len: 128, batching.micro_batch: 1, data.valid_tasks: [511, 520]}\nseeds: [1, 2]\n",
    );
    let first = json(&succeed(&mut home.sweep(&["--parallel", "2"])));
    home.write("set: {train.steps: 2, data.seq_len: 128, batching.micro_batch: 1, data.valid_tasks: [511, 520]}\nseeds: [1, 2]\n");
    let plan = json(&succeed(&mut home.sweep(&["--dry-run"])));
    assert_eq!(plan["open"], 2, "{plan}");
    assert_ne!(plan["arms"][0]["name"], first["arms"][0]["name"]);
    assert_eq!(plan["arms"][0]["plan"]["steps"], 2);
    assert!(plan["arms"][0]["plan"]["memory"].as_u64().unwrap() > 1 << 20);
    // Back to the first: its arms are still there.
    home.write("set: {train.steps: 1, data.seq_len: 128, batching.micro_batch: 1, data.valid_tasks: [511, 520]}\nseeds: [1, 2]\n");
    let plan = json(&succeed(&mut home.sweep(&["--dry-run"])));
    assert_eq!(
        (&plan["open"], &plan["arms"][0]["status"]),
        (&0.into(), &"finished".into())
    );

    // A directory that holds something else is not taken either, even by name.
    let name = first["arms"][0]["run_name"].as_str().unwrap();
    let recipe = home.path().join("runs/try").join(name).join("recipe.yaml");
    let text = fs::read_to_string(&recipe).unwrap();
    fs::write(&recipe, text.replace("  steps: 1\n", "  steps: 7\n")).unwrap();
    let output = home.sweep(&["--parallel", "2"]).output().unwrap();
    let reason = json(&output)["arms"][0]["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(reason.contains("other settings"), "{reason}");
}

#[test]
fn a_sweep_that_makes_no_sense_is_refused_in_a_sentence() {
    for (file, expected) in [
        (
            "gird: {}",
            "unknown key `gird` in sweep.try.yaml line 1, did you mean `grid`?",
        ),
        ("pipeline: critc", "did you mean `critic`?"),
        ("grid: {loss.lamda: [1]}", "did you mean `loss.lambda`?"),
        ("grid: {loss.lambda: [0.1, 2]}", "`loss.lambda` must be from 0 to 1"),
        ("grid: {loss.lambda: 0.1}", "list"),
        ("grid: {loss.lambda: [0.1]}\nset: {loss.lambda: 0.2}", "also varied"),
        ("seeds: []", "at least one seed"),
        ("seeds: [1, 1]", "holds 1 twice"),
        ("rank_by: valid_los", "did you mean `valid_loss`?"),
        ("rank_by: mbpp.pass_at_1", "a figure that no arm has"),
        ("parallel: some", "parallel"),
        ("evaluate: [{benchmark: mbp}]", "did you mean `mbpp`?"),
        ("evaluate: [{samples: 2, temperature: 0.0}]", "eval.samples"),
        ("grid: {scorer.kind: [uniform, rho1]}", "model.reference"),
        (
            "set: {scorer.kind: rho1, model.reference: builtin:micro}",
            "wmtp train baseline",
        ),
        ("grid: {pipeline: [baseline, critics]}", "critic, rho1 or baseline"),
        (
            "random: {n: 2, draw: {optim.lr: {kind: log-uniform, low: 1e-5}}}",
            "high",
        ),
        ("random: {n: 2, draw: {optim.lr: {kind: normal}}}", "kind"),
        ("name: a/b", "names a directory"),
    ] {
        let home = Home::with(file);
        let output = home.sweep(&[]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{file}: {}", message(&output));
        let said = json(&output)["error"]["message"].as_str().unwrap().to_owned();
        assert!(said.contains(expected), "{file}: {said}");
        assert!(!home.path().join("runs").exists(), "{file}");
    }
}

/// As `wmtp train`, which trains them, has it: otherwise every arm would be found to be another run.
#[test]
fn arms_without_model_and_data_train_the_small_world() {
    let home = Home::with("pipeline: baseline\nset: {train.steps: 1}\ngrid: {optim.lr: [1.0e-3]}\n");
    let sweep = Sweep::read(&home.path().join("sweep.try.yaml"), &Overlay::default()).unwrap();
    let recipe = &sweep.arms[0].recipe;
    assert_eq!((&*recipe.model.base, recipe.train.steps), ("builtin:world", Some(1)));
}

#[test]
fn every_shipped_sweep_is_usable_in_every_arm() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut names = Vec::new();
    for entry in fs::read_dir(&configs).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("sweep.") {
            continue;
        }
        // Reading resolves and checks the recipe of each arm.
        let sweep = Sweep::read(&entry.path(), &Overlay::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(sweep.arms.len(), sweep.settings.len() * 3, "{name}");
        for arm in &sweep.arms {
            assert_eq!(arm.recipe.validate(), [], "{name}");
            assert_eq!(arm.config.seed, arm.seed);
            assert_eq!(arm.recipe.model.base, "builtin:micro", "{name}");
        }
        names.push((sweep.name, sweep.settings.iter().map(|s| s.label()).collect::<Vec<_>>()));
    }
    names.sort();
    let labels = |of: &[&str]| of.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        names,
        [
            (
                "lambda".into(),
                labels(&["lambda = 0.0", "lambda = 0.1", "lambda = 0.3", "lambda = 1.0"])
            ),
            (
                "lora".into(),
                labels(&[
                    "lora = none, lr = 0.0001",
                    "lora = none, lr = 0.0005",
                    "lora = {rank: 16, alpha: 32.0}, lr = 0.0001",
                    "lora = {rank: 16, alpha: 32.0}, lr = 0.0005"
                ])
            ),
            (
                "temperature".into(),
                labels(&["temperature = 0.5", "temperature = 0.7", "temperature = 1.0"])
            ),
            ("top-p".into(), labels(&["top_p = 0.1", "top_p = 0.2", "top_p = 0.3"])),
        ]
    );
}
