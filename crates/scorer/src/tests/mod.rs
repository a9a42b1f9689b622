//! Behaviour of the scorers and the normaliser, against literal values and NumPy's.

mod critic;
mod offline;
mod scorers;
mod weights;

use crate::ScoreInput;
use wmtp_data::{Batch, Dataset, Tokenized};

/// A batch with all documents, given as (prompt length, response length), in rows of `seq_len`.
fn batch(sizes: &[(usize, usize)], seq_len: usize) -> Batch {
    dataset(sizes, seq_len).in_order(usize::MAX).step(0).unwrap().remove(0)
}

/// Documents as [`batch`] takes them.
fn dataset(sizes: &[(usize, usize)], seq_len: usize) -> Dataset {
    let documents = sizes
        .iter()
        .enumerate()
        .map(|(sample, &(prompt_len, response))| Tokenized {
            sample: sample + 10,
            name: format!("doc/{}", sample + 10),
            problem: 1,
            tokens: (0..(prompt_len + response) as u32).collect(),
            untrained: Vec::new(),
            given: Vec::new(),
            prompt_len,
            reward: None,
        })
        .collect();
    Dataset::from_tokenized(documents, seq_len, true).unwrap()
}

fn input<'a>(batch: &'a Batch, ce: Option<&'a [f32]>) -> ScoreInput<'a> {
    ScoreInput {
        batch,
        hidden: None,
        ce,
        step: 0,
    }
}

/// The response tokens' values of the document with the given index.
fn response(batch: &Batch, values: &[f32], document: usize) -> Vec<f32> {
    values[batch.documents[document].response(batch.seq_len)].to_vec()
}
