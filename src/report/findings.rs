//! "What went wrong, and next": rules over a run's events and figures.
//!
//! Each rule is a function next to its threshold and gives an observation and an advice. The rules find
//! frequent problems; a run without findings may still be a bad one.

use super::{
    figures::{ends, median},
    run::Run,
    summary::percent,
};
use crate::run::{RunDir, file::BEST};
use serde::Serialize;
use serde_json::Value;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The result can't be used as it is.
    Problem,
    /// The result needs a check.
    Warning,
    /// Good to know.
    Note,
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// The rule's name, for programs.
    pub rule: &'static str,
    /// The observation with its figures.
    pub seen: String,
    /// What to do next.
    pub next: String,
}

/// Everything that the rules find, the worst first.
pub fn findings(run: &Run) -> Vec<Finding> {
    let rules: [fn(&Run) -> Vec<Finding>; 5] = [of_events, of_losses, of_weights, of_data, of_evaluations];
    let rules = if run.evaluation { &rules[4..] } else { &rules[..] };
    let mut all: Vec<Finding> = rules.iter().flat_map(|rule| rule(run)).collect();
    all.sort_by_key(|finding| finding.level);
    all
}

fn finding(level: Level, rule: &'static str, seen: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding {
        level,
        rule,
        seen: seen.into(),
        next: next.into(),
    }
}

/// Share of steps that were not applied from which on it is a warning.
const SKIPPED: f64 = 0.01;

fn of_events(run: &Run) -> Vec<Finding> {
    let mut found = Vec::new();
    let count = |kind: &str| run.events_of(kind).count();
    if let Some(event) = run.events_of("failed").last().filter(|_| !run.finished()) {
        found.push(finding(
            Level::Problem,
            "failed",
            format!(
                "Training stopped with an error at step {}: {}",
                event.step, event.reason
            ),
            "Do what the error says, then resume with `wmtp train … --resume`.",
        ));
    } else if !run.finished() {
        let last = run.steps.last().map_or(0, |line| line.step);
        let of = run.record.steps.map_or(String::new(), |steps| format!(" of {steps}"));
        let how = if count("interrupted") > 0 {
            "was interrupted"
        } else {
            "has not ended"
        };
        found.push(finding(
            Level::Warning,
            "unfinished",
            format!("The run {how}: {last} steps{of} are done."),
            "Resume with `wmtp train … --resume`; the last figures are those of an unfinished schedule.",
        ));
    }
    let rollbacks = count("rollback");
    if rollbacks > 0 {
        found.push(finding(
            Level::Problem,
            "rollbacks",
            format!(
                "The run returned to an earlier checkpoint {rollbacks} time(s), and halved its learning rate each time."
            ),
            "Start again with a lower `optim.lr`, or look at the batches that were dumped into the run directory.",
        ));
    }
    let skipped = run.steps.iter().filter(|line| !line.applied).count();
    if skipped > 0 {
        let share = skipped as f64 / run.steps.len() as f64;
        let level = if share > SKIPPED { Level::Warning } else { Level::Note };
        let first = run
            .events_of("skip")
            .next()
            .map_or(String::new(), |event| format!(" The first: {}.", event.reason));
        found.push(finding(
            level,
            "skips",
            format!(
                "{skipped} of {} steps ({}) were not applied.{first}",
                run.steps.len(),
                percent(share)
            ),
            "A few are harmless; many mean a too high learning rate or a broken document.",
        ));
    }
    let damaged = count("damaged-checkpoint");
    if damaged > 0 {
        found.push(finding(
            Level::Warning,
            "damaged-checkpoints",
            format!("{damaged} checkpoint(s) did not match their hashes and were passed over."),
            "Check the disk: the steps after the checkpoint before were trained twice.",
        ));
    }
    let resumes = count("resume");
    if resumes > 0 {
        found.push(finding(
            Level::Note,
            "resumes",
            format!("The run was resumed {resumes} time(s)."),
            "Nothing: a resumed run ends as an uninterrupted one. Throughput is measured per process.",
        ));
    }
    found
}

/// The training loss should end below this share of where it began.
const FELL: f64 = 0.98;
/// Minimum number of steps for this rule.
const STEPS: usize = 20;
/// Ratio of the last to the lowest validation loss above which it counts as risen.
const RISEN: f64 = 1.01;
/// Ratio of a gradient norm to its median above which it is a spike.
const SPIKE: f64 = 10.0;
/// Share of clipped steps above which clipping decides the step size.
const CLIPPED: f64 = 0.9;

