//! One optimizer step at SmolLM2-135M's shape (4 heads, 2 x 256 tokens, f32, full fine-tuning, every
//! token trained): ours against the same step written plainly in burn (`plain/`), alternating in one
//! run. Prints tokens per second, their ratio, and each one's peak memory, measured in a process of
//! its own.
//!
//!     cargo bench --bench train_step            # 5 alternating repetitions
//!     cargo bench --bench train_step -- 3       # 3

mod ours;
mod plain;

use burn::{
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer},
    tensor::{Device, Int, Tensor, TensorData},
};
use ours::{Ours, tokens};
use std::{process::Command, time::Instant};
use wmtp::train::StatePrecision;
use wmtp_model::LlamaConfig;

const ROWS: usize = 2;
const LEN: usize = 256;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, which] = args.as_slice()
        && flag == "--peak"
    {
        let mut step = make(which);
        let losses: Vec<f64> = (0..3).map(|_| step()).collect();
        let peak = wmtp::run::peak_memory().unwrap_or(0);
        println!("{peak} {}", losses[2]);
        return;
    }
    let repetitions: usize = args.first().and_then(|n| n.parse().ok()).unwrap_or(5);
    let (mut ours, mut plain) = (make("ours"), make("plain"));
    println!(
        "first losses: ours {:.4}, plain {:.4} (both near ln V = {:.4})",
        ours(),
        plain(),
        (49152f64).ln()
    );
    let (mut seconds_ours, mut seconds_plain) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        for (step, seconds) in [(&mut ours, &mut seconds_ours), (&mut plain, &mut seconds_plain)] {
            let start = Instant::now();
            step();
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let tok_s = |seconds: &mut Vec<f64>| (ROWS * LEN) as f64 / median(seconds);
    let (a, b) = (tok_s(&mut seconds_ours), tok_s(&mut seconds_plain));
    println!(
        "ours  {a:6.1} tok/s\nplain {b:6.1} tok/s\nratio {:6.2} (medians of {repetitions} alternating steps)",
        a / b
    );
    drop((ours, plain));
    for which in ["ours", "plain"] {
        println!("{which:5} peak {:.2} GB", peak(which) / 1e9);
    }
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// Peak resident memory of three steps in a process of their own, in bytes.
fn peak(which: &str) -> f64 {
    let exe = std::env::current_exe().expect("this program's path");
    let out = Command::new(exe)
        .args(["--peak", which])
        .output()
        .expect("the program runs again");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("no peak: {text}"))
}

/// A closure that does one step and returns its loss.
fn make(which: &str) -> Box<dyn FnMut() -> f64> {
    let device = Device::flex().autodiff();
    // As the pipeline does: cheap element-wise results are computed again in the backward pass.
    let ours = device.clone().gradient_checkpointing();
    if which == "plain" {
        Box::new(plain_step(device))
    } else {
        Box::new(our_step(ours))
    }
}

fn plain_step(device: Device) -> impl FnMut() -> f64 {
    let mut model = Some(plain::SMOLLM2.init(&device));
    let mut optimizer: ModuleOptimizer = AdamWConfig::new()
        .with_beta_2(0.95)
        .with_epsilon(1e-8)
        .with_weight_decay(0.1)
        .init();
    move || {
        let module = model.take().expect("the model is put back");
        let data = TensorData::new(
            tokens(ROWS * LEN, plain::SMOLLM2.vocab)
                .into_iter()
                .map(|t| t as i32)
                .collect::<Vec<_>>(),
            [ROWS, LEN],
        );
        let loss = module.loss(Tensor::<2, Int>::from_data(data, &device));
        let value = loss.clone().into_scalar::<f64>();
        let grads = GradientsParams::from_grads(loss.backward(), &module);
        model = Some(optimizer.step(1e-5, module, grads));
        value
    }
}

fn our_step(device: Device) -> impl FnMut() -> f64 {
    let s = plain::SMOLLM2;
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": s.vocab, "hidden_size": s.hidden, "intermediate_size": s.intermediate,
        "num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
        "rms_norm_eps": 1e-5, "rope_theta": 1e4, "max_position_embeddings": 2048,
        "tie_word_embeddings": true, "eos_token_id": 0, "wmtp": {"n_heads": s.mtp_heads, "format": 1}
    });
    let config = LlamaConfig::parse(&config.to_string()).expect("a valid configuration");
    let mut ours = Ours::new(config.init(1, &device), ROWS, LEN, StatePrecision::F32);
    move || ours.step().0.loss
}
