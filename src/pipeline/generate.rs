//! A model as the evaluation's generator, and the per-token figures of `wmtp score`.

use super::PipelineError;
use crate::{
    data::{Batch, Document, Tokenizer},
    eval::{Completion, Done, EvalError, GenerationRequest, Generator, Stop},
    train::{
        loss::{HeadStates, head_ce},
        packed,
    },
};
use burn::tensor::Tensor;
use serde::Serialize;
use std::cell::RefCell;
use wmtp_model::{Decoding, Effort, Finish, Generation, MtpLlama, Request, Sampling, Totals};

/// A model with its tokenizer.
pub struct ModelGenerator {
    /// On a device without autodiff.
    pub model: MtpLlama,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// Top-p, length, and the temperature where a request names none.
    pub sampling: Sampling,
    /// Texts in the batch, sharing, speculation. The tokens that end a text are the tokenizer's.
    pub decoding: Decoding,
    /// What all texts took that were written as a [`Generator`], and their tokens.
    pub spent: (Effort, usize),
}

/// What was written after a prompt, and why it ended.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// The text up to the stop string, if one came.
    pub text: String,
    /// Generated token ids, as they came.
    pub tokens: Vec<u32>,
    /// `eos`, `stop` or `length`.
    pub finish: &'static str,
    /// Passes through the trunk, and what the heads' drafts were worth.
    #[serde(skip)]
    pub effort: Effort,
}

impl ModelGenerator {
    /// Greedy or sampled as `sampling` says, in a batch of the default size.
    pub fn new(model: MtpLlama, tokenizer: Tokenizer, sampling: Sampling) -> Self {
        Self {
            model,
            tokenizer,
            sampling,
            decoding: Decoding::default(),
            spent: Default::default(),
        }
    }

    /// Continues all of them; ends each at EOS, at its stop or at the length limit, and hands it to
    /// `done` with its index as it ends. An error of `done` ends all others at their next token.
    pub fn write_each(
        &self,
        requests: &[GenerationRequest],
        stop: &Stop<'_>,
        done: &mut dyn FnMut(usize, Written) -> Result<(), PipelineError>,
    ) -> Result<Totals, PipelineError> {
        let requests = requests
            .iter()
            .map(|request| {
                Ok(Request {
                    tokens: self.tokenizer.encode(&request.prompt)?,
                    seed: request.seed,
                    sampling: Sampling {
                        temperature: request.temperature,
                        ..self.sampling.clone()
                    },
                })
            })
            .collect::<Result<Vec<_>, PipelineError>>()?;
        let decoding = Decoding {
            eos: self.tokenizer.eos_ids().to_vec(),
            ..self.decoding.clone()
        };
        let failed = RefCell::new(None);
        let mut seen = |_: usize, tokens: &[u32]| failed.borrow().is_some() || self.stopped(tokens, stop);
        let totals = wmtp_model::generate(
            &self.model,
            &requests,
            &decoding,
            &mut seen,
            &mut |index, generation| {
                if failed.borrow().is_none()
                    && let Err(error) = self.written(generation, stop).and_then(|written| done(index, written))
                {
                    *failed.borrow_mut() = Some(error);
                }
            },
        )?;
        failed.into_inner().map_or(Ok(totals), Err)
    }

    /// Continues several (prompt, seed); the results in the same order.
    pub fn write(&self, prompts: &[(String, u64)], stop: &Stop<'_>) -> Result<Vec<Written>, PipelineError> {
        let requests: Vec<GenerationRequest> = prompts
            .iter()
            .map(|(prompt, seed)| GenerationRequest {
                prompt: prompt.clone(),
                seed: *seed,
                temperature: self.sampling.temperature,
            })
            .collect();
        let mut found = Vec::with_capacity(requests.len());
        self.write_each(&requests, stop, &mut |index, written| {
            found.push((index, written));
            Ok(())
        })?;
        found.sort_by_key(|(index, _)| *index);
        Ok(found.into_iter().map(|(_, written)| written).collect())
    }

    /// True once the text has reached its stop. Of the text before a stop string only the tail is
    /// decoded: a stop string can't be longer in tokens than in bytes.
    fn stopped(&self, tokens: &[u32], stop: &Stop<'_>) -> bool {
        let first = match stop {
            Stop::Strings(stops) => {
                let longest = stops.iter().map(|s| s.len()).max().unwrap_or(0);
                tokens.len().saturating_sub(longest + 4)
            }
            Stop::TopLevel => 0,
        };
        let tail = tokens.get(first..).unwrap_or_default();
        // A tail that can't be decoded holds no complete stop string.
        self.tokenizer.decode(tail).is_ok_and(|text| stop.end(&text).is_some())
    }

