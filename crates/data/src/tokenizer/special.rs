//! Special tokens at the start and end of a text, and those that a text spells.
//!
//! Which ones a tokenizer adds follows transformers 5 (`add_special_tokens=True`): the post-processor
//! of `tokenizer.json` decides, and `add_bos_token` and `add_eos_token` of `tokenizer_config.json` have no
//! effect; next to a `tokenizer.model` they decide. The settings `data.special_tokens` and
//! `data.special_in_text` override it; a model that was trained with an override keeps it in
//! `tokenizer_config.json` under `wmtp`, so that its evaluation makes the same choice.

use super::{DataError, Tokenizer, library};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

/// Key of [`Choice`] in `tokenizer_config.json`.
const RECORD: &str = "wmtp";

/// Token ids before and after a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Affixes {
    pub begin: Vec<u32>,
    pub end: Vec<u32>,
}

impl Affixes {
    /// What the post-processor puts around a text.
    pub fn of(inner: &tokenizers::Tokenizer) -> Result<Self, String> {
        if inner.get_post_processor().is_none() {
            return Ok(Self::default());
        }
        let whole = library::call(|| inner.encode("a", true)).map_err(|e| e.to_string())?;
        let (ids, added) = (whole.get_ids(), whole.get_special_tokens_mask());
        let begin = added.iter().take_while(|&&a| a == 1).count();
        let end = added.iter().skip(begin).rev().take_while(|&&a| a == 1).count();
        Ok(Self {
            begin: ids.get(..begin).unwrap_or_default().to_vec(),
            end: ids.get(ids.len() - end..).unwrap_or_default().to_vec(),
        })
    }
}

/// Which special tokens begin and end a text. A chat template writes its own: with `auto` none is
/// added to its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SpecialTokens {
    /// Those of the tokenizer's post-processor, as transformers adds them with
    /// `add_special_tokens=True`. For a model that wmtp trained with another choice: that choice.
    #[default]
    Auto,
    /// None. A trained response still ends with EOS.
    Never,
    /// As `auto`; where that begins a text with none, the tokenizer's `bos_token`. A text of a chat
    /// template that writes it gets no second one.
    Always,
}

impl SpecialTokens {
    /// As it is written in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
            Self::Always => "always",
        }
    }
}

/// How special tokens spelt out in a text are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SpecialInText {
    /// As `parse`. For a model that wmtp trained with another choice: that choice.
    #[default]
    Auto,
    /// They become the special token, as in transformers.
    Parse,
    /// They are text like any other. Not with `data.prompt: chat`, whose template spells special tokens.
    Plain,
}

impl SpecialInText {
    /// As it is written in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Parse => "parse",
            Self::Plain => "plain",
        }
    }
}

/// The settings `data.special_tokens` and `data.special_in_text`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Choice {
    /// At the start and end of a text.
    pub special_tokens: SpecialTokens,
    /// Spelt in a text.
    pub special_in_text: SpecialInText,
}

impl Choice {
    /// What `tokenizer_config.json` records of the model's training.
    pub(super) fn recorded(config: &Value) -> Result<Self, String> {
        match config.get(RECORD) {
            None => Ok(Self::default()),
            Some(value) => Self::deserialize(value).map_err(|e| format!("`{RECORD}` is not wmtp's record: {e}")),
        }
    }

    /// This choice where it is not `auto`, else `recorded`.
    pub(super) fn over(self, recorded: Self) -> Self {
        Self {
            special_tokens: match self.special_tokens {
                SpecialTokens::Auto => recorded.special_tokens,
                chosen => chosen,
            },
            special_in_text: match self.special_in_text {
                SpecialInText::Auto => recorded.special_in_text,
                chosen => chosen,
            },
        }
    }

