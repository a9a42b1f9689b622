//! Model and adapter directories for other tools: heads kept or dropped, another stored type, one file for
//! what ordinary loaders read.
//!
//! Works on tensors, one at a time, without building a model: what keeps its type keeps its bits.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::causal_lm::CausalLm;
use crate::companions::Companions;
use crate::config::LlamaConfig;
use crate::convert::read_object;
use crate::error::{ModelError, Problems};
use crate::llama::MtpLlama;
use crate::lora::{self, ADAPTER_CONFIG_FILE};
use crate::names::{EMBEDDING, TensorSpec};
use crate::raw::SaveDtype;
use crate::store::{
    self, CONFIG_FILE, HEADS_FILE, INDEX_FILE, MODEL_FILE, Opened, VALUE_HEAD_FILE, write_json, write_model,
};
use crate::tensor_file::{Outgoing, TensorFiles, into_place};

/// What becomes of prediction heads 2..H.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Heads {
    /// They are written to a file of their own, which ordinary loaders do not read.
    #[default]
    Keep,
    /// They are left out: the result is an ordinary Llama.
    Drop,
}

/// How a directory is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExportOptions {
    /// What becomes of prediction heads 2..H.
    pub heads: Heads,
    /// The stored type; none keeps each tensor as it is stored.
    pub dtype: Option<SaveDtype>,
}

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Whether it is an adapter, not a whole model.
    pub adapter: bool,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of all tensors written.
    pub bytes: u64,
    /// Prediction heads of the result.
    pub n_heads: usize,
    /// The type of the first tensor, which `config.json` names.
    pub dtype: SaveDtype,
    /// Sentences about what was left out.
    pub notes: Vec<String>,
}

/// Writes the model or adapter in `src` to `dst`, which must not exist or be empty. Tokenizer, chat
/// template and generation settings are copied byte for byte. `dst` appears whole or not at all.
///
/// # Errors
/// A file is missing, damaged or cannot be written; the tensors do not fit `config.json`; a value is too
/// large for the requested type; `dst` is in use.
pub fn export(src: &Path, dst: &Path, options: &ExportOptions) -> Result<Exported, ModelError> {
    let mut exported = None;
    into_place(dst, |staging| {
        let mut written = export_weights(src, staging, options)?;
        let companions = Companions::read(src)?;
        companions.write(staging)?;
        written.notes.extend(companions.missing_tokenizer(src));
        if src.join(VALUE_HEAD_FILE).exists() {
            written.notes.push(format!(
                "{VALUE_HEAD_FILE} was left out: it belongs to the training run, and nothing that serves models reads it"
            ));
        }
        exported = Some(written);
        Ok(())
    })?;
    exported.ok_or_else(|| ModelError::Request(format!("nothing was written to {}", dst.display())))
}

/// Writes a model in memory, LoRA adapters merged, to `dst`, which must not exist or be empty.
///
/// # Errors
/// A value is too large for `dtype`; a file cannot be written; `dst` is in use.
pub fn export_model(
    model: &MtpLlama,
    companions: &Companions,
    dst: &Path,
    dtype: SaveDtype,
) -> Result<Exported, ModelError> {
    let config = model.config();
    let specs = config.all_tensors();
    let narrowed = dtype != SaveDtype::F32;
    for (name, weight) in model.weights().into_iter().filter(|_| narrowed) {
        if dtype.overflows(&weight.values()) {
            return Err(too_large(&name, dtype));
        }
    }
    into_place(dst, |staging| {
        store::save(model, staging, dtype)?;
        if config.n_heads == 1 {
            // `save` names one prediction head; an export without extra heads is an ordinary Llama.
            let path = staging.join(CONFIG_FILE);
            let mut map = read_object(&path)?;
            map.shift_remove("wmtp");
            write_json(&path, &Value::Object(map))?;
        }
        companions.write(staging)
    })?;
    Ok(Exported {
        adapter: false,
        tensors: specs.len(),
        bytes: specs
            .iter()
            .map(|spec| (spec.shape.iter().product::<usize>() * dtype.size()) as u64)
            .sum(),
        n_heads: config.n_heads,
        dtype,
        notes: companions.missing_tokenizer(dst).into_iter().collect(),
    })
}

