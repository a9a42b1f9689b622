//! SentencePiece's model file: pieces with scores, and how a text is normalised.
//!
//! The file is a protocol buffer, `ModelProto` of `sentencepiece_model.proto`
//! (<https://github.com/google/sentencepiece>, Apache-2.0). Fields that do not decide ids are skipped. What
//! SentencePiece refuses to load is refused here, too.

use super::{
    charsmap,
    error::PiecesError,
    wire::{Fields, Malformed, Value},
};
use std::collections::HashSet;

/// No known vocabulary has more than a quarter of this.
const MAX_PIECES: usize = 1 << 20;
/// Length of a piece in bytes; trainers stop at 16 characters, unless told otherwise. Merges are derived in
/// time quadratic in it.
const MAX_PIECE: usize = 1024;

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Made by training.
    Normal,
    /// The unknown token.
    Unknown,
    /// A special token: never found in a text by SentencePiece itself.
    Control,
    /// Always one token where a text has it.
    UserDefined,
    /// `<0x00>` to `<0xFF>`.
    Byte,
    /// Never used.
    Unused,
}

/// A token of the vocabulary; its id is its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub text: String,
    /// Log probability (Unigram), or minus the rank of its merge (BPE).
    pub score: f32,
    pub kind: PieceKind,
}

/// How tokens are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelKind {
    /// The most probable pieces ([Kudo 2018](https://arxiv.org/abs/1804.10959)).
    Unigram,
    /// Merges ([Sennrich et al. 2016](https://arxiv.org/abs/1508.07909)).
    Bpe,
}

/// How a text becomes what the pieces are searched in (`NormalizerSpec`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Normalization {
    /// A compiled table of replacements, empty for none.
    pub charsmap: Vec<u8>,
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
    pub escape_whitespaces: bool,
}

/// A checked model file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModelFile {
    pub pieces: Vec<Piece>,
    pub kind: ModelKind,
    /// Characters without a piece become their bytes.
    pub byte_fallback: bool,
    /// Id of the unknown token.
    pub unk: usize,
    /// Ids of the special tokens at the start and end of a text.
    pub bos: Option<usize>,
    pub eos: Option<usize>,
    pub normalization: Normalization,
}

/// `TrainerSpec`, with its defaults.
struct Trainer {
    model_type: i32,
    byte_fallback: bool,
    whitespace_as_suffix: bool,
    bos: i32,
    eos: i32,
}

