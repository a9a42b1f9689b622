//! Why a `tokenizer.model` is refused, and what to do.

use super::wire::Malformed;

/// A `tokenizer.model` that is not read. The place is said by the error that holds it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(in super::super) enum PiecesError {
    #[error("`tokenizer.model` is damaged or cut off: {0}; copy it again")]
    Damaged(&'static str),
    #[error(
        "`tokenizer.model` is not a SentencePiece model; take `tokenizer.json` from the model's Hugging Face directory"
    )]
    Foreign,
    #[error(
        "`tokenizer.model` is a tiktoken file, as Llama 3 has, and no SentencePiece model; take `tokenizer.json` from \
         the model's Hugging Face directory"
    )]
    Tiktoken,
    #[error("`tokenizer.model` is a Git LFS pointer, not the file; fetch it with `git lfs pull`")]
    LfsPointer,
    #[error(
        "`tokenizer.model` is larger than {0} MiB, which no SentencePiece model is; check that it is the right file"
    )]
    TooLarge(u64),
    #[error("`tokenizer.model` has the model type `{0}`; only `BPE` and `UNIGRAM` are read")]
    ModelType(&'static str),
    #[error("`tokenizer.model` sets `treat_whitespace_as_suffix`, which is not supported; take a `tokenizer.json`")]
    Suffix,
    #[error(
        "`tokenizer_class` `{0}` has rules that are not in `tokenizer.model`; save the tokenizer with transformers to \
         get a `tokenizer.json`"
    )]
    Class(String),
    #[error("its {0} `{1}` is not in its vocabulary; mend `tokenizer_config.json`")]
    NotInVocabulary(&'static str, String),
    #[error("{0}")]
    Long(String),
    #[error("`tokenizer.model` cannot be converted: {0}; take a `tokenizer.json`")]
    Library(String),
}

impl From<Malformed> for PiecesError {
    fn from(_: Malformed) -> Self {
        Self::Damaged("a field is incomplete")
    }
}
