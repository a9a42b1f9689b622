//! What comes from elsewhere or from a slip of the keyboard is bounded: templates, adapters, numbers, paths, memory,
//! clocks. Each is one sentence, soon, and in little memory.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use common::{succeed, wmtp};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};
use wmtp::data::Tokenizer;
use wmtp_model::{LlamaConfig, SaveDtype, apply_lora, save_adapter};

/// A small model with the micro model's tokenizer. The longest side of its matrices is 24.
fn model(dir: &Path) -> PathBuf {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 1024, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "max_position_embeddings": 1024, "tie_word_embeddings": true, "eos_token_id": 0
    });
    let config = LlamaConfig::parse(&config.to_string()).unwrap();
    wmtp_model::save(&config.init(1, &burn::tensor::Device::flex()), dir, SaveDtype::F32).unwrap();
    Tokenizer::builtin_micro().unwrap().save(dir).unwrap();
    dir.to_owned()
}

/// Changes a JSON file, which is made where it is absent.
fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let text = fs::read_to_string(file).unwrap_or_else(|_| "{}".into());
    let mut json: Value = serde_json::from_str(&text).unwrap();
    change(&mut json);
    fs::write(file, json.to_string()).unwrap();
}

/// What the program says when it refuses: one sentence.
fn refusal(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{command:?} ended with {}: {said}",
        output.status
    );
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{command:?}: {said}");
    assert!(
        !said.contains("panicked") && !said.contains("memory allocation of"),
        "{said}"
    );
    errors[0].to_owned()
}

/// `wmtp train PIPELINE` on a few tasks, in `home/runs`.
fn train(home: &Path, pipeline: &str, set: &[&str]) -> Command {
    let mut command = wmtp(home);
    command.args(["train", pipeline, "--plain", "--output", "runs", "--run-name", "r"]);
    let small = [
        "data.train_tasks=[602,631]",
        "data.valid_tasks=[511,515]",
        "train.record.documents=0",
    ];
    command.args(small.iter().chain(set).flat_map(|set| ["--set", set]));
    command
}

/// Output, and the largest resident size in MiB where the system tells it.
fn watched(command: &mut Command) -> (Output, u64) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) / 1024);
        thread::sleep(Duration::from_millis(2));
    }
    (child.wait_with_output().unwrap(), peak)
}

#[test]
fn chat_templates_without_end_are_given_up() {
    let home = tempfile::tempdir().unwrap();
    let dir = model(&home.path().join("model"));
    for template in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for a in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{% for a in range(100000) %}{{ messages }}{{ messages }}{{ messages }}{{ messages }}{% endfor %}",
        "{% set ns = namespace(s='x', l=[]) %}{% for a in range(22) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}\
         {% for a in range(9999) %}{% set ns.l = ns.l + [ns.s ~ a] %}{% endfor %}{{ ns.l|length }}",
    ] {
        edit(&dir.join("tokenizer_config.json"), |config| {
            config["chat_template"] = template.into()
        });
        let mut command = wmtp(home.path());
        command.args(["eval", "mbpp", "--prompt", "chat", "--dry-run", "--tasks", "11,12"]);
        command.arg("--model").arg(&dir);
        let begun = Instant::now();
        let (output, peak) = watched(&mut command);
        let took = begun.elapsed();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{template}: {said}");
        assert!(
            said.contains("chat template of") && said.lines().count() == 1,
            "{template}: {said}"
        );
        assert!(took < Duration::from_secs(10), "{template} took {took:?}");
        assert!(peak < 300, "{template} took {peak} MiB");
    }
}

