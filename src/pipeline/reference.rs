//! A second model that gives each token's cross-entropy: rho1's reference.

use crate::{
    data::Batch,
    scorer::{ScorerError, TokenCe},
    train::{loss::token_ce, packed},
};
use wmtp_model::MtpLlama;

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
        let hidden = self.model.head(1, self.model.trunk(&input, &context), &context);
        Ok(token_ce(hidden, self.model.unembedding(), batch, self.model.compute()))
    }
}
