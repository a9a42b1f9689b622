//! Our side of the comparison with PyTorch (`benches/peers/`): loads a model directory and answers
//! `step`, `peak` and `quit` on standard input with a line of JSON each.
//!
//!     peer --peer f32|bf16-master|bf16 --rows R --len L --heads-count H --model DIR [--recompute block]

mod ours;

use burn::tensor::Device;
use ours::Ours;
use std::{collections::HashMap, io::BufRead, path::Path, time::Instant};
use wmtp::train::{PrecisionConfig, Recompute, StatePrecision, TrainConfig};
use wmtp_model::{LoadOptions, load};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let options: HashMap<&str, &str> = args.chunks_exact(2).map(|a| (a[0].as_str(), a[1].as_str())).collect();
    let Some(mode) = options.get("--peer") else {
        println!("NOT RUN: this program is started by benches/peers/run.py");
        return;
    };
    let train = TrainConfig {
        precision: match *mode {
            "f32" => PrecisionConfig::F32,
            "bf16-master" => PrecisionConfig::Bf16,
            "bf16" => PrecisionConfig::PureBf16,
            other => {
                eprintln!(
                    "--peer {other}: wmtp trains in f32, bf16-master (f32 weights and state) and bf16 (nothing in f32)"
                );
                std::process::exit(2);
            }
        },
        recompute: match options.get("--recompute") {
            Some(&"block") => Recompute::Block,
            _ => Recompute::None,
        },
        ..TrainConfig::default()
    };
    let state = match train.precision {
        PrecisionConfig::PureBf16 => StatePrecision::Bf16,
        _ => StatePrecision::F32,
    };
    let number = |name: &str, default: usize| options.get(name).map_or(default, |n| n.parse().expect("a number"));
    let (rows, len, heads) = (number("--rows", 2), number("--len", 256), number("--heads-count", 4));
    let before = resident();
    let device = Device::flex().autodiff();
    let load_options = LoadOptions {
        n_heads: Some(heads),
        dtype: train.dtype(),
        ..LoadOptions::default()
    };
    let dir = Path::new(options.get("--model").expect("--model DIR"));
    let model = load(dir, &load_options, &device)
        .expect("a usable model")
        .with_compute(train.compute());
    let mut ours = Ours::new(model, rows, len, state);
    println!("{}", serde_json::json!({"ready": true}));
    for line in std::io::stdin().lock().lines() {
        match line.expect("a request").trim() {
            "step" => {
                let start = Instant::now();
                let (loss, optimizer) = ours.step();
                let seconds = start.elapsed().as_secs_f64();
                println!(
                    "{}",
                    serde_json::json!({"loss": loss, "seconds": seconds, "optimizer": optimizer})
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
