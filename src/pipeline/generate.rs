//! A model as the evaluation's generator, and the per-token figures of `wmtp score`.

use super::PipelineError;
use crate::{
    data::{Batch, DataError, Detokenizer, Document, Tokenizer},
    device::to_f32,
    eval::{Completion, Done, EvalError, GenerationRequest, Generator, PromptLength, StopRule},
    train::{
        loss::{HeadHidden, HeadTargets, head_ce},
        packed,
    },
};
use serde::Serialize;
use std::{cell::RefCell, collections::HashMap};
use wmtp_model::{CausalLm, Decoding, Effort, Finish, Generation, ModelError, MtpLlama, Request, Sampling, Totals};

/// What continues token ids: a model, or a stand-in for one in a test.
pub trait TokenWriter {
    /// The longest text that it can read, in tokens; None without a limit.
    fn positions(&self) -> Option<usize> {
        None
    }

    /// Continues all requests; as [`wmtp_model::generate`].
    ///
    /// # Errors
    /// As [`wmtp_model::generate`].
    fn write_tokens(
        &self,
        requests: &[Request],
        decoding: &Decoding,
        stop: &mut dyn FnMut(usize, &[u32]) -> bool,
        done: &mut dyn FnMut(usize, Generation),
    ) -> Result<Totals, ModelError>;
}

impl TokenWriter for MtpLlama {
    fn positions(&self) -> Option<usize> {
        Some(self.config().max_position_embeddings)
    }

    fn write_tokens(
        &self,
        requests: &[Request],
        decoding: &Decoding,
        stop: &mut dyn FnMut(usize, &[u32]) -> bool,
        done: &mut dyn FnMut(usize, Generation),
    ) -> Result<Totals, ModelError> {
        wmtp_model::generate(self, requests, decoding, stop, done)
    }
}

/// A model with its tokenizer.
pub struct ModelGenerator<M = MtpLlama> {
    /// On a device without autodiff.
    pub model: M,
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

impl<M: TokenWriter> ModelGenerator<M> {
    /// Greedy or sampled as `sampling` says, in a batch of the default size.
    pub fn new(model: M, tokenizer: Tokenizer, sampling: Sampling) -> Self {
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
        stop: &StopRule<'_>,
        done: &mut dyn FnMut(usize, Written) -> Result<(), PipelineError>,
    ) -> Result<Totals, PipelineError> {
        self.write_watched(requests, stop, &mut |_, _| false, done)
    }

