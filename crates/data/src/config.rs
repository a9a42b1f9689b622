use super::{Choice, Clock, Record, Sources, SpecialInText, SpecialTokens, Tokenizer, TrainOn};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wmtp_base::validate::{Check, Validate, Violation};

/// What is trained on, recipe section `data`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// What is trained on: `builtin:mbpp` (MBPP's files, compiled into the program) or a directory with the same
    /// file names; your own data, which are a file (JSON lines, a JSON array, Parquet, text), a directory of such
    /// files, a pattern (`data/*.jsonl`) or a URI (`hf://OWNER/NAME`, `s3://…`); or a list
    /// `[{source, weight, split, columns}]`. `none`: `data.text` alone, of which every 20th document is held out.
    pub source: Sources,
    /// Columns of your own data under other names: `{prompt: question, completion: answer}`.
    pub columns: BTreeMap<String, String>,
    /// Split of your own data that is trained on, where they have splits: `train` if left out. Their split
    /// `validation` (or `valid`, `dev`) is held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Share of your own data that is held out where they have no such split: whole problems (equal `task_id`, else
    /// equal prompts), by a hash of the problem.
    pub valid_share: f64,
    /// At most this many rows of each source of your own data are read; all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<usize>,
    /// Programming languages that are read, in lower case (`[python]`): rows that name another one are left out; all
    /// if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// Which turns of a conversation are trained.
    pub train_on: TrainOn,
    /// What becomes of a document of your own data that is longer than `seq_len` tokens. Plain text is always cut.
    pub too_long: TooLong,
    /// What becomes of rows of your own data that copy a problem of a benchmark. Of built-in sets other than
    /// MBPP they are always left out.
    pub copies: Copies,
    /// Plain text trained on in addition to the problems: files, and directories of which every `*.py` is
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
    /// How special tokens spelt out in a text are read, such as `<|endoftext|>` in a string.
    pub special_in_text: SpecialInText,
    /// The day, as `2026-07-26`, that chat templates print as today's date (`strftime_now`). By default
    /// the day on which the run starts, which is recorded, so that a resumed run has the same prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_date: Option<String>,
    /// Tokens in one packed row, S.
    pub seq_len: usize,
    /// Put several documents in a row (with boundaries); off: one document a row, padded.
    pub pack: bool,
    /// Train even though evaluation problems were found in the data. The name is long on purpose.
    pub i_know_this_trains_on_evaluation_data: bool,
}

impl DataConfig {
    /// The `source` that stands for no problems.
    pub const NO_PROBLEMS: &'static str = "none";
    /// MBPP's task ids.
    pub const MBPP_TASKS: (u32, u32) = (1, 974);
    /// Its test split, which is never trained on.
    pub const MBPP_TEST_TASKS: (u32, u32) = (11, 510);
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: "builtin:mbpp".into(),
            columns: BTreeMap::new(),
            split: None,
            valid_share: 0.05,
            max_rows: None,
            languages: Vec::new(),
            train_on: TrainOn::Assistant,
            too_long: TooLong::Drop,
            copies: Copies::Refuse,
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

    /// Whether a row is in one of [`Self::languages`], or names none.
    pub fn reads(&self, record: &Record) -> bool {
        let language = record.language.as_ref();
        self.languages.is_empty() || language.is_none_or(|language| self.languages.contains(language))
    }

    /// The tokenizer with `chat_date` for its chat template; unchanged if there is none.
    pub fn dated(&self, tokenizer: Tokenizer) -> Tokenizer {
        match self.chat_date.as_deref().and_then(Clock::parse) {
            Some(date) => tokenizer.with_chat_date(date),
            None => tokenizer,
        }
    }
}

impl DataConfig {
    /// The rules of `train_tasks` and `valid_tasks`: what evaluation uses and what is held out is not trained
    /// on.
    pub(super) fn check_tasks(&self, check: &mut Check) {
        let meet = |a: (u32, u32), b: (u32, u32)| a.0 <= b.1 && b.0 <= a.1;
        let (known, test) = (Self::MBPP_TASKS, Self::MBPP_TEST_TASKS);
        for (key, range) in [("train_tasks", self.train_tasks), ("valid_tasks", self.valid_tasks)] {
            let (first, last) = range;
            if first > last {
                check.when(
                    true,
                    key,
                    format!("is {first}-{last}, it must have its first id at or below its last"),
                );
                continue;
            }
            let outside = first < known.0 || last > known.1;
            check.when(
                outside && self.source != *Self::NO_PROBLEMS,
                key,
                format!("is {first}-{last}, but MBPP's ids are {}-{}", known.0, known.1),
            );
            check.when(
                meet(range, test) && !self.i_know_this_trains_on_evaluation_data,
                key,
                format!(
                    "is {first}-{last} and overlaps MBPP's test ids {}..{}, which evaluation uses: take ids above {}, or set data.i_know_this_trains_on_evaluation_data",
                    test.0, test.1, test.1
                ),
            );
        }
        check.when(
            meet(self.train_tasks, self.valid_tasks),
            "valid_tasks",
            "must not overlap data.train_tasks: what is held out can't be trained on",
        );
    }
}