    /// `tokenizer_config.json` with this choice; unchanged where that is what it says already.
    pub(super) fn written(self, config: Option<&str>) -> Option<String> {
        let mut value: Value = config.map_or_else(
            || Some(Value::Object(serde_json::Map::new())),
            |text| serde_json::from_str(text).ok(),
        )?;
        let recorded = Self::recorded(&value).unwrap_or_default();
        if recorded == self {
            return config.map(str::to_owned);
        }
        let object = value.as_object_mut()?;
        if self == Self::default() {
            object.remove(RECORD);
        } else {
            object.insert(RECORD.into(), serde_json::to_value(self).ok()?);
        }
        Some(format!("{value:#}\n"))
    }
}

impl Tokenizer {
    /// The same tokenizer with these settings. `auto` is what the model was trained with, where its
    /// `tokenizer_config.json` records it, else what transformers does.
    ///
    /// # Errors
    /// `always` with a tokenizer that names no `bos_token`, or one outside its vocabulary.
    pub fn with_choice(mut self, choice: Choice) -> Result<Self, DataError> {
        self.choice = choice.over(self.recorded);
        if self.choice.special_tokens == SpecialTokens::Always && self.post.begin.is_empty() {
            self.bos = Some(self.bos_id()?);
        }
        let plain = self.choice.special_in_text == SpecialInText::Plain;
        if self.inner.get_encode_special_tokens() != plain {
            let mut inner = (*self.inner).clone();
            inner.set_encode_special_tokens(plain);
            self.inner = Arc::new(inner);
        }
        Ok(self)
    }

    fn bos_id(&self) -> Result<u32, DataError> {
        let named = self.special.iter().find(|(name, _)| name == "bos_token");
        named
            .and_then(|(_, bos)| self.inner.token_to_id(bos))
            .ok_or_else(|| DataError::Tokenizer {
                place: self.place.clone(),
                problem: "`data.special_tokens` is `always`, but it names no `bos_token` of its vocabulary; \
                          set `bos_token` in `tokenizer_config.json`, or use `auto`"
                    .into(),
            })
    }

    /// The same tokenizer for texts that a chat template wrote: the template writes special tokens
    /// itself, so that none is added and those in the text are parsed.
    pub fn for_chat(mut self) -> Self {
        self.chat = true;
        if self.inner.get_encode_special_tokens() {
            let mut inner = (*self.inner).clone();
            inner.set_encode_special_tokens(false);
            self.inner = Arc::new(inner);
        }
        self
    }

    /// The choice that is in force.
    pub fn choice(&self) -> Choice {
        self.choice
    }

    /// Ids that begin a text.
    pub fn begin_ids(&self) -> &[u32] {
        match self.choice.special_tokens {
            SpecialTokens::Never => &[],
            SpecialTokens::Auto if self.chat => &[],
            SpecialTokens::Auto => &self.post.begin,
            SpecialTokens::Always if self.post.begin.is_empty() => self.bos.as_slice(),
            SpecialTokens::Always => &self.post.begin,
        }
    }

    /// Ids that end a whole text. A trained response ends with EOS in addition, unless that is the
    /// last of them.
    pub fn end_ids(&self) -> &[u32] {
        match self.choice.special_tokens {
            SpecialTokens::Never => &[],
            _ if self.chat => &[],
            SpecialTokens::Auto | SpecialTokens::Always => &self.post.end,
        }
    }

