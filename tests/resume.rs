//! A run that is killed and resumed ends with the same weights, bit for bit.

mod common;

use common::{lines, succeed, weights, wmtp};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use safetensors::{Dtype, SafeTensors};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// What is trained, for how long, and how often it is killed.
struct Case {
    model: &'static str,
    heads: usize,
    steps: usize,
    kills: usize,
    /// Recipe keys beside those of [`train`].
    set: &'static [&'static str],
}

/// `train baseline` of a few steps with a checkpoint after each.
fn train(home: &Path, case: &Case, name: &str) -> Command {
    let mut command = wmtp(home);
    command
        .args([
            "train",
            "baseline",
            "--model",
            case.model,
            "--run-name",
            name,
            "--output",
            "runs",
        ])
        .args(["--max-steps", &case.steps.to_string()])
        .args([
            "--set",
            "train.checkpoint.last_every=1",
            "--set",
            "data.seq_len=128",
            "--set",
            "batching.micro_batch=1",
        ])
        .args([
            "--set",
            "scorer.kind=random",
            "--set",
            &format!("model.mtp.n_heads={}", case.heads),
        ])
        .args(case.set.iter().flat_map(|set| ["--set", set]))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn resume(home: &Path, name: &str) -> Command {
    let mut command = wmtp(home);
    command
        .args(["train", "baseline", "--resume", name, "--output", "runs"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Trains to the end once, then again and again with SIGKILL at random moments, until as many have
/// struck as the case says; every killed run must end as the undisturbed one did.
fn killed_runs_end_alike(home: &Path, case: &Case) {
    let steps = case.steps;
    let started = Instant::now();
    succeed(&mut train(home, case, "whole"));
    let whole = started.elapsed();
    let expected = weights(&home.join("runs/whole"), "last");

    let mut random = StdRng::seed_from_u64(7);
    let (mut kills, mut runs) = (0, 0);
    while kills < case.kills {
        runs += 1;
        let name = format!("killed-{runs}");
        let run: PathBuf = home.join("runs").join(&name);
        let mut command = train(home, case, &name);
        loop {
            let mut child = command.spawn().expect("the program starts");
            let moment = whole.mul_f64(random.random_range(0.05..0.8));
            let finished = wait_or_kill(&mut child, moment);
            if finished {
                break;
            }
            kills += 1;
            // Before the first checkpoint there is nothing to resume: start again.
            command = if run.join("checkpoints/last").exists() {
                resume(home, &name)
            } else {
                if run.exists() {
                    std::fs::remove_dir_all(&run).expect("the run's directory can be removed");
                }
                train(home, case, &name)
            };
        }
        assert!(
            weights(&run, "last") == expected,
            "run {name} differs after {kills} kills"
        );
        let seen: Vec<u64> = lines(&run.join("metrics.jsonl"))
            .iter()
            .filter(|line| line.get("loss").is_some())
            .filter_map(|line| line["step"].as_u64())
            .collect();
        assert_eq!(
            seen,
            (1..=steps as u64).collect::<Vec<_>>(),
            "every step stands once in metrics.jsonl"
        );
        assert_eq!(
            losses(&run),
            losses(&home.join("runs/whole")),
            "the same losses, bit for bit"
        );
        for name in ["weights.jsonl", "tokens.jsonl"] {
            let recorded = |run: &Path| std::fs::read_to_string(run.join(name)).expect("it was recorded");
            assert_eq!(
                recorded(&run),
                recorded(&home.join("runs/whole")),
                "{name} of {}",
                run.display()
            );
        }
    }
    println!("{kills} kills over {runs} runs of {steps} steps, all bit-identical");
}

fn losses(run: &Path) -> Vec<String> {
    let of = |line: &serde_json::Value| line.get("loss").map(ToString::to_string);
    lines(&run.join("metrics.jsonl")).iter().filter_map(of).collect()
}

/// True if the child ended by itself, with success, before `moment`.
fn wait_or_kill(child: &mut std::process::Child, moment: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < moment {
        if let Some(status) = child.try_wait().expect("the child can be asked") {
            assert!(status.success(), "a resumed run failed: {status}");
            return true;
        }
        sleep(Duration::from_millis(5));
    }
    // SIGKILL on Unix.
    child.kill().expect("the child can be killed");
    child.wait().expect("the child can be waited for");
    false
}

#[test]
fn the_micro_model_survives_twenty_kills() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let case = Case {
        model: "builtin:micro",
        heads: 4,
        steps: 12,
        kills: 20,
        set: &[],
    };
    killed_runs_end_alike(home.path(), &case);
}

/// flex adds up tensors of over four million elements in parallel, in no fixed order: a run must
/// not depend on that.
#[test]
fn a_model_with_a_large_tensor_survives_twenty_kills() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = home.path().join("wide");
    large_model(&dir);
    let case = Case {
        model: "wide",
        heads: 1,
        steps: 4,
        kills: 20,
        set: &[],
    };
    killed_runs_end_alike(home.path(), &case);
}

/// Weights and moments in bf16 are rounded stochastically: neither their types nor the rounding may
/// change when a run goes on.
#[test]
fn bf16_weights_and_moments_survive_kills() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let case = Case {
        model: "builtin:micro",
        heads: 4,
        steps: 12,
        kills: 5,
        set: &["train.precision=pure-bf16", "optim.state=bf16"],
    };
    killed_runs_end_alike(home.path(), &case);

    // Of each run, killed or not: weights stored in bf16, and two bytes for each of their two moments.
    for name in ["whole", "killed-1"] {
        let run = home.path().join("runs").join(name);
        let mut elements = 0;
        for file in weights(&run, "last") {
            for (name, tensor) in SafeTensors::deserialize(&file).expect("a safetensors file").iter() {
                assert_eq!(tensor.dtype(), Dtype::BF16, "{name}");
                elements += tensor.data().len() as u64 / 2;
            }
        }
        let state = run.join("checkpoints/last/optimizer.bpk");
        let bytes = std::fs::metadata(&state).expect("the optimizer's state").len();
        // A checkpoint's moments are read as f32 and rounded back at the next step. A run that went on after
        // its last step has none; if it writes once more, it is the same values in four bytes each.
        let resumed_at_the_end = lines(&run.join("events.jsonl"))
            .iter()
            .rfind(|event| event["event"] == "resume")
            .is_some_and(|event| event["step"].as_u64() == Some(case.steps as u64));
        let each = |size: u64| (size * elements..(size + 1) * elements).contains(&bytes);
        assert!(
            each(4) || (resumed_at_the_end && each(8)),
            "{name}: {bytes} bytes of moments for {elements} weights"
        );
    }
}

/// One layer whose three feed-forward matrices have 16640 x 256 = 4.26 million elements each, with
/// the micro model's tokenizer.
fn large_model(dir: &Path) {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 1024, "hidden_size": 256, "intermediate_size": 16_640, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "max_position_embeddings": 1024, "tie_word_embeddings": true, "eos_token_id": 0,
        "wmtp": {"n_heads": 1, "format": 1}
    });
    let config = wmtp_model::LlamaConfig::parse(&config.to_string()).expect("a valid configuration");
    let model = config.init(3, &burn::tensor::Device::flex());
    wmtp_model::save(&model, dir, wmtp_model::SaveDtype::F32).expect("the model can be saved");
    let tokenizer = wmtp::data::Tokenizer::builtin_micro().expect("the tokenizer is built in");
    tokenizer.save(dir).expect("the tokenizer can be saved");
}

/// A run that dies between saving `last` and keeping it under other names does so when it is resumed.
#[test]
fn checkpoints_that_were_not_kept_are_made_up() {
    let home = tempfile::tempdir().expect("a temporary directory");
    const SET: [&str; 1] = ["train.validate_every=4"];
    let case = Case {
        model: "builtin:micro",
        heads: 2,
        steps: 4,
        kills: 0,
        set: &SET,
    };
    succeed(&mut train(home.path(), &case, "run"));
    let run = home.path().join("runs/run");
    let best = weights(&run, "best");
    assert!(best == weights(&run, "last"), "the last step is the best");
    std::fs::remove_dir_all(run.join("checkpoints/best")).expect("it was there");
    succeed(&mut resume(home.path(), "run"));
    assert!(weights(&run, "best") == best);
}
