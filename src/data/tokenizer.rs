//! Text to token ids and back, by the model's own `tokenizer.json`.
//!
//! A [`Tokenizer`] adds no special tokens of its own accord: what is trained and what is evaluated
//! is exactly what the prompt says. It reads Hugging Face's files only (no `tokenizer.model`).

use super::{DataError, chat};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;

macro_rules! micro {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/micro/", $name))
    };
}

/// The micro model's `config.json`, built in.
pub const MICRO_CONFIG: &str = micro!("config.json");

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const MODEL_CONFIG: &str = "config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// A model's tokenizer, its end-of-sequence tokens and its chat template.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    place: String,
    eos_ids: Vec<u32>,
    special: Vec<(String, String)>,
    chat_template: Option<String>,
    hash: String,
    files: Vec<(String, String)>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Tokenizer({}, {} tokens, {})",
            self.place,
            self.vocab_size(),
            self.hash
        )
    }
}

impl Tokenizer {
    /// Reads a model directory: `tokenizer.json`, and where they are there
    /// `tokenizer_config.json`, `generation_config.json`, `config.json` (for the end of sequence)
    /// and `chat_template.jinja`.
    ///
    /// # Errors
    /// `tokenizer.json` absent or not one; a companion file that is not JSON; no end-of-sequence
    /// token named anywhere, or one that the vocabulary lacks.
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        let mut files = Vec::new();
        let names = [
            TOKENIZER,
            TOKENIZER_CONFIG,
            GENERATION_CONFIG,
            SPECIAL_TOKENS,
            CHAT_TEMPLATE,
            MODEL_CONFIG,
        ];
        for name in names {
            let path = dir.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => files.push((name.to_owned(), text)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && name != TOKENIZER => {}
                Err(source) => return Err(DataError::Read { path, source }),
            }
        }
        Self::from_files(dir.display().to_string(), files)
    }

    /// The micro model's tokenizer, built in: byte-level BPE with 1024 tokens.
    ///
    /// # Errors
    /// None with the files as shipped.
    pub fn builtin_micro() -> Result<Self, DataError> {
        let files = [
            (TOKENIZER, micro!("tokenizer.json")),
            (TOKENIZER_CONFIG, micro!("tokenizer_config.json")),
            (GENERATION_CONFIG, micro!("generation_config.json")),
            (MODEL_CONFIG, MICRO_CONFIG),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
        Self::from_files("builtin:micro".into(), files.into())
    }

    fn from_files(place: String, files: Vec<(String, String)>) -> Result<Self, DataError> {
        let wrong = |problem: String| DataError::Tokenizer {
            place: place.clone(),
            problem,
        };
        let file = |name: &str| files.iter().find(|(n, _)| n == name).map(|(_, text)| text.as_str());
        let json = |name: &str| -> Result<Value, DataError> {
            file(name).map_or(Ok(Value::Null), |text| {
                serde_json::from_str(text).map_err(|e| wrong(format!("`{name}` is not JSON: {e}")))
            })
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(file(TOKENIZER).unwrap_or_default()).map_err(|e| {
            wrong(format!(
                "`{TOKENIZER}` is not a tokenizer of the `tokenizers` library: {e}"
            ))
        })?;
        // Settings of whoever saved the file; here texts are neither cut nor padded.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| wrong(e.to_string()))?;
        let hash = content_hash(&inner).map_err(wrong)?;

        let config = json(TOKENIZER_CONFIG)?;
        let special = special_tokens(&config);
        let mut eos_ids: Vec<u32> = Vec::new();
        if let Some((_, eos)) = special.iter().find(|(name, _)| name == "eos_token") {
            let id = inner.token_to_id(eos);
            eos_ids.push(id.ok_or_else(|| {
                wrong(format!(
                    "its eos_token `{eos}` is not in its vocabulary; mend `{TOKENIZER_CONFIG}`"
                ))
            })?);
        }
        for name in [GENERATION_CONFIG, MODEL_CONFIG] {
            let ids = match &json(name)?["eos_token_id"] {
                Value::Array(ids) => ids.clone(),
                Value::Null => Vec::new(),
                id => vec![id.clone()],
            };
            for id in ids {
                let id = id
                    .as_u64()
                    .and_then(|id| u32::try_from(id).ok())
                    .filter(|&id| inner.id_to_token(id).is_some())
                    .ok_or_else(|| wrong(format!("eos_token_id {id} of `{name}` is not in its vocabulary")))?;
                if !eos_ids.contains(&id) {
                    eos_ids.push(id);
                }
            }
        }
        if eos_ids.is_empty() {
            return Err(wrong(format!(
                "no end-of-sequence token; name one as `eos_token` in `{TOKENIZER_CONFIG}` or as \
                 `eos_token_id` in `{MODEL_CONFIG}`"
            )));
        }
        let chat_template = file(CHAT_TEMPLATE).map(str::to_owned).or_else(|| template(&config));
        let files = files.into_iter().filter(|(name, _)| name != MODEL_CONFIG).collect();
        Ok(Self {
            inner,
            place,
            eos_ids,
            special,
            chat_template,
            hash,
            files,
        })
    }

    /// Token ids of `text`; no special token is added. Special tokens written in the text are
    /// recognised.
    ///
    /// # Errors
    /// What the tokenizer can't encode (a word-level one without an unknown token).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.inner
            .encode_fast(text, false)
            .map(|e| e.get_ids().to_vec())
            .map_err(|e| self.wrong(e))
    }

    /// The text of token ids, special tokens written out.
    ///
    /// # Errors
    /// What the tokenizer's decoder refuses.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.inner.decode(ids, false).map_err(|e| self.wrong(e))
    }

    /// The token that ends a trained response: the tokenizer's `eos_token`, else the generation
    /// config's, else the model's.
    pub fn eos_id(&self) -> u32 {
        self.eos_ids.first().copied().unwrap_or_default()
    }

    /// All tokens that end a generation, [`Self::eos_id`] first.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Number of tokens, added ones included: one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// SHA-256 (hex) of what decides token ids: vocabulary, merges, normaliser, pre-tokenizer and
    /// added tokens, whatever the file's layout. Equal hashes: the same tokenizer.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Directory or built-in name that it came from.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Checks that the tokenizer can belong to a model with `vocab_size` rows of embeddings.
    ///
    /// Models pad their vocabulary a little; a model with far more rows than the tokenizer has
    /// tokens (1024 and a tenth more) was trained with another one.
    ///
    /// # Errors
    /// [`DataError::WrongTokenizer`] with both sizes.
    pub fn check_vocab(&self, vocab_size: usize) -> Result<(), DataError> {
        let own = self.vocab_size();
        let place = &self.place;
        if own > vocab_size {
            return Err(DataError::WrongTokenizer {
                problem: format!(
                    "the one of {place} has {own} tokens, the model only {vocab_size}; take the tokenizer that came with the model"
                ),
            });
        }
        if vocab_size > own + own / 10 + 1024 {
            return Err(DataError::WrongTokenizer {
                problem: format!(
                    "the one of {place} has {own} tokens, the model {vocab_size}; take the tokenizer that came with the model"
                ),
            });
        }
        Ok(())
    }

    /// Checks that `other` gives the same ids, by content.
    ///
    /// # Errors
    /// [`DataError::WrongTokenizer`] naming both places.
    pub fn check_same(&self, other: &Self) -> Result<(), DataError> {
        if self.hash == other.hash {
            return Ok(());
        }
        Err(DataError::WrongTokenizer {
            problem: format!(
                "{} and {} do not have the same tokenizer (vocabulary, merges or pre-tokenizer differ); \
                 token by token the two models can't be compared, take one of the same family",
                self.place, other.place
            ),
        })
    }

    /// Messages, as (role, content), through the model's chat template. With
    /// `add_generation_prompt` the text ends where the assistant begins.
    ///
    /// # Errors
    /// No template, or one that can't be rendered.
    pub fn chat(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<String, DataError> {
        let wrong = |problem| DataError::ChatTemplate {
            place: self.place.clone(),
            problem,
        };
        let template = self.chat_template.as_deref().ok_or_else(|| {
            wrong(format!(
                "there is none; add `{CHAT_TEMPLATE}` or use `data.prompt: zero-shot`"
            ))
        })?;
        chat::render(template, messages, &self.special, add_generation_prompt).map_err(wrong)
    }

    /// Messages through the chat template of a model that may not be there, up to where the assistant
    /// begins.
    ///
    /// # Errors
    /// As [`Tokenizer::chat`]; no tokenizer.
    pub fn chat_of(tokenizer: Option<&Self>, messages: &[(&str, &str)]) -> Result<String, DataError> {
        let tokenizer = tokenizer.ok_or_else(|| DataError::ChatTemplate {
            place: "no model".into(),
            problem: "a chat prompt is written by the model's template: name a model".into(),
        })?;
        tokenizer.chat(messages, true)
    }

    /// Writes the tokenizer's files into `dir` as they came (not the model's `config.json`).
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self, dir: &Path) -> Result<(), DataError> {
        for (name, text) in &self.files {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|source| DataError::Write { path, source })?;
        }
        Ok(())
    }

    fn wrong(&self, error: tokenizers::Error) -> DataError {
        DataError::Tokenizer {
            place: self.place.clone(),
            problem: error.to_string(),
        }
    }
}

/// Written by the library with vocabulary in order of ids; the post-processor, which only places
/// special tokens and offsets, left out.
fn content_hash(inner: &tokenizers::Tokenizer) -> Result<String, String> {
    let mut plain = inner.clone();
    plain.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
    let text = plain.to_string(false).map_err(|e| e.to_string())?;
    Ok(hex(&Sha256::digest(text.as_bytes())))
}

/// `bos_token`, `eos_token` and so on: a string, or an object with `content`.
fn special_tokens(config: &Value) -> Vec<(String, String)> {
    ["bos_token", "eos_token", "pad_token", "unk_token"]
        .into_iter()
        .filter_map(|name| {
            let value = &config[name];
            let text = value.as_str().or_else(|| value["content"].as_str())?;
            Some((name.to_owned(), text.to_owned()))
        })
        .collect()
}

/// `chat_template`: a string, or a list of named ones of which `default` is taken.
fn template(config: &Value) -> Option<String> {
    match &config["chat_template"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => named
            .iter()
            .find(|t| t["name"] == "default")
            .and_then(|t| t["template"].as_str())
            .map(str::to_owned),
        _ => None,
    }
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