impl ModelFile {
    /// Reads and checks a model file.
    pub fn read(bytes: &[u8]) -> Result<Self, PiecesError> {
        if bytes.is_empty() {
            return Err(PiecesError::Damaged("it is empty"));
        }
        if bytes.starts_with(b"version https://git-lfs") {
            return Err(PiecesError::LfsPointer);
        }
        if is_tiktoken(bytes) {
            return Err(PiecesError::Tiktoken);
        }
        // SentencePiece writes its pieces first, field 1.
        let starts_with_a_piece = bytes.first() == Some(&0x0a);
        Self::parse(bytes).map_err(|error| match error {
            PiecesError::Damaged(_) if !starts_with_a_piece => PiecesError::Foreign,
            other => other,
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, PiecesError> {
        let mut pieces = Vec::new();
        let mut trainer = None;
        let mut normalization = None;
        for field in Fields::of(bytes) {
            match field? {
                (1, value) if pieces.len() < MAX_PIECES => pieces.push(Piece::parse(value.bytes()?)?),
                (1, _) => return Err(PiecesError::Damaged("it has over a million pieces")),
                (2, value) => trainer.get_or_insert_with(Trainer::default).merge(value.bytes()?)?,
                (3, value) => normalization
                    .get_or_insert_with(Normalization::default)
                    .merge(value.bytes()?)?,
                _ => {}
            }
        }
        // They follow the pieces: without them the file was cut between two fields.
        let trainer = trainer.ok_or(PiecesError::Damaged("its trainer settings are missing"))?;
        let normalization = normalization.ok_or(PiecesError::Damaged("its normalizer settings are missing"))?;
        let kind = match trainer.model_type {
            1 => ModelKind::Unigram,
            2 => ModelKind::Bpe,
            3 => return Err(PiecesError::ModelType("WORD")),
            4 => return Err(PiecesError::ModelType("CHAR")),
            _ => return Err(PiecesError::Damaged("its model type is unknown")),
        };
        if trainer.whitespace_as_suffix {
            return Err(PiecesError::Suffix);
        }
        charsmap::check(&normalization.charsmap)?;
        let unk = check(&pieces, trainer.byte_fallback)?;
        let id = |id: i32| usize::try_from(id).ok().filter(|&id| id < pieces.len());
        Ok(Self {
            kind,
            byte_fallback: trainer.byte_fallback,
            unk,
            bos: id(trainer.bos),
            eos: id(trainer.eos),
            normalization,
            pieces,
        })
    }
}

/// What SentencePiece checks when it loads a vocabulary. Returns the id of the unknown token.
fn check(pieces: &[Piece], byte_fallback: bool) -> Result<usize, PiecesError> {
    let mut seen = HashSet::new();
    if !pieces.iter().all(|piece| seen.insert(piece.text.as_str())) {
        return Err(PiecesError::Damaged("a piece occurs twice"));
    }
    let bytes = |piece: &&Piece| piece.kind == PieceKind::Byte;
    if byte_fallback && pieces.iter().filter(bytes).count() != 256 {
        return Err(PiecesError::Damaged("it has not 256 pieces for bytes"));
    }
    pieces
        .iter()
        .position(|piece| piece.kind == PieceKind::Unknown)
        .ok_or(PiecesError::Damaged("it has no unknown token"))
}

/// Lines of a base64 token and its rank, as `tiktoken` has them.
fn is_tiktoken(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().take(400).position(|&b| b == b'\n') else {
        return false;
    };
    let mut parts = bytes[..end].trim_ascii_end().split(|&b| b == b' ');
    let (token, rank) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    !token.is_empty()
        && !rank.is_empty()
        && parts.next().is_none()
        && token.iter().all(base64)
        && rank.iter().all(u8::is_ascii_digit)
}

impl Piece {
    fn parse(message: &[u8]) -> Result<Self, PiecesError> {
        let mut piece = Self {
            text: String::new(),
            score: 0.0,
            kind: PieceKind::Normal,
        };
        for field in Fields::of(message) {
            match field? {
                (1, value) => value.text()?.clone_into(&mut piece.text),
                (2, value) => piece.score = value.float()?,
                (3, value) => piece.kind = PieceKind::of(value)?,
                _ => {}
            }
        }
        if piece.text.is_empty() || piece.text.len() > MAX_PIECE {
            return Err(PiecesError::Damaged("a piece is empty or has over 1024 bytes"));
        }
        if !piece.score.is_finite() {
            return Err(PiecesError::Damaged("a piece's score is no number"));
        }
        Ok(piece)
    }
}

impl PieceKind {
    fn of(value: Value<'_>) -> Result<Self, Malformed> {
        Ok(match value.int()? {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return Err(Malformed),
        })
    }
}

impl Default for Trainer {
    fn default() -> Self {
        Self {
            model_type: 1,
            byte_fallback: false,
            whitespace_as_suffix: false,
            bos: 1,
            eos: 2,
        }
    }
}

impl Trainer {
    fn merge(&mut self, message: &[u8]) -> Result<(), Malformed> {
        for field in Fields::of(message) {
            match field? {
                (3, value) => self.model_type = value.int()?,
                (24, value) => self.whitespace_as_suffix = value.flag()?,
                (35, value) => self.byte_fallback = value.flag()?,
                (41, value) => self.bos = value.int()?,
                (42, value) => self.eos = value.int()?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Default for Normalization {
    fn default() -> Self {
        Self {
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

impl Normalization {
    fn merge(&mut self, message: &[u8]) -> Result<(), Malformed> {
        for field in Fields::of(message) {
            match field? {
                (2, value) => self.charsmap = value.bytes()?.to_vec(),
                (3, value) => self.add_dummy_prefix = value.flag()?,
                (4, value) => self.remove_extra_whitespaces = value.flag()?,
                (5, value) => self.escape_whitespaces = value.flag()?,
                _ => {}
            }
        }
        Ok(())
    }
}