fn of_losses(run: &Run) -> Vec<Finding> {
    let mut found = Vec::new();
    // Head 1's unweighted loss: the weighted one moves with the weights, too.
    let ce: Vec<f64> = run.steps.iter().filter_map(|line| line.ce(1)).collect();
    // After a stage of its own the model has learned most of what it will.
    let pretrained = run
        .recipe
        .get("train.pretrain.steps")
        .is_some_and(|steps| steps.as_u64() > Some(0));
    let rule = |(first, last): &(f64, f64)| !pretrained && ce.len() >= STEPS && *last > FELL * first;
    if let Some((first, last)) = ends(&ce).filter(rule) {
        found.push(finding(
            Level::Problem,
            "loss-not-falling",
            format!(
                "Head 1's cross-entropy hardly fell: {first:.3} in the first tenth of the steps, {last:.3} in the last."
            ),
            "Try a higher `optim.lr` or more epochs; check that the prompts have the format that the model was trained on.",
        ));
    }
    let valid: Vec<(usize, f64)> = run
        .validations
        .iter()
        .filter_map(|line| Some((line.step, line.valid_loss?)))
        .collect();
    if run.finished() && valid.is_empty() {
        found.push(finding(
            Level::Warning,
            "no-validation",
            "There was no validation.",
            "Keep some documents held out (`data.valid_tasks`): without them the best checkpoint is unknown.",
        ));
    }
    let best = valid.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
    if let (Some((at, best)), Some(&(_, last))) = (best, valid.last())
        && last > RISEN * best
    {
        found.push(finding(
            Level::Warning,
            "validation-rising",
            format!("The validation loss was lowest at step {at} ({best:.4}) and ended at {last:.4}."),
            "Evaluate `checkpoints/best`, not `last`; train shorter, or set `train.early_stopping.patience`.",
        ));
    }
    let norms = || run.steps.iter().filter_map(|line| line.grad_norm);
    if let Some(middle) = median(norms()).filter(|middle| *middle > 0.0) {
        let spikes = norms().filter(|norm| *norm > SPIKE * middle).count();
        if spikes > 0 {
            found.push(finding(
                Level::Note,
                "gradient-spikes",
                format!("{spikes} step(s) had a gradient norm above {SPIKE:.0} times the median of {middle:.3}."),
                "Clipping has bounded them; if the loss jumps there too, lower `optim.lr` or raise `optim.warmup`.",
            ));
        }
    }
    let clip = run.recipe.get("optim.clip_norm").and_then(Value::as_f64).unwrap_or(0.0);
    let share = norms().filter(|norm| *norm > clip).count() as f64 / run.steps.len().max(1) as f64;
    if clip > 0.0 && share > CLIPPED && run.steps.len() >= STEPS {
        found.push(finding(
            Level::Note,
            "always-clipped",
            format!(
                "The gradient norm was above `optim.clip_norm` ({clip}) in {} of the steps.",
                percent(share)
            ),
            "Clipping then decides the step size, not the learning rate; compare arms with the same clipping.",
        ));
    }
    found
}

/// Share of groups that may have weight 1 because a score is not finite.
const FALLBACKS: f64 = 0.001;
/// Below this entropy a few tokens carry the loss.
const COLLAPSED: f64 = 0.7;
/// Weights that differ by less count as uniform.
const FLAT: f64 = 0.01;
/// A value head at or below this AUROC is hardly better than chance.
const CHANCE: f64 = 0.6;

