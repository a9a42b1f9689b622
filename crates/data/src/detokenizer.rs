//! Token ids to text while they are generated.
//!
//! The text of new ids is the text of all ids less the text of the prompt's ids. Decoding new ids by
//! themselves is wrong for SentencePiece-type tokenizers, whose decoder strips a space at the start
//! of a text.

use super::{DataError, Tokenizer};

/// Decodes ids that follow a prompt, one at a time.
///
/// [`Self::push`] returns the text that an id completes. The bytes of an incomplete UTF-8 character
/// are held back until the ids after it complete it. All returned texts together, the last one from
/// [`Self::finish`], are the text of all ids less the text of the prompt's ids. Bytes that never
/// become a character are U+FFFD; text before them is kept as it was.
///
/// Each id is decoded once or, inside a character, a few times: the cost of a text is linear in its
/// length.
#[derive(Clone, Debug)]
pub struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    /// Ids whose text has not been returned.
    held: Vec<u32>,
    /// No id came before `held`: the decoder may strip its start.
    at_start: bool,
}

impl<'t> Detokenizer<'t> {
    /// A decoder of the ids after `prompt`.
    pub fn after(tokenizer: &'t Tokenizer, prompt: &[u32]) -> Self {
        Self {
            tokenizer,
            held: Vec::new(),
            at_start: prompt.is_empty(),
        }
    }

    /// The text that `id` completes, empty if it completes none.
    ///
    /// # Errors
    /// What the tokenizer's decoder refuses.
    pub fn push(&mut self, id: u32) -> Result<String, DataError> {
        self.held.push(id);
        let text = self.held_text()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.held.clear();
        self.at_start = false;
        Ok(text)
    }

    /// The text of what is held back, at the end of the ids.
    ///
    /// # Errors
    /// What the tokenizer's decoder refuses.
    pub fn finish(&mut self) -> Result<String, DataError> {
        let text = self.held_text()?;
        self.at_start &= self.held.is_empty();
        self.held.clear();
        Ok(text)
    }

    /// The decoder is given one ordinary token before the held ids, which stands for all ids before
    /// them: those end with a complete character, so nothing else of them has an influence.
    fn held_text(&self) -> Result<String, DataError> {
        if self.held.is_empty() {
            return Ok(String::new());
        }
        let anchor = self.tokenizer.anchor().filter(|_| !self.at_start);
        let Some((id, before)) = anchor else {
            return self.tokenizer.decode(&self.held);
        };
        let mut ids = Vec::with_capacity(self.held.len() + 1);
        ids.push(*id);
        ids.extend(&self.held);
        let text = self.tokenizer.decode(&ids)?;
        Ok(text.strip_prefix(before.as_str()).map_or_else(
            || {
                // A decoder that changes its earlier text, for example by joining words.
                let common = text.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
                let start = (0..=common).rev().find(|&i| text.is_char_boundary(i));
                text.get(start.unwrap_or_default()..).unwrap_or_default().to_owned()
            },
            str::to_owned,
        ))
    }
}

impl Tokenizer {
    /// The text that `ids` add to `prompt`: the text of all ids less that of the prompt's.
    ///
    /// # Errors
    /// What the tokenizer's decoder refuses.
    pub fn decode_after(&self, prompt: &[u32], ids: &[u32]) -> Result<String, DataError> {
        Ok(self.pieces_after(prompt, ids)?.concat())
    }

    /// The text that each of `ids` adds to `prompt` and the ids before it. A character made of several
    /// ids is the text of the last of them.
    ///
    /// # Errors
    /// What the tokenizer's decoder refuses.
    pub fn pieces_after(&self, prompt: &[u32], ids: &[u32]) -> Result<Vec<String>, DataError> {
        let mut decoder = Detokenizer::after(self, prompt);
        let mut pieces = ids
            .iter()
            .map(|&id| decoder.push(id))
            .collect::<Result<Vec<String>, DataError>>()?;
        if let Some(last) = pieces.last_mut() {
            last.push_str(&decoder.finish()?);
        }
        Ok(pieces)
    }
}
