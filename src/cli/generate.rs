//! `wmtp generate`: continue a prompt.

use super::{
    Failure, Output, SettingsArgs,
    common::{generation_dtype, open_device, open_model, read_text, resolve_model},
};
use crate::{eval::Stop, pipeline::ModelGenerator};
use std::time::Instant;
use wmtp_model::{Effort, Sampling};

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
    /// Let heads 2 to H draft the tokens after the next one for head 1 to judge. Greedy text stays
    /// the same, sampled text keeps head 1's distribution.
    #[arg(long)]
    speculative: bool,
    /// With --speculative: most drafted tokens that a pass judges. Greedily more than H - 1 try several
    /// ways to go on at once.
    #[arg(long, value_name = "N", requires = "speculative")]
    drafts: Option<usize>,
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
        (args.drafts == Some(0), "--drafts must be 1 or more"),
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
    // Without speculation only head 1 writes: the others need not be loaded.
    let heads = (!args.speculative).then_some(1);
    let (model, tokenizer) = open_model(&model, heads, dtype, &settings, &device, output)?;
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        max_new_tokens: args.max_new_tokens,
    };
    let mut generator = ModelGenerator::new(model, tokenizer, sampling);
    generator.decoding.speculative = args.speculative;
    if let Some(drafts) = args.drafts {
        generator.decoding.drafts = drafts;
    }
    let stop: Vec<&str> = args.stop.iter().map(String::as_str).collect();
    let started = Instant::now();
    let written = generator.write(&[(prompt.clone(), settings.config.seed)], &Stop::Strings(&stop))?;
    let Some(written) = written.into_iter().next() else {
        return Err(Failure::failed("the model gave no continuation"));
    };
    let seconds = started.elapsed().as_secs_f64();
    let mut json = serde_json::json!({
        "prompt": prompt,
        "completion": written.text,
        "token_ids": written.tokens,
        "finish": written.finish,
        "seconds": seconds,
    });
    if args.speculative {
        let tokens = written.tokens.len();
        json["speculative"] = speculation(&written.effort, tokens);
        if !output.is_json() {
            eprintln!("{}", speculation_text(&written.effort, tokens));
        }
    }
    output.result(&json, &format!("{prompt}{}", written.text))
}

/// Passes through the trunk and what became of each head's drafts, head 2 first.
pub(super) fn speculation(effort: &Effort, tokens: usize) -> serde_json::Value {
    let heads: Vec<serde_json::Value> = (2..)
        .zip(effort.drafted.iter().zip(&effort.accepted))
        .map(|(head, (drafted, accepted))| {
            serde_json::json!({
                "head": head,
                "drafted": drafted,
                "accepted": accepted,
                "acceptance": share(*accepted, *drafted),
            })
        })
        .collect();
    serde_json::json!({
        "trunk_forwards": effort.trunk_forwards,
        "tokens_per_forward": share(tokens, effort.trunk_forwards),
        "tokens_judged": effort.judged,
        "heads": heads,
    })
}

/// The same for people.
pub(super) fn speculation_text(effort: &Effort, tokens: usize) -> String {
    let mut text = format!(
        "{tokens} tokens in {} passes through the trunk, {:.2} tokens each; {} drafts judged, passes in which one was accepted:",
        effort.trunk_forwards,
        share(tokens, effort.trunk_forwards).unwrap_or(0.0),
        effort.judged
    );
    for (head, (drafted, accepted)) in (2..).zip(effort.drafted.iter().zip(&effort.accepted)) {
        text += &format!("\n  head {head}: {accepted} of {drafted}");
    }
    text
}

/// None where there is nothing to take a share of.
fn share(part: usize, all: usize) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}
