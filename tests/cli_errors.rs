//! Bad input through the built program: the exit code, exactly one sentence on standard error that
//! names what is wrong, one JSON document with `--json`, and nothing written.
//!
//! To add a case, add a line to [`CASES`]. `{dir}` stands for a fresh directory that holds the
//! files of [`FILES`] and nothing else; runs go to `{dir}/out`, which is not there.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod support;

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};
use support::hub::{Behaviour, Server};

struct Case {
    args: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    code: i32,
    /// All of these are in the sentence.
    says: &'static [&'static str],
}

const FILES: &[(&str, &str)] = &[
    ("typo.yaml", "optim:\n  beta1: 0.9\n  lrate: 1e-4\n"),
    ("type.yaml", "# a recipe\n\noptim:\n  lr: fast\n"),
    ("broken.yaml", "optim:\n  lr: [1,\n"),
    ("list.yaml", "- optim\n"),
    ("critic-typo.yaml", "scorer:\n  kind: critic\n  gama: 1.0\n"),
    ("config.yaml", "seed: 1\n"),
    ("latin1.yaml", ""),
    ("text.txt", "some text"),
    ("empty.txt", ""),
    ("folder/keep", "x"),
    (
        "given.jsonl",
        "{\"task_id\": \"Mbpp/11\", \"completion\": \"\"}\n{\"task_id\": \"HumanEval/0\", \"completion\": \"\"}\n",
    ),
    ("fields.jsonl", "{\"task_id\": \"Mbpp/11\"}\n"),
    ("one.jsonl", "{\"task_id\": \"Mbpp/11\", \"completion\": \"\"}\n"),
    (
        "twice.jsonl",
        "{\"task_id\": \"Mbpp/11\", \"completion\": \"\"}\n{\"task_id\": \"Mbpp/11\", \"completion\": \"x\"}\n",
    ),
    ("rows.jsonl", "{\"rows\": 1}\n"),
    (
        "short/HumanEval.jsonl",
        "{\"task_id\": \"HumanEval/1\", \"prompt\": \"p\", \"entry_point\": \"f\", \"canonical_solution\": \"\", \"test\": \"t\"}\n",
    ),
];

const fn usage(args: &'static [&'static str], says: &'static [&'static str]) -> Case {
    Case {
        args,
        variables: &[],
        code: 2,
        says,
    }
}

const fn failure(args: &'static [&'static str], says: &'static [&'static str]) -> Case {
    Case {
        args,
        variables: &[],
        code: 1,
        says,
    }
}

const TRAIN: &[&str] = &["train", "critic", "--output", "{dir}/out"];

