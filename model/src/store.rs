//! Model directories in the Hugging Face layout: loading, saving, hashing.
//!
//! Loading maps the files and compares every name, shape and type with the configuration before any
//! tensor is made; all that does not fit is listed in one error. Saving is deterministic: equal
//! weights give equal bytes.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::config::LlamaConfig;
use crate::error::{ModelError, Problems};
use crate::layers::Weight;
use crate::llama::{MtpLlama, random_weight};
use crate::names::{self, TensorSpec};
use crate::raw::{self, SaveDtype};
use crate::tensor_file::{self, Outgoing, TensorFiles};

/// File of prediction heads 2..H.
const HEADS_FILE: &str = "mtp_heads.safetensors";

/// How prediction heads that a checkpoint lacks are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadInit {
    /// As copies of the last decoder layer.
    #[default]
    CopyLast,
    /// With random weights, deterministic in the seed.
    Random,
}

/// What to make of a checkpoint.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// H; none takes the checkpoint's. Stored heads beyond H are left out, missing ones are made.
    pub n_heads: Option<usize>,
    /// How missing heads are made.
    pub head_init: HeadInit,
    /// Seed of random heads.
    pub seed: u64,
    /// Type of weights and activations in memory.
    pub dtype: DType,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            n_heads: None,
            head_init: HeadInit::CopyLast,
            seed: 0,
            dtype: DType::F32,
        }
    }
}

/// Loads the model in `dir`.
///
/// # Errors
/// A file cannot be read or is damaged; the configuration is not a Llama's; the tensors do not fit it.
pub fn load(dir: &Path, options: &LoadOptions, device: &Device) -> Result<MtpLlama, ModelError> {
    let mut config = LlamaConfig::read(dir)?;
    let stored = config.n_heads;
    config.n_heads = options.n_heads.unwrap_or(stored);
    if config.n_heads == 0 {
        return Err(ModelError::Request(
            "a model needs at least one prediction head, 0 were asked for".to_owned(),
        ));
    }
    let mut problems = Vec::new();
    let model = TensorFiles::open_model(dir, &mut problems)?;
    let heads = if config.n_heads > 1 && stored > 1 {
        Some(TensorFiles::open(&dir.join(HEADS_FILE))?)
    } else {
        None
    };
    check_model(&config, &[], &model, &mut problems);
    if let Some(heads) = &heads {
        check_heads(&config, heads, stored, &mut problems);
    }
    fail_if_any(problems, dir)?;

    let last = names::layer_prefix(config.num_hidden_layers.saturating_sub(1));
    MtpLlama::build(&config, options.dtype, device, &mut |name, shape| {
        let found = match (split_head(name), &heads) {
            (None, _) => model.values(name),
            (Some((k, _)), Some(heads)) if k <= stored => heads.values(name),
            (Some((_, part)), _) => match options.head_init {
                HeadInit::CopyLast => model.values(&format!("{last}{part}")),
                HeadInit::Random => {
                    return Ok(random_weight(options.seed, name, shape, config.initializer_range));
                }
            },
        };
        // Names and types were checked above, so a value that is absent now is a file changed meanwhile.
        found
            .map(|values| TensorData::new(values, shape.to_vec()))
            .ok_or_else(|| unreadable(name, dir))
    })
}

/// Builds a model of exactly the tensors of one set of files, which have been checked.
pub(crate) fn build(
    config: &LlamaConfig,
    files: &TensorFiles,
    dtype: DType,
    device: &Device,
    place: &Path,
) -> Result<MtpLlama, ModelError> {
    MtpLlama::build(config, dtype, device, &mut |name, shape| {
        let values = files.values(name).ok_or_else(|| unreadable(name, place))?;
        Ok(TensorData::new(values, shape.to_vec()))
    })
}

fn unreadable(name: &str, place: &Path) -> ModelError {
    ModelError::Weights {
        place: place.display().to_string(),
        problems: Problems(vec![format!("`{name}` could not be read")]),
    }
}

/// `mtp.heads.{k}.{part}` as `(k, part)`.
fn split_head(name: &str) -> Option<(usize, &str)> {
    let (k, part) = name.strip_prefix("mtp.heads.")?.split_once('.')?;
    Some((k.parse().ok()?, part))
}

/// Compares the files with the configuration's tensors and some `more`.
pub(crate) fn check_model(config: &LlamaConfig, more: &[TensorSpec], files: &TensorFiles, problems: &mut Vec<String>) {
    let mut expected = config.model_tensors();
    expected.extend_from_slice(more);
    files.check(&expected, problems);
    let known: std::collections::BTreeSet<&str> = expected.iter().map(|spec| spec.name.as_str()).collect();
    for name in files.names().filter(|name| !known.contains(name)) {
        if name == names::UNEMBEDDING {
            // Only here with tied embeddings: some writers store the shared matrix twice.
            if files.bytes(name) != files.bytes(names::EMBEDDING) {
                problems.push(format!(
                    "`{name}` differs from `{}` although `tie_word_embeddings` is true",
                    names::EMBEDDING
                ));
            }
        } else if !name.ends_with("rotary_emb.inv_freq") {
            problems.push(format!("`{name}` is surplus: no part of this configuration uses it"));
        }
    }
}

