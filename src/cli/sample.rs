//! `wmtp sample`: candidates for the prompts of a data file.

use super::{
    Failure, Output, SettingsArgs,
    bar::CountBar,
    base::{find_dir, open_model},
    common::{generation_dtype, open_device, open_rows, prepared_weights, resolve_model, rows_output, stop_on_signals},
    eval::newest_best,
};
use crate::{
    paths::expand_home,
    pipeline::{ModelGenerator, SampleRequest, asks_by_chat, sample, weights_hash},
    settings::MOST_SAMPLES,
};
use serde_json::{Map, Value, json};
use std::{path::PathBuf, time::Instant};
use wmtp_model::Sampling;

/// `wmtp sample FILE --n N`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Rows with prompts: a data file, a folder, a pattern or hf://OWNER/NAME (docs/data.md has the
    /// columns; answers need not be there).
    #[arg(value_name = "FILE")]
    file: String,
    /// Completions for each prompt.
    #[arg(long, short, value_name = "N", default_value_t = 8)]
    n: usize,
    /// builtin:micro, a directory, a run or hf://OWNER/NAME; the newest run's best checkpoint if absent.
    #[arg(long, value_name = "URI")]
    model: Option<String>,
    /// Sampling temperature; 0 is greedy.
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f64,
    /// Top-p (nucleus) sampling threshold (eval.top_p).
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Maximum new tokens per completion (eval.max_new_tokens).
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// End completions before this text; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Seed of all random draws (seed).
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Speculative decoding: heads 2..H draft tokens, head 1 verifies them.
    #[arg(long)]
    speculative: bool,
    /// Where rows with `prompt` and `completions` are appended, as JSON lines: NAME.sampled.jsonl beside
    /// FILE if absent. Prompts whose rows are there are passed over.
    #[arg(long, value_name = "FILE", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
}

/// Samples.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args
        .settings
        .sources(None)
        .flag("--top-p", "eval.top_p", args.top_p)
        .flag("--max-new-tokens", "eval.max_new_tokens", args.max_new_tokens)
        .flag("--seed", "seed", args.seed)
        .load()?;
    check(&args)?;
    let source = open_rows(&args.file, &settings, output)?;
    let target = rows_output(args.output.as_deref(), &args.file, "sampled")?;
    let model = match &args.model {
        Some(uri) => resolve_model(uri, &settings.config, output)?,
        None => newest_best(&expand_home(&settings.config.paths.runs))?,
    };
    let (device_name, device) = open_device(&settings)?;
    let dtype = generation_dtype(&settings, &device_name, &device)?;
    let dir = find_dir(&model, &settings.config, &device, output)?;
    let heads = (!args.speculative).then_some(1);
    let (loaded, tokenizer) = open_model(&model, heads, dtype, &settings, &device, output)?;
    let mut data = settings.recipe.data.clone();
    data.record_chat_date(&tokenizer);
    let mut tokenizer = data.dated(tokenizer);
    let is_chat = asks_by_chat(&source, &data, &tokenizer)?;
    if is_chat {
        // The template writes special tokens itself.
        tokenizer = tokenizer.for_chat();
    }
    let e = &settings.recipe.eval;
    let mut drawn: Map<String, Value> = Map::new();
    for (name, value) in [
        ("model", json!(model.uri)),
        ("model_hash", json!(weights_hash(&dir.dir)?)),
        ("precision", json!(e.precision.name())),
        ("samples", json!(args.n)),
        ("temperature", json!(args.temperature)),
        ("top_p", json!(e.top_p)),
        ("max_new_tokens", json!(e.max_new_tokens)),
        ("seed", json!(settings.config.seed)),
        ("stop", json!(args.stop)),
        ("speculative", json!(args.speculative)),
    ] {
        drawn.insert(name.into(), value);
    }
    if let Some(base) = &dir.base {
        drawn.insert("base_hash".into(), weights_hash(base)?.into());
    }
    if let (true, Some(date)) = (is_chat, &data.chat_date) {
        drawn.insert("chat_date".into(), date.as_str().into());
    }
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: e.top_p,
        max_new_tokens: e.max_new_tokens,
    };
    let prepared = prepared_weights(&settings, &loaded, args.speculative)?;
    let mut generator = ModelGenerator::new(loaded, tokenizer.clone(), sampling);
    generator.decoding.prepared = prepared;
    generator.decoding.rows = e.batch;
    generator.decoding.speculative = args.speculative;
    let request = SampleRequest {
        source: &source,
        data: &data,
        tokenizer: &tokenizer,
        samples: args.n,
        temperature: args.temperature,
        seed: settings.config.seed,
        stops: &args.stop,
        drawn,
        output: &target,
    };
    let started = Instant::now();
    let mut bar = CountBar::new("completions");
    let drawn = sample(&request, &mut generator, &stop_on_signals()?, &mut |far| {
        let speed = far.tokens as f64 / started.elapsed().as_secs_f64().max(1e-9);
        bar.set(far.done, far.total, format!("{speed:.0} tok/s"));
    });
    bar.finish();
    let report = drawn?;
    let seconds = started.elapsed().as_secs_f64();
    let mut json = serde_json::to_value(&report)?;
    json["output"] = json!(target.display().to_string());
    json["seconds"] = json!(seconds);
    let resumed = match report.resumed {
        0 => String::new(),
        n => format!("; {n} rows were there"),
    };
    let empty = match report.empty {
        0 => String::new(),
        n => format!("; {n} empty completions left out"),
    };
    output.result(
        &json,
        &format!(
            "{} prompts: {} rows with {} completions written{resumed}{empty}; {} tokens in {seconds:.1} s\ncandidates: {}\nnext        wmtp label {}",
            report.prompts,
            report.rows,
            report.completions,
            report.tokens,
            target.display(),
            target.display()
        ),
    )
}

/// Flags that make no sense.
fn check(args: &Args) -> Result<(), Failure> {
    for (bad, rule) in [
        (args.n == 0, "--n must be 1 or more"),
        (args.n > MOST_SAMPLES, "--n must be 1000000 or less"),
        (
            !(args.temperature >= 0.0 && args.temperature.is_finite()),
            "--temperature must be 0 (greedy) or more",
        ),
        (
            args.temperature == 0.0 && args.n > 1,
            "--n must be 1 with --temperature 0, because greedy samples are all the same",
        ),
        (args.stop.iter().any(String::is_empty), "--stop must not be empty"),
    ] {
        if bad {
            return Err(Failure::usage(rule));
        }
    }
    Ok(())
}