/// Writes weights and configuration of the model or adapter in `src` into `dir`, which exists.
///
/// # Errors
/// As [`export`].
pub fn export_weights(src: &Path, dir: &Path, options: &ExportOptions) -> Result<Exported, ModelError> {
    if is_adapter(src) {
        adapter(src, dir, options)
    } else {
        whole_model(src, dir, options)
    }
}

/// Whether `dir` holds a LoRA adapter and no whole model.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(ADAPTER_CONFIG_FILE).is_file() && !dir.join(MODEL_FILE).is_file() && !dir.join(INDEX_FILE).is_file()
}

/// The type in which the embedding of the model in `dir` is stored, or the first factor of an adapter.
///
/// # Errors
/// The files cannot be read, or that tensor is missing or not of a float type.
pub fn stored_dtype(dir: &Path) -> Result<SaveDtype, ModelError> {
    let files = if is_adapter(dir) {
        lora::open_factors(dir)?
    } else {
        store::open_standard(dir, &LlamaConfig::read(dir)?)?.model
    };
    let first = if is_adapter(dir) {
        files.names().next().unwrap_or_default()
    } else {
        EMBEDDING
    };
    files.dtype(first).ok_or_else(|| ModelError::Weights {
        place: dir.display().to_string(),
        problems: Problems(vec![format!("`{first}` is missing or not of a float type")]),
    })
}

fn whole_model(src: &Path, dir: &Path, options: &ExportOptions) -> Result<Exported, ModelError> {
    let config = LlamaConfig::read(src)?;
    let mut problems = Vec::new();
    let Opened { model: files, heads } = store::open_standard(src, &config)?;
    store::check_model(&config, &[], &files, &mut problems);
    let keep = options.heads == Heads::Keep && config.n_heads > 1;
    let head_files = if keep {
        heads.map_or_else(|| TensorFiles::open(&src.join(HEADS_FILE)), Ok)?
    } else {
        TensorFiles::default()
    };
    if keep {
        store::check_heads(&config, &head_files, config.n_heads, &mut problems);
    }
    store::fail_if_any(problems, src)?;

    let writer = Writer::new(options.dtype);
    let base = writer.outgoing(&files, config.model_tensors());
    let n_heads = if keep { config.n_heads } else { 1 };
    let specs = if keep { config.all_head_tensors() } else { Vec::new() };
    let heads = writer.outgoing(&head_files, specs);
    let exported = summary(false, n_heads, base.iter().chain(&heads));
    write_model(dir, base, heads)?;
    writer.finish()?;
    let mut map = config.other;
    describe(&mut map, n_heads, exported.dtype);
    write_json(&dir.join(CONFIG_FILE), &Value::Object(map))?;
    Ok(exported)
}

fn adapter(src: &Path, dir: &Path, options: &ExportOptions) -> Result<Exported, ModelError> {
    let files = lora::open_factors(src)?;
    let names: BTreeSet<&str> = files.names().collect();
    let (heads, trunk): (Vec<_>, Vec<_>) = names
        .into_iter()
        .filter_map(|name| files.spec(name))
        .partition(|spec| lora::is_of_head(&spec.name));
    let heads = if options.heads == Heads::Keep {
        heads
    } else {
        Vec::new()
    };
    let writer = Writer::new(options.dtype);
    let (trunk, heads) = (writer.outgoing(&files, trunk), writer.outgoing(&files, heads));
    let mut exported = summary(true, 1, trunk.iter().chain(&heads));
    let has_heads = !heads.is_empty();
    lora::write_factors(dir, trunk, heads)?;
    writer.finish()?;
    write_json(
        &dir.join(ADAPTER_CONFIG_FILE),
        &Value::Object(read_object(&src.join(ADAPTER_CONFIG_FILE))?),
    )?;
    // peft's own adapters have no configuration of the model.
    let config = src.join(CONFIG_FILE);
    if config.is_file() {
        let stored = LlamaConfig::read(src)?.n_heads;
        exported.n_heads = if has_heads { stored } else { 1 };
        let mut map = read_object(&config)?;
        describe(&mut map, exported.n_heads, exported.dtype);
        write_json(&dir.join(CONFIG_FILE), &Value::Object(map))?;
    }
    Ok(exported)
}

