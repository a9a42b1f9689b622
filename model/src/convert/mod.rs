//! Conversion between model directories in Hugging Face's layout and in Meta's released one.
//!
//! Works on tensors, one at a time, without building a model: values keep their type and their bits,
//! only names change, and the order of rows in query and key projections. Meta's layout is that of
//! Gloeckle et al. 2024 (arXiv 2404.19737): `layers.{L-1}` is head 1, `extra_heads.{i}` is head i + 2.

mod kept;
mod layout;
mod params;
mod pth;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn_store::pytorch_reader::Tensor as Stored;
use serde_json::{Map, Value};

use crate::companions::Companions;
use crate::config::LlamaConfig;
use crate::error::{ModelError, Problems};
use crate::names::{self, TensorSpec};
use crate::pytorch_file;
use crate::raw::SaveDtype;
use crate::store::{
    CONFIG_FILE, HEADS_FILE, MODEL_FILE, Opened, VALUE_HEAD_FILE, check_heads, check_model, fail_if_any, open_standard,
    write_json, write_model,
};
use crate::tensor_file::{Outgoing, TensorFiles, into_place};
use layout::Rows;

/// Meta's configuration.
const PARAMS: &str = "params.json";
/// Meta's weights.
const CHECKPOINT: &str = "consolidated.pth";

/// Which way a conversion went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From `consolidated.pth` to `model.safetensors`.
    MetaToHf,
    /// From `model.safetensors` to `consolidated.pth`.
    HfToMeta,
}

/// What a conversion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Which way it went.
    pub direction: Direction,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of all tensors written.
    pub bytes: u64,
    /// Prediction heads of the model.
    pub n_heads: usize,
    /// Whether the unembedding is the embedding.
    pub tied: bool,
    /// Sentences about what was assumed, left out, or is still needed.
    pub notes: Vec<String>,
}

/// Converts `src` to the layout that it does not have; see [`meta_to_hf`] and [`hf_to_meta`].
///
/// # Errors
/// `src` holds neither layout or both, or the conversion fails.
pub fn convert(src: &Path, dst: &Path) -> Result<Converted, ModelError> {
    let meta = src.join(PARAMS).exists();
    let hf = src.join(CONFIG_FILE).exists();
    match (meta, hf) {
        (true, false) => meta_to_hf(src, dst),
        (false, true) => hf_to_meta(src, dst),
        (true, true) => Err(ModelError::Request(format!(
            "{} holds both {PARAMS} and {CONFIG_FILE}, so the direction is unclear: move one layout's files away",
            src.display()
        ))),
        (false, false) => Err(ModelError::Request(format!(
            "{} holds no model: expected {PARAMS} with {CHECKPOINT}, or {CONFIG_FILE} with {MODEL_FILE}",
            src.display()
        ))),
    }
}

/// Converts Meta's layout in `src` (`consolidated.pth`, `params.json`) to Hugging Face's in `dst`,
/// which must not exist or be empty. The model is tied where both matrices are equal byte for byte, unless
/// an `hf_config.json` ([`hf_to_meta`]) says otherwise.
///
/// # Errors
/// A file is missing, damaged or cannot be written; the tensors do not make a Llama; `dst` is in use.
pub fn meta_to_hf(src: &Path, dst: &Path) -> Result<Converted, ModelError> {
    let mut notes = Vec::new();
    let path = checkpoint(src)?;
    let tensors = pytorch_file::open(&path)?;
    let found = look(&path, &tensors)?;
    let mut config = params::read(&src.join(PARAMS), &found, &mut notes)?;
    let kept = kept::read(src)?;
    match &kept {
        // Two matrices that happen to be equal are two matrices to a model that says so.
        Some((_, kept)) => config.tie_word_embeddings &= kept.tie_word_embeddings,
        None => params::assume(&src.join(PARAMS), &mut config, &mut notes)?,
    }
    check_meta(&path, &tensors, &config, found.tied)?;

    // A reading error inside the writer is kept here, and reported instead of what it leads to.
    let failure = RefCell::new(None);
    let fetch = |name: &str| -> Vec<u8> {
        let stored = layout::meta_name(name).and_then(|name| tensors.get(&name));
        match stored.map(Stored::read) {
            Some(Ok(bytes)) => layout::reorder(name, &config, Cow::Owned(bytes), Rows::ToHalves).into_owned(),
            Some(Err(error)) => {
                failure.borrow_mut().get_or_insert(error);
                Vec::new()
            }
            None => Vec::new(),
        }
    };
    let fetch = &fetch;
    let outgoing = |specs: Vec<TensorSpec>| -> Vec<Outgoing<'_>> {
        specs
            .into_iter()
            .filter_map(|spec| {
                let dtype = pytorch_file::dtype(tensors.get(&layout::meta_name(&spec.name)?)?)?;
                let name = spec.name.clone();
                Some(Outgoing {
                    spec,
                    dtype,
                    bytes: Box::new(move || fetch(&name)),
                })
            })
            .collect()
    };
    let model = outgoing(config.model_tensors());
    let heads = outgoing(config.all_head_tensors());
    let mut converted = summary(
        Direction::MetaToHf,
        &config,
        model.iter().chain(&heads).map(|tensor| (&tensor.spec, tensor.dtype)),
    );
    let dtype = model.first().map_or(SaveDtype::F32, |tensor| tensor.dtype);
    into_place(dst, |staging| {
        write_model(staging, model, heads)?;
        if let Some(error) = failure.borrow_mut().take() {
            return Err(ModelError::io("read", &path, error));
        }
        let document = match kept {
            Some(kept) => kept::document(kept, &config, dtype, &mut notes),
            None => config.to_json(dtype.torch_name()),
        };
        write_json(&staging.join(CONFIG_FILE), &document)?;
        copy_companions(src, staging, &mut notes)
    })?;
    converted.notes = notes;
    Ok(converted)
}

