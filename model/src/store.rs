//! Model directories in the Hugging Face layout: loading, saving, hashing.
//!
//! Loading maps the files and compares every name, shape and type with the configuration before any
//! tensor is made; all that does not fit is listed in one error. Saving is deterministic: equal
//! weights give equal bytes.

use std::io::Write;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, Device, TensorData};
use serde_json::{Map, Value, json};

use crate::causal_lm::CausalLm;
use crate::config::LlamaConfig;
use crate::error::{ModelError, Problems};
use crate::fast_llm;
use crate::findings::{self, Finding};
use crate::foreign;
use crate::llama::MtpLlama;
use crate::names::{self, TensorSpec};
use crate::peft::Adapter;
use crate::prefix;
use crate::random;
use crate::raw::{self, SaveDtype};
use crate::tensor_file::{self, Outgoing, TensorFiles};

/// File of the trunk and head 1.
pub(crate) const MODEL_FILE: &str = "model.safetensors";
/// File of prediction heads 2..H.
pub(crate) const HEADS_FILE: &str = "mtp_heads.safetensors";
/// Which file holds which tensor.
pub(crate) const INDEX_FILE: &str = "model.safetensors.index.json";
/// What a model is.
pub(crate) const CONFIG_FILE: &str = "config.json";
/// The value head of the model that it was trained on. It belongs to weights by their hash.
pub(crate) const VALUE_HEAD_FILE: &str = "value_head.safetensors";

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
    load_merged(dir, None, options, device)
}

/// Loads the model in `base` with the LoRA adapter in `adapter` (peft's, or this crate's own) merged
/// into its weights. Without `options.n_heads` it has as many heads as the adapter says, else as the
/// base has.
///
/// # Errors
/// As [`load`]; the adapter does not fit the base, or is of a kind that cannot be merged.
pub fn load_adapted(
    base: &Path,
    adapter: &Path,
    options: &LoadOptions,
    device: &Device,
) -> Result<MtpLlama, ModelError> {
    load_merged(base, Some(adapter), options, device)
}

/// The configuration that [`load_adapted`] gives its model: the base's with the adapter's heads,
/// untied and with another vocabulary where the adapter makes it so.
///
/// # Errors
/// As [`load_adapted`], without reading the weights of the base.
pub fn adapted_config(base: &Path, adapter: &Path) -> Result<LlamaConfig, ModelError> {
    let mut config = LlamaConfig::read(base)?;
    let stored = config.n_heads;
    let own = own_heads(adapter)?;
    config.n_heads = own.unwrap_or(1);
    Adapter::open(adapter, &mut config)?;
    config.n_heads = own.unwrap_or(stored);
    Ok(config)
}

/// Checks what [`load`] or, with an adapter, [`load_adapted`] checks before a weight is read: names, shapes and
/// types of all tensors against the configuration.
///
/// # Errors
/// As [`load`] and [`load_adapted`].
pub fn check_weights(dir: &Path, adapter: Option<&Path>, options: &LoadOptions) -> Result<(), ModelError> {
    Checked::open(dir, adapter, options).map(|_| ())
}

/// A model's files, which fit its configuration.
struct Checked {
    /// The files' own configuration.
    base: LlamaConfig,
    /// That of the model that is made of them.
    config: LlamaConfig,
    /// H of the files.
    stored: usize,
    /// Heads that the adapter has factors of.
    adapted: usize,
    model: TensorFiles,
    heads: Option<TensorFiles>,
    adapter: Option<Adapter>,
}

impl Checked {
    fn open(dir: &Path, adapter: Option<&Path>, options: &LoadOptions) -> Result<Self, ModelError> {
        let base = LlamaConfig::read(dir)?;
        let stored = base.n_heads;
        let own = adapter.map(own_heads).transpose()?.flatten();
        let n_heads = options.n_heads.or(own).unwrap_or(stored);
        if n_heads == 0 {
            return Err(ModelError::Request(
                "a model needs at least one prediction head, not 0".to_owned(),
            ));
        }
        let Opened { model, heads } = open_standard(dir, &base)?;
        let heads = if n_heads > 1 && stored > 1 {
            Some(heads.map_or_else(|| TensorFiles::open(&dir.join(HEADS_FILE)), Ok)?)
        } else {
            None
        };
        let mut problems = Vec::new();
        check_model(&base, &[], &model, &mut problems);
        if let Some(heads) = &heads {
            check_heads(&base, heads, stored, &mut problems);
        }
        fail_if_any(problems, dir)?;

        // peft knows the trunk and head 1 alone.
        let adapted = own.unwrap_or(1);
        let mut config = LlamaConfig {
            n_heads: adapted,
            ..base.clone()
        };
        let adapter = adapter.map(|dir| Adapter::open(dir, &mut config)).transpose()?;
        config.n_heads = n_heads;
        Ok(Self {
            base,
            config,
            stored,
            adapted,
            model,
            heads,
            adapter,
        })
    }
}

