//! Continuous batching: waiting requests enter the batch as soon as others leave it.

use std::collections::VecDeque;
use std::time::Instant;

use rayon::prelude::*;

use super::copies::CopyRates;
use super::engine::{Accepted, DraftSpan, Engine, SegmentId};
use super::pace::{Pace, Step};
use super::prefixes::Prefixes;
use super::request::{Decoding, Finish, Generation, Request, Totals};
use super::row::Row;
use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::sampling::Choice;

/// Prompt tokens that are read at a time: enough for matrix products at full speed, few enough that their
/// activations stay small.
const FILLED_AT_A_TIME: usize = 1024;

/// A text in the batch, and its last segment.
struct Running<'a> {
    request: usize,
    segment: SegmentId,
    row: Row<'a>,
}

/// The trunk's input for a text: its last token and the drafts behind it, as more tokens or, where there are
/// several branches, as a draft tree.
struct Fed {
    tokens: Vec<u32>,
    branches: Vec<Vec<u32>>,
}

impl Fed {
    fn new(last: Option<u32>, mut branches: Vec<Vec<u32>>) -> Self {
        let mut tokens: Vec<u32> = last.into_iter().collect();
        if let [branch] = &mut branches[..] {
            tokens.append(branch);
            branches.clear();
        }
        Self { tokens, branches }
    }

    /// Logits that come back.
    fn rows(&self) -> usize {
        self.tokens.len() + self.branches.iter().map(Vec::len).sum::<usize>()
    }

    /// What is accepted of it.
    fn accepted(&self, choice: &Choice) -> Accepted {
        if self.branches.is_empty() {
            Accepted {
                tokens: 1 + choice.accepted,
                branch: None,
            }
        } else {
            Accepted {
                tokens: 1,
                branch: Some((choice.branch, choice.accepted)),
            }
        }
    }
}

/// Nothing of a text that has ended is committed.
const NOTHING: Accepted = Accepted {
    tokens: 0,
    branch: None,
};

/// The requests of a call.
pub struct Schedule<'a> {
    requests: &'a [Request],
    decoding: &'a Decoding,
    max_positions: usize,
    drafting: usize,
    prefixes: Prefixes,
    /// For each shared prefix: its segment, once it was needed, and the number of requests that need it.
    shared: Vec<(Option<SegmentId>, usize)>,
    waiting: VecDeque<usize>,
    running: Vec<Running<'a>>,
    pace: Pace,
    /// Where drafts are copied from the text too.
    copies: Option<CopyRates>,
    totals: Totals,
}

impl<'a> Schedule<'a> {
    /// All of them waiting.
    pub fn new(config: &LlamaConfig, requests: &'a [Request], decoding: &'a Decoding) -> Self {
        // The last token of a prompt is not part of prefill: its logits are needed.
        let read: Vec<&[u32]> = requests.iter().map(|request| without_last(&request.tokens)).collect();
        let prefixes = if decoding.share_prefixes {
            Prefixes::of(&read)
        } else {
            Prefixes::none(requests.len())
        };
        let drafting = if decoding.speculative { config.n_heads - 1 } else { 0 };
        Self {
            requests,
            decoding,
            max_positions: config.max_position_embeddings,
            drafting,
            pace: Pace::new(decoding.adaptive, drafting),
            copies: (decoding.speculative && decoding.adaptive).then(CopyRates::new),
            shared: prefixes.shared.iter().map(|shared| (None, shared.users)).collect(),
            waiting: prefixes.order.iter().copied().collect(),
            prefixes,
            running: Vec::new(),
            totals: Totals::default(),
        }
    }

    /// Processes all of them.
    pub fn run(
        mut self,
        engine: &mut dyn Engine,
        stop: &mut dyn FnMut(usize, &[u32]) -> bool,
        done: &mut dyn FnMut(usize, Generation),
    ) -> Result<Totals, ModelError> {
        if !engine.supports_branches() {
            self.pace = Pace::new(false, self.drafting);
            self.copies = None;
        }
        loop {
            self.admit(engine, done);
            if self.running.is_empty() {
                return Ok(self.totals);
            }
            self.step(engine, stop, done)?;
        }
    }