#[rustfmt::skip]
const CASES: &[Case] = &[
    // What was typed.
    usage(&[], &["no command", "--help"]),
    usage(&["trian"], &["trian", "train"]),
    usage(&["train"], &["PIPELINE"]),
    usage(&["train", "crtic"], &["crtic", "critic"]),
    usage(&["train", "critic", "--lr", "1"], &["unexpected argument '--lr'"]),
    usage(&["train", "critic", "--max-step", "1"], &["--max-step", "--max-steps"]),
    usage(&["train", "critic", "--max-steps", "many"], &["--max-steps", "many"]),
    usage(&["train", "critic", "--max-steps", "0"], &["`train.steps`", "1 or more", "--max-steps"]),
    usage(&["train", "critic", "--set"], &["--set", "value is required"]),
    usage(&["generate", "--prompt", "x"], &["--model"]),
    usage(&["completions", "cmd"], &["cmd", "bash"]),
    usage(&["schema", "recipes"], &["recipes", "recipe"]),
    usage(&["inspect"], &["no command"]),
    // Files.
    usage(&["train", "critic", "--recipe", "{dir}/none.yaml"], &["none.yaml", "no such file"]),
    usage(&["train", "critic", "--recipe", "{dir}/folder"], &["folder", "is a directory"]),
    usage(&["train", "critic", "--recipe", "{dir}/latin1.yaml"], &["latin1.yaml", "not UTF-8"]),
    usage(&["train", "critic", "--recipe", "{dir}/typo.yaml"], &["unknown key `optim.lrate`", "typo.yaml line 3", "did you mean `optim.lr`?"]),
    usage(&["train", "critic", "--recipe", "{dir}/critic-typo.yaml"], &["unknown key `scorer.gama`", "line 3", "`scorer.gamma`"]),
    usage(&["train", "critic", "--recipe", "{dir}/type.yaml"], &["`optim.lr`", "type.yaml line 4", "number", "\"fast\""]),
    usage(&["train", "critic", "--recipe", "{dir}/broken.yaml"], &["broken.yaml line", "not valid YAML"]),
    usage(&["train", "critic", "--recipe", "{dir}/list.yaml"], &["list.yaml", "key: value"]),
    usage(&["train", "critic", "--recipe", "{dir}/config.yaml"], &["`seed`", "config.yaml line 1", "--config"]),
    usage(&["train", "critic", "--config", "{dir}/typo.yaml"], &["`optim`", "typo.yaml line 1", "--recipe"]),
    // --set and variables.
    usage(&["train", "critic", "--set", "optim.lr"], &["--set optim.lr", "key.path=value"]),
    usage(&["train", "critic", "--set", "optim..lr=1"], &["optim..lr=1", "key.path=value"]),
    usage(&["train", "critic", "--set", "optim.lr=[1"], &["--set optim.lr=[1", "not valid YAML"]),
    usage(&["train", "critic", "--set", "optim.lr=-1e-4"], &["`optim.lr`", "above 0"]),
    usage(&["train", "baseline", "--set", "train.head_warmup.lr=0"], &["`train.head_warmup.lr`", "above 0"]),
    usage(&["train", "baseline", "--set", "train.head_warmup.steps=5", "--set", "model.mtp.n_heads=1"], &["`train.head_warmup.steps`", "needs heads beyond the first"]),
    usage(&["train", "critic", "--set", "optim.lrr=1"], &["`optim.lrr`", "`optim.lr`"]),
    usage(&["train", "critic", "--set", "weights.w_max=0.5"], &["`weights.w_max`", "above 1"]),
    usage(&["train", "critic", "--set", "model.mtp.n_heads=0"], &["`model.mtp.n_heads`", "1 or more"]),
    usage(&["train", "critic", "--set", "batching.tokens_per_step=1000"], &["`batching.tokens_per_step`", "multiple", "1024"]),
    usage(&["train", "critic", "--set", "scorer.kind=critik"], &["`scorer.kind`", "did you mean `critic`?"]),
    usage(&["train", "critic", "--set", "data.train_tasks=[400, 974]"], &["`data.train_tasks`", "11..510"]),
    Case { args: &["train", "critic"], variables: &[("WMTP_OPTIM__LRR", "1")], code: 2, says: &["WMTP_OPTIM__LRR", "`optim.lr`"] },
    Case { args: &["train", "critic"], variables: &[("WMTP_OPTIM__LR", "much")], code: 2, says: &["WMTP_OPTIM__LR", "number", "\"much\""] },
    // Pipelines.
    usage(&["train", "rho1"], &["`model.reference`", "rho1"]),
    usage(&["train", "rho1", "--set", "model.reference={dir}/none"], &["{dir}/none", "does not exist"]),
    usage(&["train", "critic", "--set", "scorer.kind=uniform"], &["`scorer.kind`", "wmtp train baseline"]),
    usage(&["train", "critic", "--set", "scorer.reward=reward_model"], &["`model.reward`"]),
    usage(&["train", "critic", "--resume", "no-such-run"], &["--resume no-such-run", "run.json"]),
    usage(&["train", "critic", "--run-name", "a/b"], &["`run.name`", "--run-name"]),
    // Devices.
    usage(&["train", "critic", "--device", "cudda"], &["`cudda`", "did you mean `cuda`?"]),
    usage(&["train", "critic", "--device", "cuda:x"], &["`cuda:x`"]),
    usage(&["train", "critic", "--device", "flex:1"], &["`flex:1`", "no numbered devices"]),
    // Models and data.
    usage(&["train", "critic", "--model", "{dir}/none"], &["model `{dir}/none`", "does not exist"]),
    usage(&["train", "critic", "--model", "{dir}/text.txt"], &["text.txt", "is a file"]),
    usage(&["train", "critic", "--model", "some/model"], &["hf://some/model"]),
    usage(&["train", "critic", "--model", "builtin:mega"], &["`mega`", "builtin:micro"]),
    usage(&["train", "critic", "--model", "s3://bucket"], &["s3://bucket", "names a whole bucket"]),
    usage(&["train", "critic", "--model", "hf://owner"], &["hf://OWNER/NAME"]),
    usage(&["train", "critic", "--data", "{dir}/none"], &["data set `{dir}/none`", "does not exist"]),
    usage(&["train", "critic", "--data", "builtin:humaneval"], &["`humaneval`", "builtin:mbpp"]),
    usage(&["train", "critic", "--data", "builtin:apps"], &["`apps`", "builtin:mbpp"]),
    failure(&["train", "critic", "--model", "hf://owner/none"], &["has no hf://owner/none"]),
    Case { args: &["train", "critic", "--model", "hf://o/n", "--set", "storage.offline=true"], variables: &[], code: 2, says: &["hf://o/n", "storage.offline"] },
    Case { args: &["train", "critic", "--model", "hf://o/n"], variables: &[("HF_ENDPOINT", "ftp://x")], code: 1, says: &["HF_ENDPOINT", "http://"] },
    // Evaluation.
    usage(&["eval"], &["no command"]),
    usage(&["eval", "mbbp"], &["mbbp", "mbpp"]),
    usage(&["eval", "mbpp", "--tasks", "ten"], &["--tasks", "11-110"]),
    usage(&["eval", "mbpp", "--tasks", "20-11"], &["--tasks", "ends before"]),
    usage(&["eval", "mbpp", "--k", "10"], &["`eval.k`", "eval.samples"]),
    usage(&["eval", "mbpp", "--temperature", "-1"], &["`eval.temperature`"]),
    usage(&["eval", "mbpp", "--top-p", "1.5"], &["`eval.top_p`"]),
    usage(&["eval", "mbpp", "--prompt", "five-shot"], &["`eval.prompt`", "few-shot"]),
    usage(&["eval", "mbpp", "--prompt", "five-shot"], &["`eval.prompt`", "few-shot"]),
    usage(&["eval", "mbpp", "--tasks", "975"], &["no task 975", "11 to 510"]),
    usage(&["eval", "humaneval", "--tasks", "Mbpp/1"], &["`Mbpp/1`", "humaneval"]),
    usage(&["eval", "humaneval", "--prompt", "few-shot"], &["no few-shot prompt", "zero-shot"]),
    usage(&["eval", "contest", "--prompt", "few-shot"], &["no few-shot prompt"]),
    usage(&["eval", "contest", "--tasks", "40", "--model", "builtin:micro"], &["no contest task 40", "0 to 39"]),
    usage(&["eval", "mbpp", "--variant", "short"], &["`eval.variant`", "full or sanitized"]),
    usage(&["eval", "contest", "--variant", "train"], &["`eval.variant`", "test or valid"]),
    usage(&["eval", "mbpp", "--data", "{dir}/none"], &["none", "does not exist"]),
    usage(&["eval", "humaneval", "--data", "{dir}/folder"], &["HumanEval.jsonl", "give a directory"]),
    usage(&["eval", "humaneval", "--data", "{dir}/short"], &["lacks HumanEval/0", "and 155 more", "eval.altered_data"]),
    usage(&["eval", "mbpp", "--temperature", "0.2,warm"], &["--temperature", "warm"]),
    usage(&["eval", "mbpp", "--temperature", "0.2,-1"], &["`eval.temperature`", "0 (greedy)"]),
    usage(&["eval", "mbpp", "--temperature", "0,0.5", "--samples", "2"], &["`eval.samples`", "greedy"]),
    usage(&["eval", "mbpp", "--temperature", "0.5,0.5", "--model", "builtin:micro"], &["0.5 is named twice"]),
    usage(&["eval", "mbpp", "--set", "eval.temperature=hot"], &["`eval.temperature`", "\"hot\""]),
    usage(&["eval", "mbpp", "--profile", "slow"], &["slow", "quick", "paper"]),
    usage(&["eval", "mbpp", "--all-tests"], &["--all-tests", "contest"]),
    usage(&["eval", "mbpp", "--speed", "0"], &["--speed", "above 0"]),
    usage(&["eval", "mbpp", "--timeout", "0"], &["`eval.timeout_seconds`"]),
    usage(&["eval", "mbpp", "--resume", "no-such-run"], &["--resume no-such-run", "run.json"]),
    usage(&["eval", "mbpp", "--save-samples", "{dir}/none/x.jsonl", "--model", "builtin:micro"], &["--save-samples", "{dir}/none"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/none.jsonl"], &["--predictions", "none.jsonl"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/given.jsonl", "--model", "x"], &["--predictions", "--model"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/given.jsonl", "--dry-run"], &["--dry-run", "--predictions"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/given.jsonl", "--profile", "quick"], &["--profile", "--predictions"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/given.jsonl"], &["line 2", "no problem `HumanEval/0`", "`Mbpp/11`"]),
    usage(&["eval", "humaneval", "--predictions", "{dir}/given.jsonl"], &["line 1", "no problem `Mbpp/11`"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/fields.jsonl"], &["fields.jsonl, line 1", "neither `completion` nor `solution`"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/text.txt"], &["text.txt, line 1", "not JSON"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/one.jsonl"], &["no answer to 499 of 500", "`Mbpp/12`", "--tasks"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/one.jsonl", "--tasks", "11", "--k", "2"], &["pass@2 needs 2 answers"]),
    usage(&["eval", "mbpp", "--predictions", "{dir}/twice.jsonl", "--tasks", "11", "--samples", "1"], &["line 2", "more than 1 answers"]),
    // Inspecting data.
    usage(&["inspect", "data", "--against", "apps"], &["--against apps", "humaneval"]),
    usage(&["inspect", "data", "--file", "{dir}/none.jsonl"], &["none.jsonl"]),
    usage(&["inspect", "data", "--file", "{dir}/rows.jsonl"], &["rows.jsonl, line 1", "completion"]),
    usage(&["eval", "mbpp", "--set", "paths.runs={dir}/out"], &["--model", "{dir}/out"]),
    // Generating, scoring, converting.
    usage(&["generate", "--model", "builtin:micro", "--prompt", "x", "--top-p", "0"], &["--top-p"]),
    usage(&["generate", "--model", "builtin:micro"], &["prompt is empty"]),
    usage(&["score", "--model", "builtin:micro", "--text", "{dir}/none.txt"], &["none.txt"]),
    usage(&["score", "--model", "builtin:micro", "--text", "{dir}/empty.txt"], &["text is empty"]),
    usage(&["convert", "{dir}/folder", "{dir}/out"], &["folder", "config.json", "params.json"]),
    usage(&["convert", "{dir}/folder", "{dir}/folder"], &["is not empty"]),
    usage(&["convert", "builtin:micro", "{dir}/out"], &["builtin:micro"]),
];

struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in FILES {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::write(dir.path().join("latin1.yaml"), b"project: caf\xe9\n").unwrap();
        Self { dir }
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{dir}", &self.dir.path().display().to_string())
    }

    fn run(&self, server: &Server, args: &[String], variables: &[(&str, &str)]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wmtp"))
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("HF_ENDPOINT", server.url())
            // Not the small world, which has other defaults.
            .env("WMTP_DATA__SOURCE", "builtin:mbpp")
            .envs(variables.iter().copied())
            // Where a program built for coverage writes its counts.
            .envs(std::env::vars().filter(|(name, _)| name == "LLVM_PROFILE_FILE"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdin.take());
        child.wait_with_output().unwrap()
    }

    /// Every path under the room, with its size.
    fn contents(&self) -> Vec<(String, u64)> {
        fn walk(dir: &Path, out: &mut Vec<(String, u64)>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                out.push((
                    entry.path().display().to_string(),
                    if meta.is_file() { meta.len() } else { 0 },
                ));
                if meta.is_dir() {
                    walk(&entry.path(), out);
                }
            }
        }
        let mut out = Vec::new();
        walk(self.dir.path(), &mut out);
        out.sort();
        out
    }
}

#[test]
fn bad_input_is_answered_with_one_sentence_and_leaves_nothing() {
    let server = Server::start(Behaviour::default());
    let room = Room::new();
    let before = room.contents();
    let mut wrong = Vec::new();
    for case in CASES {
        for json in [false, true] {
            let mut args: Vec<String> = case.args.iter().map(|arg| room.fill(arg)).collect();
            if json {
                args.push("--json".into());
            }
            let output = room.run(&server, &args, case.variables);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let mut complain =
                |what: String| wrong.push(format!("wmtp {}\n  {what}\n  stderr: {stderr}", args.join(" ")));
            if output.status.code() != Some(case.code) {
                complain(format!("exit code {:?} instead of {}", output.status.code(), case.code));
            }
            let lines: Vec<&str> = stderr.lines().collect();
            match lines.as_slice() {
                [line] if line.starts_with("error: ") && line.len() > 20 => {}
                _ => complain("standard error is not one sentence".into()),
            }
            for fragment in case.says {
                let fragment = room.fill(fragment);
                if !stderr.contains(&fragment) {
                    complain(format!("does not say {fragment:?}"));
                }
            }
            if json {
                let document: Result<serde_json::Value, _> = serde_json::from_slice(&output.stdout);
                let message = document.as_ref().ok().and_then(|d| d["error"]["message"].as_str());
                let code = document.as_ref().ok().and_then(|d| d["error"]["code"].as_i64());
                if message != stderr.trim_end().strip_prefix("error: ") || code != Some(i64::from(case.code)) {
                    complain(format!(
                        "standard output is {:?}",
                        String::from_utf8_lossy(&output.stdout)
                    ));
                }
            } else if !output.stdout.is_empty() {
                complain(format!(
                    "standard output is {:?}",
                    String::from_utf8_lossy(&output.stdout)
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        CASES.len(),
        wrong.join("\n")
    );
    assert_eq!(room.contents(), before, "something was written or removed");
    assert!(CASES.len() >= 25);
}

#[test]
fn backends_that_are_not_built_in_say_what_is_there() {
    let server = Server::start(Behaviour::default());
    let room = Room::new();
    for (name, built_in) in [
        ("cuda", cfg!(feature = "cuda")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("tch", cfg!(feature = "tch")),
        ("ndarray", cfg!(feature = "ndarray")),
        ("flex", cfg!(feature = "flex")),
    ] {
        if built_in {
            continue;
        }
        let mut args: Vec<String> = TRAIN.iter().map(|arg| room.fill(arg)).collect();
        args.extend(["--device".into(), name.into()]);
        let output = room.run(&server, &args, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(&format!("`--features {name}`")), "{stderr}");
        assert!(stderr.contains("there is "), "{stderr}");
    }
}

#[test]
fn a_secret_is_never_printed() {
    let server = Server::start(Behaviour {
        token: Some("hf_right"),
        ..Behaviour::default()
    });
    let room = Room::new();
    let args = ["train", "critic", "--model", "hf://owner/model", "--verbose"].map(str::to_owned);
    let variables = [("HF_TOKEN", "hf_wrongwrongwrong"), ("WMTP_LOG", "trace")];
    let output = room.run(&server, &args, &variables);
    assert_eq!(output.status.code(), Some(1));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("HF_TOKEN"), "{text}");
    assert!(!text.contains("hf_wrongwrongwrong"), "{text}");
}

/// Libraries log what they were given, at levels that a user may ask for.
#[test]
fn no_secret_is_in_a_log_of_any_level() {
    let secrets = [
        ("AWS_ACCESS_KEY_ID", "plantedkeyid"),
        ("AWS_SECRET_ACCESS_KEY", "plantedsecret"),
        ("AWS_SESSION_TOKEN", "plantedsession"),
        ("HF_TOKEN", "hf_plantedtoken"),
        ("MLFLOW_TRACKING_USERNAME", "somebody"),
        ("MLFLOW_TRACKING_PASSWORD", "plantedpassword"),
        ("MLFLOW_TRACKING_TOKEN", "plantedbearer"),
    ];
    let home = tempfile::tempdir().unwrap();
    for level in [
        "trace",
        "debug",
        "reqsign_core=trace,reqsign_core::api=trace,info",
        "wmtp=trace",
    ] {
        for args in [
            &["generate", "--model", "s3://bucket/key", "--prompt", "x"][..],
            &["train", "baseline", "--model", "s3://bucket/key", "--dry-run"],
            &["inspect", "data", "--set", "data.source=s3://bucket/file.jsonl"],
        ] {
            let output = Command::new(env!("CARGO_BIN_EXE_wmtp"))
                .args(args)
                .args([
                    "--set",
                    "storage.retries=0",
                    "--set",
                    "storage.s3.endpoint=http://127.0.0.1:9",
                ])
                .envs(secrets)
                .env("AWS_REGION", "us-east-1")
                .env("WMTP_LOG", level)
                .env("HOME", home.path())
                .current_dir(home.path())
                .output()
                .unwrap();
            assert_ne!(output.status.code(), Some(0));
            let text = String::from_utf8_lossy(&output.stderr);
            for (name, secret) in secrets.iter().filter(|(name, _)| *name != "MLFLOW_TRACKING_USERNAME") {
                assert!(!text.contains(secret), "{level} {args:?}: {name} is in\n{text}");
            }
        }
    }
}

/// What nobody reads any more, or has no room, ends no training.
#[test]
fn a_standard_error_that_is_gone_ends_no_training() {
    let home = tempfile::tempdir().unwrap();
    let train = |name: &str, stderr: Stdio| {
        let status = Command::new(env!("CARGO_BIN_EXE_wmtp"))
            .args([
                "train",
                "baseline",
                "--model",
                "builtin:micro",
                "--max-steps",
                "3",
                "--run-name",
                name,
            ])
            .args(["--set", "data.seq_len=128", "--set", "batching.micro_batch=1"])
            .env("HOME", home.path())
            .current_dir(home.path())
            .stderr(stderr)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(0), "{name}");
        std::fs::read(
            home.path()
                .join("runs")
                .join(name)
                .join("checkpoints/last/model.safetensors"),
        )
        .unwrap()
    };
    let whole = train("read", Stdio::null());
    if cfg!(target_os = "linux") {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(train("full", full.into()), whole);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(train("gone", writer.into()), whole);
}

#[test]
fn a_closed_pipe_is_quiet() {
    for args in [
        &["schema", "recipe"][..],
        &["inspect", "recipe", "critic"],
        &["--help"],
        &["completions", "bash"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wmtp"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn json_is_exactly_one_document() {
    for args in [
        &["schema", "config"][..],
        &["schema", "recipe"],
        &["inspect", "recipe", "critic"],
        &["completions", "zsh"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_wmtp"))
            .args(args)
            .arg("--json")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(document.is_object(), "{args:?}");
    }
}

/// The doctor's document names every check; what fails is said, and the exit code says it too.
#[test]
fn the_doctor_checks_what_the_settings_ask_for() {
    let home = tempfile::tempdir().unwrap();
    let doctor = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_wmtp"))
            .current_dir(home.path())
            .env("WMTP_PATHS__CACHE", home.path().join("cache"))
            .env_remove("MLFLOW_TRACKING_URI")
            .args(["doctor", "--json"])
            .args(args)
            .output()
            .unwrap();
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document)
    };
    let check = |document: &serde_json::Value, name: &str| {
        let checks = document["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap().clone()
    };
    let (code, found) = doctor(&[]);
    assert_eq!(code, Some(0), "{found}");
    for name in ["device", "sandbox", "cache", "runs"] {
        assert_eq!(check(&found, name)["ok"], true, "{found}");
    }
    assert!(!home.path().join("cache").exists(), "nothing is left behind");

    let (code, found) = doctor(&[
        "--device",
        "tch",
        "--set",
        "tracking.kinds=[mlflow]",
        "--set",
        "tracking.mlflow.uri=http://127.0.0.1:9",
        "--set",
        "paths.cache=/proc/nowhere",
    ]);
    assert_eq!((code, &found["ok"]), (Some(1), &false.into()), "{found}");
    for name in ["device", "mlflow", "cache"] {
        assert_eq!(check(&found, name)["ok"], false, "{name}: {found}");
    }
}

/// A finding is a result: the document is the report, and the exit code says that it is bad.
#[test]
fn training_data_that_holds_a_problem_is_found() {
    let room = Room::new();
    let inspect = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_wmtp"))
            .args(["inspect", "data", "--json"])
            .args(args)
            .env("WMTP_DATA__SOURCE", "builtin:mbpp")
            .current_dir(room.dir.path())
            .output()
            .unwrap();
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (
            output.status.code(),
            document,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, report, _) = inspect(&["--against", "mbpp,humaneval,contest"]);
    assert_eq!(
        (code, &report["copies"], &report["samples"]),
        // 369 references and 4,020 labelled solutions.
        (Some(0), &0.into(), &4389.into())
    );
    assert!(report["benchmarks"]["mbpp"]["partial"].as_u64().unwrap() > 0);

    let copy = "{\"code\": \"def truncate_number(number: float) -> float:\\n    return number % 1.0  # mine\"}\n";
    std::fs::write(room.dir.path().join("mine.jsonl"), copy).unwrap();
    let (code, report, stderr) = inspect(&["--file", "mine.jsonl"]);
    assert_eq!((code, &report["copies"]), (Some(1), &1.into()), "{report}");
    let found = &report["benchmarks"]["humaneval"]["found"][0];
    assert_eq!(
        (&found["problem"], &found["sample"]),
        (&"humaneval/2".into(), &"mine.jsonl:1".into())
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn an_inspected_recipe_read_back_is_the_same() {
    let room = Room::new();
    let inspect = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_wmtp"))
            .args(["inspect", "recipe"])
            .args(args)
            .env("WMTP_DATA__SOURCE", "builtin:mbpp")
            .current_dir(room.dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let first = inspect(&["critic", "--set", "optim.lr=3e-5", "--set", "train.lora.rank=4"]);
    assert!(first.contains("lr: 3.0e-5") || first.contains("lr: 0.00003"), "{first}");
    let path = room.dir.path().join("again.yaml");
    std::fs::File::create(&path)
        .unwrap()
        .write_all(first.as_bytes())
        .unwrap();
    assert_eq!(inspect(&["--recipe", "again.yaml"]), first);
    assert_eq!(inspect(&["baseline", "--recipe", "again.yaml"]), first);
}