fn load_merged(
    dir: &Path,
    adapter: Option<&Path>,
    options: &LoadOptions,
    device: &Device,
) -> Result<MtpLlama, ModelError> {
    let Checked {
        base,
        config,
        stored,
        adapted,
        model,
        heads,
        adapter,
    } = Checked::open(dir, adapter, options)?;
    let last = names::layer_prefix(config.num_hidden_layers.saturating_sub(1));
    MtpLlama::build(&config, options.dtype, device, &mut |name, shape| {
        // A head that is made as a copy is one of the merged layer, unless the adapter has its own
        // factors, which belong to a copy of the base's.
        let (from, merged_as) = match (split_head(name), options.head_init) {
            (Some((k, part)), HeadInit::CopyLast) if k > stored => {
                let last = match part {
                    names::HEAD_NORM => names::NORM.to_owned(),
                    part => format!("{last}{part}"),
                };
                (last.clone(), if k <= adapted { name.to_owned() } else { last })
            }
            _ => (name.to_owned(), name.to_owned()),
        };
        let stored_values = || match (split_head(&from), &heads) {
            (None, _) if name == names::UNEMBEDDING && base.tie_word_embeddings => model.values(names::EMBEDDING),
            (None, _) => model.values(&from),
            (Some((k, _)), Some(heads)) if k <= stored => heads.values(&from),
            _ => {
                let random = random::weight(options.seed, name, shape, config.initializer_range);
                Some(raw::to_f32(random))
            }
        };
        // Names and types were checked above, so a value that is absent now is a file changed meanwhile.
        let values = match &adapter {
            Some(adapter) if adapter.changes(&merged_as) || merged_as == names::UNEMBEDDING => {
                adapter.merge(&merged_as, shape, stored_values, base.tie_word_embeddings)?
            }
            _ => stored_values().ok_or_else(|| unreadable(name, dir))?,
        };
        Ok(TensorData::new(values, shape.to_vec()))
    })
}

