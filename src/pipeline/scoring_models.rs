//! Models as scorers see them: rho1's reference, the critic's value head and reward model.

use super::{PipelineError, request::Request};
use crate::{
    data::Batch,
    device::{ReadError, to_f32},
    scorer::{ScorerError, SequenceReward, TokenCe, Values},
    train::{
        CurrentHead,
        loss::{HeadHidden, HeadTargets, token_ce},
        packed,
    },
};
use burn::tensor::Tensor;
use wmtp_model::{CausalLm, LoadOptions, MtpLlama, RewardModel};

/// Head 1 of a frozen model.
pub struct ModelCe {
    model: MtpLlama,
}

impl ModelCe {
    /// `model` must be on a device without autodiff.
    pub fn new(model: MtpLlama) -> Self {
        Self { model }
    }
}

impl TokenCe for ModelCe {
    fn token_ce(&self, batch: &Batch) -> Result<Vec<f32>, ScorerError> {
        let input = packed(batch, &self.model.device());
        let context = self.model.context(&input);
        let trunk = self.model.trunk(&input, &context);
        let targets = HeadTargets::of(batch, 1);
        let head = HeadHidden::at(&self.model, 1, trunk, &context, targets.positions.clone());
        let unembedding = self.model.unembedding();
        Ok(token_ce(head, &targets, unembedding, batch, self.model.compute())?)
    }
}

/// The reference model, its first head alone.
pub fn reference(request: &Request) -> Result<ModelCe, PipelineError> {
    let dir = request.model_dirs.reference.as_ref().ok_or_else(|| {
        PipelineError::Setting(
            "`scorer.kind: rho1` needs `model.reference`: set it to the reference model's directory or URI (for instance the best checkpoint of a baseline run)".into(),
        )
    })?;
    let options = LoadOptions {
        n_heads: Some(1),
        ..LoadOptions::default()
    };
    Ok(ModelCe::new(dir.load(&options, &request.device)?))
}

/// A value head, frozen or as it is at each step.
pub struct HeadValues(pub CurrentHead);

impl Values for HeadValues {
    fn values(&self, hidden: &Tensor<3>) -> Result<Vec<f32>, ReadError> {
        to_f32(self.0.get().forward(hidden.clone()))
    }
}

/// A Llama with a scalar score head, read at each document's last token.
pub struct ModelReward(pub RewardModel);

impl SequenceReward for ModelReward {
    fn rewards(&self, batch: &Batch, _ce: Option<&[f32]>) -> Result<Vec<f32>, ScorerError> {
        let documents: Vec<Vec<u32>> = batch
            .documents
            .iter()
            .map(|d| {
                let first = d.row * batch.seq_len + d.start;
                batch.tokens[first..first + d.len].to_vec()
            })
            .collect();
        self.0.score(&documents).map_err(|e| ScorerError::Setup {
            scorer: "critic".into(),
            problem: format!("the reward model failed: {e}"),
        })
    }
}
