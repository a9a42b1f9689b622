//! Generation: many requests through one model, so many at once, each handed out as it ends.
//!
//! Continuous batching (Yu et al. 2022, Orca): a text that ends leaves the batch at once and the next
//! request takes its place. Beginnings that prompts have in common are read once and their keys and
//! values shared ([`prefixes`], after SGLang's radix tree, Zheng et al. 2024). With
//! [`Decoding::speculative`] heads 2..H draft and head 1 judges (Stern et al. 2018; Gloeckle et al.
//! 2024, section 3.2), by speculative sampling where the temperature is not 0 (Leviathan et al. 2023).
//!
//! Tokens only: there is no text and no tokenizer here.

mod device;
mod engine;
#[cfg(feature = "flex")]
mod host;
#[cfg(feature = "flex")]
mod host_layer;
mod prefixes;
mod row;
mod schedule;

use burn::module::Module;

use crate::error::ModelError;
use crate::llama::MtpLlama;
use crate::sampling::Sampling;
use engine::Engine;
use schedule::Schedule;

/// What to continue, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Token ids, at least one.
    pub tokens: Vec<u32>,
    /// Seed of this request's own generator; the other requests of a call do not touch it.
    pub seed: u64,
    /// Temperature, top-p and length.
    pub sampling: Sampling,
}

/// How the requests of a call are worked off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoding {
    /// Most texts in the batch. Keys and values of about so many times `max_position_embeddings`
    /// tokens are held at most, and of no more than the texts are long.
    pub rows: usize,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Beginnings that prompts have in common are computed once.
    pub share_prefixes: bool,
    /// Heads 2..H draft the tokens after the next one, and head 1 judges them.
    pub speculative: bool,
    /// Tokens of drafts that a text has judged in a pass at most, at least one. Greedily more than H - 1
    /// let a text try several ways to go on at once, on flex; a device takes one way.
    pub drafts: usize,
}

impl Default for Decoding {
    fn default() -> Self {
        Self {
            rows: 16,
            eos: Vec::new(),
            share_prefixes: true,
            speculative: false,
            drafts: 8,
        }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model gave an end token.
    Eos,
    /// The caller's `stop` said so.
    Stop,
    /// `max_new_tokens` were generated, or prompt and new tokens fill `max_position_embeddings`.
    Length,
}

/// What came after one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The new tokens, without the prompt and without the end token. The token at which `stop`
    /// said so is included.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: Finish,
    /// What it took.
    pub effort: Effort,
}

/// What a generation took beyond reading its prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effort {
    /// Passes through the trunk that this text took part in. Without speculation one for each token,
    /// an end token included.
    pub trunk_forwards: usize,
    /// Tokens of heads 2..H that were put through the trunk for head 1 to judge.
    pub judged: usize,
    /// Passes in which heads 2, 3, ... had a token or several judged. Empty without speculation.
    pub drafted: Vec<usize>,
    /// Of these, the ones in which one became part of the text (or its end token).
    pub accepted: Vec<usize>,
}

impl Effort {
    /// Counts another text's effort in.
    pub fn add(&mut self, other: &Self) {
        self.trunk_forwards += other.trunk_forwards;
        self.judged += other.judged;
        for (all, more) in [
            (&mut self.drafted, &other.drafted),
            (&mut self.accepted, &other.accepted),
        ] {
            all.resize(all.len().max(more.len()), 0);
            all.iter_mut().zip(more).for_each(|(all, more)| *all += more);
        }
    }
}

/// What a call took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Passes of the batch through the trunk, without those that read prompts.
    pub trunk_forwards: usize,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Of these, the ones that were computed; the others were shared.
    pub prompt_tokens_read: usize,
    /// Tokens generated, without end tokens.
    pub tokens: usize,
}

/// Continues all requests with head 1, at most [`Decoding::rows`] at once. `done` gets each one's index
/// and generation as it ends.
///
/// A token of [`Decoding::eos`] ends a generation. After every other token `stop` is asked with the
/// request's index and all its new tokens so far; true ends it. A prompt as long as
/// `max_position_embeddings` leaves no room and gives no token.
///
/// The same call repeats exactly. In other company, with other `rows` or shared prefixes a generation
/// is the same up to rounding; on flex with weights in f32 or bf16, on machines with AVX-512, to the
/// last bit, since there no sum's order depends on what else is computed. Greedily, speculation changes
/// nothing but the time (where rounding differs, a token may differ whose logit is that close to the
/// best); otherwise it changes which tokens a seed gives, and not their distribution.
///
/// # Errors
/// A prompt is empty, too long for the model or holds an unknown token; a setting is out of range; a
/// model with one head is asked to speculate: all of these before the first token. Or the model's
/// logits are not finite.
pub fn generate(
    model: &MtpLlama,
    requests: &[Request],
    decoding: &Decoding,
    stop: &mut dyn FnMut(usize, &[u32]) -> bool,
    done: &mut dyn FnMut(usize, Generation),
) -> Result<Totals, ModelError> {
    check(model, requests, decoding)?;
    // The weights without gradients: shared, not copied.
    let model = model.valid();
    let mut engine = engine(&model, decoding.speculative);
    Schedule::new(model.config(), requests, decoding).run(engine.as_mut(), stop, done)
}

/// [`generate`] with all generations at the end, in the order of their requests.
///
/// # Errors
/// As [`generate`].
pub fn generate_all(
    model: &MtpLlama,
    requests: &[Request],
    decoding: &Decoding,
    stop: &mut dyn FnMut(usize, &[u32]) -> bool,
) -> Result<Vec<Generation>, ModelError> {
    let mut found = Vec::with_capacity(requests.len());
    generate(model, requests, decoding, stop, &mut |index, generation| {
        found.push((index, generation));
    })?;
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, generation)| generation).collect())
}

/// What computes on the model's device: slices in host memory where that is flex and its types allow.
fn engine<'a>(model: &'a MtpLlama, drafts: bool) -> Box<dyn Engine + 'a> {
    #[cfg(feature = "flex")]
    if let Some(host) = host::Host::new(model, drafts) {
        return Box::new(host);
    }
    Box::new(device::OnDevice::new(model, drafts))
}

fn check(model: &MtpLlama, requests: &[Request], decoding: &Decoding) -> Result<(), ModelError> {
    let fail = |what: String| Err(ModelError::Request(what));
    if decoding.rows == 0 {
        return fail("a batch of 0 rows generates nothing: allow at least 1".to_owned());
    }
    if decoding.speculative && decoding.drafts == 0 {
        return fail("0 drafts a pass leave nothing to judge: allow at least 1".to_owned());
    }
    if decoding.speculative && model.n_heads() == 1 {
        return fail(
            "speculative decoding needs heads that draft, and this model has one head only: train a model with n_heads 2 or more, or generate without speculation"
                .to_owned(),
        );
    }
    let config = model.config();
    for (index, request) in requests.iter().enumerate() {
        request.sampling.check()?;
        let length = request.tokens.len();
        if length == 0 {
            return fail(format!(
                "prompt {index} is empty: give at least one token to continue, such as the model's first token"
            ));
        }
        if length > config.max_position_embeddings {
            return fail(format!(
                "prompt {index} has {length} tokens, more than the {} positions of the model: shorten it",
                config.max_position_embeddings
            ));
        }
        if let Some(token) = request
            .tokens
            .iter()
            .find(|token| **token as usize >= config.vocab_size)
        {
            return fail(format!(
                "prompt {index} holds token {token}, the model knows 0 to {}: use the model's own tokenizer",
                config.vocab_size.saturating_sub(1)
            ));
        }
    }
    Ok(())
}
