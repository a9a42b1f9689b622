//! `--dry-run`: everything resolved and counted, nothing trained or written.

use super::{
    PipelineError,
    memory::{self, MemoryEstimate, MicroBatch},
    memory_room::Room,
    model_dirs::{check_rank, load_options},
    request::{Prepared, Request, prepare},
    start::token_lines,
    value_stage::{planned_steps, solutions as labelled},
};
use crate::{
    data::{Batch, DataError, TokenReport},
    device::Capabilities,
    run,
    scorer::ScoringTime,
    settings::has_random_weights,
    text::gib,
};
use serde::Serialize;
use std::path::PathBuf;
use wmtp_model::LoadOptions;

/// Share of documents longer than a row above which the plan warns.
const TOO_LONG: f64 = 0.05;
/// Optimizer steps whose micro-batches are looked at for the largest one.
const LOOKED_AT: usize = 2000;
/// The same before a run begins, which must not take long.
const LOOKED_AT_FIRST: usize = 50;

/// What a run would do.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The pipeline.
    pub algorithm: &'static str,
    /// The model, as the recipe names it.
    pub model: String,
    /// Its directory here.
    pub model_dir: PathBuf,
    /// The device.
    pub device: String,
    /// Prediction heads.
    pub heads: usize,
    /// Parameters, heads included.
    pub parameters: usize,
    /// Parameters that are trained.
    pub trained_parameters: usize,
    /// Documents trained on.
    pub documents: usize,
    /// Documents longer than a row, left out.
    pub documents_too_long: usize,
    /// Their share of all documents, 0 to 1.
    pub share_too_long: f64,
    /// Tokens of one epoch, prompts included.
    pub tokens_per_epoch: usize,
    /// Tokens of one epoch that carry loss.
    pub response_tokens_per_epoch: usize,
    /// Special tokens, those that the data spell, and text files left out.
    pub tokens: TokenReport,
    /// The same in sentences, where there is something to say.
    pub token_notes: Vec<String>,
    /// Rows and columns of a micro-batch.
    pub micro_batch: [usize; 2],
    /// Micro-batches in an optimizer step.
    pub accumulate: usize,
    /// Optimizer steps.
    pub steps: usize,
    /// The critic's value stage, which comes before them; None without one.
    pub value_stage: Option<ValueStagePlan>,
    /// Steps of the unweighted stage before it; 0 without one.
    pub pretrain_steps: usize,
    /// True if the model starts from random weights, which has settings of its own.
    pub random_weights: bool,
    /// Peak learning rate of the schedule.
    pub learning_rate: f64,
    /// Heads that the checkpoint lacks and that are made for it.
    pub new_heads: usize,
    /// Documents held out.
    pub validation_documents: usize,
    /// About how many of them a validation reads.
    pub validated_documents: usize,
    /// Samples left out because they copy an evaluation problem.
    pub copies_left_out: usize,
    /// Estimated peak memory of the training process in bytes.
    pub estimated_peak_memory: u64,
    /// What that is made of.
    pub memory: MemoryEstimate,
    /// Physical memory of this machine, or the limit of its control group; None if unknown, or on
    /// another device than the processor.
    pub machine_memory: Option<u64>,
    /// Where the run would be written.
    pub run_dir: PathBuf,
    /// What is likely to go wrong, and what to do; a sentence each.
    pub warnings: Vec<String>,
}

/// The critic's first stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ValueStagePlan {
    /// Labelled solutions that the value head learns from.
    pub solutions: usize,
    /// Optimizer steps.
    pub steps: usize,
}

/// Resolves and counts everything.
pub(super) fn plan(request: &Request) -> Result<PlanReport, PipelineError> {
    let prepared = prepare(request)?;
    let recipe = &request.recipe;
    let config = &prepared.config;
    check_rank(recipe, config)?;
    let options = load_options(recipe, request.seed());
    request.model_dirs.model.check(&options)?;
    if let Some(reference) = &request.model_dirs.reference {
        let n_heads = Some(1);
        reference.check(&LoadOptions { n_heads, ..options })?;
    }
    let report = prepared.splits.train.report();
    let parameters = config.num_params();
    let trained = match &recipe.train.lora {
        Some(lora) => memory::adapter_parameters(config, lora.rank),
        None => parameters,
    };
    let rows = recipe.batching.micro_batch;
    let memory = estimated(request, &prepared, LOOKED_AT)?;
    let long = report.too_long;
    let held_out = prepared.splits.valid.report().documents;
    let mut plan = PlanReport {
        algorithm: request.pipeline.name(),
        model: recipe.model.base.clone(),
        model_dir: request.model_dirs.model.whole().to_owned(),
        device: request.device_name.clone(),
        heads: config.n_heads,
        parameters,
        trained_parameters: trained,
        documents: report.documents,
        documents_too_long: long,
        share_too_long: long as f64 / (report.documents + long).max(1) as f64,
        tokens_per_epoch: report.prompt_tokens + report.response_tokens,
        response_tokens_per_epoch: report.response_tokens,
        tokens: prepared.splits.tokens.clone(),
        token_notes: token_lines(&prepared.splits.tokens, &prepared.tokenizer),
        micro_batch: [rows, recipe.data.seq_len],
        accumulate: prepared.shape.accumulate,
        steps: prepared.total_steps,
        value_stage: value_stage(request, &prepared)?,
        pretrain_steps: recipe.train.pretrain.steps,
        random_weights: has_random_weights(&recipe.model.base),
        learning_rate: recipe.optim.lr,
        new_heads: prepared.new_heads,
        validation_documents: held_out,
        copies_left_out: prepared.splits.overlap.left_out,
        validated_documents: match recipe.train.validate_documents {
            0 => held_out,
            most => held_out.min(most),
        },
        estimated_peak_memory: memory.peak,
        memory,
        machine_memory: Capabilities::of(&request.device)
            .host_threads
            .then(run::memory_limit)
            .flatten(),
        run_dir: request.runs().join(&request.run_name),
        warnings: Vec::new(),
    };
    plan.warnings = warnings(&plan, request);
    Ok(plan)
}

