//! Text to token ids and back, by the model's own `tokenizer.json` or SentencePiece `tokenizer.model`.
//!
//! Ids are those of transformers 5 (`AutoTokenizer`) for the same directory: special tokens at the start
//! and end of a text in `special.rs`, classes with rules of their own in `class.rs`, tokens that the
//! configuration adds in `added.rs`, model files in `sentencepiece`.

mod added;
mod bounds;
mod class;
mod fingerprint;
pub(crate) mod library;
mod sentencepiece;
mod special;

pub use special::{Choice, SpecialInText, SpecialTokens};

use super::{
    DataError,
    chat::{self, Message},
    template::Clock,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use special::Affixes;
use std::{path::Path, sync::Arc};

macro_rules! micro {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/micro/", $name))
    };
}

/// The micro model's `config.json`, built in.
pub const MICRO_CONFIG: &str = micro!("config.json");

const TOKENIZER: &str = "tokenizer.json";
/// SentencePiece's model file, read where there is no [`TOKENIZER`].
const PIECES: &str = "tokenizer.model";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const MODEL_CONFIG: &str = "config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";

/// A model's tokenizer, its end-of-sequence tokens and its chat template.
#[derive(Clone)]
pub struct Tokenizer {
    /// Without its post-processor, which is `post`.
    pub(super) inner: Arc<tokenizers::Tokenizer>,
    anchor: Option<(u32, String)>,
    pub(super) place: String,
    eos_ids: Vec<u32>,
    /// Named special tokens, `bos_token` and so on.
    pub(super) special: Vec<(String, String)>,
    /// What the post-processor puts around a text.
    post: Affixes,
    /// Kept for what it does to offsets.
    pub(super) post_processor: Option<tokenizers::PostProcessorWrapper>,
    /// BOS, where `special_tokens: always` adds it and the post-processor does not.
    bos: Option<u32>,
    /// `add_bos_token` and `add_eos_token` of the configuration.
    declared: (Option<bool>, Option<bool>),
    /// What the model's training recorded.
    recorded: Choice,
    /// What is in force.
    choice: Choice,
    /// Texts come from the chat template.
    pub(super) chat: bool,
    /// Rows of the model's embedding; ids beyond them are refused.
    embeddings: Option<usize>,
    chat_template: Option<String>,
    /// The template for conversations with tools, where the model has one of its own.
    tool_template: Option<String>,
    /// The day that the chat template calls today.
    pub(super) chat_date: Clock,
    hash: String,
    files: Vec<(String, String)>,
    /// [`PIECES`] as it came, where it is what was read.
    pieces: Option<Arc<[u8]>>,
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
    /// Reads a model directory: `tokenizer.json` or else SentencePiece's `tokenizer.model`, and where they
    /// are there `tokenizer_config.json`, `generation_config.json`, `config.json` (for the end of sequence)
    /// and `chat_template.jinja`.
    ///
    /// # Errors
    /// Both tokenizer files absent, or the one that is read is not one; a companion file that is not JSON; no
    /// end-of-sequence token named anywhere, or one that the vocabulary lacks.
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        let read = |name: &str| -> Result<Option<(String, String)>, DataError> {
            let path = dir.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some((name.to_owned(), text))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(DataError::Read { path, source }),
            }
        };
        let mut files = Vec::new();
        for name in [
            TOKENIZER,
            TOKENIZER_CONFIG,
            GENERATION_CONFIG,
            SPECIAL_TOKENS,
            CHAT_TEMPLATE,
            MODEL_CONFIG,
        ] {
            files.extend(read(name)?);
        }
        let place = dir.display().to_string();
        if files.iter().any(|(name, _)| name == TOKENIZER) {
            return Self::from_files(place, files, None);
        }
        let pieces = match sentencepiece::read(&dir.join(PIECES)) {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                let problem = error.to_string();
                return Err(DataError::Tokenizer { place, problem });
            }
            Err(source) => {
                // What is missing is the file that every tool can read.
                let absent = source.kind() == std::io::ErrorKind::NotFound;
                let path = dir.join(if absent { TOKENIZER } else { PIECES });
                return Err(DataError::Read { path, source });
            }
        };
        files.extend(read(ADDED_TOKENS)?);
        Self::from_files(place, files, Some(pieces.into()))
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
        Self::from_files("builtin:micro".into(), files.into(), None)
    }

    /// Of the files of a directory, by name. `pieces` is a model file that takes the place of `tokenizer.json`.
    fn from_files(place: String, files: Vec<(String, String)>, pieces: Option<Arc<[u8]>>) -> Result<Self, DataError> {
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
        let mut config = json(TOKENIZER_CONFIG)?;
        let recorded = Choice::recorded(&config).map_err(wrong)?;
        added::check_lengths(&config).map_err(wrong)?;
        let declared = (config["add_bos_token"].as_bool(), config["add_eos_token"].as_bool());
        let (mut inner, class) = match &pieces {
            None => class::read(file(TOKENIZER).unwrap_or_default(), &config, &json(MODEL_CONFIG)?).map_err(wrong)?,
            Some(bytes) => {
                let companions = sentencepiece::Companions {
                    config: &config,
                    model: &json(MODEL_CONFIG)?,
                    map: &json(SPECIAL_TOKENS)?,
                    added: &json(ADDED_TOKENS)?,
                };
                let converted = sentencepiece::convert(bytes, &companions).map_err(|e| wrong(e.to_string()))?;
                config = converted.config;
                (converted.inner, converted.class)
            }
        };
        // Truncation and padding that were saved with the file: texts are neither cut nor padded here.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| wrong(e.to_string()))?;
        let post = Affixes::of(&inner).map_err(wrong)?;
        // It only places special tokens, and offsets.
        let post_processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let hash = content_hash(&inner).map_err(wrong)?;
        let special = added::special_tokens(&config, &json(SPECIAL_TOKENS)?);
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
        // After the end tokens: those must be in the vocabulary.
        added::add(&mut inner, &config, class).map_err(|e| wrong(e.to_string()))?;
        let chat_template = file(CHAT_TEMPLATE)
            .map(str::to_owned)
            .or_else(|| template(&config, "default"));
        let tool_template = match file(CHAT_TEMPLATE) {
            Some(_) => None,
            None => template(&config, "tool_use").filter(|_| config["chat_template"].is_array()),
        };
        let files = files.into_iter().filter(|(name, _)| name != MODEL_CONFIG).collect();
        let anchor = anchor(&inner);
        let tokenizer = Self {
            inner: Arc::new(inner),
            anchor,
            place,
            eos_ids,
            special,
            post,
            post_processor,
            bos: None,
            declared,
            recorded,
            choice: Choice::default(),
            chat: false,
            embeddings: None,
            chat_template,
            tool_template,
            chat_date: Clock::today(),
            hash,
            files,
            pieces,
        };
        tokenizer.with_choice(Choice::default())
    }

    /// Token ids of `text` by itself; no special token is added ([`Tokenizer::document`] and
    /// [`Tokenizer::prompt_ids`] add them). Special tokens spelt in the text are parsed, unless the
    /// choice is to leave them plain.
    ///
    /// # Errors
    /// What the tokenizer can't encode (a word-level one without an unknown token); a token that the
    /// model has no embedding for.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding = library::call(|| self.inner.encode_fast(text, false)).map_err(|e| self.wrong(e))?;
        self.fitting(encoding.get_ids().to_vec())
    }

    /// The text of token ids, special tokens written out.
    ///
    /// # Errors
    /// What the tokenizer's decoder refuses.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        library::call(|| self.inner.decode(ids, false)).map_err(|e| self.wrong(e))
    }

    /// An ordinary token and its text, for decoding what follows any text. None for a tokenizer
    /// without one.
    pub(super) fn anchor(&self) -> Option<&(u32, String)> {
        self.anchor.as_ref()
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

    /// The same tokenizer for a model with `vocab_size` rows of embeddings.
    ///
    /// Models pad their vocabulary a little; a model with far more rows than the tokenizer has
    /// tokens (1024 and a tenth more) was trained with another one. A tokenizer may have tokens beyond
    /// the embedding, such as an added `[PAD]`: only a text that uses one is refused, when it is encoded.
    ///
    /// # Errors
    /// [`DataError::WrongTokenizer`] with both sizes.
    pub fn for_model(mut self, vocab_size: usize) -> Result<Self, DataError> {
        self.check_vocab(vocab_size)?;
        self.embeddings = Some(vocab_size);
        Ok(self)
    }

    /// The same for a further model that reads the same ids: those that all models have are allowed.
    ///
    /// # Errors
    /// As [`Tokenizer::for_model`].
    pub fn also_for_model(self, vocab_size: usize) -> Result<Self, DataError> {
        let rows = self.embeddings.map_or(vocab_size, |rows| rows.min(vocab_size));
        self.check_vocab(vocab_size)?;
        self.for_model(rows)
    }

    /// Checks that the tokenizer can belong to a model with `vocab_size` rows of embeddings.
    ///
    /// # Errors
    /// As [`Tokenizer::for_model`].
    pub fn check_vocab(&self, vocab_size: usize) -> Result<(), DataError> {
        let own = self.vocab_size();
        if vocab_size > own + own / 10 + 1024 {
            return Err(DataError::WrongTokenizer {
                problem: format!(
                    "the one of {} has {own} tokens, the model {vocab_size}; take the tokenizer that came with the model",
                    self.place
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

    /// The same tokenizer with another day for chat templates that print today's date
    /// (`strftime_now`).
    #[must_use]
    pub fn with_chat_date(self, chat_date: Clock) -> Self {
        Self { chat_date, ..self }
    }

    /// The day that the chat template calls today; None if it does not ask for the date.
    pub fn chat_date(&self) -> Option<Clock> {
        let asks = self.chat_template.as_ref()?.contains("strftime_now");
        asks.then_some(self.chat_date)
    }

    /// Messages, as (role, content), through the model's chat template. With
    /// `add_generation_prompt` the text ends where the assistant begins.
    ///
    /// # Errors
    /// No template, or one that can't be rendered.
    pub fn chat(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<String, DataError> {
        let messages: Vec<Message> = messages
            .iter()
            .map(|(role, content)| chat::message(role, content))
            .collect();
        self.conversation(&messages, add_generation_prompt)
    }

    /// The same for messages that may have more fields than role and content.
    ///
    /// # Errors
    /// As [`Self::chat`].
    pub fn conversation(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, DataError> {
        let wrong = |problem| DataError::ChatTemplate {
            place: self.place.clone(),
            problem,
        };
        chat::render(
            self.template_for(None)?,
            messages,
            &self.special,
            add_generation_prompt,
            &self.chat_date,
        )
        .map_err(wrong)
    }

    /// The template that transformers takes: with tools that named `tool_use`, if the model has one.
    pub(super) fn template_for(&self, tools: Option<&Value>) -> Result<&str, DataError> {
        let with_tools = self.tool_template.as_deref().filter(|_| tools.is_some());
        with_tools
            .or(self.chat_template.as_deref())
            .ok_or_else(|| DataError::ChatTemplate {
                place: self.place.clone(),
                problem: format!("there is none; add `{CHAT_TEMPLATE}` or take a `zero-shot` prompt"),
            })
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

    /// Writes the tokenizer's files into `dir` as they came (not the model's `config.json`). A choice
    /// of special tokens other than `auto` is added to `tokenizer_config.json`.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn save(&self, dir: &Path) -> Result<(), DataError> {
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, bytes).map_err(|source| DataError::Write { path, source })
        };
        for (name, text) in self.files.iter().filter(|(name, _)| name != TOKENIZER_CONFIG) {
            write(name, text.as_bytes())?;
        }
        if let Some(pieces) = &self.pieces {
            write(PIECES, pieces)?;
        }
        match self.config_file() {
            Some((name, text)) => write(name, text.as_bytes()),
            None => Ok(()),
        }
    }

    /// Name and text of `tokenizer_config.json` as it came, with the choice of special tokens that is in
    /// force where that is not `auto`. None where there is neither.
    pub fn config_file(&self) -> Option<(&'static str, String)> {
        let config = self.files.iter().find(|(name, _)| name == TOKENIZER_CONFIG);
        let text = self.choice.written(config.map(|(_, text)| text.as_str()))?;
        Some((TOKENIZER_CONFIG, text))
    }

    pub(super) fn wrong(&self, error: tokenizers::Error) -> DataError {
        DataError::Tokenizer {
            place: self.place.clone(),
            problem: error.to_string(),
        }
    }
}

/// The last token of a short word: visible, complete, and not a single byte that the decoder would
/// join with bytes after it.
fn anchor(inner: &tokenizers::Tokenizer) -> Option<(u32, String)> {
    ["a", "x", "0", "."].into_iter().find_map(|word| {
        let encoding = library::call(|| inner.encode_fast(word, false)).ok()?;
        let id = encoding.get_ids().last().copied()?;
        let text = library::call(|| inner.decode(&[id], false)).ok()?;
        let is_byte = inner.id_to_token(id)?.starts_with("<0x");
        (text == word && !is_byte).then_some((id, text))
    })
}

/// Written by the library with vocabulary in order of ids, without the post-processor.
fn content_hash(inner: &tokenizers::Tokenizer) -> Result<String, String> {
    let text = inner.to_string(false).map_err(|e| e.to_string())?;
    Ok(hex::encode(Sha256::digest(text.as_bytes())))
}

/// `chat_template`: a string, or a list of named ones of which that with this name is taken.
fn template(config: &Value, wanted: &str) -> Option<String> {
    match &config["chat_template"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => named
            .iter()
            .find(|t| t["name"] == wanted)
            .and_then(|t| t["template"].as_str())
            .map(str::to_owned),
        _ => None,
    }
}
