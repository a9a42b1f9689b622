use super::{Choice, Clock, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is trained on, recipe section `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// `builtin:mbpp` (the MBPP files shipped in `data/mbpp/`, compiled into the program) or a
    /// directory with the same file names, or a URI. `none`: `data.text` alone, of which every 20th
    /// document is held out.
    pub source: String,
    /// Plain text trained on beside the problems: files, and directories of which every `*.py` is
    /// read; cut into documents of at most `seq_len` tokens. Local paths only; files of records (JSON,
    /// Parquet, CSV) are refused.
    pub text: Vec<String>,
    /// Task ids trained on, inclusive. MBPP's train split is 601..974.
    pub train_tasks: (u32, u32),
    /// Task ids held out for validation. MBPP's is 511..600.
    pub valid_tasks: (u32, u32),
    /// Task ids left out of training. The default ones are near copies of problems in MBPP's own
    /// test split; without this list they are an error that names them.
    pub exclude_tasks: Vec<u32>,
    /// How a problem becomes a prompt.
    pub prompt: PromptStyle,
    /// Special tokens at the start and end of a text, in training, scoring, generation and evaluation.
    pub special_tokens: SpecialTokens,
    /// What becomes of special tokens that a text spells, such as `<|endoftext|>` in a string.
    pub special_in_text: SpecialInText,
    /// The day, as `2026-07-26`, that chat templates print as today's date (`strftime_now`). By default
    /// the day on which the run starts, which is recorded, so that a resumed run has the same prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_date: Option<String>,
    /// Tokens in one packed row, S.
    pub seq_len: usize,
    /// Put several documents in a row (with boundaries); off: one document a row, padded.
    pub pack: bool,
    /// Train although evaluation problems were found in the data. The words are long on purpose.
    pub i_know_this_trains_on_evaluation_data: bool,
}

impl DataConfig {
    /// The `source` that stands for no problems.
    pub const NO_PROBLEMS: &'static str = "none";
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: "builtin:mbpp".into(),
            text: Vec::new(),
            train_tasks: (601, 974),
            valid_tasks: (511, 600),
            exclude_tasks: vec![608, 704, 784, 842, 922],
            prompt: PromptStyle::ZeroShot,
            special_tokens: SpecialTokens::Auto,
            special_in_text: SpecialInText::Auto,
            chat_date: None,
            seq_len: 512,
            pack: true,
            i_know_this_trains_on_evaluation_data: false,
        }
    }
}

impl DataConfig {
    /// The two settings of special tokens.
    pub fn choice(&self) -> Choice {
        Choice {
            special_tokens: self.special_tokens,
            special_in_text: self.special_in_text,
        }
    }

    /// Sets `chat_date` to today if it is not set and the tokenizer's chat template prints the date.
    pub fn record_chat_date(&mut self, tokenizer: &Tokenizer) {
        if let (None, Some(date)) = (&self.chat_date, tokenizer.chat_date()) {
            self.chat_date = Some(date.to_string());
        }
    }

    /// The tokenizer with `chat_date` for its chat template; unchanged if there is none.
    pub fn dated(&self, tokenizer: Tokenizer) -> Tokenizer {
        match self.chat_date.as_deref().and_then(Clock::parse) {
            Some(date) => tokenizer.with_chat_date(date),
            None => tokenizer,
        }
    }
}

/// How a problem becomes a prompt (algorithms, section 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PromptStyle {
    /// The task alone, left open after `[BEGIN]`.
    #[default]
    ZeroShot,
    /// Tasks 2, 3 and 4 with their solutions first.
    FewShot,
    /// The model's own chat template.
    Chat,
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

/// What becomes of special tokens that are spelt in a text.
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