impl Validate for DataConfig {
    fn check(&self, check: &mut Check) {
        check.when(
            self.source.names().iter().any(|name| name.trim().is_empty()) || self.source.names().is_empty(),
            "source",
            "must not be empty: write `builtin:mbpp`, a file, a directory, a URI, or `none` for data.text alone",
        );
        check.when(
            self.source == *Self::NO_PROBLEMS && self.text.is_empty(),
            "text",
            "must name files or folders where `data.source` is none",
        );
        if let Sources::Mixed(parts) = &self.source {
            for part in parts {
                check.when(
                    !(part.weight > 0.0 && part.weight.is_finite()),
                    "source",
                    format!(
                        "has `{}` with the weight {}; it must be above 0",
                        part.source, part.weight
                    ),
                );
                check.when(
                    part.source == Self::NO_PROBLEMS || part.source == "builtin:mbpp",
                    "source",
                    format!(
                        "can't mix `{}` with other sources: take it alone, or a file of rows",
                        part.source
                    ),
                );
            }
        }
        let blank = self.split.as_ref().is_some_and(|split| split.trim().is_empty());
        check.when(blank, "split", "must not be empty: write `train`");
        check.when(
            !(self.valid_share > 0.0 && self.valid_share < 1.0),
            "valid_share",
            "must be above 0 and below 1",
        );
        check.when(self.max_rows == Some(0), "max_rows", "must be 1 or more");
        check.when(self.seq_len < 8, "seq_len", "must be 8 or more");
        check.when(
            self.prompt == PromptStyle::Chat && self.special_in_text == SpecialInText::Plain,
            "special_in_text",
            "must not be `plain` with `data.prompt: chat`: the chat template spells special tokens; take `parse`",
        );
        check.when(
            self.chat_date
                .as_deref()
                .is_some_and(|date| Clock::parse(date).is_none()),
            "chat_date",
            "must be a day such as 2026-07-26",
        );
        self.check_tasks(check);
    }
}

/// Recipe section `batching`. Either `tokens_per_step`, or `micro_batch` and `accumulate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BatchingConfig {
    /// Rows of `data.seq_len` tokens in one forward and backward pass.
    pub micro_batch: usize,
    /// Micro-batches in one optimizer step.
    pub accumulate: Option<usize>,
    /// Tokens in one optimizer step (a multiple of micro_batch * seq_len).
    pub tokens_per_step: Option<usize>,
}

impl Default for BatchingConfig {
    fn default() -> Self {
        Self {
            micro_batch: 2,
            accumulate: None,
            tokens_per_step: None,
        }
    }
}

/// How rows become optimizer steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepShape {
    /// Rows in one forward and backward pass.
    pub micro_batch: usize,
    /// Micro-batches in one optimizer step.
    pub accumulate: usize,
}

impl StepShape {
    /// Rows in one optimizer step.
    pub fn rows(&self) -> usize {
        self.micro_batch.saturating_mul(self.accumulate)
    }
}

impl BatchingConfig {
    /// The rules, of which one also needs the tokens in a row.
    pub fn check(&self, seq_len: usize, check: &mut Check) {
        check.when(self.micro_batch == 0, "micro_batch", "must be 1 or more");
        check.when(self.accumulate == Some(0), "accumulate", "must be 1 or more");
        let Some(tokens) = self.tokens_per_step else {
            return;
        };
        check.when(
            self.accumulate.is_some(),
            "tokens_per_step",
            "and batching.accumulate say the same thing twice: remove one of the two (null removes it)",
        );
        match self.micro_batch.checked_mul(seq_len) {
            Some(row) if row > 0 && (tokens == 0 || tokens % row != 0) => check.when(
                true,
                "tokens_per_step",
                format!("is {tokens}, it must be a multiple of batching.micro_batch * data.seq_len = {row}"),
            ),
            Some(_) => {}
            None => check.say("micro_batch", " * data.seq_len is too large for this machine's numbers"),
        }
    }

    /// How rows of `seq_len` tokens become optimizer steps: `accumulate`, or `tokens_per_step`, or neither
    /// (one micro-batch a step).
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn shape(&self, seq_len: usize) -> Result<StepShape, Violation> {
        let problems = Check::of("batching", |check| self.check(seq_len, check));
        if let Some(problem) = problems.into_iter().next() {
            return Err(problem);
        }
        let row = self.micro_batch.saturating_mul(seq_len).max(1);
        let accumulate = self.accumulate.or(self.tokens_per_step.map(|tokens| tokens / row));
        Ok(StepShape {
            micro_batch: self.micro_batch,
            accumulate: accumulate.unwrap_or(1),
        })
    }
}

/// What becomes of a document that is longer than a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// It is left out, and named in `run.json`.
    #[default]
    Drop,
    /// Its end is left out. One whose prompt fills the row is dropped.
    Cut,
    /// The run does not start.
    Refuse,
}

/// What becomes of a sample that copies an evaluation problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Copies {
    /// The run does not start.
    #[default]
    Refuse,
    /// They are left out, and counted.
    Drop,
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