    fn written(&self, generation: Generation, stop: &Stop<'_>) -> Result<Written, PipelineError> {
        let eos = self.tokenizer.eos_ids();
        let visible: Vec<u32> = generation.tokens.iter().copied().filter(|t| !eos.contains(t)).collect();
        let mut text = self.tokenizer.decode(&visible)?;
        if let Some(end) = stop.end(&text) {
            text.truncate(end);
        }
        let finish = match generation.finish {
            Finish::Eos => "eos",
            Finish::Stop => "stop",
            Finish::Length => "length",
        };
        Ok(Written {
            text,
            tokens: generation.tokens,
            finish,
            effort: generation.effort,
        })
    }
}

impl Generator for ModelGenerator {
    fn generate(
        &mut self,
        requests: &[GenerationRequest],
        stop: &Stop<'_>,
        done: &mut Done<'_>,
    ) -> Result<(), EvalError> {
        let mut refused = None;
        let mut spent = std::mem::take(&mut self.spent);
        let written = self.write_each(requests, stop, &mut |index, written| {
            spent.0.add(&written.effort);
            spent.1 += written.tokens.len();
            let completion = Completion {
                tokens: written.tokens.len(),
                text: written.text,
            };
            done(index, completion).map_err(|error| {
                let said = PipelineError::Setting(error.to_string());
                refused = Some(error);
                said
            })
        });
        self.spent = spent;
        match (refused, written) {
            (Some(error), _) => Err(error),
            (None, Err(error)) => Err(EvalError::Generate(error.to_string())),
            (None, Ok(_)) => Ok(()),
        }
    }
}

/// Per-token figures of a text, for checking against other stacks (`wmtp score --json`).
#[derive(Clone, Debug, Serialize)]
pub struct ScoreReport {
    /// The text's ids, no special token added.
    pub token_ids: Vec<u32>,
    /// `ce[k-1][i]`: cross-entropy in nats of token i + k by head k at position i; length n - k.
    pub ce: Vec<Vec<f32>>,
    /// Ids of head 1's 20 largest logits at the last position, largest first.
    pub top20_ids: Vec<u32>,
    /// Those logits.
    pub top20_logits: Vec<f32>,
}

/// Scores a text with every head.
pub fn score_text(model: &MtpLlama, tokenizer: &Tokenizer, text: &str) -> Result<ScoreReport, PipelineError> {
    let ids = tokenizer.encode(text)?;
    if ids.is_empty() {
        return Err(PipelineError::Setting(
            "the text to score is empty; give some with --text or on standard input".into(),
        ));
    }
    let limit = model.config().max_position_embeddings;
    if ids.len() > limit {
        return Err(PipelineError::Setting(format!(
            "the text has {} tokens, more than the {limit} positions that the model was made for; shorten it",
            ids.len()
        )));
    }
    let n = ids.len();
    let batch = whole(&ids);
    let device = model.device();
    let input = packed(&batch, &device);
    let context = model.context(&input);
    let trunk = model.trunk(&input, &context);
    let mut ce = Vec::new();
    let mut last = None;
    for k in 1..=model.n_heads() {
        let hidden = model.head(k, trunk.clone(), &context);
        if k == 1 {
            last = Some(hidden.clone().narrow(1, n - 1, 1));
        }
        let mut of_head = head_ce(
            HeadStates::everywhere(k, hidden),
            model.unembedding(),
            &batch,
            model.compute(),
        );
        of_head.truncate(n.saturating_sub(k));
        ce.push(of_head);
    }
    let logits = match last {
        Some(last) => last_logits(model, last),
        None => Vec::new(),
    };
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(20);
    Ok(ScoreReport {
        token_ids: ids,
        ce,
        top20_ids: order.iter().map(|&i| i as u32).collect(),
        top20_logits: order.iter().map(|&i| logits[i]).collect(),
    })
}

fn last_logits(model: &MtpLlama, hidden: Tensor<3>) -> Vec<f32> {
    crate::train::loss::to_f32(model.logits(hidden).flatten(0, 2))
}

/// A text as one document, everything after the first token a response.
fn whole(ids: &[u32]) -> Batch {
    let n = ids.len();
    Batch {
        rows: 1,
        seq_len: n,
        tokens: ids.to_vec(),
        positions: (0..n as u32).collect(),
        docs: vec![0; n],
        response: (0..n).map(|t| t > 0).collect(),
        documents: vec![Document {
            sample: 0,
            name: "text".into(),
            problem: 0,
            row: 0,
            start: 0,
            len: n,
            prompt_len: 1,
            reward: None,
        }],
    }
}
