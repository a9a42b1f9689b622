//! rho1's scores made once, before training, and kept in the cache: no second model is in memory
//! while training.

use super::{
    ModelDir, PipelineError,
    request::{Prepared, Request},
    scoring_models::{ModelCe, reference},
};
use crate::{
    data::Batch,
    scorer::{CachedScores, Needs, Parts, ScoreInput, ScorerConfig, TokenCe},
};
use wmtp_model::{CausalLm, LlamaConfig, MtpLlama};

/// The scores from the cache, or made now. `base` is the model that training starts from.
pub fn scores(
    config: &ScorerConfig,
    request: &Request,
    prepared: &Prepared,
    base: &MtpLlama,
) -> Result<CachedScores, PipelineError> {
    let reference_hash = request.model_dirs.reference.as_ref().map(ModelDir::hash).transpose()?;
    let hashes = [request.model_dirs.model.hash()?, reference_hash.unwrap_or_default()];
    let settings = key_settings(config, request)?;
    let data = prepared.splits.train.hash();
    let key = CachedScores::key(data, &[&hashes[0], &hashes[1]], &settings);
    if let Some(cached) = CachedScores::load(&request.cache(), &key)? {
        return Ok(cached);
    }
    let mut scorer = config.build(Parts {
        seed: request.seed(),
        over: request.recipe.weights.over,
        reference: Some(Box::new(reference(request)?)),
        ..Parts::default()
    })?;
    let ragged = base.attends_by_document();
    let base = ModelCe::new(base.clone());
    let mut cached = CachedScores::new(key);
    for batch in prepared.splits.train.in_order(prepared.shape.micro_batch).batches() {
        let batch: Batch = if ragged { batch?.ragged() } else { batch? };
        let ce = base.token_ce(&batch)?;
        debug_assert_eq!(
            scorer.needs(),
            Needs {
                hidden: false,
                ce: true
            }
        );
        let scores = scorer.score(&ScoreInput {
            batch: &batch,
            hidden: None,
            ce: Some(&ce),
            step: 0,
        })?;
        cached.add(&batch, &scores);
    }
    cached.save(&request.cache())?;
    Ok(cached)
}

/// Everything but weights and data that the scores depend on: the scorer's settings, what the two
/// models compute from their weights, and in which precision.
fn key_settings(config: &ScorerConfig, request: &Request) -> Result<String, PipelineError> {
    let mut scorer = serde_json::to_value(config).unwrap_or_default();
    if let Some(settings) = scorer.as_object_mut() {
        // Files of earlier versions have keys without it.
        settings.retain(|key, _| key != "kind");
    }
    let base = request.model_dirs.model.config()?;
    let reference = request
        .model_dirs
        .reference
        .as_ref()
        .map(ModelDir::config)
        .transpose()?;
    let settings = serde_json::json!({
        "scorer": scorer,
        "base": computation(&base),
        "reference": reference.as_ref().map(computation),
        "base_precision": request.recipe.train.precision,
        "reference_precision": "f32",
    });
    Ok(settings.to_string())
}

/// The fields of a configuration that change what is computed from the same tensors.
fn computation(config: &LlamaConfig) -> serde_json::Value {
    serde_json::json!({
        "rms_norm_eps": config.rms_norm_eps,
        "rope": format!("{:?}", config.rope),
        "head_dim": config.head_dim,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "tie_word_embeddings": config.tie_word_embeddings,
    })
}