/// Refuses a run that this process can't have the memory for, and warns of one that it may not have it for.
///
/// # Errors
/// The refusal; documents or models that can't be read.
pub(super) fn check_memory(request: &Request, prepared: &Prepared) -> Result<(), PipelineError> {
    if Capabilities::of(&request.device).host_threads {
        let needed = estimated(request, prepared, LOOKED_AT_FIRST)?.peak;
        if let Some(warning) = Room::here().check(needed)? {
            request.progress.warning(&warning);
        }
    }
    Ok(())
}

/// The memory of the run, by the micro-batches of its first `steps` steps.
fn estimated(request: &Request, prepared: &Prepared, steps: usize) -> Result<MemoryEstimate, PipelineError> {
    Ok(memory::estimate(
        &prepared.config,
        &request.recipe,
        largest_micro_batch(request, prepared, steps)?,
        prepared.shape.accumulate > 1,
        reference_parameters(request)?,
    ))
}

/// What the value stage would do; None where there is none, or its head is given.
fn value_stage(request: &Request, prepared: &Prepared) -> Result<Option<ValueStagePlan>, PipelineError> {
    let critic = request.recipe.scorer.models_needed().value;
    let Some(critic) = critic.filter(|critic| critic.value_head.is_none()) else {
        return Ok(None);
    };
    let solutions = prepared.solutions(request)?.train;
    Ok(Some(ValueStagePlan {
        solutions: labelled(critic, &solutions),
        steps: planned_steps(critic, &solutions, request.seed(), prepared.shape.micro_batch),
    }))
}

/// The micro-batch that needs the most memory, in each figure, among the first `most` steps of the first epoch.
fn largest_micro_batch(request: &Request, prepared: &Prepared, most: usize) -> Result<MicroBatch, DataError> {
    let heads = prepared.config.n_heads;
    let everywhere = request.recipe.scorer.models_needed().value.is_some();
    // Elsewhere padding is computed as well, and what a head needs is not gathered first.
    let ragged = Capabilities::of(&request.device).ragged;
    let sizes = |batch: &Batch| {
        let tokens: usize = if ragged {
            batch.documents.iter().map(|document| document.len).sum()
        } else {
            batch.tokens.len()
        };
        let rows = |k: usize| batch.valid(k).into_iter().filter(|&valid| valid).count();
        let rows = (1..=heads).map(|k| if k == 1 && everywhere { tokens } else { rows(k) });
        MicroBatch {
            tokens,
            rows: rows.collect(),
        }
    };
    let epoch = prepared.splits.train.epoch(request.seed(), 0, prepared.shape);
    let steps = epoch.len().min(prepared.total_steps).min(most);
    let mut largest = MicroBatch::default();
    for step in 0..steps {
        for batch in epoch.step(step)? {
            largest = largest.or_larger(&sizes(&batch));
        }
    }
    Ok(largest)
}

/// Parameters of the model that scores while the other one trains.
fn reference_parameters(request: &Request) -> Result<usize, PipelineError> {
    let online = request.recipe.scorer.models_needed().reference == Some(ScoringTime::Online);
    let Some(reference) = request.model_dirs.reference.as_ref().filter(|_| online) else {
        return Ok(0);
    };
    let mut config = reference.config()?;
    config.n_heads = 1;
    Ok(config.num_params())
}

fn warnings(plan: &PlanReport, request: &Request) -> Vec<String> {
    let mut warnings = Vec::new();
    if plan.share_too_long > TOO_LONG {
        warnings.push(format!(
            "{:.0}% of the documents are longer than `data.seq_len` = {} and are left out; raise it",
            100.0 * plan.share_too_long,
            plan.micro_batch[1]
        ));
    }
    if plan.new_heads > 0 && request.recipe.train.head_warmup.steps == 0 {
        warnings.push(format!(
            "{} of the heads are new to this model, and their losses would pull at what it knows: set \
             `train.head_warmup.steps`, or train head 1 alone with model.mtp.n_heads=1",
            plan.new_heads
        ));
    }
    warnings.extend(
        plan.machine_memory
            .and_then(|machine| memory_warning(plan.estimated_peak_memory, machine)),
    );
    warnings
}

/// A sentence where the run needs more memory than there is, both in bytes.
fn memory_warning(peak: u64, machine: u64) -> Option<String> {
    (peak > machine).then(|| {
        format!(
            "the run needs about {:.1} GiB and this machine has {:.1} GiB: lower `batching.micro_batch` or \
             `data.seq_len`, or set train.recompute=block, train.precision=pure-bf16 or train.lora",
            gib(peak),
            gib(machine)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_over_the_machine_s_memory_says_so() {
        const GIB: u64 = 1 << 30;
        assert_eq!(memory_warning(24 * GIB, 24 * GIB), None);
        let warning = memory_warning(3912 * GIB, 24 * GIB).unwrap();
        assert!(
            warning.contains("about 3912.0 GiB and this machine has 24.0 GiB"),
            "{warning}"
        );
    }
}