fn of_weights(run: &Run) -> Vec<Finding> {
    let mut found = Vec::new();
    let (fallbacks, groups) = run
        .trainer
        .as_ref()
        .map_or((0, 0), |state| (state.fallbacks, state.groups));
    let share = fallbacks as f64 / (groups as f64).max(1.0);
    if share > 0.0 {
        let level = if share > FALLBACKS { Level::Warning } else { Level::Note };
        found.push(finding(
            level,
            "weight-fallbacks",
            format!(
                "{} of the groups of tokens had a score that was not finite, and weight 1 instead.",
                percent(share)
            ),
            "The first is named among the events; check the scorer on that document.",
        ));
    }
    let entropies: Vec<f64> = run.steps.iter().filter_map(|line| line.weight_entropy).collect();
    let selects = run.recipe.get("scorer.mode").is_some_and(|mode| mode == "select");
    if let Some((_, last)) = ends(&entropies).filter(|(_, last)| *last < COLLAPSED && !selects) {
        found.push(finding(
            Level::Warning,
            "weights-collapsed",
            format!("The weights' entropy ended at {last:.2} of its largest value: few tokens carry the loss."),
            "Raise `weights.temperature` or `weights.eps`, or lower `weights.w_max`.",
        ));
    }
    let kind = run
        .recipe
        .get("scorer.kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let spread = |line: &crate::run::StepLine| Some(line.weight_max? - line.weight_min?);
    let widest = run
        .steps
        .iter()
        .filter_map(spread)
        .fold(None, |widest: Option<f64>, s| {
            Some(widest.map_or(s, |widest| widest.max(s)))
        });
    if kind != "uniform" && widest.is_some_and(|widest| widest < FLAT) {
        found.push(finding(
            Level::Warning,
            "weights-flat",
            format!("All weights are 1: the scores of `{kind}` hardly differ."),
            "This run is a baseline by another name; look at the scores of the samples below.",
        ));
    }
    let held_out = run.value_stage.as_ref().map(|report| &report["held_out"]);
    // Within problems where there are pairs: that is what `loss: pairwise` learns.
    let auroc = held_out.and_then(|figures| figures["within_mean"].as_f64().or(figures["auroc_last"].as_f64()));
    let knows_nothing = auroc.filter(|auroc| *auroc < CHANCE);
    if run
        .value_stage
        .as_ref()
        .is_some_and(|report| report["beats_likelihood"] == false)
        && knows_nothing.is_none()
    {
        found.push(finding(
            Level::Note,
            "critic-below-likelihood",
            "On held-out solutions the model's own likelihood tells right from wrong as well as the value head does, or better.",
            "What the weights add to the likelihood is not shown: compare with `scorer.kind: random` and `uniform` before you rely on them.",
        ));
    }
    if let Some(auroc) = knows_nothing {
        found.push(finding(
            Level::Warning,
            "critic-knows-nothing",
            format!("On held-out solutions the value head tells right from wrong with an AUROC of {auroc:.2}; 0.5 is chance."),
            "Its weights are close to noise: train it longer (`scorer.epochs`, `scorer.max_steps`), on more solutions, or on a better model.",
        ));
    }
    found
}

/// Documents left out for their length.
const TOO_LONG: f64 = 0.05;

fn of_data(run: &Run) -> Vec<Finding> {
    let kept = run.record.documents.unwrap_or(0) as f64;
    let named = run.record.documents_too_long.as_ref().map_or(0, Vec::len);
    let dropped = run.record.documents_too_long_count.unwrap_or(named) as f64;
    let share = dropped / (kept + dropped).max(1.0);
    if share <= TOO_LONG {
        return Vec::new();
    }
    vec![finding(
        Level::Warning,
        "documents-too-long",
        format!(
            "{dropped:.0} of {:.0} documents ({}) were left out because they are longer than a row.",
            kept + dropped,
            percent(share)
        ),
        "Raise `data.seq_len`.",
    )]
}

/// An interval wider than this tells arms apart only if they differ much.
const WIDE: f64 = 0.1;
/// Share of samples that are no Python, time out or write too much above which the score does not measure
/// the ability to program.
const BROKEN: f64 = 0.2;

fn of_evaluations(run: &Run) -> Vec<Finding> {
    let mut found = Vec::new();
    if run.evaluations.is_empty() {
        if run.finished() {
            found.push(finding(
                Level::Note,
                "not-evaluated",
                "No checkpoint of this run has been evaluated.",
                format!(
                    "wmtp eval mbpp --model {}",
                    RunDir::at(&run.dir).checkpoint(BEST).display()
                ),
            ));
        }
        return found;
    }
    // What a run measured before its last stage is shown, and says nothing of its result.
    let of_the_end = run.evaluations.iter().filter(|e| e.report["intermediate"] != true);
    for evaluation in of_the_end {
        let report = &evaluation.report;
        let name = super::run::visible(report["benchmark"].as_str().unwrap_or(&evaluation.name));
        let end = |i: usize| report["ci95"][i].as_f64();
        if let (Some(low), Some(high)) = (end(0), end(1))
            && high - low > WIDE
        {
            found.push(finding(
                Level::Note,
                "wide-interval",
                format!(
                    "pass@1 on {name} is known only to lie between {} and {}.",
                    percent(low),
                    percent(high)
                ),
                "Evaluate on more problems: more samples of the same problems hardly narrow it.",
            ));
        }
        let seen = super::evaluation::seen(report);
        if !seen.is_empty() {
            found.push(finding(
                Level::Warning,
                "seen-problems",
                format!(
                    "The score on {name} is not one on unseen problems: {}.",
                    seen.join("; ")
                ),
                "Evaluate on problems that no training data hold (MBPP's test split is 11 to 510).",
            ));
        }
        let not_verified = report["not_verified"].as_u64().unwrap_or(0);
        if not_verified > 0 {
            found.push(finding(
                Level::Warning,
                "passes-not-verified",
                format!("{not_verified} passes on {name} do not hold where the program cannot reach the checks."),
                "Quote the verified pass@k, and read those samples: `reason` in samples.jsonl.",
            ));
        }
        let share = |key: &str| report["shares"][key].as_f64().unwrap_or(0.0);
        for (share, what, next) in [
            (
                1.0 - report["shares"]["parse"].as_f64().unwrap_or(1.0),
                "are no Python",
                "Read some: the prompt's format, a code fence, or `eval.max_new_tokens` may be to blame.",
            ),
            (
                share("timeout"),
                "ran out of time",
                "Read some; a slow machine may need a higher `eval.timeout_seconds`.",
            ),
            (
                share("output_limit"),
                "wrote too much",
                "Read some: they loop while they print.",
            ),
        ] {
            if share > BROKEN {
                found.push(finding(
                    Level::Warning,
                    "broken-samples",
                    format!("{} of the samples on {name} {what}.", percent(share)),
                    next,
                ));
            }
        }
    }
    found.push(finding(
        Level::Note,
        "one-seed",
        "This is one run with one seed; the interval is over problems and says nothing about other seeds.",
        "Repeat it with other seeds before arms are compared.",
    ));
    found
}

#[cfg(test)]
mod tests;
