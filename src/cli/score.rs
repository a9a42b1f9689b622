//! `wmtp score`: cross-entropy of every head for every token of a text, and the last position's
//! largest logits, for checking against other programs.

use super::{
    Failure, Output, SettingsArgs,
    base::open_model,
    common::{open_device, read_text, resolve_model},
};
use crate::{
    data::Tokenizer,
    pipeline::{ScoreReport, score_text},
    settings::EvalPrecision,
};
use burn::tensor::DType;
use wmtp_model::{MtpLlama, with_rounded_matrices};

/// `wmtp score --model URI`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// builtin:micro, a directory or hf://OWNER/NAME.
    #[arg(long, value_name = "URI")]
    model: String,
    /// The file with the text; `-` is standard input.
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    text: String,
    /// Add no special token (BOS, EOS) to the text; the same as `--set data.special_tokens=never`.
    #[arg(long)]
    no_special_tokens: bool,
}

/// Scores.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let never = args.no_special_tokens.then_some("never");
    let settings = args
        .settings
        .sources(None)
        .flag_text("--no-special-tokens", "data.special_tokens", never)
        .load()?;
    let (_, device) = open_device(&settings)?;
    let model = resolve_model(&args.model, &settings.config, output)?;
    let text = read_text(&args.text)?;
    if text.is_empty() {
        return Err(Failure::usage(
            "the text is empty: give --text FILE, or text on standard input",
        ));
    }
    let (model, tokenizer) = open_model(&model, None, DType::F32, &settings, &device, output)?;
    let model = match settings.recipe.eval.precision {
        EvalPrecision::F32 => model,
        precision => with_rounded_matrices(model, precision.quantization()),
    };
    let report = score_text(&model, &tokenizer, &text)?;
    output.result(&serde_json::to_value(&report)?, &table(&report, &tokenizer)?)?;
    let all = report.ce.iter().flatten();
    let (count, wrong) = (all.clone().count(), all.filter(|ce| !ce.is_finite()).count());
    match wrong {
        0 => Ok(()),
        _ => Err(not_finite(&format!("{wrong} of {count} cross-entropies"), &model)),
    }
}

/// The failure for a result that is not finite, with the weights that are to blame.
pub(super) fn not_finite(what: &str, model: &MtpLlama) -> Failure {
    let weights = model.not_finite();
    let cause = match weights.as_slice() {
        [] => "though all weights are: the model's activations overflow".to_owned(),
        [one] => format!("because the weight `{one}` holds NaN or infinities"),
        [first, ..] => format!(
            "because {} weights hold NaN or infinities, `{first}` first",
            weights.len()
        ),
    };
    Failure::Found(format!("{what} are not finite, {cause}"))
}

/// A line a token: its id, its text, and the cross-entropy of it by every head that could see it coming.
fn table(report: &ScoreReport, tokenizer: &Tokenizer) -> Result<String, Failure> {
    let heads = report.ce.len();
    let titles: Vec<String> = (1..=heads).map(|k| format!("{:>8}", format!("head {k}"))).collect();
    let mut text = format!("{:>8}  {:16}{}\n", "id", "token", titles.concat());
    for (i, &id) in report.token_ids.iter().enumerate() {
        let before = report.token_ids.get(..i).unwrap_or_default();
        let shown = format!("{:?}", tokenizer.decode_after(before, &[id])?);
        let of = |k: usize| i.checked_sub(k).and_then(|at| report.ce.get(k - 1)?.get(at));
        let ce: String = (1..=heads)
            .map(|k| of(k).map_or(format!("{:>8}", "-"), |ce| format!("{ce:>8.3}")))
            .collect();
        text += &format!("{id:>8}  {shown:16}{ce}\n");
    }
    for (k, ce) in report.ce.iter().enumerate() {
        let mean = ce.iter().sum::<f32>() / ce.len().max(1) as f32;
        text += &format!("head {}: mean cross-entropy {mean:.4} nats\n", k + 1);
    }
    Ok(text)
}
