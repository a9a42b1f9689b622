//! `wmtp inspect heads`.

use crate::{
    cli::{
        Failure, Output, SettingsArgs,
        base::open_model,
        common::{open_device, read_text, resolve_model},
        score::not_finite,
    },
    pipeline::{HeadsReport, judge_heads},
};
use burn::tensor::DType;
use std::path::PathBuf;
use wmtp_model::CausalLm;

#[derive(Debug, clap::Args)]
pub struct HeadsArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// builtin:micro, a directory or hf://OWNER/NAME.
    #[arg(long, value_name = "URI")]
    model: String,
    /// Files with the text, one after the other; `-` is standard input.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    text: Vec<String>,
    /// Maximum context in tokens; 512 by default, or the model's positions if it has fewer.
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Write the report with the reliability tables here, as JSON.
    #[arg(long, value_name = "FILE", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
}

/// Judges the heads: a table for people, a report with everything else.
pub fn heads(args: HeadsArgs, output: &Output) -> Result<(), Failure> {
    let settings = args.settings.sources(None).load()?;
    let (_, device) = open_device(&settings)?;
    let model = resolve_model(&args.model, &settings.config, output)?;
    let texts = args.text.iter().map(|file| read_text(file));
    let text: String = texts.collect::<Result<_, _>>()?;
    let (loaded, tokenizer) = open_model(&model, None, DType::F32, &settings, &device, output)?;
    let window = args
        .window
        .unwrap_or_else(|| loaded.config().max_position_embeddings.min(512));
    let report = judge_heads(&loaded, &tokenizer, &text, window)?;
    let mut json = serde_json::to_value(&report)?;
    json["model"] = model.uri.clone().into();
    json["texts"] = args.text.clone().into();
    let mut text = table(&report);
    if let Some(path) = &args.output {
        std::fs::write(path, format!("{json:#}\n"))
            .map_err(|e| Failure::failed(format!("cannot write `{}`: {e}", path.display())))?;
        text += &format!("report: {}", path.display());
    }
    output.result(&json, &text)?;
    match report.heads.iter().filter(|head| !head.ce.is_finite()).count() {
        0 => Ok(()),
        wrong => Err(not_finite(&format!("the cross-entropies of {wrong} heads"), &loaded)),
    }
}

/// A line a head.
fn table(report: &HeadsReport) -> String {
    let mut text = format!(
        "{} tokens in windows of {}\nhead  predictions      CE  perplexity   top-1   top-5     ECE  share of errors  of CE\n",
        report.tokens, report.window
    );
    for head in &report.heads {
        text += &format!(
            "{:>4} {:>12} {:>7.4} {:>11.2} {:>7.4} {:>7.4} {:>7.4} {:>16.4} {:>6.4}\n",
            head.head,
            head.predictions,
            head.ce,
            head.perplexity,
            head.top1,
            head.top5,
            head.ece,
            head.error_share,
            head.ce_share
        );
    }
    text
}
