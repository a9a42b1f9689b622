//! What scorer and heads make of a few fixed documents, token by token: for people to look at.

use super::{
    RecordConfig, WeightedMtp,
    forward::Forward,
    loss::{HeadTargets, head_ce},
    weighting::FrozenHead,
};
use burn::module::Module;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wmtp_data::{Batch, DataError, Dataset, Document, Splits, Tokenized, Tokenizer};
use wmtp_device::ReadError;
use wmtp_model::CausalLm;
use wmtp_run::Observed;
use wmtp_scorer::{Explained, ScoreInput, Scorer, ScorerError};

/// Added to the sample numbers of held-out documents, so that no scorer takes them for documents of the
/// training set: half of the range, which no training set reaches.
const HELD_OUT: usize = usize::MAX / 2;

/// The documents that a run looks at now and then.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Training documents and held-out ones.
    pub splits: Vec<Split>,
}

/// The documents of one split.
#[derive(Clone, Debug)]
pub struct Split {
    /// `train` or `valid`.
    pub name: &'static str,
    /// The documents, packed.
    pub batches: Vec<Batch>,
    /// The text of every token of every document, in the order of the batches. Put together they are the
    /// document; where a character is spread over several tokens, it is with the last of them.
    pub tokens: Vec<Vec<String>>,
}

impl Samples {
    /// Chooses `train.record.documents` of either split, evenly spread over those that are not longer
    /// than `max_tokens` (the shortest, if too few are): always the same ones for the same data. With
    /// `ragged`, batches are packed without padding.
    ///
    /// # Errors
    /// Tokens that the tokenizer's decoder refuses.
    pub fn choose(
        record: &RecordConfig,
        splits: &Splits,
        tokenizer: &Tokenizer,
        ragged: bool,
    ) -> Result<Self, DataError> {
        if record.documents == 0 {
            return Ok(Self::default());
        }
        let mut splits = vec![
            split("train", &splits.train, record, 0, tokenizer)?,
            split("valid", &splits.valid, record, HELD_OUT, tokenizer)?,
        ];
        if ragged {
            let batches = splits.iter_mut().flat_map(|split| &mut split.batches);
            batches.for_each(|batch| *batch = batch.ragged());
        }
        Ok(Self { splits })
    }

    /// Tokens that looking at them reads.
    pub fn tokens(&self) -> u64 {
        let batches = self.splits.iter().flat_map(|split| &split.batches);
        batches.flat_map(|b| &b.documents).map(|d| d.len as u64).sum()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.tokens() == 0
    }
}

fn split(
    name: &'static str,
    data: &Dataset,
    record: &RecordConfig,
    offset: usize,
    tokenizer: &Tokenizer,
) -> Result<Split, DataError> {
    let mut from: Vec<(usize, usize)> = data.lengths().enumerate().collect();
    let short = from.iter().filter(|(_, len)| *len <= record.max_tokens).count();
    if short >= record.documents {
        from.retain(|(_, len)| *len <= record.max_tokens);
    } else {
        from.sort_by_key(|(_, len)| *len);
        from.truncate(record.documents);
    }
    let count = record.documents.min(from.len());
    let mut chosen: Vec<Tokenized> = Vec::with_capacity(count);
    for (index, _) in (0..count).filter_map(|i| from.get(i * from.len() / count)) {
        if let Some(document) = data.document(*index)? {
            let mut document = document.into_owned();
            document.sample += offset;
            chosen.push(document);
        }
    }
    // A row at a time: no more memory than a micro-batch takes.
    let rows = Dataset::from_tokenized(chosen, data.seq_len(), true)?.in_order(1);
    let batches: Vec<Batch> = rows.batches().collect::<Result<_, _>>()?;
    let documents = batches
        .iter()
        .flat_map(|batch| batch.documents.iter().map(move |d| (batch, d)));
    let tokens = documents.map(|(batch, document)| {
        let first = document.row * batch.seq_len + document.start;
        let ids = batch.tokens.get(first..first + document.len).unwrap_or_default();
        tokenizer.pieces_after(&[], ids)
    });
    Ok(Split {
        name,
        tokens: tokens.collect::<Result<_, _>>()?,
        batches,
    })
}

