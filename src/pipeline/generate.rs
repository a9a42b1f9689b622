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
use wmtp_model::{Finish, Generation, MtpLlama, Prompt, Sampling};

/// A model with its tokenizer.
pub struct ModelGenerator {
    /// On a device without autodiff.
    pub model: MtpLlama,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
    /// Top-p, length, and the temperature where a request names none.
    pub sampling: Sampling,
    /// Completions drawn at once. It changes speed and memory, not what is drawn.
    pub batch_size: usize,
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
}

impl ModelGenerator {
    /// Continues several (prompt, seed) at once; ends each at EOS, at a stop string or at the
    /// length limit.
    pub fn write(&self, prompts: &[(String, u64)], stop: &Stop<'_>) -> Result<Vec<Written>, PipelineError> {
        self.write_with(prompts, stop, &self.sampling)
    }

    fn write_with(
        &self,
        prompts: &[(String, u64)],
        stop: &Stop<'_>,
        sampling: &Sampling,
    ) -> Result<Vec<Written>, PipelineError> {
        let prompts = prompts
            .iter()
            .map(|(text, seed)| {
                Ok(Prompt {
                    tokens: self.tokenizer.encode(text)?,
                    seed: *seed,
                })
            })
            .collect::<Result<Vec<_>, PipelineError>>()?;
        let mut seen = |_: usize, tokens: &[u32]| self.stopped(tokens, stop);
        let eos = self.tokenizer.eos_ids();
        let generations = wmtp_model::generate(&self.model, &prompts, sampling, eos, &mut seen)?;
        generations.into_iter().map(|g| self.written(g, stop)).collect()
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
        // A batch has one temperature; neighbours have the same more often than not.
        let numbered: Vec<(usize, &GenerationRequest)> = requests.iter().enumerate().collect();
        let alike = numbered.chunk_by(|(_, a), (_, b)| a.temperature == b.temperature);
        for batch in alike.flat_map(|run| run.chunks(self.batch_size.max(1))) {
            let prompts: Vec<(String, u64)> = batch.iter().map(|(_, r)| (r.prompt.clone(), r.seed)).collect();
            let sampling = Sampling {
                temperature: batch.first().map_or(0.0, |(_, request)| request.temperature),
                ..self.sampling.clone()
            };
            let written = self
                .write_with(&prompts, stop, &sampling)
                .map_err(|e| EvalError::Generate(e.to_string()))?;
            for ((index, _), written) in batch.iter().zip(written) {
                let tokens = written.tokens.len();
                done(
                    *index,
                    Completion {
                        text: written.text,
                        tokens,
                    },
                )?;
            }
        }
        Ok(())
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