/// Converts Hugging Face's layout in `src` to Meta's in `dst`, which must not exist or be empty.
/// `config.json` is kept as `hf_config.json`: converting back loses nothing.
///
/// # Errors
/// A file is missing, damaged or cannot be written; the tensors do not fit `config.json`; Meta's
/// layout cannot express the model; `dst` is in use.
pub fn hf_to_meta(src: &Path, dst: &Path) -> Result<Converted, ModelError> {
    let config = LlamaConfig::read(src)?;
    let params = params::write(&config)?;
    let mut problems = Vec::new();
    let Opened { model, heads: within } = open_standard(src, &config)?;
    check_model(&config, &[], &model, &mut problems);
    let mut heads = TensorFiles::default();
    if config.n_heads > 1 {
        heads = within.map_or_else(|| TensorFiles::open(&src.join(HEADS_FILE)), Ok)?;
        check_heads(&config, &heads, config.n_heads, &mut problems);
    }
    fail_if_any(problems, src)?;

    let mut specs = config.model_tensors();
    let mut tied = Vec::new();
    if config.tie_word_embeddings {
        // Meta's code always loads an unembedding.
        tied.extend(specs.first().map(|embedding| (names::UNEMBEDDING, embedding.clone())));
    }
    specs.extend(config.all_head_tensors());
    let stored = specs.into_iter().map(|spec| (spec.name.clone(), spec));
    let tied = tied.into_iter().map(|(name, spec)| (name.to_owned(), spec));
    let mut tensors = Vec::new();
    for (name, spec) in stored.chain(tied) {
        let files = if spec.name.starts_with("mtp.") { &heads } else { &model };
        let (Some(meta), Some(dtype)) = (layout::meta_name(&name), files.dtype(&spec.name)) else {
            continue;
        };
        let config = &config;
        tensors.push(pth::OutgoingTensor {
            spec: TensorSpec {
                name: meta,
                shape: spec.shape,
            },
            dtype,
            bytes: Box::new(move || {
                let bytes = files.bytes(&spec.name).unwrap_or_default();
                layout::reorder(&spec.name, config, bytes, Rows::ToPairs)
            }),
        });
    }
    let mut converted = summary(
        Direction::HfToMeta,
        &config,
        tensors.iter().map(|tensor| (&tensor.spec, tensor.dtype)),
    );
    let mut notes = vec![format!(
        "{CONFIG_FILE} was kept as {}, because {PARAMS} has no place for most of it",
        kept::KEPT
    )];
    into_place(dst, |staging| {
        pth::write(&staging.join(CHECKPOINT), &tensors)?;
        write_json(&staging.join(PARAMS), &params)?;
        let from = src.join(CONFIG_FILE);
        std::fs::copy(&from, staging.join(kept::KEPT)).map_err(|source| ModelError::io("copy", &from, source))?;
        copy_companions(src, staging, &mut notes)
    })?;
    converted.notes = notes;
    Ok(converted)
}

fn summary<'a>(
    direction: Direction,
    config: &LlamaConfig,
    tensors: impl Iterator<Item = (&'a TensorSpec, SaveDtype)>,
) -> Converted {
    let sizes: Vec<usize> = tensors
        .map(|(spec, dtype)| spec.shape.iter().product::<usize>() * dtype.size())
        .collect();
    Converted {
        direction,
        tensors: sizes.len(),
        bytes: sizes.iter().map(|size| *size as u64).sum(),
        n_heads: config.n_heads,
        tied: config.tie_word_embeddings,
        notes: Vec::new(),
    }
}

