//! Which texts are in the batch: waiting ones enter as soon as others leave.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::engine::{Engine, Piece, Span, Stay};
use super::prefixes::Prefixes;
use super::row::Row;
use super::{Decoding, Finish, Generation, Request, Totals};
use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::sampling::Choice;

/// Tokens of prompts that are read at a time: enough for products at full speed, few enough that
/// their activations stay small.
const FILLED_AT_A_TIME: usize = 1024;

/// A text in the batch, and where it is.
struct Running<'a> {
    request: usize,
    piece: Piece,
    row: Row<'a>,
}

/// What a text puts through the trunk: its last token, and what was drafted behind it, as more tokens
/// or, where there are several ways to go on, as branches.
struct Fed {
    tokens: Vec<u32>,
    branches: Vec<Vec<u32>>,
}

impl Fed {
    fn new(last: Option<u32>, mut ways: Vec<Vec<u32>>) -> Self {
        let mut tokens: Vec<u32> = last.into_iter().collect();
        if let [way] = &mut ways[..] {
            tokens.append(way);
            ways.clear();
        }
        Self { tokens, branches: ways }
    }

    /// Logits that come back.
    fn rows(&self) -> usize {
        self.tokens.len() + self.branches.iter().map(Vec::len).sum::<usize>()
    }

    /// What stays of it.
    fn stay(&self, choice: &Choice) -> Stay {
        if self.branches.is_empty() {
            Stay {
                tokens: 1 + choice.accepted,
                branch: None,
            }
        } else {
            Stay {
                tokens: 1,
                branch: Some((choice.way, choice.accepted)),
            }
        }
    }
}

/// Nothing stays of a text that has ended.
const NOTHING: Stay = Stay {
    tokens: 0,
    branch: None,
};

/// The requests of a call on their way.
pub struct Schedule<'a> {
    requests: &'a [Request],
    decoding: &'a Decoding,
    max_positions: usize,
    drafting: usize,
    prefixes: Prefixes,
    /// For each shared piece: where it is, once it was needed, and how many requests still need it.
    shared: Vec<(Option<Piece>, usize)>,
    waiting: VecDeque<usize>,
    running: Vec<Running<'a>>,
    totals: Totals,
}

