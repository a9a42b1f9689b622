//! A second model that gives each token's cross-entropy: rho1's reference.

use crate::{
    data::Batch,
    scorer::{ScorerError, TokenCe},
    train::{
        loss::{HeadStates, rows_of, token_ce},
        packed, unpadded,
    },
};
use std::borrow::Cow;
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

    /// See [`unpadded`].
    pub fn unpadded<'a>(&self, batch: &'a Batch) -> Cow<'a, Batch> {
        unpadded(&self.model, batch)
    }
}

impl TokenCe for ModelCe {
    fn token_ce(&self, batch: &Batch) -> Result<Vec<f32>, ScorerError> {
        let input = packed(batch, &self.model.device());
        let context = self.model.context(&input);
        let trunk = self.model.trunk(&input, &context);
        let head = HeadStates::at(&self.model, 1, trunk, &context, rows_of(&batch.valid(1)));
        Ok(token_ce(head, self.model.unembedding(), batch, self.model.compute()))
    }
}