#[test]
fn ranks_of_adapters_are_those_of_matrices() {
    let home = tempfile::tempdir().unwrap();
    let base = model(&home.path().join("model"));
    let adapter = home.path().join("adapter");
    let device = burn::tensor::Device::flex();
    let loaded = wmtp_model::load(&base, &Default::default(), &device).unwrap();
    let adapted = apply_lora(loaded, 4, 8.0, 1);
    save_adapter(&adapted, &adapter, &base.display().to_string(), 4, 8.0).unwrap();
    let generate = || {
        let mut command = wmtp(home.path());
        command
            .args(["generate", "--prompt", "x", "--set", "eval.max_new_tokens=1", "--model"])
            .arg(&adapter);
        command
    };
    succeed(&mut generate());
    for rank in [0, 1 << 32, 1 << 53, i64::MAX as u64, 1 << 63] {
        edit(&adapter.join("adapter_config.json"), |config| config["r"] = rank.into());
        let said = refusal(&mut generate());
        assert!(
            said.contains("adapter") && said.contains("it must be from 1 to 24"),
            "{rank}: {said}"
        );
    }
    // Of new adapters, too, and already in the plan.
    let base = format!("model.base={}", base.display());
    for (rank, says) in [
        ("0", "`train.lora.rank` must be 1 or more"),
        (
            "25",
            "`train.lora.rank` is 25, and no matrix of this model has a rank above 24",
        ),
        ("4294967296", "`train.lora.rank` must be 65,536 or less"),
        ("9223372036854775807", "`train.lora.rank` must be 65,536 or less"),
    ] {
        let rank = format!("train.lora.rank={rank}");
        let set = [base.as_str(), rank.as_str(), "data.seq_len=256"];
        for dry_run in [true, false] {
            let mut command = train(home.path(), "baseline", &set);
            let said = refusal(command.args(dry_run.then_some("--dry-run")));
            assert!(said.contains(says), "{rank}: {said}");
        }
    }
    succeed(
        train(
            home.path(),
            "baseline",
            &[&base, "train.lora.rank=24", "data.seq_len=256"],
        )
        .arg("--dry-run"),
    );
    assert!(!home.path().join("runs").exists());
}

#[test]
fn a_plan_looks_at_the_weights() {
    let home = tempfile::tempdir().unwrap();
    let dir = model(&home.path().join("model"));
    let base = format!("model.base={}", dir.display());
    let plan = || {
        let mut command = train(home.path(), "baseline", &[&base, "data.seq_len=256"]);
        command.arg("--dry-run");
        command
    };
    succeed(&mut plan());
    for (field, value, says) in [
        ("num_hidden_layers", 3, "tensors are missing"),
        ("num_hidden_layers", 1, "tensors are surplus"),
        ("intermediate_size", 3, "have another shape"),
    ] {
        let config = dir.join("config.json");
        let whole = fs::read_to_string(&config).unwrap();
        edit(&config, |config| config[field] = value.into());
        let output = plan().output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{field}: {said}");
        assert!(
            said.contains("do not fit their configuration") && said.contains(says),
            "{field}: {said}"
        );
        fs::write(config, whole).unwrap();
    }
    // rho1's reference is looked at as well.
    let reference = model(&home.path().join("reference"));
    edit(&reference.join("config.json"), |config| {
        config["intermediate_size"] = 3.into()
    });
    let named = format!("model.reference={}", reference.display());
    let said = refusal(train(home.path(), "rho1", &[&base, &named, "data.seq_len=256"]).arg("--dry-run"));
    assert!(
        said.contains("reference") && said.contains("do not fit their configuration"),
        "{said}"
    );
}

