//! `--dry-run`: everything resolved and counted, nothing trained or written.

use super::{
    PipelineError, TrainRequest,
    train::{prepare, token_lines},
};
use crate::{data::TokenReport, scorer::WeightGroup};
use serde::Serialize;
use std::path::PathBuf;

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
    /// Documents held out.
    pub validation_documents: usize,
    /// Estimated peak memory in bytes: weights, gradients, optimizer state and activations.
    pub estimated_peak_memory: u64,
    /// Where the run would be written.
    pub run_dir: PathBuf,
}

/// Resolves and counts everything.
pub fn plan(request: &TrainRequest) -> Result<PlanReport, PipelineError> {
    let prepared = prepare(request)?;
    let recipe = &request.recipe;
    let config = &prepared.config;
    let report = prepared.splits.train.report();
    let parameters = config.num_params();
    let trained = match &recipe.train.lora {
        Some(lora) => adapter_parameters(config, lora.rank),
        None => parameters,
    };
    let rows = recipe.batching.micro_batch;
    let positions = rows * recipe.data.seq_len;
    Ok(PlanReport {
        algorithm: request.algorithm.name(),
        model: recipe.model.base.clone(),
        model_dir: request.sources.base.clone(),
        device: request.device_name.clone(),
        heads: config.n_heads,
        parameters,
        trained_parameters: trained,
        documents: report.documents,
        documents_too_long: report.dropped.len(),
        tokens_per_epoch: report.prompt_tokens + report.response_tokens,
        response_tokens_per_epoch: report.response_tokens,
        tokens: prepared.splits.tokens.clone(),
        token_notes: token_lines(&prepared.splits.tokens, &prepared.tokenizer),
        micro_batch: [rows, recipe.data.seq_len],
        accumulate: prepared.shape.accumulate,
        steps: prepared.total_steps,
        validation_documents: prepared.splits.valid.report().documents,
        estimated_peak_memory: peak(request, config, parameters, trained, positions),
        run_dir: request.output.join(&request.run_name),
    })
}

fn adapter_parameters(config: &wmtp_model::LlamaConfig, rank: usize) -> usize {
    let (d, i) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.query_size(), config.key_value_size());
    let per_layer = rank * ((d + q) + 2 * (d + kv) + (q + d) + 2 * (d + i) + (i + d));
    per_layer * (config.num_hidden_layers + config.n_heads - 1)
}

/// Weights once; gradient and two moments for what is trained; per layer and position the tensors
/// that backward keeps (about 8 of width D, 3 of width I, and 3 rows of scores per head); one chunk
/// of logits; the program itself.
fn peak(
    request: &TrainRequest,
    config: &wmtp_model::LlamaConfig,
    parameters: usize,
    trained: usize,
    positions: usize,
) -> u64 {
    let layers = config.num_hidden_layers + config.n_heads - 1;
    let scores = 3 * config.num_attention_heads * request.recipe.data.seq_len;
    let per_position = 8 * config.hidden_size + 4 * config.intermediate_size + scores;
    let activations = layers * positions * per_position;
    let extra_forward = if request.recipe.weights.over == WeightGroup::Step {
        positions * per_position
    } else {
        0
    };
    let reference = if request.sources.reference.is_some() {
        parameters
    } else {
        0
    };
    let floats = parameters + 3 * trained + activations + extra_forward + reference;
    4 * floats as u64 + (128 << 20)
}