    /// The ids of a whole text with its special tokens: what is scored.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn document(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let mut ids = self.prompt_ids(text)?;
        ids.extend(self.end_ids());
        self.fitting(ids)
    }

    /// The ids of the beginning of a text, which a model continues: no special token ends it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn prompt_ids(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let ids = self.encode(text)?;
        self.fitting(self.begun(ids))
    }

    /// The ids of a trained document, and how many of them are its prompt.
    ///
    /// They are the ids of the whole text `prompt + response`, with the special tokens and EOS. Where
    /// no token ends at the seam, the prompt ends at the last token border before it, and the tokens
    /// across the seam belong to the response.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn trained(&self, prompt: &str, response: &str) -> Result<(Vec<u32>, usize), DataError> {
        let (ids, prompt_len, _) = self.trained_with_offsets(prompt, response)?;
        Ok((ids, prompt_len))
    }

    /// As [`Tokenizer::trained`], and where in `response` each of its tokens begins, in bytes. A token that
    /// begins before the response, as one across the seam does, begins at 0; special tokens that end the
    /// document begin at its end.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn trained_with_offsets(
        &self,
        prompt: &str,
        response: &str,
    ) -> Result<(Vec<u32>, usize, Vec<usize>), DataError> {
        let whole = format!("{prompt}{response}");
        let encoding = library::call(|| self.inner.encode(whole, false)).map_err(|e| self.wrong(e))?;
        // Byte offsets into the text. A character of several tokens ends where its last one does.
        let offsets = encoding.get_offsets();
        let within = offsets.iter().take_while(|(_, end)| *end <= prompt.len()).count();
        let after = encoding.get_ids().len() - within;
        let mut ids = self.begun(encoding.get_ids().to_vec());
        let prompt_len = ids.len() - after;
        self.end(&mut ids);
        let own = offsets.iter().skip(within);
        let mut starts: Vec<usize> = own.map(|(start, _)| start.saturating_sub(prompt.len())).collect();
        starts.resize(ids.len() - prompt_len, response.len());
        Ok((self.fitting(ids)?, prompt_len, starts))
    }

    /// Appends what ends a trained text: the tokenizer's own special tokens and one EOS.
    pub(crate) fn end(&self, ids: &mut Vec<u32>) {
        ids.extend(self.end_ids());
        let ends = self.end_ids().last().is_some_and(|id| self.eos_ids().contains(id));
        if !ends {
            ids.push(self.eos_id());
        }
    }

    /// `ids` after the ids that begin a text. A chat template that has written them gets no second.
    fn begun(&self, ids: Vec<u32>) -> Vec<u32> {
        let begin = self.begin_ids();
        if self.chat && ids.starts_with(begin) {
            return ids;
        }
        begin.iter().copied().chain(ids).collect()
    }

    /// `ids`, if the model has an embedding for each of them.
    pub(crate) fn fitting(&self, ids: Vec<u32>) -> Result<Vec<u32>, DataError> {
        let Some(rows) = self.embeddings else { return Ok(ids) };
        match ids.iter().find(|&&id| id as usize >= rows) {
            None => Ok(ids),
            Some(&id) => Err(DataError::WrongTokenizer {
                problem: format!(
                    "the text has the token `{}` (id {id}), but the model has only {rows} embeddings; \
                     leave that token out of the text",
                    self.inner.id_to_token(id).unwrap_or_default()
                ),
            }),
        }
    }

    /// What a tokenizer's files say that has no effect; None where they agree.
    pub fn notice(&self) -> Option<String> {
        if self.choice.special_tokens != SpecialTokens::Auto {
            return None;
        }
        let bos = self.bos_id().ok();
        if self.pieces.is_some() && self.declared.0.is_none() && self.post.begin.is_empty() && bos.is_some() {
            return Some(format!(
                "`tokenizer_config.json` of {} has no `add_bos_token`: no BOS begins a text, as in transformers; \
                 `data.special_tokens: always` adds it",
                self.place
            ));
        }
        let adds = |id: Option<u32>, ids: &[u32]| id.is_some_and(|id| ids.contains(&id));
        let differs = [
            ("add_bos_token", self.declared.0, adds(bos, &self.post.begin)),
            (
                "add_eos_token",
                self.declared.1,
                adds(Some(self.eos_id()), &self.post.end),
            ),
        ];
        let (key, wanted, does) = differs
            .into_iter()
            .find_map(|(key, declared, does)| declared.filter(|wanted| *wanted != does).map(|w| (key, w, does)))?;
        Some(format!(
            "`tokenizer_config.json` of {} has `{key}: {wanted}`, but `tokenizer.json` {} that token, and it decides, \
             as in transformers; `data.special_tokens` overrides it",
            self.place,
            if does { "adds" } else { "does not add" }
        ))
    }
}
