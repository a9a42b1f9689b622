//! Generation with head 1: several prompts at once, with a cache of keys and values.
//!
//! Prompts of different lengths are padded on the left, so that all rows end at the same column and
//! grow together; masks hide the padding and positions do not count it. Rows leave the batch as
//! they finish. Tokens only: there is no text, no tokenizer and no speculation here.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use rand::rngs::Xoshiro256PlusPlus;

use crate::attention::{AttentionContext, LayerCache, is_flex};
use crate::error::ModelError;
use crate::llama::MtpLlama;
use crate::random;
use crate::sampling::Sampling;

/// Columns that a cache has room for beyond its prompts before it has to grow.
const SPARE_COLUMNS: usize = 64;

/// Attention scores of one layer that a prefill makes at a time; longer prompts go in pieces.
const MOST_SCORES: usize = 1 << 24;

/// What to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids, at least one.
    pub tokens: Vec<u32>,
    /// Seed of this prompt's own generator; the other prompts of a call do not touch it.
    pub seed: u64,
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
}

/// Continues all prompts at once with head 1 and returns one generation for each, in their order.
///
/// A token of `eos` ends a generation. After every other token `stop` is asked with the prompt's
/// index and all its new tokens so far; true ends it. A prompt as long as `max_position_embeddings`
/// leaves no room and gives no token.
///
/// The same call repeats exactly. In another company of prompts a generation is the same up to
/// rounding: products of other sizes may add in another order.
///
/// # Errors
/// A prompt is empty, too long for the model or holds an unknown token; a setting is out of range;
/// the model's logits are not finite.
pub fn generate(
    model: &MtpLlama,
    prompts: &[Prompt],
    sampling: &Sampling,
    eos: &[u32],
    stop: &mut dyn FnMut(usize, &[u32]) -> bool,
) -> Result<Vec<Generation>, ModelError> {
    sampling.check()?;
    let mut rows = Vec::new();
    for (index, prompt) in prompts.iter().enumerate() {
        rows.push(Row::new(model, index, prompt, sampling)?);
    }
    let mut finished: Vec<Generation> = (0..prompts.len())
        .map(|_| Generation {
            tokens: Vec::new(),
            finish: Finish::Length,
        })
        .collect();
    rows.retain(|row| row.budget > 0);
    if rows.is_empty() {
        return Ok(finished);
    }

    // The weights without gradients: shared, not copied.
    let model = model.valid();
    let started: Vec<&[u32]> = rows.iter().map(|row| row.prompt).collect();
    let (mut decoder, mut logits) = Decoder::prefill(&model, &started);
    loop {
        let mut going = Vec::new();
        let vocabulary = model.config().vocab_size;
        for (index, (row, logits)) in rows.iter_mut().zip(logits.chunks(vocabulary)).enumerate() {
            match row.advance(logits, sampling, eos, stop)? {
                None => going.push(index),
                Some(finish) => {
                    if let Some(place) = finished.get_mut(row.index) {
                        *place = Generation {
                            tokens: std::mem::take(&mut row.tokens),
                            finish,
                        };
                    }
                }
            }
        }
        if going.is_empty() {
            return Ok(finished);
        }
        if going.len() < rows.len() {
            decoder.keep(&going);
            let mut index = 0..;
            rows.retain(|_| index.next().is_some_and(|index| going.binary_search(&index).is_ok()));
        }
        let last: Vec<u32> = rows.iter().filter_map(|row| row.tokens.last().copied()).collect();
        logits = decoder.step(&last);
    }
}

/// One prompt on its way.
struct Row<'a> {
    /// Its place among the caller's prompts.
    index: usize,
    prompt: &'a [u32],
    /// Most tokens that it may get.
    budget: usize,
    rng: Xoshiro256PlusPlus,
    tokens: Vec<u32>,
}

impl<'a> Row<'a> {
    fn new(model: &MtpLlama, index: usize, prompt: &'a Prompt, sampling: &Sampling) -> Result<Self, ModelError> {
        let config = model.config();
        let length = prompt.tokens.len();
        let fail = |what: String| Err(ModelError::Request(format!("prompt {index} {what}")));
        if length == 0 {
            return fail("is empty: give at least one token to continue, such as the model's first token".to_owned());
        }
        let Some(room) = config.max_position_embeddings.checked_sub(length) else {
            return fail(format!(
                "has {length} tokens, more than the {} positions of the model: shorten it",
                config.max_position_embeddings
            ));
        };
        if let Some(token) = prompt.tokens.iter().find(|token| **token as usize >= config.vocab_size) {
            return fail(format!(
                "holds token {token}, the model knows 0 to {}: use the model's own tokenizer",
                config.vocab_size.saturating_sub(1)
            ));
        }
        Ok(Self {
            index,
            prompt: &prompt.tokens,
            budget: sampling.max_new_tokens.min(room),
            rng: random::generator(prompt.seed, "generate"),
            tokens: Vec::new(),
        })
    }

