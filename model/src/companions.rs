//! Files of a model directory that are copied as they came: tokenizer, chat template, generation settings.

use std::path::Path;

use crate::error::ModelError;

/// Names of these files in Hugging Face's layout.
pub const COMPANIONS: [&str; 10] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// The companion files of one model directory, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Companions(Vec<(&'static str, Vec<u8>)>);

impl Companions {
    /// Names of files that are a tokenizer, the one that is read first.
    pub const TOKENIZERS: [&str; 2] = ["tokenizer.json", "tokenizer.model"];

    /// Reads those of [`COMPANIONS`] that `dir` has.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let mut files = Vec::new();
        for name in COMPANIONS {
            let path = dir.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => files.push((name, bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(ModelError::io("read", &path, source)),
            }
        }
        Ok(Self(files))
    }

    /// The same, with the files of `other` that are missing here. A tokenizer is never put together from
    /// two directories: where these files have a `tokenizer.json` or a `tokenizer.model`, only generation
    /// settings are added.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        let complete = Self::TOKENIZERS.iter().any(|name| self.has(name));
        for (name, bytes) in other.0 {
            if !self.has(name) && (!complete || name == "generation_config.json") {
                self.0.push((name, bytes));
            }
        }
        self
    }

    /// The same, with this content of one of [`COMPANIONS`]; another name changes nothing.
    #[must_use]
    pub fn with(mut self, name: &str, bytes: Vec<u8>) -> Self {
        if let Some(name) = COMPANIONS.into_iter().find(|known| *known == name) {
            self.0.retain(|(own, _)| *own != name);
            self.0.push((name, bytes));
        }
        self
    }

    /// Whether the file with this name is among them.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(own, _)| *own == name)
    }

    /// A sentence that says what of the tokenizer `src` lacks, if anything.
    pub(crate) fn missing_tokenizer(&self, src: &Path) -> Option<String> {
        if self.has("tokenizer.json") {
            return None;
        }
        if self.has("tokenizer.model") {
            return Some(format!(
                "{} has tokenizer.model and no tokenizer.json: it is read if it is SentencePiece's, and other tools may want tokenizer.json",
                src.display()
            ));
        }
        Some(format!(
            "{} has no tokenizer: tokenizer.json is needed to run the model, take it from the same model's Hugging Face directory or let transformers convert it",
            src.display()
        ))
    }

    /// Writes the files into `dir`, byte for byte.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), ModelError> {
        for (name, bytes) in &self.0 {
            let path = dir.join(name);
            std::fs::write(&path, bytes).map_err(|source| ModelError::io("write", &path, source))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn companions(files: &[(&'static str, &str)]) -> Companions {
        Companions(
            files
                .iter()
                .map(|(name, text)| (*name, text.as_bytes().to_vec()))
                .collect(),
        )
    }

    #[test]
    fn a_tokenizer_is_never_put_together_from_two_directories() {
        let base = companions(&[
            ("tokenizer.json", "base"),
            ("tokenizer_config.json", "base"),
            ("generation_config.json", "base"),
        ]);
        for own in Companions::TOKENIZERS {
            let both = companions(&[(own, "own")]).or(base.clone());
            assert_eq!(both, companions(&[(own, "own"), ("generation_config.json", "base")]));
        }
        let without = companions(&[("chat_template.jinja", "own")]).or(base.clone());
        assert_eq!(without.0.len(), 4);
    }
}
