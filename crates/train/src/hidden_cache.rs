//! Hidden states of the frozen model, kept for later epochs of the value stage: computing them is nearly all of
//! its work, and they stay as they are.

use std::{collections::HashMap, ops::Range};
use wmtp_data::{Batch, Document};

/// Floats that are kept at most: 1 GiB. Documents beyond are computed in every epoch.
const MOST: usize = 1 << 28;

/// Hidden states, and cross-entropy where it is wanted, by document, at the tokens that have a value: the last of
/// the prompt and the response.
#[derive(Debug, Default)]
pub(super) struct HiddenCache {
    documents: HashMap<usize, Kept>,
    floats: usize,
}

#[derive(Debug)]
struct Kept {
    /// `[tokens, D]`.
    hidden: Vec<f32>,
    /// `[tokens]`, or nothing.
    ce: Vec<f32>,
}

/// Flat indices of a document's tokens with a value.
fn tokens(document: &Document, batch: &Batch) -> Range<usize> {
    let response = document.response(batch.seq_len);
    response.start.saturating_sub(1)..response.end
}

impl HiddenCache {
    /// Hidden states `[B * S * D]` and cross-entropy `[B * S]` of a micro-batch, 0 at tokens without a value; None
    /// unless all its documents are kept.
    pub fn get(&self, batch: &Batch, size: usize) -> Option<(Vec<f32>, Vec<f32>)> {
        let positions = batch.tokens.len();
        let (mut hidden, mut ce) = (vec![0.0; positions * size], vec![0.0; positions]);
        for document in &batch.documents {
            let kept = self.documents.get(&document.sample)?;
            let tokens = tokens(document, batch);
            hidden
                .get_mut(tokens.start * size..tokens.end * size)?
                .copy_from_slice(&kept.hidden);
            if !kept.ce.is_empty() {
                ce.get_mut(tokens)?.copy_from_slice(&kept.ce);
            }
        }
        Some((hidden, ce))
    }

    /// Whether a micro-batch's documents can be kept.
    pub fn has_room(&self, batch: &Batch, size: usize) -> bool {
        self.floats + batch.tokens.len() * (size + 1) <= MOST
    }

    /// Keeps what was computed of a micro-batch: hidden states `[B * S * D]`, and cross-entropy `[B * S]` or
    /// nothing.
    pub fn keep(&mut self, batch: &Batch, size: usize, hidden: &[f32], ce: &[f32]) {
        for document in &batch.documents {
            let tokens = tokens(document, batch);
            let Some(own) = hidden.get(tokens.start * size..tokens.end * size) else {
                continue;
            };
            let kept = Kept {
                hidden: own.to_vec(),
                ce: ce.get(tokens).unwrap_or_default().to_vec(),
            };
            self.floats += kept.hidden.len() + kept.ce.len();
            self.documents.insert(document.sample, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wmtp_data::{Dataset, Tokenized};

    /// Documents of (prompt, response) tokens.
    fn data(lengths: &[(usize, usize)]) -> Dataset {
        let documents = lengths
            .iter()
            .enumerate()
            .map(|(sample, &(prompt, response))| Tokenized {
                sample,
                name: sample.to_string(),
                problem: 0,
                tokens: vec![7; prompt + response],
                prompt_len: prompt,
                untrained: Vec::new(),
                given: Vec::new(),
                reward: Some(1.0),
            });
        Dataset::from_tokenized(documents.collect(), 8, true).unwrap()
    }

    #[test]
    fn what_is_kept_comes_back_at_the_tokens_with_a_value_wherever_the_document_is() {
        let batch = &data(&[(2, 2), (1, 2)]).in_order(1).step(0).unwrap()[0];
        let hidden: Vec<f32> = (0..16).map(|x| x as f32).collect();
        let ce: Vec<f32> = (0..8).map(|x| 100.0 + x as f32).collect();
        let mut cache = HiddenCache::default();
        assert!(cache.get(batch, 2).is_none());
        cache.keep(batch, 2, &hidden, &ce);
        let (again, losses) = cache.get(batch, 2).unwrap();
        // Position 0 is in the first prompt and has no value; position 7 is padding.
        assert_eq!(again[..2], [0.0, 0.0]);
        assert_eq!(again[2..14], hidden[2..14]);
        assert_eq!(again[14..], [0.0, 0.0]);
        assert_eq!(losses[1..7], ce[1..7]);

        // The second document alone, at the start of its row.
        let mut alone = batch.clone();
        alone.documents.remove(0);
        alone.documents[0].start = 0;
        let (moved, _) = cache.get(&alone, 2).unwrap();
        assert_eq!(moved[..6], hidden[8..14]);
        assert!(cache.has_room(batch, 2) && !cache.has_room(batch, MOST));
    }
}