fn check_heads(config: &LlamaConfig, files: &TensorFiles, stored: usize, problems: &mut Vec<String>) {
    let expected: Vec<TensorSpec> = (2..=stored).flat_map(|k| config.head_tensors(k)).collect();
    files.check(&expected, problems);
    let known: std::collections::BTreeSet<&str> = expected.iter().map(|spec| spec.name.as_str()).collect();
    problems.extend(
        files
            .names()
            .filter(|name| !known.contains(name))
            .map(|name| format!("`{name}` is surplus: `wmtp.n_heads` is {stored}")),
    );
}

pub(crate) fn fail_if_any(problems: Vec<String>, place: &Path) -> Result<(), ModelError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(ModelError::Weights {
        place: place.display().to_string(),
        problems: Problems(problems),
    })
}

/// Saves the model to `dir` (made if absent): `config.json`, `model.safetensors` and, with more than
/// one head, `mtp_heads.safetensors`. LoRA adapters are merged into what is written.
///
/// Each file is written under another name and renamed, the configuration last. Replacing a whole
/// directory at once is the caller's business.
///
/// # Errors
/// A file cannot be written.
pub fn save(model: &MtpLlama, dir: &Path, dtype: SaveDtype) -> Result<(), ModelError> {
    std::fs::create_dir_all(dir).map_err(|source| ModelError::io("create", dir, source))?;
    let model = model.valid();
    let (heads, base): (Vec<_>, Vec<_>) = outgoing(&model, dtype)
        .into_iter()
        .partition(|tensor| split_head(&tensor.spec.name).is_some());
    let heads_path = dir.join(HEADS_FILE);
    // transformers refuses files without this line.
    let metadata = [("format", "pt".to_owned())];
    if heads.is_empty() {
        if heads_path.exists() {
            std::fs::remove_file(&heads_path).map_err(|source| ModelError::io("remove", &heads_path, source))?;
        }
    } else {
        tensor_file::write(&heads_path, &metadata, heads)?;
    }
    tensor_file::write(&dir.join("model.safetensors"), &metadata, base)?;
    write_json(&dir.join("config.json"), &model.config().to_json(dtype.torch_name()))
}

/// Writes a JSON document with line breaks.
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ModelError> {
    tensor_file::replace(path, |out| writeln!(out, "{value:#}"))
}

/// All weights of a model on a plain device, ready to be written.
fn outgoing(model: &MtpLlama, dtype: SaveDtype) -> Vec<Outgoing<'_>> {
    model
        .weights()
        .into_iter()
        .map(|(name, weight)| match weight {
            Weight::Matrix(param) => outgoing_param(name, param, dtype),
            Weight::Vector(param) => outgoing_param(name, param, dtype),
        })
        .collect()
}

fn outgoing_param<const D: usize>(name: String, param: &Param<Tensor<D>>, dtype: SaveDtype) -> Outgoing<'_> {
    Outgoing {
        spec: TensorSpec {
            name,
            shape: param.lazy_shape().to_vec(),
        },
        dtype,
        bytes: Box::new(move || dtype.encode(&raw::to_f32(param.val().into_data()))),
    }
}

/// All weights, heads included, as one safetensors document in f32: what [`from_bytes`] reads back
/// bit for bit.
///
/// # Errors
/// Memory for the document cannot be had.
pub fn to_bytes(model: &MtpLlama) -> Result<Vec<u8>, ModelError> {
    let mut bytes = Vec::new();
    tensor_file::write_to(
        &mut bytes,
        &[("format", "pt".to_owned())],
        outgoing(&model.valid(), SaveDtype::F32),
    )
    .map_err(|source| ModelError::io("write", Path::new("the model in memory"), source))?;
    Ok(bytes)
}

/// A model of the given configuration with the weights of [`to_bytes`].
///
/// # Errors
/// The document is damaged or does not fit the configuration.
pub fn from_bytes(config: &LlamaConfig, bytes: Vec<u8>, dtype: DType, device: &Device) -> Result<MtpLlama, ModelError> {
    let place = Path::new("the model in memory");
    let files = TensorFiles::from_bytes(bytes, place)?;
    let expected: Vec<TensorSpec> = config
        .model_tensors()
        .into_iter()
        .chain((2..=config.n_heads).flat_map(|k| config.head_tensors(k)))
        .collect();
    let mut problems = Vec::new();
    files.check(&expected, &mut problems);
    let surplus = files
        .names()
        .filter(|name| !expected.iter().any(|spec| spec.name == **name));
    problems.extend(surplus.map(|name| format!("`{name}` is surplus")));
    fail_if_any(problems, place)?;
    build(config, &files, dtype, device, place)
}

/// The identity of the model in `dir`, in hexadecimal: SHA-256 over all tensors of
/// `model.safetensors` (or of all its shards together), sorted by the bytes of their names. Each
/// tensor adds, with every number as 8 bytes, little-endian: length of the name in bytes, name
/// (UTF-8), number of dimensions, each dimension, number of data bytes, data bytes as stored.
///
/// Sharding, metadata, extra heads and configuration do not change it; the stored type does.
///
/// # Errors
/// A file cannot be read or is damaged.
pub fn model_hash(dir: &Path) -> Result<String, ModelError> {
    let mut problems = Vec::new();
    let files = TensorFiles::open_model(dir, &mut problems)?;
    fail_if_any(problems, dir)?;
    Ok(files.hash())
}
