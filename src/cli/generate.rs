//! `wmtp generate`: continue a prompt.

use super::{
    Failure, Output, SettingsArgs,
    common::{generation_dtype, open_device, open_model, read_text, resolve_model},
};
use crate::{eval::Stop, pipeline::ModelGenerator};
use std::time::Instant;
use wmtp_model::Sampling;

/// `wmtp generate --model URI`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// builtin:micro, a directory or hf://OWNER/NAME.
    #[arg(long, value_name = "URI")]
    model: String,
    /// The text to continue; `-` reads standard input.
    #[arg(long, value_name = "TEXT|-", default_value = "-", allow_hyphen_values = true)]
    prompt: String,
    /// Tokens at most.
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// Sampling temperature; 0 is greedy.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Nucleus: the smallest set of tokens with at least this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f64,
    /// Every random draw follows from it (seed).
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End before this text; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
}

/// Generates.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(None).flag("--seed", "seed", args.seed).load()?;
    for (bad, rule) in [
        (args.max_new_tokens == 0, "--max-new-tokens must be 1 or more"),
        (
            !(args.temperature >= 0.0 && args.temperature.is_finite()),
            "--temperature must be 0 (greedy) or more",
        ),
        (
            !(args.top_p > 0.0 && args.top_p <= 1.0),
            "--top-p must be above 0 and at most 1",
        ),
        (args.stop.iter().any(String::is_empty), "--stop must not be empty"),
    ] {
        if bad {
            return Err(Failure::usage(rule));
        }
    }
    let (device_name, device) = open_device(&settings)?;
    let dtype = generation_dtype(&settings, &device_name)?;
    let model = resolve_model(&args.model, &settings.config, output)?;
    let prompt = if args.prompt == "-" {
        read_text("-")?
    } else {
        args.prompt
    };
    if prompt.is_empty() {
        return Err(Failure::usage(
            "the prompt is empty: give --prompt TEXT, or text on standard input",
        ));
    }
    let (model, tokenizer) = open_model(&model, Some(1), dtype, &settings, &device, output)?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        max_new_tokens: args.max_new_tokens,
    };
    let generator = ModelGenerator {
        model,
        tokenizer,
        sampling,
        batch_size: 1,
    };
    let stop: Vec<&str> = args.stop.iter().map(String::as_str).collect();
    let started = Instant::now();
    let written = generator.write(&[(prompt.clone(), settings.config.seed)], &Stop::Strings(&stop))?;
    let Some(written) = written.into_iter().next() else {
        return Err(Failure::failed("the model gave no continuation"));
    };
    let json = serde_json::json!({
        "prompt": prompt,
        "completion": written.text,
        "token_ids": written.tokens,
        "finish": written.finish,
        "seconds": started.elapsed().as_secs_f64(),
    });
    output.result(&json, &format!("{prompt}{}", written.text))
}