/// Says in a `config.json` what its directory holds: heads and stored type.
fn describe(config: &mut Map<String, Value>, n_heads: usize, dtype: SaveDtype) {
    // The weights are written as what they stand for.
    config.shift_remove("quantization_config");
    if n_heads == 1 {
        config.shift_remove("wmtp");
    } else if let Some(Value::Object(block)) = config.get_mut("wmtp") {
        block.insert("n_heads".to_owned(), json!(n_heads));
    }
    // transformers 5 writes `dtype`, earlier ones `torch_dtype`; both are read.
    let mut said = false;
    for name in ["dtype", "torch_dtype"] {
        if let Some(value) = config.get_mut(name) {
            *value = json!(dtype.torch_name());
            said = true;
        }
    }
    if !said {
        config.insert("torch_dtype".to_owned(), json!(dtype.torch_name()));
    }
}

fn summary<'a, 'b: 'a>(
    adapter: bool,
    n_heads: usize,
    tensors: impl Iterator<Item = &'a Outgoing<'b>> + Clone,
) -> Exported {
    let bytes = |tensor: &Outgoing<'_>| (tensor.spec.shape.iter().product::<usize>() * tensor.dtype.size()) as u64;
    Exported {
        adapter,
        tensors: tensors.clone().count(),
        bytes: tensors.clone().map(bytes).sum(),
        n_heads,
        dtype: tensors.clone().next().map_or(SaveDtype::F32, |tensor| tensor.dtype),
        notes: Vec::new(),
    }
}

/// Turns stored tensors into written ones. What goes wrong while a file is being written is kept, and
/// reported by [`Writer::finish`].
struct Writer {
    dtype: Option<SaveDtype>,
    failure: RefCell<Option<ModelError>>,
}

impl Writer {
    fn new(dtype: Option<SaveDtype>) -> Self {
        Self {
            dtype,
            failure: RefCell::new(None),
        }
    }

    fn outgoing<'a>(&'a self, files: &'a TensorFiles, specs: Vec<TensorSpec>) -> Vec<Outgoing<'a>> {
        specs
            .into_iter()
            .filter_map(|spec| {
                let stored = files.dtype(&spec.name)?;
                let dtype = self.dtype.unwrap_or(stored);
                let name = spec.name.clone();
                Some(Outgoing {
                    spec,
                    dtype,
                    bytes: Box::new(move || self.bytes(files, &name, stored, dtype)),
                })
            })
            .collect()
    }

    fn bytes(&self, files: &TensorFiles, name: &str, stored: SaveDtype, dtype: SaveDtype) -> Vec<u8> {
        let bytes = files.bytes(name).unwrap_or_default();
        if stored == dtype {
            return bytes.into_owned();
        }
        let values = stored.decode(&bytes);
        if dtype.overflows(&values) {
            self.failure.borrow_mut().get_or_insert(too_large(name, dtype));
        }
        dtype.encode(&values)
    }

    fn finish(&self) -> Result<(), ModelError> {
        self.failure.borrow_mut().take().map_or(Ok(()), Err)
    }
}

fn too_large(name: &str, dtype: SaveDtype) -> ModelError {
    ModelError::Request(format!(
        "`{name}` has values too large for {}: choose `bf16` or `f32`",
        dtype.torch_name()
    ))
}
