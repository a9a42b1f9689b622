//! Generation with a model directory on MBPP's prompts: what shared beginnings and drafts are worth,
//! and a peer for the comparison with transformers (`benches/peers/decode.py`).
//!
//!     just bench-shared --model DIR          # time to the first token, with and without sharing
//!     just bench-speculative --model DIR     # with and without drafts: the same text, fewer passes
//!     just bench-generate --model DIR        # tokens per second beside transformers
//!     just bench-weights --model DIR         # f32, bf16, int8 and int4 weights in turn
//!
//! Prompts are greedy and few-shot unless said otherwise; `--precision` keeps weights in bf16,
//! int8 or int4, `--heads H` gives a model that has fewer heads copies of its last layer, `--tasks 11-110`, `--rows`,
//! `--new-tokens`, `--repetitions` and `--style zero-shot` change what is run; `--always` takes all drafts, whatever
//! they cost.

mod peer;
mod shared;
mod speculative;
mod weights;

use burn::tensor::{DType, Device};
use std::path::PathBuf;
use wmtp::{
    data::{PromptStyle, Tokenizer},
    eval::bench::mbpp::{self, load},
};
use wmtp_model::{LoadOptions, MtpLlama, PreparedWeights, Quantization, Request, Sampling};

type Failure = Box<dyn std::error::Error>;

/// The command line.
struct Arguments(Vec<String>);

impl Arguments {
    fn after(&self, name: &str) -> Option<&str> {
        self.0.iter().skip_while(|a| *a != name).nth(1).map(String::as_str)
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, Failure> {
        match self.after(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name} {text} is no number").into()),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    /// Task ids, inclusive.
    fn tasks(&self, default: (u32, u32)) -> Result<(u32, u32), Failure> {
        let Some(text) = self.after("--tasks") else {
            return Ok(default);
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Ok((first.parse()?, last.parse()?))
    }

    fn style(&self) -> Result<PromptStyle, Failure> {
        match self.after("--style").unwrap_or("few-shot") {
            "few-shot" => Ok(PromptStyle::FewShot),
            "zero-shot" => Ok(PromptStyle::ZeroShot),
            other => Err(format!("--style {other}: few-shot and zero-shot are known").into()),
        }
    }
}

/// A model with its tokenizer and MBPP.
struct Subject {
    model: MtpLlama,
    /// As generation reads them.
    prepared: Option<PreparedWeights>,
    tokenizer: Tokenizer,
    problems: Vec<mbpp::Problem>,
}

impl Subject {
    fn open(arguments: &Arguments) -> Result<Self, Failure> {
        let dir = PathBuf::from(arguments.after("--model").ok_or("--model DIR is needed")?);
        let (dtype, quantization) = match arguments.after("--precision").unwrap_or("f32") {
            "f32" => (DType::F32, None),
            "bf16" => (DType::BF16, None),
            "int8" => (DType::BF16, Some(Quantization::Int8)),
            "int4" => (DType::BF16, Some(Quantization::Int4)),
            other => return Err(format!("--precision {other}: f32, bf16, int8 and int4 are known").into()),
        };
        let options = LoadOptions {
            n_heads: arguments.after("--heads").map(str::parse).transpose()?,
            dtype,
            ..LoadOptions::default()
        };
        let model = wmtp_model::load(&dir, &options, &Device::flex())?;
        Ok(Self {
            prepared: PreparedWeights::new(&model, true, quantization)?,
            model,
            tokenizer: Tokenizer::load(&dir)?,
            problems: load("builtin:mbpp")?,
        })
    }

    /// Token ids of the prompts of some tasks.
    fn prompts(&self, (first, last): (u32, u32), style: PromptStyle) -> Result<Vec<Vec<u32>>, Failure> {
        let chosen = self.problems.iter().filter(|p| (first..=last).contains(&p.task_id));
        chosen
            .map(|problem| {
                let prompt = mbpp::prompt(&self.problems, problem, style, &self.tokenizer)?;
                Ok(self.tokenizer.encode(&prompt)?)
            })
            .collect()
    }
}

/// Greedy requests.
fn greedy(prompts: &[Vec<u32>], new_tokens: usize) -> Vec<Request> {
    let of = |tokens: &Vec<u32>| Request {
        tokens: tokens.clone(),
        seed: 0,
        sampling: Sampling::greedy(new_tokens),
    };
    prompts.iter().map(of).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments(std::env::args().collect());
    match () {
        () if arguments.has("--peer") => peer::run(&arguments),
        () if arguments.has("--shared") => shared::run(&arguments),
        () if arguments.has("--speculative") => speculative::run(&arguments),
        () if arguments.has("--weights") => weights::run(&arguments),
        () => {
            println!("nothing was asked for: --shared, --speculative, --weights or --peer, and --model DIR");
            Ok(())
        }
    }
}