/// H of an adapter of this crate, whose directory has a `config.json` that says so; none of others.
pub(crate) fn own_heads(adapter: &Path) -> Result<Option<usize>, ModelError> {
    if !adapter.join(CONFIG_FILE).exists() {
        return Ok(None);
    }
    let config = LlamaConfig::read(adapter)?;
    Ok(config.other.contains_key("wmtp").then_some(config.n_heads))
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

/// The files of the model in `dir`, their tensors under transformers' names, and quantised ones as what they
/// stand for.
///
/// # Errors
/// A file is missing, damaged or contradicts another one, or names cannot be told apart.
pub(crate) fn open_standard(dir: &Path, config: &LlamaConfig) -> Result<Opened, ModelError> {
    let mut problems = Vec::new();
    let mut files = TensorFiles::open_model(dir, &mut problems)?;
    if problems.is_empty() {
        problems.extend(foreign::refusal(files.names()));
    }
    if problems.is_empty() {
        prefix::to_standard_names(&mut files, &mut problems);
    }
    files.take_scales(config.scale_blocks(), &mut problems);
    // What else does not fit follows from these.
    fail_if_any(problems, dir)?;
    let heads = fast_llm::take_heads(&mut files);
    Ok(Opened { model: files, heads })
}

/// The files of a model.
pub(crate) struct Opened {
    /// Trunk and head 1.
    pub(crate) model: TensorFiles,
    /// Heads 2..H where another trainer stored them with the model; none where they are in [`HEADS_FILE`].
    pub(crate) heads: Option<TensorFiles>,
}

/// Compares the files with the configuration's tensors and some `more`.
pub(crate) fn check_model(config: &LlamaConfig, more: &[TensorSpec], files: &TensorFiles, problems: &mut Vec<String>) {
    let mut expected = config.model_tensors();
    expected.extend_from_slice(more);
    files.check(&expected, problems);
    // Only here with tied embeddings: some writers store the shared matrix twice.
    let tied = config.tie_word_embeddings && files.shape(names::UNEMBEDDING).is_some();
    if tied && files.bytes(names::UNEMBEDDING) != files.bytes(names::EMBEDDING) {
        problems.push(format!(
            "`{}` differs from `{}` although `tie_word_embeddings` is true",
            names::UNEMBEDDING,
            names::EMBEDDING
        ));
    }
    let passes = |name: &str| (tied && name == names::UNEMBEDDING) || name.ends_with("rotary_emb.inv_freq");
    let surplus = findings::surplus(files.names(), &expected, passes);
    problems.extend(findings::listed(
        Finding::Surplus,
        "no part of this configuration uses it",
        &surplus,
    ));
}

pub(crate) fn check_heads(config: &LlamaConfig, files: &TensorFiles, stored: usize, problems: &mut Vec<String>) {
    let expected: Vec<TensorSpec> = (2..=stored).flat_map(|k| config.head_tensors(k)).collect();
    files.check(&expected, problems);
    let surplus = findings::surplus(files.names(), &expected, |_| false);
    let why = format!("`wmtp.n_heads` is {stored}");
    problems.extend(findings::listed(Finding::Surplus, &why, &surplus));
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

/// Saves the model to `dir` (made if absent): `config.json`, `model.safetensors` with its index and, with
/// more than one head, `mtp_heads.safetensors`. LoRA adapters are merged into what is written.
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
    write_model(dir, base, heads)?;
    write_json(&dir.join(CONFIG_FILE), &model.config().to_json(dtype.torch_name()))
}

/// Writes the files of trunk and head 1 (`base`), of heads 2..H, and the index. Without heads their file is
/// removed.
///
/// transformers writes an index for sharded models only. Here it is always written, and names only the file
/// of the trunk and head 1: vLLM and SGLang load every `*.safetensors` of a directory that has no index, and
/// stop at the tensors of `mtp_heads.safetensors`, which no plain Llama has.
pub(crate) fn write_model(dir: &Path, base: Vec<Outgoing<'_>>, heads: Vec<Outgoing<'_>>) -> Result<(), ModelError> {
    write_or_remove(&dir.join(HEADS_FILE), heads)?;
    let index = index(&base);
    tensor_file::write(&dir.join(MODEL_FILE), &METADATA, base)?;
    write_json(&dir.join(INDEX_FILE), &index)
}

/// Metadata of files of weights: transformers refuses files without this line.
pub(crate) const METADATA: [(&str, &str); 1] = [("format", "pt")];

/// Writes a file of tensors; without tensors it is removed.
pub(crate) fn write_or_remove(path: &Path, tensors: Vec<Outgoing<'_>>) -> Result<(), ModelError> {
    if !tensors.is_empty() {
        return tensor_file::write(path, &METADATA, tensors);
    }
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(ModelError::io("remove", path, source)),
        _ => Ok(()),
    }
}

/// The index of `tensors`, all in [`MODEL_FILE`]. Sizes are in bytes without the file's header, as
/// transformers counts them.
fn index(tensors: &[Outgoing<'_>]) -> Value {
    let count = |tensor: &Outgoing<'_>| tensor.spec.shape.iter().product::<usize>();
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.spec.name.as_str()).collect();
    names.sort_unstable();
    let map: Map<String, Value> = names
        .into_iter()
        .map(|name| (name.to_owned(), json!(MODEL_FILE)))
        .collect();
    json!({
        "metadata": {
            "total_parameters": tensors.iter().map(count).sum::<usize>(),
            "total_size": tensors.iter().map(|tensor| count(tensor) * tensor.dtype.size()).sum::<usize>(),
        },
        "weight_map": map,
    })
}

/// Writes a JSON document with line breaks.
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ModelError> {
    tensor_file::replace(path, |out| writeln!(out, "{value:#}"))
}

/// All weights of a model on a plain device, ready to be written.
fn outgoing(model: &MtpLlama, dtype: SaveDtype) -> Vec<Outgoing<'_>> {
    let weights = model.weights().into_iter();
    weights
        .map(|(name, weight)| Outgoing {
            spec: TensorSpec {
                name,
                shape: weight.shape(),
            },
            dtype,
            bytes: Box::new(move || dtype.encode(&weight.values())),
        })
        .collect()
}

/// All weights, heads included, as one safetensors document in f32: what [`from_bytes`] reads back
/// bit for bit.
///
/// # Errors
/// Memory for the document cannot be had.
pub fn to_bytes(model: &MtpLlama) -> Result<Vec<u8>, ModelError> {
    let mut bytes = Vec::new();
    tensor_file::write_to(&mut bytes, &METADATA, outgoing(&model.valid(), SaveDtype::F32))
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
    let expected = config.all_tensors();
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