    /// Takes the next token; says why, if it was the last.
    fn advance(
        &mut self,
        logits: &[f32],
        sampling: &Sampling,
        eos: &[u32],
        stop: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> Result<Option<Finish>, ModelError> {
        let token = sampling.pick(logits, &mut self.rng).ok_or_else(|| {
            ModelError::Request(format!(
                "the model gave logits that are not finite for prompt {} after {} new tokens: its weights are damaged or too large for its float type",
                self.index,
                self.tokens.len()
            ))
        })?;
        if eos.contains(&token) {
            return Ok(Some(Finish::Eos));
        }
        self.tokens.push(token);
        if stop(self.index, &self.tokens) {
            return Ok(Some(Finish::Stop));
        }
        Ok((self.tokens.len() >= self.budget).then_some(Finish::Length))
    }
}

/// Head 1 with the cache of all rows of a batch.
struct Decoder<'a> {
    model: &'a MtpLlama,
    dtype: DType,
    device: Device,
    /// One a layer.
    caches: Vec<LayerCache>,
    /// Column of each row's first token; padding lies before it.
    first: Vec<usize>,
    /// Columns so far.
    filled: usize,
}

impl<'a> Decoder<'a> {
    /// Reads all prompts; the logits `[B * V]` after each prompt's last token come with it.
    fn prefill(model: &'a MtpLlama, prompts: &[&[u32]]) -> (Self, Vec<f32>) {
        let (config, dtype, device) = (model.config(), model.decoded_dtype(), model.device());
        let batch = prompts.len();
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let cache = || LayerCache::new(config, batch, longest + SPARE_COLUMNS, dtype, &device);
        let mut decoder = Self {
            model,
            dtype,
            caches: (0..config.num_hidden_layers).map(|_| cache()).collect(),
            first: prompts.iter().map(|prompt| longest - prompt.len()).collect(),
            filled: 0,
            device: device.clone(),
        };
        let scores_per_column = batch * config.num_attention_heads * longest;
        let piece = (MOST_SCORES / scores_per_column.max(1)).max(1);
        loop {
            let columns = decoder.filled..longest.min(decoder.filled + piece);
            let tokens: Vec<u32> = prompts
                .iter()
                .zip(&decoder.first)
                .flat_map(|(prompt, first)| {
                    // Any token serves as padding: nothing looks at it.
                    let at = |column: usize| column.checked_sub(*first).and_then(|i| prompt.get(i)).copied();
                    columns.clone().map(move |column| at(column).unwrap_or(0))
                })
                .collect();
            let last = columns.end >= longest;
            let logits = decoder.read(&tokens, columns.len(), last);
            if last {
                return (decoder, logits);
            }
        }
    }

    /// Reads one more token of each row; the logits `[B * V]` after it.
    fn step(&mut self, tokens: &[u32]) -> Vec<f32> {
        self.read(tokens, 1, true)
    }

    /// Puts `seq` new columns through all layers; the logits `[B * V]` after the last one, if wanted.
    ///
    /// On flex within rayon's pool: a thread outside of it would hand over every single product and
    /// wait, while the pool's own threads, looking for work, take the processor from it.
    fn read(&mut self, tokens: &[u32], seq: usize, wanted: bool) -> Vec<f32> {
        let task = |decoder: &mut Self| {
            let hidden = decoder.hidden(tokens, seq);
            if wanted {
                decoder.model.logits(hidden).into_data().iter::<f32>().collect()
            } else {
                Vec::new()
            }
        };
        if is_flex(&self.device) {
            rayon::scope(|_| task(self))
        } else {
            task(self)
        }
    }

    /// Puts `seq` new columns through all layers: hidden states `[B, 1, D]` of the last one.
    fn hidden(&mut self, tokens: &[u32], seq: usize) -> Tensor<3> {
        let columns = self.filled..self.filled + seq;
        let ctx = AttentionContext::cached(self.model.config(), &self.first, columns, self.dtype, &self.device);
        let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [self.first.len(), seq]), &self.device);
        self.filled += seq;
        self.model.forward_cached(ids, &ctx, &mut self.caches)
    }

    /// Goes on with these rows only, and without the columns that are padding in all of them.
    fn keep(&mut self, rows: &[usize]) {
        self.first = rows.iter().filter_map(|row| self.first.get(*row).copied()).collect();
        let skip = self.first.iter().copied().min().unwrap_or(0);
        self.first.iter_mut().for_each(|first| *first -= skip);
        self.filled -= skip;
        let index: Vec<i64> = rows.iter().map(|row| *row as i64).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &self.device);
        self.caches.iter_mut().for_each(|cache| cache.keep(&index, skip));
    }
}