    /// The same, while `watch` gets each text as far as it is written, with the index of its request:
    /// after every token, without the bytes of an incomplete character. True ends that text.
    pub fn write_watched(
        &self,
        requests: &[GenerationRequest],
        stop: &StopRule<'_>,
        watch: &mut dyn FnMut(usize, &str) -> bool,
        done: &mut dyn FnMut(usize, Written) -> Result<(), PipelineError>,
    ) -> Result<Totals, PipelineError> {
        let requests = requests
            .iter()
            .map(|request| {
                Ok(Request {
                    tokens: self.tokenizer.prompt_ids(&request.prompt)?,
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
        let texts: RefCell<HashMap<usize, Growing<'_>>> = RefCell::default();
        let text_of = |index: usize| {
            let kept = texts.borrow_mut().remove(&index);
            let prompt = requests.get(index).map_or(&[][..], |request| &request.tokens);
            kept.unwrap_or_else(|| Growing::after(&self.tokenizer, prompt))
        };
        let mut seen = |index: usize, tokens: &[u32]| {
            let mut text = text_of(index);
            let stopped = match text.read(tokens) {
                Ok(()) => {
                    let cancelled = watch(index, &text.text);
                    text.reached(stop) || cancelled
                }
                Err(error) => {
                    failed.borrow_mut().get_or_insert(error.into());
                    true
                }
            };
            texts.borrow_mut().insert(index, text);
            stopped || failed.borrow().is_some()
        };
        let mut ended = |index: usize, generation: Generation| {
            let written = text_of(index).written(generation, stop);
            if failed.borrow().is_none()
                && let Err(error) = written
                    .map_err(PipelineError::from)
                    .and_then(|written| done(index, written))
            {
                *failed.borrow_mut() = Some(error);
            }
        };
        let totals = self.model.write_tokens(&requests, &decoding, &mut seen, &mut ended)?;
        failed.into_inner().map_or(Ok(totals), Err)
    }

    /// Continues several (prompt, seed); the results in the same order.
    pub fn write(&self, prompts: &[(String, u64)], stop: &StopRule<'_>) -> Result<Vec<Written>, PipelineError> {
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
}

/// The text of one request while it is written.
struct Growing<'t> {
    decoder: Detokenizer<'t>,
    text: String,
    /// Tokens that have gone into `decoder`.
    read: usize,
    /// Bytes of `text` in which no stop string begins, unless it is still incomplete.
    searched: usize,
}

impl<'t> Growing<'t> {
    fn after(tokenizer: &'t Tokenizer, prompt: &[u32]) -> Self {
        Self {
            decoder: Detokenizer::after(tokenizer, prompt),
            text: String::new(),
            read: 0,
            searched: 0,
        }
    }

    /// Decodes what is new among all `tokens` after the prompt.
    fn read(&mut self, tokens: &[u32]) -> Result<(), DataError> {
        for &token in tokens.get(self.read..).unwrap_or_default() {
            self.text.push_str(&self.decoder.push(token)?);
        }
        self.read = self.read.max(tokens.len());
        Ok(())
    }

    /// True once the text has reached its stop.
    fn reached(&mut self, stop: &StopRule<'_>) -> bool {
        let from = match stop {
            StopRule::Strings(stops) => {
                let longest = stops.iter().map(|s| s.len()).max().unwrap_or(0);
                let from = self.searched.saturating_sub(longest);
                (0..=from)
                    .rev()
                    .find(|&i| self.text.is_char_boundary(i))
                    .unwrap_or_default()
            }
            StopRule::TopLevel => 0,
        };
        self.searched = self.text.len();
        self.text.get(from..).is_some_and(|text| stop.end(text).is_some())
    }

    fn written(mut self, generation: Generation, stop: &StopRule<'_>) -> Result<Written, DataError> {
        self.read(&generation.tokens)?;
        self.text.push_str(&self.decoder.finish()?);
        let mut text = self.text;
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

impl<M: TokenWriter> Generator for ModelGenerator<M> {
    fn prompt_too_long(&self, request: &GenerationRequest) -> Result<Option<PromptLength>, EvalError> {
        let tokens = self.tokenizer.prompt_ids(&request.prompt)?.len();
        let limit = self.model.positions();
        Ok(limit
            .filter(|&positions| tokens > positions)
            .map(|positions| PromptLength { tokens, positions }))
    }

    fn generate(
        &mut self,
        requests: &[GenerationRequest],
        stop: &StopRule<'_>,
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
    /// The text's ids, with the special tokens that the tokenizer puts at its start and end.
    pub token_ids: Vec<u32>,
    /// `ce[k-1][i]`: cross-entropy in nats of token i + k by head k at position i; length n - k.
    pub ce: Vec<Vec<f32>>,
    /// Ids of head 1's 20 largest logits at the last position, largest first.
    pub top20_ids: Vec<u32>,
    /// Those logits.
    pub top20_logits: Vec<f32>,
}

/// Scores a text with every head.
pub fn score_text(model: &dyn CausalLm, tokenizer: &Tokenizer, text: &str) -> Result<ScoreReport, PipelineError> {
    let ids = tokenizer.document(text)?;
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
            HeadHidden::everywhere(k, hidden),
            &HeadTargets::of(&batch, k),
            model.unembedding(),
            &batch,
            model.compute(),
        )?;
        of_head.truncate(n.saturating_sub(k));
        ce.push(of_head);
    }
    let logits = match last {
        Some(last) => to_f32(model.logits(last))?,
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
        given: vec![1.0; n],
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
