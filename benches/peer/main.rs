//! Our side of the comparison with PyTorch: a peer of `benches/peers/run.py`, whose README says what
//! is asked and answered.
//!
//!     peer --peer f32|bf16-master|bf16 --rows R --len L --heads-count H --model DIR [--recompute block] [--heads sequential]
//!     peer --peer f32|bf16-master|bf16 --batches FILE --heads-count H --model DIR [--recompute block]
//!     peer --export FILE --model DIR [--seq-len 256 --micro-batch 2 --tokens-per-step 2048 --steps N --lr 5e-5]
//!     peer --peer-ce f32|bf16-master|bf16 --data FILE

mod batches;
mod cross_entropy;
#[path = "../ours/mod.rs"]
mod ours;
mod protocol;

use burn::tensor::Device;
use ours::Ours;
use std::{collections::HashMap, path::Path, time::Instant};
use wmtp::train::{HeadOrder, OptimConfig, PrecisionConfig, Recompute, StatePrecision, TrainConfig};
use wmtp_model::{LoadOptions, load};

type Options<'a> = HashMap<&'a str, &'a str>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let options: Options = args.chunks_exact(2).map(|a| (a[0].as_str(), a[1].as_str())).collect();
    if let Some(file) = options.get("--export") {
        batches::write(Path::new(file), &options);
    } else if let Some(mode) = options.get("--peer-ce") {
        cross_entropy::run(mode, Path::new(options.get("--data").expect("--data FILE")));
    } else if let Some(mode) = options.get("--peer") {
        training_step(mode, &options);
    } else {
        println!("NOT RUN: this program is started by benches/peers/run.py");
    }
}

/// The training step, on a file's batches or on one and the same batch.
fn training_step(mode: &str, options: &Options) {
    wmtp_kernels::disable_malloc_trim(); // as the program does
    let train = TrainConfig {
        precision: match mode {
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
        heads: match options.get("--heads") {
            Some(&"sequential") => HeadOrder::Sequential,
            _ => HeadOrder::Together,
        },
        ..TrainConfig::default()
    };
    let state = match train.precision {
        PrecisionConfig::PureBf16 => StatePrecision::Bf16,
        _ => StatePrecision::F32,
    };
    let number = |name: &str, default: usize| options.get(name).map_or(default, |n| n.parse().expect("a number"));
    let (rows, len, heads) = (number("--rows", 2), number("--len", 256), number("--heads-count", 4));
    let runtime = protocol::status_bytes("VmRSS");
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
    let mut ours = match options.get("--batches") {
        Some(file) => {
            let batches::Steps { optim, steps } = batches::read(Path::new(file));
            Ours::on(model, steps, OptimConfig { state, ..optim })
        }
        None => Ours::new(model, rows, len, state),
    }
    .with_heads(train.heads);
    let step = || {
        let start = Instant::now();
        let (found, optimizer) = ours.step();
        serde_json::json!({"loss": found.loss, "seconds": start.elapsed().as_secs_f64(), "optimizer": optimizer,
            "tokens": found.tokens, "response_tokens": found.response_tokens})
    };
    protocol::serve(step, runtime, || serde_json::json!({}));
}
