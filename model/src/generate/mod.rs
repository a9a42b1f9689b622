//! Generation: many requests through one model with continuous batching, each returned as it ends.
//!
//! Continuous batching (Yu et al. 2022, Orca): a text that ends leaves the batch at once and the next
//! request takes its place. Prefixes that prompts have in common are computed once and their KV caches
//! shared ([`prefixes`], after SGLang's radix tree, Zheng et al. 2024). With [`Decoding::speculative`]
//! heads 2..H draft and head 1 verifies (Stern et al. 2018; Gloeckle et al. 2024, section 3.2), as many drafts as
//! make the text come fastest ([`pace`]).
//!
//! Tokens only: there is no text and no tokenizer here.

#[cfg(feature = "flex")]
mod awake;
mod candidates;
mod copies;
mod device;
mod engine;
mod pace;
mod prefixes;
mod prepared;
mod request;
mod row;
mod schedule;
#[cfg(feature = "flex")]
mod slices;
#[cfg(feature = "flex")]
mod weights;

use burn::module::Module;

use crate::causal_lm::CausalLm;
use crate::error::ModelError;
use crate::llama::MtpLlama;
use engine::Engine;
pub use prepared::PreparedWeights;
pub use request::{Decoding, Effort, Finish, Generation, Request, Totals};
use schedule::Schedule;

/// Continues all requests with head 1, at most [`Decoding::rows`] at once. `done` gets each one's index
/// and generation as it ends.
///
/// A token of [`Decoding::eos`] ends a generation. After every other token `stop` is asked with the
/// request's index and all its new tokens so far; true ends it. A prompt as long as
/// `max_position_embeddings` leaves no room and gives no token.
///
/// The same call repeats exactly. With other requests, other `rows` or shared prefixes a generation is the
/// same up to rounding; on flex with weights in f32 or bf16, on machines with AVX-512 or AVX2, to the
/// last bit, since there the order of no sum depends on the rest of the batch. Speculation changes nothing but the
/// time (where rounding differs, a token may differ whose logit is that close to another one, or whose share ends
/// that close to the number that was drawn).
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
    let mut engine = engine(&model, decoding);
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
    let mut generations = Vec::with_capacity(requests.len());
    generate(model, requests, decoding, stop, &mut |index, generation| {
        generations.push((index, generation));
    })?;
    generations.sort_by_key(|(index, _)| *index);
    Ok(generations.into_iter().map(|(_, generation)| generation).collect())
}

/// The engine for the model's device: slices in host memory on flex with weights in f32, bf16 or quantized.
fn engine<'a>(model: &'a MtpLlama, decoding: &Decoding) -> Box<dyn Engine + 'a> {
    let drafts = decoding.speculative;
    #[cfg(feature = "flex")]
    if let Some(prepared) = &decoding.prepared {
        return Box::new(slices::SliceEngine::of(prepared.weights.clone()));
    }
    #[cfg(feature = "flex")]
    if let Some(engine) = slices::SliceEngine::new(model, drafts) {
        return Box::new(engine);
    }
    Box::new(device::TensorEngine::new(model, drafts))
}

/// Draft tokens of a step, all branches together.
const MOST_DRAFTS: usize = 1024;

fn check(model: &MtpLlama, requests: &[Request], decoding: &Decoding) -> Result<(), ModelError> {
    let fail = |what: String| Err(ModelError::Request(what));
    if decoding.rows == 0 {
        return fail("a batch of 0 rows generates nothing: allow at least 1".to_owned());
    }
    if decoding.speculative && decoding.drafts == 0 {
        return fail("0 draft tokens per step leave nothing to verify: allow at least 1".to_owned());
    }
    if decoding.speculative && decoding.drafts > MOST_DRAFTS {
        return fail(format!(
            "{} draft tokens per step are more than any text accepts: allow at most {MOST_DRAFTS}",
            decoding.drafts
        ));
    }
    if decoding.speculative && model.n_heads() == 1 {
        return fail(
            "speculative decoding needs heads that draft, and this model has one head only: train a model with n_heads 2 or more, or generate without speculation"
                .to_owned(),
        );
    }
    #[cfg(feature = "flex")]
    if let Some(prepared) = &decoding.prepared
        && decoding.speculative
        && !prepared.weights.has_drafts()
    {
        return fail("speculative decoding with prepared weights needs those of the heads that draft".to_owned());
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
