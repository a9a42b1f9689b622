//! Our side of the comparison with PyTorch (`benches/peers/`): loads a model directory and answers
//! `step`, `peak` and `quit` on standard input with a line of JSON each.
//!
//!     peer --peer f32|bf16-master --rows R --len L --heads-count H --model DIR [--recompute block]

use burn::{optim::ModuleOptimizer, tensor::Device, train::TrainStep};
use std::{collections::HashMap, io::BufRead, path::Path, time::Instant};
use wmtp::{
    data::{Batch, Document, Tokenizer},
    scorer::{Normaliser, Uniform, WeightGroup, WeightsConfig},
    train::{Assets, LossConfig, OptimConfig, StepBatch, Weigher, WeightedMtp, adamw, assign_stable_ids, grads, rates},
};
use wmtp_model::{Compute, LoadOptions, Precision, load};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let options: HashMap<&str, &str> = args.chunks_exact(2).map(|a| (a[0].as_str(), a[1].as_str())).collect();
    let Some(mode) = options.get("--peer") else {
        println!("NOT RUN: this program is started by benches/peers/run.py");
        return;
    };
    let precision = match *mode {
        "f32" => Precision::F32,
        "bf16-master" => Precision::Bf16,
        other => {
            eprintln!("--peer {other}: wmtp trains in f32 and, with f32 weights, in bf16-master");
            std::process::exit(2);
        }
    };
    let number = |name: &str, default: usize| options.get(name).map_or(default, |n| n.parse().expect("a number"));
    let (rows, len, heads) = (number("--rows", 2), number("--len", 256), number("--heads-count", 4));
    let compute = Compute {
        precision,
        recompute: options.get("--recompute") == Some(&"block"),
    };
    let before = resident();
    let device = Device::flex().autodiff();
    let load_options = LoadOptions {
        n_heads: Some(heads),
        ..LoadOptions::default()
    };
    let dir = Path::new(options.get("--model").expect("--model DIR"));
    let model = load(dir, &load_options, &device)
        .expect("a usable model")
        .with_compute(compute);
    let vocabulary = model.config().vocab_size;
    let weigher = Weigher::new(
        Box::new(Uniform),
        Normaliser::new(WeightsConfig::default()).expect("the default weights"),
        WeightGroup::Document,
        LossConfig::default(),
        None,
    );
    let assets = Assets {
        tokenizer: Tokenizer::builtin_micro().expect("the tokenizer is built in"),
        model_hash: String::new(),
        lora: None,
    };
    let mut module = Some(assign_stable_ids(WeightedMtp::new(model, None, weigher, assets)));
    let mut optimizer: ModuleOptimizer = adamw(&OptimConfig::default()).expect("valid settings");
    let batch = StepBatch {
        micro: vec![batch(rows, len, vocabulary)],
        heads_only: false,
    };
    println!("{}", serde_json::json!({"ready": true}));
    for line in std::io::stdin().lock().lines() {
        match line.expect("a request").trim() {
            "step" => {
                let start = Instant::now();
                let trained = module.take().expect("the model is put back");
                let mut out = TrainStep::step(&trained, batch.clone());
                let computed = start.elapsed().as_secs_f64();
                let norm = grads::global_norm(&trained, &out.grads);
                if norm > 1.0 {
                    grads::scale(&trained, &mut out.grads, 1.0 / norm);
                }
                module = Some(optimizer.step(rates(1e-5, None).expect("a rate"), trained, out.grads));
                let seconds = start.elapsed().as_secs_f64();
                println!(
                    "{}",
                    serde_json::json!({"loss": out.item.loss, "seconds": seconds, "optimizer": seconds - computed})
                );
            }
            "peak" => {
                let peak = wmtp::track::peak_memory().unwrap_or(0);
                println!("{}", serde_json::json!({"peak_bytes": peak, "runtime_bytes": before}));
            }
            "quit" => return,
            other => panic!("unknown request {other:?}"),
        }
    }
}

/// Peak resident memory so far, in bytes.
fn resident() -> u64 {
    wmtp::track::peak_memory().unwrap_or(0)
}

/// The tokens that every peer trains on; all but the first of each row are responses.
fn batch(rows: usize, len: usize, vocabulary: usize) -> Batch {
    let mut state = 1u64;
    let mut token = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as u32 % vocabulary as u32
    };
    Batch {
        rows,
        seq_len: len,
        tokens: (0..rows * len).map(|_| token()).collect(),
        positions: (0..rows * len).map(|i| (i % len) as u32).collect(),
        docs: vec![0; rows * len],
        response: (0..rows * len).map(|i| i % len > 0).collect(),
        documents: (0..rows)
            .map(|row| Document {
                sample: row,
                name: format!("row {row}"),
                problem: row as u32,
                row,
                start: 0,
                len,
                prompt_len: 1,
                reward: None,
            })
            .collect(),
    }
}