#[test]
fn numbers_that_are_far_too_large_are_refused_or_planned_quickly() {
    let home = tempfile::tempdir().unwrap();
    let quickly = |command: &mut Command| {
        let begun = Instant::now();
        let output = command
            .args(["--dry-run", "--set", "model.base=builtin:micro"])
            .output()
            .unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{command:?} took {:?}",
            begun.elapsed()
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for (pipeline, set, says) in [
        (
            "baseline",
            "train.epochs=999999999",
            "`train.epochs` must be 10,000 or less",
        ),
        (
            "critic",
            "scorer.epochs=999999999",
            "`scorer.epochs` must be 10,000 or less",
        ),
        (
            "baseline",
            "storage.upload.wait_seconds=9223372036854775807",
            "`storage.upload.wait_seconds` must be 86400 or less",
        ),
        (
            "baseline",
            "storage.retry_delay_ms=9223372036854775807",
            "`storage.retry_delay_ms` must be 86400000 or less",
        ),
        (
            "baseline",
            "eval.samples=9223372036854775807",
            "`eval.samples` must be 1000000 or less",
        ),
    ] {
        let (code, said) = quickly(&mut train(home.path(), pipeline, &[set]));
        assert!(code == Some(2) && said.contains(says), "{set}: {said}");
    }
    for (pipeline, set) in [
        ("baseline", "train.epochs=10000"),
        ("baseline", "train.steps=100000000"),
        ("baseline", "batching.micro_batch=100000000"),
        ("baseline", "batching.accumulate=100000000"),
        ("critic", "scorer.batch=100000000"),
    ] {
        let (code, said) = quickly(&mut train(home.path(), pipeline, &[set]));
        assert_eq!(code, Some(0), "{set}: {said}");
    }
}

#[test]
fn names_that_cannot_be_written_down_are_refused() {
    let home = tempfile::tempdir().unwrap();
    #[cfg(unix)]
    {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let odd = OsStr::from_bytes(b"o1/\xff\xfe");
        for command in [
            &["train", "baseline", "--model", "builtin:micro", "--max-steps", "1"][..],
            &["sweep", "x.yaml"],
            &["eval", "mbpp", "--model", "builtin:micro"],
            &["report", "x"],
            &["track", "sync", "x"],
            &["promote", "x", "--to", "staging"],
            &["push", "x", "hf://a/b"],
            &["label", "x.jsonl"],
            &["sample", "x.jsonl"],
            &["inspect", "steps", "x"],
            &["inspect", "heads", "--model", "builtin:micro", "--text", "x"],
        ] {
            let said = refusal(wmtp(home.path()).args(command).arg("--output").arg(odd));
            assert!(
                said.contains("--output") && said.contains("is not UTF-8"),
                "{command:?}: {said}"
            );
        }
        for verb in ["export", "convert"] {
            let said = refusal(wmtp(home.path()).args([verb, "x"]).arg(odd));
            assert!(said.contains("is not UTF-8"), "{verb}: {said}");
        }
        let said = refusal(wmtp(home.path()).args(["sample", "x.jsonl", "--n", "9223372036854775807"]));
        assert!(said.contains("--n must be 1000000 or less"), "{said}");
        let mut command = train(home.path(), "baseline", &[]);
        let said = refusal(command.env("WMTP_PATHS__RUNS", odd));
        assert!(said.contains("WMTP_PATHS__RUNS is not UTF-8"), "{said}");
    }
    let said = refusal(wmtp(home.path()).args(["train", "baseline", "--run-name", "auto"]));
    assert!(said.contains("`run.name` must not be `auto`"), "{said}");
    let long = "x".repeat(201);
    let said = refusal(wmtp(home.path()).args(["train", "baseline", "--dry-run", "--run-name", &long]));
    assert!(said.contains("`run.name` must have at most 200 bytes"), "{said}");
    let left: Vec<_> = fs::read_dir(home.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A command with a limit on the memory that its process may map, in MiB.
#[cfg(target_os = "linux")]
fn limited(command: &Command, mib: u64) -> Command {
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("ulimit -v {}; exec \"$0\" \"$@\"", mib * 1024))
        .arg(command.get_program());
    // Every thread has a stack.
    shell.env("RAYON_NUM_THREADS", "2");
    shell
        .args(command.get_args())
        .current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

#[test]
#[cfg(target_os = "linux")]
fn memory_that_cannot_be_had_is_a_sentence() {
    let home = tempfile::tempdir().unwrap();
    let micro = ["model.base=builtin:micro", "train.steps=2", "data.seq_len=256"];
    // Known before the run begins: all documents at once.
    let mut large = wmtp(home.path());
    large.args([
        "train",
        "baseline",
        "--plain",
        "--output",
        "runs",
        "--set",
        "model.base=builtin:micro",
    ]);
    large.args(["--set", "batching.micro_batch=100000000"]);
    let said = refusal(&mut limited(&large, 700));
    assert!(
        said.contains("GiB more memory, and the limit of this process (`ulimit -v`) leaves 0."),
        "{said}"
    );
    assert!(!home.path().join("runs").exists());
    // At any limit from the one at which the program starts: a sentence, or a run.
    let (mut refused, mut trained) = (0, 0);
    for mib in [70, 74, 85, 100, 130, 300, 4000] {
        let output = limited(&train(home.path(), "baseline", &micro), mib).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => {
                trained += 1;
                fs::remove_dir_all(home.path().join("runs")).unwrap();
            }
            Some(1 | 2) => {
                refused += 1;
                let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
                assert!(
                    errors == 1 && !said.contains("memory allocation of"),
                    "{mib} MiB: {said}"
                );
                let _ = fs::remove_dir_all(home.path().join("runs"));
            }
            code => panic!("{mib} MiB: {code:?} {} {said}", output.status),
        }
    }
    assert!(refused >= 1 && trained >= 1, "{refused} refused, {trained} trained");
}

/// Threads of libraries whose stack can't be had, from the first one on: one sentence, and no words of a panic.
#[test]
#[cfg(target_os = "linux")]
fn a_thread_that_cannot_be_started_is_a_sentence() {
    let home = tempfile::tempdir().unwrap();
    let mut command = train(home.path(), "baseline", &["model.base=builtin:micro", "train.steps=2"]);
    // The stack of every thread for which no other size is asked.
    let output = command
        .env("RUST_MIN_STACK", (1_u64 << 46).to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: a thread can't be started: free memory"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// Moves the wall clock by more than the years that calendars know.
#[cfg(target_os = "linux")]
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *time) {
    int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, time);
    if (result == 0 && id == CLOCK_REALTIME) time->tv_sec += 400000000000LL;
    return result;
}
"#;

#[test]
#[cfg(target_os = "linux")]
fn a_clock_beyond_all_calendars_ends_no_run() {
    let home = tempfile::tempdir().unwrap();
    let (source, library) = (home.path().join("clock.c"), home.path().join("clock.so"));
    fs::write(&source, CLOCK).unwrap();
    // A C compiler is needed to build this program.
    let mut compile = Command::new("cc");
    succeed(
        compile
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl"),
    );
    let micro = ["model.base=builtin:micro", "train.steps=2", "data.seq_len=256"];
    let mut command = train(home.path(), "baseline", &micro);
    succeed(command.env("LD_PRELOAD", &library));
    let record: Value =
        serde_json::from_str(&fs::read_to_string(home.path().join("runs/r/run.json")).unwrap()).unwrap();
    let started = record["started"].as_str().unwrap();
    assert!(started.starts_with("9999-12-"), "{started}: the clock was not moved");
    let mut report = wmtp(home.path());
    succeed(report.args(["report", "runs/r"]).env("LD_PRELOAD", &library));
}

/// jiff's own `now` panics there, so one place asks for the time in its stead.
#[test]
fn nothing_asks_jiff_for_the_time() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = ["src", "crates", "model/src", "kernels/src", "sandbox/src"]
        .iter()
        .map(|folder| root.join(folder))
        .collect();
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read += 1;
                let text = fs::read_to_string(&path).unwrap();
                for call in ["Timestamp::now()", "Zoned::now()"] {
                    assert!(!text.contains(call), "{} has {call}", path.display());
                }
            }
        }
    }
    assert!(read > 300, "{read} files");
}