/// The one checkpoint file of a directory in Meta's layout.
fn checkpoint(src: &Path) -> Result<PathBuf, ModelError> {
    let path = src.join(CHECKPOINT);
    let numbered = src.join("consolidated.00.pth");
    if src.join("consolidated.01.pth").exists() {
        return Err(ModelError::Request(format!(
            "the model in {} is split over several devices (consolidated.01.pth): merge the parts into one {CHECKPOINT} first",
            src.display()
        )));
    }
    Ok(if !path.exists() && numbered.exists() {
        numbered
    } else {
        path
    })
}

/// Sizes and layers that the tensors of a checkpoint show.
fn look(path: &Path, tensors: &BTreeMap<String, Stored>) -> Result<params::Found, ModelError> {
    let shape = |name: &str| -> Result<[usize; 2], ModelError> {
        let shape = tensors.get(name).map(Stored::shape);
        shape
            .and_then(|shape| <[usize; 2]>::try_from(shape).ok())
            .ok_or_else(|| ModelError::Weights {
                place: path.display().to_string(),
                problems: Problems(vec![format!(
                    "`{name}` is missing or not a matrix, so this is not Meta's layout"
                )]),
            })
    };
    let [vocab_size, hidden_size] = shape(layout::EMBEDDING)?;
    let [intermediate_size, _] = shape("layers.0.feed_forward.w1.weight")?;
    let count = |prefix: &str| -> usize {
        let index = |name: &String| -> Option<usize> { name.strip_prefix(prefix)?.split('.').next()?.parse().ok() };
        tensors
            .keys()
            .filter_map(index)
            .max()
            .map_or(0, |last| last.saturating_add(1))
    };
    let read = |name: &str| -> Result<Option<Vec<u8>>, ModelError> {
        let bytes = tensors.get(name).map(Stored::read).transpose();
        bytes.map_err(|error| ModelError::io("read", path, error))
    };
    let (layers, extra_heads) = (count(layout::LAYERS), count(layout::HEADS));
    if layers + extra_heads > tensors.len() {
        return Err(ModelError::Weights {
            place: path.display().to_string(),
            problems: Problems(vec![format!(
                "layers are numbered up to {layers}, with {} tensors in all",
                tensors.len()
            )]),
        });
    }
    let same_type =
        tensors.get(layout::UNEMBEDDING).map(Stored::dtype) == tensors.get(layout::EMBEDDING).map(Stored::dtype);
    let tied = same_type && read(layout::UNEMBEDDING)? == read(layout::EMBEDDING)?;
    Ok(params::Found {
        vocab_size,
        hidden_size,
        intermediate_size,
        layers,
        extra_heads,
        tied,
    })
}

/// Compares a checkpoint with the configuration made from it.
fn check_meta(
    path: &Path,
    tensors: &BTreeMap<String, Stored>,
    config: &LlamaConfig,
    tied: bool,
) -> Result<(), ModelError> {
    let mut problems = Vec::new();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for spec in config.all_tensors() {
        let Some(name) = layout::meta_name(&spec.name) else {
            continue;
        };
        match tensors.get(&name) {
            None => problems.push(format!("`{name}` of shape {:?} is missing", spec.shape)),
            Some(tensor) => {
                if tensor.shape() != spec.shape {
                    problems.push(format!(
                        "`{name}` has shape {:?}, expected {:?}",
                        tensor.shape(),
                        spec.shape
                    ));
                }
                if pytorch_file::dtype(tensor).is_none() {
                    problems.push(format!(
                        "`{name}` has type {:?}, expected F32, F16 or BF16",
                        tensor.dtype()
                    ));
                }
            }
        }
        known.insert(name);
    }
    if tied {
        known.insert(layout::UNEMBEDDING.to_owned());
    }
    // Some releases carry a table of rotary frequencies, which follow from params.json.
    let surplus = tensors
        .keys()
        .filter(|name| !known.contains(*name) && *name != "rope.freqs");
    problems.extend(surplus.map(|name| format!("`{name}` is surplus: no part of a Llama")));
    fail_if_any(problems, path)
}

/// Copies what both layouts share, and notes which tokenizer files are missing. A conversion does not change
/// the hash of the weights, by which the value head belongs to them.
fn copy_companions(src: &Path, dst: &Path, notes: &mut Vec<String>) -> Result<(), ModelError> {
    let companions = Companions::read(src)?;
    companions.write(dst)?;
    notes.extend(companions.missing_tokenizer(src));
    let head = src.join(VALUE_HEAD_FILE);
    if head.exists() {
        std::fs::copy(&head, dst.join(VALUE_HEAD_FILE)).map_err(|source| ModelError::io("copy", &head, source))?;
    }
    Ok(())
}

/// A JSON file that holds an object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>, ModelError> {
    let text = std::fs::read(path).map_err(|source| ModelError::io("read", path, source))?;
    serde_json::from_slice(&text).map_err(|error| ModelError::format(path, "JSON object", error))
}
