//! The sources of labels that are compiled in, and the same files elsewhere.

use super::{Labelled, Pair, condefects, contest, labelled, mbpp};
use crate::{DataError, TextFile};
use std::{io::Read, path::Path};

/// A source of labelled programs in one of the shipped formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelledSource {
    /// MBPP's references and one-edit mutants of them, in two styles of names: `mbpp_matched.jsonl`.
    MbppMatched,
    /// Faulty AtCoder submissions and their repaired versions: `python_pairs.jsonl`.
    Condefects,
    /// Solutions of CodeContests' problems and one-edit mutants of them: `train.jsonl`.
    Contest,
}

impl LabelledSource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::MbppMatched, Self::Condefects, Self::Contest];

    /// The name after `builtin:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MbppMatched => "mbpp",
            Self::Condefects => "condefects",
            Self::Contest => "contest",
        }
    }

    /// The file's name, unpacked.
    pub fn file(self) -> &'static str {
        match self {
            Self::MbppMatched => "mbpp_matched.jsonl",
            Self::Condefects => "python_pairs.jsonl",
            Self::Contest => "train.jsonl",
        }
    }

    /// The file as it is compiled in: gzip.
    fn packed(self) -> &'static [u8] {
        match self {
            Self::MbppMatched => include_bytes!("../../../../data/mbpp/mbpp_matched.jsonl.gz"),
            Self::Condefects => include_bytes!("../../../../data/condefects/python_pairs.jsonl.gz"),
            Self::Contest => include_bytes!("../../../../data/contest/train.jsonl.gz"),
        }
    }

    /// How messages name the file that is compiled in: `builtin:mbpp/mbpp_matched.jsonl`.
    pub fn place(self) -> String {
        format!("builtin:{}/{}", self.name(), self.file())
    }

    /// The file's text, unpacked from what is compiled in: JSON lines.
    ///
    /// # Errors
    /// A program that was built from a damaged file.
    pub fn text(self) -> Result<String, DataError> {
        let mut text = String::new();
        flate2::read::GzDecoder::new(self.packed())
            .read_to_string(&mut text)
            .map_err(|error| DataError::File {
                path: self.place().into(),
                problem: format!("is damaged in this program: {error}; build it again from unchanged sources"),
            })?;
        Ok(text)
    }

    /// The pairs that are compiled in. Of CodeContests: Python 3, any difficulty.
    ///
    /// # Errors
    /// As [`LabelledSource::text`].
    pub fn pairs(self) -> Result<Vec<Pair>, DataError> {
        self.parse(&self.place(), &self.text()?)
    }

    /// The programs that are compiled in, pair after pair, the right one first.
    ///
    /// # Errors
    /// As [`LabelledSource::pairs`].
    pub fn load(self) -> Result<Vec<Labelled>, DataError> {
        Ok(labelled(&self.pairs()?))
    }

    /// The pairs of a file in this format, plain or compressed by gzip, or of a directory that holds it under
    /// its own name.
    ///
    /// # Errors
    /// A path that cannot be read; as [`LabelledSource::parse`].
    pub fn read(self, source: &Path) -> Result<Vec<Pair>, DataError> {
        let packed = source.join(format!("{}.gz", self.file()));
        let path = match source.is_dir() {
            true if packed.is_file() => packed,
            true => source.join(self.file()),
            false => source.to_owned(),
        };
        let file = TextFile::read(&path)?;
        self.parse(&file.name(), &file.text)
    }

    /// The pairs of a file's text. `file` is its name in messages.
    ///
    /// # Errors
    /// A row with missing, empty or impossible fields, or whose two programs are the same, with its line.
    pub fn parse(self, file: &str, text: &str) -> Result<Vec<Pair>, DataError> {
        match self {
            Self::MbppMatched => mbpp::parse(file, text),
            Self::Condefects => condefects::parse(file, text),
            Self::Contest => {
                let problems = contest::parse(file, text)?;
                Ok(contest::pairs(file, &problems, &contest::Filter::default()))
            }
        }
    }
}