impl WeightedMtp {
    /// What scorer and heads make of `batches` after `step` optimizer steps. With `weights.over: step`
    /// these documents are taken for a step. A scorer that can't score them is named in the result.
    pub(super) fn observed(&self, batches: &[Batch], step: usize) -> Result<Vec<Observed>, ReadError> {
        self.renew_value();
        let plain = self.valid();
        let model = &plain.model;
        let device = model.unembedding().device();
        let mut explained: Result<Vec<Explained>, ScorerError> = Ok(Vec::new());
        let mut ce = Vec::with_capacity(batches.len());
        for batch in batches {
            let forward = Forward::of(model, batch, &device, false);
            let targets = HeadTargets::of_heads(batch, model.n_heads());
            if let Ok(all) = &mut explained {
                let hidden = plain.weighting.hidden(&forward, &targets[0]);
                let head = FrozenHead {
                    unembedding: model.unembedding(),
                    compute: model.compute(),
                };
                let explain = |scorer: &mut dyn Scorer, input: &ScoreInput<'_>| {
                    // A scorer that takes it for granted that documents are training documents may panic
                    // at others. That is no reason to end a training that it could score.
                    catch_unwind(AssertUnwindSafe(|| scorer.explain(input))).unwrap_or_else(|_| Err(panicked(scorer)))
                };
                match plain
                    .weighting
                    .with_scorer(head, batch, step, hidden, &targets[0], explain)
                {
                    Ok(one) => all.push(one),
                    Err(error) => explained = Err(error),
                }
            }
            let heads = (1..).zip(&targets).map(|(k, targets)| {
                let head = forward.head(k, targets.positions.clone());
                head_ce(head, targets, model.unembedding(), batch, model.compute())
            });
            ce.push(heads.collect::<Result<Vec<_>, _>>()?);
        }
        let weights = explained.map(|mut all| {
            let mut scores: Vec<Vec<f32>> = all.iter_mut().map(|one| std::mem::take(&mut one.scores)).collect();
            let weights = plain.weighting.weights(batches, &mut scores).weights;
            all.iter_mut().zip(scores).for_each(|(one, scores)| one.scores = scores);
            (weights, all)
        });
        let mut observed = Vec::new();
        for (i, (batch, ce)) in batches.iter().zip(&ce).enumerate() {
            let own = weights
                .as_ref()
                .map(|(weights, all)| Some((weights.get(i)?, all.get(i)?)));
            for document in &batch.documents {
                let mut seen = cross_entropies(document, batch, ce);
                match &own {
                    Ok(Some((weights, explained))) => add_scores(&mut seen, document, batch, weights, explained),
                    Ok(None) => {}
                    Err(error) => seen.problem = Some(error.to_string()),
                }
                observed.push(seen);
            }
        }
        Ok(observed)
    }
}

/// A document with its cross-entropies only.
fn cross_entropies(document: &Document, batch: &Batch, ce: &[Vec<f32>]) -> Observed {
    let first = document.row * batch.seq_len + document.start;
    // CE_k at position t is that of token t + k, and t has to lie in this document.
    let of_token = |ce: &[f32], k: usize, token: usize| {
        let from = token.checked_sub(k).filter(|&from| from >= first)?;
        short(*ce.get(from)?)
    };
    let of_head = |(ce, k): (&Vec<f32>, usize)| {
        let tokens = document.response(batch.seq_len);
        tokens.map(|token| of_token(ce, k, token)).collect()
    };
    Observed {
        document: document.name.clone(),
        prompt_tokens: document.prompt_len,
        ce: ce.iter().zip(1..).map(of_head).collect(),
        ..Observed::default()
    }
}

fn add_scores(seen: &mut Observed, document: &Document, batch: &Batch, weights: &[f32], explained: &Explained) {
    let of = |values: &[f32]| -> Vec<Option<f64>> {
        let positions = document.response(batch.seq_len);
        positions.map(|i| values.get(i).copied().and_then(short)).collect()
    };
    seen.weight = of(weights);
    seen.scores.insert("score".into(), of(&explained.scores));
    for (name, values) in &explained.figures {
        seen.scores.insert((*name).into(), of(values));
    }
}

fn panicked(scorer: &dyn Scorer) -> ScorerError {
    ScorerError::Setup {
        scorer: scorer.name().into(),
        problem: "it panicked at documents that are shown in reports".into(),
    }
}

/// Five significant digits; nothing that isn't finite.
fn short(value: f32) -> Option<f64> {
    value
        .is_finite()
        .then(|| format!("{value:.4e}").parse().unwrap_or_default())
}
