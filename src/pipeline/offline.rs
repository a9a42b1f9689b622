//! rho1's scores made once, before training, and kept in the cache: no second model is in memory
//! while training.

use super::{PipelineError, TrainRequest, reference::ModelCe, train::Prepared};
use crate::scorer::{CachedScores, Needs, Offline, Rho1, Rho1Config, ScoreInput, Scorer, TokenCe};
use std::path::Path;
use wmtp_model::{ModelError, MtpLlama};

/// The scores from the cache, or made now. `base` is the model that training starts from.
pub fn scores(
    config: &Rho1Config,
    request: &TrainRequest,
    prepared: &Prepared,
    base: &MtpLlama,
    reference_dir: &Path,
    load: impl Fn() -> Result<MtpLlama, ModelError>,
) -> Result<Box<dyn Scorer>, PipelineError> {
    let settings = serde_json::to_string(config).map_err(|e| PipelineError::Setting(e.to_string()))?;
    let hashes = [
        wmtp_model::model_hash(&request.sources.base)?,
        wmtp_model::model_hash(reference_dir)?,
    ];
    let data = prepared.splits.train.hash();
    let key = CachedScores::key(data, &[&hashes[0], &hashes[1]], &settings);
    let mut scorer = Rho1::new(config, Box::new(ModelCe::new(load()?)))?;
    if let Some(cached) = CachedScores::load(&request.cache, &key)? {
        return Ok(Box::new(Offline::new(&scorer, cached)));
    }
    let base = ModelCe::new(base.clone());
    let mut cached = CachedScores::new(key);
    for batch in prepared.splits.train.in_order(prepared.shape.micro_batch) {
        let batch = base.unpadded(&batch);
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
    cached.save(&request.cache)?;
    Ok(Box::new(Offline::new(&scorer, cached)))
}
