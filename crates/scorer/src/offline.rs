//! Scores made once before training, and kept on disk.
//!
//! One safetensors file holds the scores of a data set's response tokens. Its key says of which
//! data, by which models, with which settings; a file with another key, or whose content is not
//! what was written, is an error and never used. Makes no scores itself.

use super::{Needs, ScoreInput, Scorer, ScorerError, WeightPolicy};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};
use wmtp_base::fs::sync_dir;
use wmtp_data::Batch;

/// Scores of response tokens, by sample number.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedScores {
    key: String,
    scores: BTreeMap<usize, Vec<f32>>,
}

impl CachedScores {
    /// An empty one for the data, models and settings that `key` identifies, see
    /// [`CachedScores::key`].
    pub fn new(key: String) -> Self {
        Self {
            key,
            scores: BTreeMap::new(),
        }
    }

    /// A key (SHA-256, hex) of the data set's hash, the hashes of the models concerned, and the
    /// scorer's settings as text (its section of the resolved recipe). The key
    /// keeps the parts distinct from their neighbours.
    pub fn key(data_hash: &str, model_hashes: &[&str], settings: &str) -> String {
        let mut hasher = Sha256::new();
        hasher.update(b"wmtp scores 1\n");
        for part in [&[data_hash], model_hashes, &[settings]].concat() {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hex::encode(hasher.finalize())
    }

    /// The file for a key in a cache directory.
    pub fn path(cache: &Path, key: &str) -> PathBuf {
        cache.join(format!("scores-{key}.safetensors"))
    }

    /// Takes the response tokens' scores out of a micro-batch's `[B * S]`.
    pub fn add(&mut self, batch: &Batch, scores: &[f32]) {
        for document in &batch.documents {
            let own = scores.get(document.response(batch.seq_len)).unwrap_or_default();
            self.scores.insert(document.sample, own.to_vec());
        }
    }

    /// Samples with scores.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// Scores of a sample's response tokens.
    pub fn get(&self, sample: usize) -> Option<&[f32]> {
        self.scores.get(&sample).map(Vec::as_slice)
    }

    /// Writes the file atomically: there is never half a file under the name of [`CachedScores::path`].
    ///
    /// # Errors
    /// A directory or file that can't be written.
    pub fn save(&self, cache: &Path) -> Result<PathBuf, ScorerError> {
        let path = Self::path(cache, &self.key);
        self.write(cache, &path)
            .map_err(|e| setup(format!("cannot write the scores to `{}`: {e}", path.display())))?;
        Ok(path)
    }

    fn write(&self, cache: &Path, path: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(cache)?;
        let samples = bytes(self.scores.keys().map(|&s| (s as u64).to_le_bytes()));
        let lengths = bytes(self.scores.values().map(|s| (s.len() as u64).to_le_bytes()));
        let values = bytes(self.scores.values().flatten().map(|s| s.to_le_bytes()));
        let view = |dtype, size: usize, data| TensorView::new(dtype, vec![size], data).map_err(std::io::Error::other);
        let tensors = [
            ("samples", view(Dtype::U64, self.len(), &samples)?),
            ("lengths", view(Dtype::U64, self.len(), &lengths)?),
            ("scores", view(Dtype::F32, values.len() / 4, &values)?),
        ];
        let metadata = HashMap::from([
            ("format".to_owned(), "wmtp-scores-1".to_owned()),
            ("key".to_owned(), self.key.clone()),
            ("sha256".to_owned(), content_hash(&samples, &lengths, &values)),
        ]);
        let file = safetensors::serialize(tensors, Some(metadata)).map_err(std::io::Error::other)?;
        wmtp_base::fs::write(path, &file)?;
        sync_dir(cache)
    }

    /// Reads the scores for a key; `None` if there are none yet.
    ///
    /// # Errors
    /// A file that can't be read, is damaged or has another key, named so that it can be deleted.
    pub fn load(cache: &Path, key: &str) -> Result<Option<Self>, ScorerError> {
        let path = Self::path(cache, key);
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(setup(format!("cannot read `{}`: {e}", path.display()))),
        };
        match parse(&file, key) {
            Ok(scores) => Ok(Some(Self {
                key: key.to_owned(),
                scores,
            })),
            Err(problem) => Err(setup(format!(
                "the cached scores in `{}` {problem}; delete the file and they are made again",
                path.display()
            ))),
        }
    }
}