impl<'a> Schedule<'a> {
    /// All of them waiting.
    pub fn new(config: &LlamaConfig, requests: &'a [Request], decoding: &'a Decoding) -> Self {
        // The last token of a prompt is not part of what is read beforehand: its logits are wanted.
        let read: Vec<&[u32]> = requests.iter().map(|request| without_last(&request.tokens)).collect();
        let prefixes = if decoding.share_prefixes {
            Prefixes::of(&read)
        } else {
            Prefixes::none(requests.len())
        };
        Self {
            requests,
            decoding,
            max_positions: config.max_position_embeddings,
            drafting: if decoding.speculative { config.n_heads - 1 } else { 0 },
            shared: prefixes.shared.iter().map(|shared| (None, shared.users)).collect(),
            waiting: prefixes.order.iter().copied().collect(),
            prefixes,
            running: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Works all of them off.
    pub fn run(
        mut self,
        engine: &mut dyn Engine,
        stop: &mut dyn FnMut(usize, &[u32]) -> bool,
        done: &mut dyn FnMut(usize, Generation),
    ) -> Result<Totals, ModelError> {
        loop {
            self.admit(engine, done);
            if self.running.is_empty() {
                return Ok(self.totals);
            }
            self.step(engine, stop, done)?;
        }
    }

    /// Lets waiting requests in while there is room, and reads their prompts.
    fn admit(&mut self, engine: &mut dyn Engine, done: &mut dyn FnMut(usize, Generation)) {
        let mut to_read: Vec<(Piece, &[u32])> = Vec::new();
        while self.running.len() < self.decoding.rows {
            let Some(index) = self.waiting.pop_front() else {
                break;
            };
            let request = &self.requests[index];
            let room = self.max_positions.saturating_sub(request.tokens.len());
            let budget = request.sampling.max_new_tokens.min(room);
            let most = if engine.branches() {
                self.decoding.drafts
            } else {
                self.decoding.drafts.min(self.drafting)
            };
            let row = Row::new(request, budget, [self.drafting, most]);
            if budget == 0 {
                self.release(index, engine);
                done(index, row.finished(Finish::Length));
                continue;
            }
            let last = self.prefixes.last[index];
            let parent = last.map(|last| self.shared_piece(last, engine, &mut to_read));
            let from = last.map_or(0, |last| self.prefixes.shared[last].to);
            let piece = engine.add(parent);
            to_read.push((piece, &without_last(&request.tokens)[from..]));
            self.totals.prompt_tokens += request.tokens.len();
            self.totals.prompt_tokens_read += 1;
            self.running.push(Running {
                request: index,
                piece,
                row,
            });
        }
        self.totals.prompt_tokens_read += to_read.iter().map(|(_, tokens)| tokens.len()).sum::<usize>();
        fill(engine, &to_read);
    }

    /// The shared piece with this index, made and put before what is to be read if nobody needed it
    /// before; so with its ancestors.
    fn shared_piece(&mut self, index: usize, engine: &mut dyn Engine, to_read: &mut Vec<(Piece, &'a [u32])>) -> Piece {
        let path: Vec<usize> = self.path(Some(index)).collect();
        let mut parent = None;
        for index in path.into_iter().rev() {
            let piece = match self.shared[index].0 {
                Some(piece) => piece,
                None => {
                    let shared = &self.prefixes.shared[index];
                    let piece = engine.add(parent);
                    to_read.push((piece, &self.requests[shared.prompt].tokens[shared.from..shared.to]));
                    self.shared[index].0 = Some(piece);
                    piece
                }
            };
            parent = Some(piece);
        }
        // The path holds `index` at least.
        parent.unwrap_or_default()
    }

    /// A shared piece and those before it, the last first.
    fn path(&self, last: Option<usize>) -> impl Iterator<Item = usize> + use<'_, 'a> {
        std::iter::successors(last, |index| self.prefixes.shared[*index].parent)
    }

    /// A request that has ended needs its shared pieces no longer; those that nobody needs go.
    fn release(&mut self, request: usize, engine: &mut dyn Engine) {
        let path: Vec<usize> = self.path(self.prefixes.last[request]).collect();
        for index in path {
            let (piece, users) = &mut self.shared[index];
            *users -= 1;
            if *users == 0
                && let Some(piece) = piece.take()
            {
                engine.remove(piece);
            }
        }
    }

    /// One pass through the trunk: new tokens for every text of the batch.
    fn step(
        &mut self,
        engine: &mut dyn Engine,
        stop: &mut dyn FnMut(usize, &[u32]) -> bool,
        done: &mut dyn FnMut(usize, Generation),
    ) -> Result<(), ModelError> {
        let requests = self.requests;
        let fed: Vec<Fed> = self
            .running
            .iter()
            .map(|Running { request, row, .. }| {
                let last = row.tokens().last().or(requests[*request].tokens.last());
                Fed::new(last.copied(), row.ways())
            })
            .collect();
        let spans: Vec<Span<'_>> = self
            .running
            .iter()
            .zip(&fed)
            .map(|(running, fed)| Span {
                piece: running.piece,
                tokens: &fed.tokens,
                branches: &fed.branches,
            })
            .collect();
        let logits = engine.step(&spans);
        self.totals.trunk_forwards += 1;

        let vocabulary = logits.len() / fed.iter().map(Fed::rows).sum::<usize>().max(1);
        let mut rest = &logits[..];
        let row_logits: Vec<&[f32]> = fed
            .iter()
            .map(|fed| {
                let (own, others) = rest.split_at(fed.rows() * vocabulary);
                rest = others;
                own
            })
            .collect();
        let choices: Vec<_> = self
            .running
            .par_iter_mut()
            .zip(row_logits)
            .map(|(running, logits)| running.row.judge(logits))
            .collect();

        let mut kept = Vec::with_capacity(fed.len());
        let mut ended = Vec::with_capacity(fed.len());
        for ((running, choice), fed) in self.running.iter_mut().zip(choices).zip(&fed) {
            let index = running.request;
            let choice = choice.ok_or_else(|| not_finite(index, running.row.tokens().len()))?;
            let mut stop = |tokens: &[u32]| stop(index, tokens);
            let finish = running.row.take(&choice, &self.decoding.eos, &mut stop);
            kept.push(if finish.is_some() { NOTHING } else { fed.stay(&choice) });
            ended.push(finish);
        }
        if self.drafting > 0 {
            let logits = engine.settle(&kept);
            let staying = self.running.iter_mut().zip(&ended).filter(|(_, ended)| ended.is_none());
            let count = ended.iter().filter(|ended| ended.is_none()).count();
            let size = logits.len() / count.max(1);
            let staying: Vec<_> = staying.zip(logits.chunks(size.max(1))).collect();
            staying
                .into_par_iter()
                .for_each(|((running, _), logits)| running.row.draft(logits));
        }
        for (running, ended) in std::mem::take(&mut self.running).into_iter().zip(ended) {
            match ended {
                None => self.running.push(running),
                Some(finish) => {
                    engine.remove(running.piece);
                    self.release(running.request, engine);
                    let generation = running.row.finished(finish);
                    self.totals.tokens += generation.tokens.len();
                    done(running.request, generation);
                }
            }
        }
        Ok(())
    }
}

/// Reads prompts, so many tokens at a time.
fn fill(engine: &mut dyn Engine, to_read: &[(Piece, &[u32])]) {
    let mut spans = Vec::new();
    let mut room = FILLED_AT_A_TIME;
    for (piece, tokens) in to_read {
        let mut rest = *tokens;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(room.min(rest.len()));
            spans.push(Span {
                piece: *piece,
                tokens: now,
                branches: &[],
            });
            (rest, room) = (later, room - now.len());
            if room == 0 {
                engine.fill(&std::mem::take(&mut spans));
                room = FILLED_AT_A_TIME;
            }
        }
    }
    if !spans.is_empty() {
        engine.fill(&spans);
    }
}

fn without_last(tokens: &[u32]) -> &[u32] {
    tokens.split_last().map_or(&[], |(_, rest)| rest)
}

fn not_finite(prompt: usize, tokens: usize) -> ModelError {
    ModelError::Request(format!(
        "the model gave logits that are not finite for prompt {prompt} after {tokens} new tokens: its weights are damaged or too large for its float type"
    ))
}
