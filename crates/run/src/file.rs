//! Names of the files and directories in a run's directory.

/// What the run is: [`RunRecord`](super::RunRecord). A directory with this file is a run.
pub const RECORD: &str = "run.json";
/// The resolved config.
pub const CONFIG: &str = "config.yaml";
/// The resolved recipe.
pub const RECIPE: &str = "recipe.yaml";
/// A [`StepLine`](super::StepLine) for every step, a [`ValidLine`](super::ValidLine) for every validation.
pub const METRICS: &str = "metrics.jsonl";
/// An [`EventLine`](super::EventLine) for every event.
pub const EVENTS: &str = "events.jsonl";
/// Histograms of token weights: [`EdgesLine`](super::EdgesLine), then
/// [`HistogramLine`](super::HistogramLine)s.
pub const WEIGHTS: &str = "weights.jsonl";
/// Sampled documents token by token: [`TokensLine`](super::TokensLine)s.
pub const TOKENS: &str = "tokens.jsonl";
/// The documents of every step: [`StepNames`](super::StepNames), then
/// [`StepDocuments`](super::StepDocuments).
pub const STEPS: &str = "steps.jsonl";
/// Wall-clock time and memory: [`RunTiming`](super::RunTiming); of an evaluation its own figures.
pub const TIMING: &str = "timing.json";
/// Samples of an evaluation.
pub const SAMPLES: &str = "samples.jsonl";
/// Result of an evaluation.
pub const EVAL: &str = "eval.json";
/// Results of the evaluations of a run's checkpoints.
pub const EVALUATIONS: &str = "evaluations";
/// Pass@1 after each stage of a training run, and the samples behind it.
pub const STAGE_SCORES: &str = "stages.json";
/// The directory of those samples.
pub const STAGES: &str = "stages";
/// The run's page in Markdown.
pub const REPORT_MARKDOWN: &str = "report.md";
/// The run's page in HTML.
pub const REPORT_HTML: &str = "report.html";
/// The unweighted stage before everything else.
pub const PRETRAIN: &str = "pretrain";
/// Written when that stage has ended: its steps and losses.
pub const PRETRAIN_REPORT: &str = "pretrain/report.json";
/// A line for every step and validation of that stage.
pub const PRETRAIN_METRICS: &str = "pretrain/metrics.jsonl";
/// Verdicts on the data's programs, where the run found its labels by running them.
pub const LABELS: &str = "labels.json";
/// The critic's value stage.
pub const VALUE_STAGE: &str = "critic";
/// What the value stage learned.
pub const VALUE_STAGE_REPORT: &str = "critic/report.json";
/// Losses of the value stage.
pub const VALUE_STAGE_METRICS: &str = "critic/metrics.jsonl";
/// A value head: of the value stage, or of a checkpoint.
pub const VALUE_HEAD: &str = "value_head.safetensors";
/// Checkpoints by name.
pub const CHECKPOINTS: &str = "checkpoints";
/// Hashes of a checkpoint's files: [`Manifest`](super::Manifest).
pub const MANIFEST: &str = "manifest.json";
/// Trainer state of a checkpoint: [`TrainerState`](super::TrainerState).
pub const TRAINER: &str = "trainer.json";
/// Optimizer state of a checkpoint.
pub const OPTIMIZER: &str = "optimizer.bpk";
/// Spool and delivery state of trackers.
pub const TRACKING: &str = "tracking";

/// Name of the newest checkpoint.
pub const LAST: &str = "last";
/// Name of the checkpoint before `last`.
pub const PREVIOUS: &str = "previous";
/// Name of the checkpoint with the best validation loss.
pub const BEST: &str = "best";
/// Beginning of the names of periodic checkpoints, `step-000500`.
pub const STEP_PREFIX: &str = "step-";

/// Whether a checkpoint's file belongs to the model, and not to the training that made it.
pub fn is_of_model(name: &str) -> bool {
    ![OPTIMIZER, TRAINER, MANIFEST].contains(&name)
}
