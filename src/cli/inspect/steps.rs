//! `wmtp inspect steps`.

use crate::{
    cli::{Failure, Output, SettingsArgs, track::run_with_settings},
    run::{StepDocuments, StepNames, file::STEPS, read_steps},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Debug, clap::Args)]
pub struct StepsArgs {
    /// The run: its name, or its directory.
    #[arg(value_name = "RUN")]
    run: String,
    /// One optimizer step, counted from 1 as in metrics.jsonl; all of them if left out.
    #[arg(long, value_name = "N")]
    step: Option<usize>,
    /// Where run directories are (paths.runs).
    #[arg(long, value_name = "DIR", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Prints the documents of a step, or of every step a line.
pub fn steps(args: &StepsArgs, output: &Output) -> Result<(), Failure> {
    let (dir, _) = run_with_settings(&args.run, &args.settings, args.output.as_deref())?;
    if !dir.join(STEPS).is_file() {
        return Err(Failure::usage(format!(
            "`{}` has no {STEPS}: the run has done no step, or an older version made it",
            dir.display()
        )));
    }
    let (names, mut steps) = read_steps(&dir).map_err(Failure::failed)?;
    if let Some(wanted) = args.step {
        let last = steps.last().map_or(0, |step| step.step);
        steps.retain(|step| step.step == wanted);
        if steps.is_empty() {
            return Err(Failure::usage(format!(
                "--step {wanted}: `{}` has the steps 1 to {last}",
                dir.display()
            )));
        }
    }
    let document = json!({"run": dir, "steps": steps.iter().map(|step| named(step, &names)).collect::<Vec<_>>()});
    let text = match (args.step, steps.first()) {
        (Some(_), Some(step)) => whole(step, &names),
        _ => steps
            .iter()
            .map(|step| line(step, &names))
            .collect::<Vec<_>>()
            .join("\n"),
    };
    output.result(&document, &text)
}

/// A document's name, or its number where the file does not name it.
fn name(sample: usize, names: &BTreeMap<usize, String>) -> String {
    names
        .get(&sample)
        .cloned()
        .unwrap_or_else(|| format!("sample {sample}"))
}

fn named(step: &StepDocuments, names: &StepNames) -> Value {
    let of = |micro: &[Vec<usize>], names: &BTreeMap<usize, String>| -> Vec<Vec<Value>> {
        let one = |&sample: &usize| json!({"sample": sample, "name": name(sample, names)});
        micro.iter().map(|batch| batch.iter().map(one).collect()).collect()
    };
    let mut value = json!({
        "step": step.step,
        "epoch": step.epoch,
        "micro_batches": of(&step.documents, &names.documents),
    });
    if !step.labelled.is_empty() {
        value["labelled"] = json!(of(&step.labelled, &names.labelled));
    }
    value
}

/// A line for every document.
fn whole(step: &StepDocuments, names: &StepNames) -> String {
    let mut lines = vec![format!("step {} (epoch {})", step.step, step.epoch)];
    for (what, micro, names) in [
        ("micro-batch", &step.documents, &names.documents),
        ("labelled solutions", &step.labelled, &names.labelled),
    ] {
        for (number, batch) in (1..).zip(micro) {
            lines.push(format!("{what} {number}"));
            lines.extend(
                batch
                    .iter()
                    .map(|&sample| format!("  {sample:>6}  {}", name(sample, names))),
            );
        }
    }
    lines.join("\n")
}

fn line(step: &StepDocuments, names: &StepNames) -> String {
    let documents = step.documents.iter().flatten();
    let all: Vec<String> = documents.map(|&sample| name(sample, &names.documents)).collect();
    format!("step {:>5}  {}", step.step, all.join(" "))
}
