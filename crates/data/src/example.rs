//! Prompt and response as text, then as token ids. Knows no file and no packing.

use super::{DataError, Tokenizer, tokenizer::library};
use rayon::prelude::*;
use std::{collections::BTreeMap, ops::Range};

/// One prompt and what the model must learn to write after it, as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Number within its data set.
    pub sample: usize,
    /// Name for people: `mbpp/601/reference`.
    pub name: String,
    /// Solutions of one problem share this number.
    pub problem: u32,
    /// Not trained.
    pub prompt: String,
    /// Trained; EOS is appended as a token.
    pub response: String,
    /// The task itself, without the words around it that all prompts share: compared with
    /// evaluation problems.
    pub task: String,
    /// The program inside the response: compared with evaluation problems.
    pub code: String,
    /// 1 if the program passed its tests, 0 if not, None if unknown.
    pub reward: Option<f32>,
}

/// An [`Example`] as token ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokenized {
    /// Number within its data set.
    pub sample: usize,
    /// Name for people.
    pub name: String,
    /// Solutions of one problem share this number.
    pub problem: u32,
    /// Special tokens that begin a text, prompt, response, EOS.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt, those that begin a text included; at least 1 and fewer than all. The token after
    /// them is the first one that is trained.
    pub prompt_len: usize,
    /// Tokens after the prompt that are not trained either: the other turns of a conversation. In order.
    pub untrained: Vec<Range<usize>>,
    /// Tokens to which the data give a weight other than 1. In order; what the scorer `given` reads.
    pub given: Vec<(Range<usize>, f32)>,
    /// 1 if the program passed its tests, 0 if not, None if unknown.
    pub reward: Option<f32>,
}

impl Tokenized {
    /// Tokenises prompt and response as one text ([`Tokenizer::trained`]), with the special tokens
    /// that begin a text and with EOS.
    ///
    /// # Errors
    /// A prompt without a token: nothing would predict the first token of the response. A token that the
    /// model has no embedding for, named with the sample.
    pub fn new(example: &Example, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let (tokens, prompt_len) = tokenizer
            .trained(&example.prompt, &example.response)
            .map_err(|error| error.of_sample(&example.name))?;
        if prompt_len == 0 {
            return Err(DataError::Empty {
                what: format!("prompt in {}", example.name),
                why: "its first response token would have nothing before it".into(),
            });
        }
        Ok(Self {
            sample: example.sample,
            name: example.name.clone(),
            problem: example.problem,
            tokens,
            prompt_len,
            untrained: Vec::new(),
            given: Vec::new(),
            reward: example.reward,
        })
    }

    /// Leaves out all tokens from `len` on. What then has no trained token can't be trained on.
    pub fn cut(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.untrained.retain(|range| range.start < len);
        self.given.retain(|(range, _)| range.start < len);
        let ranges = self.untrained.iter_mut();
        for range in ranges.chain(self.given.iter_mut().map(|(range, _)| range)) {
            range.end = range.end.min(len);
        }
    }

    /// Tokens that are trained.
    pub fn trained_tokens(&self) -> usize {
        let untrained: usize = self.untrained.iter().map(Range::len).sum();
        self.tokens.len().saturating_sub(self.prompt_len + untrained)
    }

    /// Tokenises on all cores, in the order given.
    ///
    /// # Errors
    /// The first example that fails, in that order.
    pub fn all(examples: &[Example], tokenizer: &Tokenizer) -> Result<Vec<Self>, DataError> {
        let done: Vec<_> = examples.par_iter().map(|e| Self::new(e, tokenizer)).collect();
        done.into_iter().collect()
    }
}

/// How often each special token is spelt in texts, whether parsed or not.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub(super) fn spelled<'e>(
    texts: impl IntoParallelIterator<Item = &'e Example>,
    tokenizer: &Tokenizer,
) -> Result<BTreeMap<String, usize>, DataError> {
    let spelling = Spelling::of(tokenizer);
    let counts: Vec<_> = texts.into_par_iter().map(|text| spelling.count(text)).collect();
    let mut all = BTreeMap::new();
    for found in counts {
        for (id, count) in found? {
            *all.entry(id).or_default() += count;
        }
    }
    Ok(spelling.named(all))
}

/// Finds special tokens that are spelt out in texts.
pub(super) struct Spelling<'t> {
    tokenizer: &'t Tokenizer,
    /// The same, parsing special tokens.
    parsing: tokenizers::Tokenizer,
    special: BTreeMap<u32, String>,
}

impl<'t> Spelling<'t> {
    /// Of this tokenizer's special tokens.
    pub fn of(tokenizer: &'t Tokenizer) -> Self {
        let mut parsing = (*tokenizer.inner).clone();
        parsing.set_encode_special_tokens(false);
        let added = parsing.get_added_tokens_decoder().into_iter();
        let special = added
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (id, token.content))
            .collect();
        Self {
            tokenizer,
            parsing,
            special,
        }
    }

    /// How often each is spelt in a text, by its id.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn count(&self, example: &Example) -> Result<BTreeMap<u32, usize>, DataError> {
        // The prompt of a chat template spells special tokens on purpose: only its task counts.
        let before = match self.tokenizer.chat {
            true => &example.task,
            false => &example.prompt,
        };
        let mut found = BTreeMap::new();
        for text in [before, &example.response] {
            if !self.special.values().any(|token| text.contains(token.as_str())) {
                continue;
            }
            let ids = library::call(|| self.parsing.encode_fast(text.as_str(), false));
            let ids = ids.map_err(|e| self.tokenizer.wrong(e))?;
            for id in ids.get_ids().iter().filter(|id| self.special.contains_key(id)) {
                *found.entry(*id).or_default() += 1;
            }
        }
        Ok(found)
    }

    /// Counts by the tokens' texts.
    pub fn named(&self, counts: BTreeMap<u32, usize>) -> BTreeMap<String, usize> {
        let mut named = BTreeMap::new();
        for (id, count) in counts {
            let token = self.special.get(&id).cloned().unwrap_or_default();
            *named.entry(token).or_default() += count;
        }
        named
    }
}