    /// Admits waiting requests while there is room, and reads their prompts.
    fn admit(&mut self, engine: &mut dyn Engine, done: &mut dyn FnMut(usize, Generation)) {
        let mut to_read: Vec<(SegmentId, &[u32])> = Vec::new();
        while self.running.len() < self.decoding.rows {
            let Some(index) = self.waiting.pop_front() else {
                break;
            };
            let request = &self.requests[index];
            let room = self.max_positions.saturating_sub(request.tokens.len());
            let budget = request.sampling.max_new_tokens.min(room);
            let most = if engine.supports_branches() {
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
            let parent = last.map(|last| self.shared_segment(last, engine, &mut to_read));
            let from = last.map_or(0, |last| self.prefixes.shared[last].to);
            let segment = engine.add(parent);
            to_read.push((segment, &without_last(&request.tokens)[from..]));
            self.totals.prompt_tokens += request.tokens.len();
            self.totals.prompt_tokens_read += 1;
            self.running.push(Running {
                request: index,
                segment,
                row,
            });
        }
        self.totals.prompt_tokens_read += to_read.iter().map(|(_, tokens)| tokens.len()).sum::<usize>();
        fill(engine, &to_read);
    }

    /// The segment of the shared prefix with this index. If it does not exist yet, it and its ancestors are
    /// created and queued for reading first.
    fn shared_segment(
        &mut self,
        index: usize,
        engine: &mut dyn Engine,
        to_read: &mut Vec<(SegmentId, &'a [u32])>,
    ) -> SegmentId {
        let path: Vec<usize> = self.path(Some(index)).collect();
        let mut parent = None;
        for index in path.into_iter().rev() {
            let segment = match self.shared[index].0 {
                Some(segment) => segment,
                None => {
                    let shared = &self.prefixes.shared[index];
                    let segment = engine.add(parent);
                    to_read.push((segment, &self.requests[shared.prompt].tokens[shared.from..shared.to]));
                    self.shared[index].0 = Some(segment);
                    segment
                }
            };
            parent = Some(segment);
        }
        // The path holds `index` at least.
        parent.unwrap_or_default()
    }

    /// A shared prefix and those before it, the last first.
    fn path(&self, last: Option<usize>) -> impl Iterator<Item = usize> + use<'_, 'a> {
        std::iter::successors(last, |index| self.prefixes.shared[*index].parent)
    }

    /// Releases the shared prefixes of a request that has ended; the last user frees the segment.
    fn release(&mut self, request: usize, engine: &mut dyn Engine) {
        let path: Vec<usize> = self.path(self.prefixes.last[request]).collect();
        for index in path {
            let (segment, users) = &mut self.shared[index];
            *users -= 1;
            if *users == 0
                && let Some(segment) = segment.take()
            {
                engine.remove(segment);
            }
        }
    }

    /// The drafts that a step verifies: of the candidates of all texts the most probable ones. Returns the branches of
    /// each text, and the number and the sum of the probabilities of all of them.
    fn drafts(&mut self) -> (Vec<Vec<Vec<u32>>>, usize, f64) {
        let mut candidates: Vec<(f64, usize)> = Vec::new();
        for (text, running) in self.running.iter().enumerate() {
            candidates.extend(running.row.candidates().probabilities().map(|p| (p, text)));
        }
        candidates.sort_by(|(p, _), (q, _)| q.total_cmp(p));
        let probabilities: Vec<f64> = candidates.iter().map(|(p, _)| *p).collect();
        let count = self.pace.count(self.running.len(), &probabilities);
        let mut counts = vec![0; self.running.len()];
        candidates.iter().take(count).for_each(|(_, text)| counts[*text] += 1);
        let taken = self
            .running
            .iter_mut()
            .zip(counts)
            .map(|(running, count)| running.row.take(count));
        (taken.collect(), count, probabilities.iter().take(count).sum())
    }

    /// One step: a pass through the trunk with new tokens for every text of the batch.
    fn step(
        &mut self,
        engine: &mut dyn Engine,
        stop: &mut dyn FnMut(usize, &[u32]) -> bool,
        done: &mut dyn FnMut(usize, Generation),
    ) -> Result<(), ModelError> {
        let requests = self.requests;
        let (branches, drafts, probability) = self.drafts();
        let started = Instant::now();
        let fed: Vec<Fed> = self
            .running
            .iter()
            .zip(branches)
            .map(|(Running { request, row, .. }, branches)| {
                let last = row.tokens().last().or(requests[*request].tokens.last());
                Fed::new(last.copied(), branches)
            })
            .collect();
        let spans: Vec<DraftSpan<'_>> = self
            .running
            .iter()
            .zip(&fed)
            .map(|(running, fed)| DraftSpan {
                segment: running.segment,
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
            .map(|(running, logits)| running.row.verify(logits))
            .collect();

        let mut step = Step {
            texts: fed.len(),
            drafts,
            probability,
            by_head: vec![0; self.drafting],
            time: started.elapsed(),
            heads: self.pace.heads(),
            ..Step::default()
        };
        let mut accepted = Vec::with_capacity(fed.len());
        let mut ended = Vec::with_capacity(fed.len());
        for ((running, choice), fed) in self.running.iter_mut().zip(choices).zip(&fed) {
            let index = running.request;
            let choice = choice.ok_or_else(|| not_finite(index, running.row.tokens().len()))?;
            step.accepted += choice.accepted;
            for (count, of_head) in step.by_head.iter_mut().zip(running.row.of_heads(&choice)) {
                *count += usize::from(of_head);
            }
            if let Some((rates, copy)) = self.copies.as_mut().zip(running.row.copy()) {
                rates.learn(copy, &choice.tokens);
            }
            let mut stop = |tokens: &[u32]| stop(index, tokens);
            let finish = running.row.append(&choice, &self.decoding.eos, &mut stop);
            accepted.push(if finish.is_some() {
                NOTHING
            } else {
                fed.accepted(&choice)
            });
            ended.push(finish);
        }
        if self.drafting > 0 {
            let started = Instant::now();
            let heads = step.heads;
            let logits = engine.commit(&accepted, heads);
            let remaining = self.running.iter_mut().zip(&ended).filter(|(_, ended)| ended.is_none());
            let count = ended.iter().filter(|ended| ended.is_none()).count();
            let size = logits.len() / count.max(1);
            let own = |i: usize| &logits[i * size..(i + 1) * size];
            let remaining: Vec<_> = remaining.zip((0..count).map(own)).collect();
            let copies = self.copies.as_ref();
            remaining
                .into_par_iter()
                .for_each(|((running, _), logits)| running.row.draft(logits, heads, copies));
            step.drafting = started.elapsed();
        }
        self.pace.learn(&step);
        for (running, ended) in std::mem::take(&mut self.running).into_iter().zip(ended) {
            match ended {
                None => self.running.push(running),
                Some(finish) => {
                    engine.remove(running.segment);
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

/// Reads prompts, [`FILLED_AT_A_TIME`] tokens at a time.
fn fill(engine: &mut dyn Engine, to_read: &[(SegmentId, &[u32])]) {
    let mut spans = Vec::new();
    let mut room = FILLED_AT_A_TIME;
    for (segment, tokens) in to_read {
        let mut rest = *tokens;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(room.min(rest.len()));
            spans.push(DraftSpan {
                segment: *segment,
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
