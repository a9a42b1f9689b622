//! Stage 1's targets for a packed micro-batch: which tokens, and what their values are to be. Trains
//! nothing.

use super::values::{gae_targets, token_rewards};
use crate::CriticConfig;
use std::ops::Range;
use wmtp_data::{Batch, Document};

/// What the value head is to say, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct CriticTargets {
    /// `[B * S]`; 0 outside the mask.
    pub targets: Vec<f32>,
    /// `[B * S]`; the response tokens and the last prompt token of each document.
    pub mask: Vec<bool>,
}

/// Flat indices of the tokens at which a document's value counts: the last token of the prompt,
/// then the response. A document without a prompt has no value before its response: `None`.
pub(super) fn value_tokens(document: &Document, seq_len: usize) -> Option<Range<usize>> {
    let response = document.response(seq_len);
    (document.prompt_len > 0 && !response.is_empty()).then(|| response.start - 1..response.end)
}

/// Stage 1's targets for a micro-batch. `values` are the present value head's, `[B * S]`, without
/// gradient; `rewards` the sequence rewards R of `batch.documents`, in their order.
///
/// Documents without prompt, response or reward are masked out.
pub fn targets(batch: &Batch, values: &[f32], rewards: &[f32], config: &CriticConfig) -> CriticTargets {
    let mut out = CriticTargets {
        targets: vec![0.0; batch.tokens.len()],
        mask: vec![false; batch.tokens.len()],
    };
    for (document, &reward) in batch.documents.iter().zip(rewards) {
        let Some(tokens) = value_tokens(document, batch.seq_len) else {
            continue;
        };
        let Some(own) = values.get(tokens.clone()) else {
            continue;
        };
        let own: Vec<f64> = own.iter().map(|&v| f64::from(v)).collect();
        let n = own.len() - 1;
        let spread = token_rewards(f64::from(reward), n, config.spread, config.gamma);
        let wanted = gae_targets(&spread, &own, config.gamma, config.lambda_gae);
        for (slot, target) in out
            .targets
            .get_mut(tokens.clone())
            .unwrap_or_default()
            .iter_mut()
            .zip(wanted)
        {
            *slot = target as f32;
        }
        out.mask.get_mut(tokens).unwrap_or_default().fill(true);
    }
    out
}