fn setup(problem: String) -> ScorerError {
    ScorerError::Setup {
        scorer: "offline".into(),
        problem,
    }
}

fn bytes<const N: usize>(values: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
    values.flatten().collect()
}

fn content_hash(samples: &[u8], lengths: &[u8], scores: &[u8]) -> String {
    let mut hasher = Sha256::new();
    for part in [samples, lengths, scores] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex::encode(hasher.finalize())
}

fn parse(file: &[u8], key: &str) -> Result<BTreeMap<usize, Vec<f32>>, String> {
    let damaged = |e: safetensors::SafeTensorError| format!("are damaged ({e})");
    let (_, header) = SafeTensors::read_metadata(file).map_err(damaged)?;
    let tensors = SafeTensors::deserialize(file).map_err(damaged)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let data = |name, dtype| {
        let tensor = tensors.tensor(name).map_err(damaged)?;
        match tensor.dtype() == dtype {
            true => Ok(tensor.data().to_vec()),
            false => Err(format!("are damaged (`{name}` is {:?})", tensor.dtype())),
        }
    };
    let samples = data("samples", Dtype::U64)?;
    let lengths = data("lengths", Dtype::U64)?;
    let values = data("scores", Dtype::F32)?;
    if metadata.get("key").map(String::as_str) != Some(key) {
        return Err("are of other data, models or settings".into());
    }
    if metadata.get("sha256") != Some(&content_hash(&samples, &lengths, &values)) {
        return Err("are damaged (their hash is not the one written with them)".into());
    }
    let (numbers, _) = samples.as_chunks::<8>();
    let (sizes, _) = lengths.as_chunks::<8>();
    let (values, _) = values.as_chunks::<4>();
    let mut rest = values;
    let mut scores = BTreeMap::new();
    for (number, size) in numbers.iter().zip(sizes) {
        let size = u64::from_le_bytes(*size) as usize;
        let (own, after) = rest
            .split_at_checked(size)
            .ok_or("are damaged (fewer scores than their lengths say)")?;
        rest = after;
        let own = own.iter().map(|b| f32::from_le_bytes(*b)).collect();
        scores.insert(u64::from_le_bytes(*number) as usize, own);
    }
    Ok(scores)
}

/// A scorer that looks its scores up: any scorer with `when: offline`.
pub struct Offline {
    name: String,
    policy: WeightPolicy,
    scores: CachedScores,
}

impl Offline {
    /// The scores that the scorer `name` gave, which become weights by `policy`.
    pub fn new(name: &str, policy: WeightPolicy, scores: CachedScores) -> Self {
        Self {
            name: name.to_owned(),
            policy,
            scores,
        }
    }
}

impl Scorer for Offline {
    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn policy(&self) -> WeightPolicy {
        self.policy
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        let batch = input.batch;
        let mut scores = vec![0.0; batch.tokens.len()];
        for document in &batch.documents {
            let slots = scores.get_mut(document.response(batch.seq_len)).unwrap_or_default();
            match self.scores.get(document.sample) {
                Some(own) if own.len() == slots.len() => slots.copy_from_slice(own),
                found => {
                    return Err(ScorerError::Document {
                        scorer: self.name.clone(),
                        document: document.name.clone(),
                        problem: format!(
                            "has {} cached scores for {} response tokens; make the scores of this data set first",
                            found.map_or(0, <[f32]>::len),
                            slots.len()
                        ),
                    });
                }
            }
        }
        Ok(scores)
    }
}
