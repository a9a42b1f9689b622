//! Safetensors files: mapped for reading, written whole under a temporary name and then renamed.
//!
//! Writing is done here rather than by the safetensors crate because its header keeps metadata in a
//! hash map, whose order changes from run to run; equal models should give equal files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::error::ModelError;
use burn_store::pytorch_reader::Tensor as Stored;

use crate::file_content::{not_safetensors, other_content};
use crate::findings::{Finding, listed};
use crate::fp8::Scale;
use crate::missing_file;
use crate::names::TensorSpec;
use crate::prefix::no_name_in_common;
use crate::pytorch_file;
use crate::raw::SaveDtype;

/// Where one tensor lies.
#[derive(Debug, Clone)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    place: Place,
    /// Of a tensor in 8 bits, what its values are multiplied by.
    scale: Option<Scale>,
}

impl Entry {
    /// The float type of what is read; none for other types.
    fn presented(&self) -> Option<SaveDtype> {
        match (self.dtype, &self.scale) {
            (Dtype::F8_E4M3, Some(_)) => Some(SaveDtype::Bf16),
            (dtype, _) => SaveDtype::from_safetensors(dtype),
        }
    }
}

/// The place of a tensor in its file.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Bytes of a safetensors file.
    Bytes { start: usize, len: usize },
    /// Number of a tensor of a PyTorch file.
    Index(usize),
}

/// The tensors of one safetensors or PyTorch file, or of all shards of a model. Those in 8 bits with scales
/// are seen as the bf16 tensors that they stand for ([`crate::fp8`]).
#[derive(Debug, Default)]
pub(crate) struct TensorFiles {
    contents: Vec<Arc<Content>>,
    /// The files' names, in the order of `contents`.
    places: Vec<String>,
    entries: BTreeMap<String, Entry>,
    /// Tensors that an earlier shard holds as well, as that shard has them.
    repeated: Vec<(String, Entry)>,
    /// Metadata of the header, of all files.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// What a file holds.
enum Content {
    /// Of a safetensors file, mapped.
    Mapped(Mmap),
    /// Of a safetensors file, in memory.
    Owned(Vec<u8>),
    /// Of a PyTorch file: its tensors are read one by one.
    PyTorch(Vec<Stored>),
}

impl Content {
    /// The bytes of a safetensors file; none of a PyTorch file.
    fn slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
            Self::PyTorch(_) => &[],
        }
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mapped(_) | Self::Owned(_) => write!(f, "safetensors, {} bytes", self.slice().len()),
            Self::PyTorch(tensors) => write!(f, "PyTorch, {} tensors", tensors.len()),
        }
    }
}

/// The two names of a model's file, and of the index of its shards, in the order in which they are looked for.
const MODEL_FILES: [[&str; 2]; 2] = [
    ["model.safetensors", "model.safetensors.index.json"],
    ["pytorch_model.bin", "pytorch_model.bin.index.json"],
];

impl TensorFiles {
    /// Maps the file and reads its header; a truncated or damaged one is an error.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let mut files = Self::default();
        files.add(path)?;
        Ok(files)
    }

    /// Reads a file's content from memory; `origin` names it in errors.
    pub(crate) fn from_bytes(bytes: Vec<u8>, origin: &Path) -> Result<Self, ModelError> {
        let mut files = Self::default();
        files.add_safetensors(Content::Owned(bytes), origin)?;
        Ok(files)
    }

    /// `model.safetensors` in `dir`, or the shards that `model.safetensors.index.json` lists; without these
    /// `pytorch_model.bin` or its shards. Problems with single shards are added to `problems`: what the files
    /// hold says little then.
    ///
    /// # Errors
    /// There is neither, or a file cannot be read.
    pub(crate) fn open_model(dir: &Path, problems: &mut Vec<String>) -> Result<Self, ModelError> {
        let found = MODEL_FILES.map(|names| names.map(|name| dir.join(name)));
        let found = found
            .into_iter()
            .find(|[single, index]| single.exists() || index.exists());
        let [single, index] = found.ok_or_else(|| missing_file::weights(dir))?;
        if single.exists() {
            return Self::open(&single);
        }
        let mut files = Self::default();
        for (shard, names) in read_index(&index)? {
            match files.add(&dir.join(&shard)) {
                Ok(()) => problems.extend(
                    names
                        .iter()
                        .filter(|name| !files.entries.contains_key(*name))
                        .map(|name| format!("`{name}` is not in {shard}, where the index says it is")),
                ),
                Err(error) => problems.push(format!("shard {shard}: {error}")),
            }
        }
        files.check_repeated(problems);
        Ok(files)
    }

    /// A tensor may be in several shards if it is the same in all: readers differ in which they take.
    fn check_repeated(&self, problems: &mut Vec<String>) {
        for (name, earlier) in &self.repeated {
            let Some(later) = self.entries.get(name) else { continue };
            let same =
                earlier.shape == later.shape && earlier.dtype == later.dtype && self.data(earlier) == self.data(later);
            if !same {
                let place = |entry: &Entry| self.places.get(entry.file).cloned().unwrap_or_default();
                problems.push(format!(
                    "`{name}` is in {} and, with other values, in {}: remove one of the two",
                    place(earlier),
                    place(later)
                ));
            }
        }
    }

    /// Gives tensors other names, by the ones they have; see [`crate::prefix`].
    pub(crate) fn rename(&mut self, names: &BTreeMap<String, String>) {
        let entries = std::mem::take(&mut self.entries);
        self.entries = entries
            .into_iter()
            .map(|(name, entry)| (names.get(&name).cloned().unwrap_or(name), entry))
            .collect();
    }

    /// Takes out the tensors whose names start with `prefix`.
    pub(crate) fn split_off(&mut self, prefix: &str) -> Self {
        let entries = std::mem::take(&mut self.entries);
        let (taken, kept) = entries.into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.entries = kept;
        Self {
            contents: self.contents.clone(),
            places: self.places.clone(),
            entries: taken,
            repeated: Vec::new(),
            metadata: self.metadata.clone(),
        }
    }

    /// Adds the tensors of a further file.
    pub(crate) fn add(&mut self, path: &Path) -> Result<(), ModelError> {
        if path.extension().is_some_and(|extension| extension == "bin") {
            return self.add_pytorch(path);
        }
        let file = File::open(path).map_err(|source| ModelError::io("read", path, source))?;
        // SAFETY: the map is only read. Another program that shortened the file meanwhile could end
        // this process, as with every mapped file; this crate itself never writes into a model file,
        // it renames a new one over it.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| ModelError::io("map", path, source))?;
        self.add_safetensors(Content::Mapped(map), path)
    }

    /// The tensors of a file that `torch.save` wrote; nothing in it is run.
    fn add_pytorch(&mut self, path: &Path) -> Result<(), ModelError> {
        let mut tensors = Vec::new();
        for (name, tensor) in pytorch_file::open(path)? {
            let entry = Entry {
                file: self.contents.len(),
                dtype: pytorch_file::safetensors_dtype(&tensor),
                shape: tensor.shape().to_vec(),
                place: Place::Index(tensors.len()),
                scale: None,
            };
            tensors.push(tensor);
            self.insert(name, entry);
        }
        self.push(Content::PyTorch(tensors), path);
        Ok(())
    }

    fn insert(&mut self, name: String, entry: Entry) {
        if let Some(earlier) = self.entries.insert(name.clone(), entry) {
            self.repeated.push((name, earlier));
        }
    }

    fn push(&mut self, content: Content, path: &Path) {
        let place = path.file_name().unwrap_or_default().to_string_lossy();
        self.places.push(place.into_owned());
        self.contents.push(Arc::new(content));
    }

    fn add_safetensors(&mut self, bytes: Content, path: &Path) -> Result<(), ModelError> {
        let damaged = |reason: String| ModelError::format(path, "safetensors", reason);
        let (header, metadata) = SafeTensors::read_metadata(bytes.slice())
            .map_err(|error| damaged(not_safetensors(bytes.slice(), &error)))?;
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: self.contents.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                place: Place::Bytes {
                    start: 8 + header + start,
                    len: end - start,
                },
                scale: None,
            };
            self.insert(name.clone(), entry);
        }
        self.metadata.extend(metadata.metadata().clone().unwrap_or_default());
        self.push(bytes, path);
        Ok(())
    }

    /// Names of all tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Name and shape of a tensor.
    pub(crate) fn spec(&self, name: &str) -> Option<TensorSpec> {
        let entry = self.entries.get(name)?;
        Some(TensorSpec {
            name: name.to_owned(),
            shape: entry.shape.clone(),
        })
    }

    /// The bytes of a tensor in the type of [`TensorFiles::dtype`].
    pub(crate) fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.data(self.entries.get(name)?)
    }

    /// The bytes that an entry stands for.
    fn data(&self, entry: &Entry) -> Option<Cow<'_, [u8]>> {
        let stored = self.stored(entry)?;
        match (&entry.scale, entry.presented()) {
            (Some(scale), Some(dtype)) => {
                let values = scale.values(&stored, &entry.shape)?;
                Some(Cow::Owned(dtype.encode(&values)))
            }
            _ => Some(stored),
        }
    }

    /// The bytes as they are in the file.
    fn stored(&self, entry: &Entry) -> Option<Cow<'_, [u8]>> {
        match (self.contents.get(entry.file)?.as_ref(), entry.place) {
            (Content::PyTorch(tensors), Place::Index(index)) => tensors.get(index)?.read().ok().map(Cow::Owned),
            (content, Place::Bytes { start, len }) => content.slice().get(start..start + len).map(Cow::Borrowed),
            _ => None,
        }
    }

    /// Takes the scales of tensors in 8 bits to the tensors that they belong to. `blocks`: the size of the
    /// blocks that have a scale of their own, where the configuration names it.
    pub(crate) fn take_scales(&mut self, blocks: Option<[usize; 2]>, problems: &mut Vec<String>) {
        let scaled = self.entries.iter().filter(|(_, entry)| entry.dtype == Dtype::F8_E4M3);
        let scaled: Vec<String> = scaled.map(|(name, _)| name.clone()).collect();
        for name in scaled {
            let module = name.strip_suffix("weight").unwrap_or(&name);
            // Scales of activations, which are not rounded here.
            self.entries.remove(&format!("{module}input_scale"));
            let found = ["weight_scale_inv", "weight_scale"]
                .into_iter()
                .find_map(|suffix| self.entries.remove(&format!("{module}{suffix}")));
            let Some(entry) = found else { continue };
            let values = entry
                .presented()
                .and_then(|dtype| Some(dtype.decode(&self.stored(&entry)?)));
            let Some(tensor) = self.entries.get_mut(&name) else {
                continue;
            };
            match values.and_then(|values| Scale::new(values, &entry.shape, &tensor.shape, blocks)) {
                Some(scale) => tensor.scale = Some(scale),
                None => problems.push(format!(
                    "the scales of `{name}` ({:?}, {:?}) do not fit its shape {:?}",
                    entry.dtype, entry.shape, tensor.shape
                )),
            }
        }
    }

    /// The dimensions of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.entries.get(name)?.shape)
    }

    /// The stored float type of a tensor; none if the tensor is absent or not of a float type.
    pub(crate) fn dtype(&self, name: &str) -> Option<SaveDtype> {
        self.entries.get(name)?.presented()
    }

    /// The values of a tensor as f32.
    pub(crate) fn values(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.dtype(name)?.decode(&self.bytes(name)?))
    }

    /// Says what is wrong with the tensors that should be here, without reading any of them: an entry
    /// of `problems` for each kind of fault.
    pub(crate) fn check(&self, expected: &[TensorSpec], problems: &mut Vec<String>) {
        let [mut missing, mut misshapen, mut mistyped] = [const { Vec::new() }; 3];
        for spec in expected {
            let Some(entry) = self.entries.get(&spec.name) else {
                missing.push(format!("`{}` of shape {:?}", spec.name, spec.shape));
                continue;
            };
            if entry.shape != spec.shape {
                misshapen.push(format!(
                    "`{}` ({:?}, expected {:?})",
                    spec.name, entry.shape, spec.shape
                ));
            }
            if entry.presented().is_none() {
                mistyped.push(format!(
                    "`{}` ({:?}, expected F32, F16 or BF16)",
                    spec.name, entry.dtype
                ));
            }
        }
        problems.extend(no_name_in_common(self.names(), expected, missing.len()));
        problems.extend(listed(Finding::Missing, "", &missing));
        problems.extend(listed(Finding::Shape, "", &misshapen));
        problems.extend(listed(Finding::Type, "", &mistyped));
    }

    /// SHA-256 over all tensors; see [`crate::model_hash`] for the encoding.
    pub(crate) fn hash(&self) -> String {
        let mut hash = Sha256::new();
        for (name, entry) in &self.entries {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update((entry.shape.len() as u64).to_le_bytes());
            for size in &entry.shape {
                hash.update((*size as u64).to_le_bytes());
            }
            let bytes = self.bytes(name).unwrap_or_default();
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
        hex::encode(hash.finalize())
    }
}

/// Shards in order of their names, each with the tensors that it should hold.
fn read_index(path: &Path) -> Result<BTreeMap<String, Vec<String>>, ModelError> {
    let text = std::fs::read(path).map_err(|source| ModelError::io("read", path, source))?;
    let damaged = |reason: String| ModelError::format(path, "shard index", reason);
    let index: Value = serde_json::from_slice(&text)
        .map_err(|error| damaged(other_content(&text).map_or_else(|| error.to_string(), str::to_owned)))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| damaged("it has no `weight_map`".to_owned()))?;
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, shard) in map {
        // A shard is in the directory of its index; a path could point anywhere.
        let shard = shard.as_str().filter(|shard| {
            Path::new(shard)
                .file_name()
                .is_some_and(|file| file == std::ffi::OsStr::new(shard))
        });
        let shard = shard.ok_or_else(|| damaged(format!("the shard of `{name}` is not a plain file name")))?;
        shards.entry(shard.to_owned()).or_default().push(name.clone());
    }
    Ok(shards)
}

/// A tensor to be written. `bytes` is called when the tensor is written, so that one is in memory at a time.
pub(crate) struct Outgoing<'a> {
    pub(crate) spec: TensorSpec,
    pub(crate) dtype: SaveDtype,
    pub(crate) bytes: Box<dyn Fn() -> Vec<u8> + 'a>,
}

/// Writes a safetensors file: tensors in order of their names, metadata in the order given.
pub(crate) fn write_to(
    out: &mut dyn Write,
    metadata: &[(&str, &str)],
    mut tensors: Vec<Outgoing<'_>>,
) -> std::io::Result<()> {
    tensors.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    let mut header = Map::new();
    let pairs = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    header.insert("__metadata__".to_owned(), Value::Object(pairs));
    let mut end = 0;
    for tensor in &tensors {
        let start = end;
        end += tensor.spec.shape.iter().product::<usize>() * tensor.dtype.size();
        header.insert(
            tensor.spec.name.clone(),
            json!({"dtype": tensor.dtype.safetensors_name(), "shape": tensor.spec.shape, "data_offsets": [start, end]}),
        );
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    tensors.iter().try_for_each(|tensor| out.write_all(&(tensor.bytes)()))
}

/// [`write_to`] a file, complete or not at all.
pub(crate) fn write(path: &Path, metadata: &[(&str, &str)], tensors: Vec<Outgoing<'_>>) -> Result<(), ModelError> {
    replace(path, |out| write_to(out, metadata, tensors))
}

/// Writes a temporary file in the same folder, brings it to the disk and renames it.
pub(crate) fn replace(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), ModelError> {
    let mut temporary = PathBuf::from(path).into_os_string();
    temporary.push(format!(".tmp-{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = File::create(&temporary).and_then(|file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        fill(&mut out)?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    written.map_err(|source| {
        // The write has already failed; a file that cannot be removed either changes nothing.
        let _ = std::fs::remove_file(&temporary);
        ModelError::io("write", path, source)
    })
}

/// Fills a directory next to `dst` and renames it to `dst` when it is complete.
pub(crate) fn into_place(dst: &Path, fill: impl FnOnce(&Path) -> Result<(), ModelError>) -> Result<(), ModelError> {
    let occupied = match std::fs::read_dir(dst) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(source) => return Err(ModelError::io("use", dst, source)),
    };
    let name = dst.file_name().filter(|_| !occupied).ok_or_else(|| {
        ModelError::Request(format!(
            "{} is not empty: choose a new or an empty directory",
            dst.display()
        ))
    })?;
    let mut staging = std::ffi::OsString::from(".");
    staging.push(name);
    staging.push(format!(".tmp-{}", std::process::id()));
    let staging = dst.with_file_name(staging);
    let parent = dst.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent).map_err(|source| ModelError::io("create", parent, source))?;
    }
    std::fs::create_dir(&staging).map_err(|source| ModelError::io("create", &staging, source))?;
    let filled = fill(&staging).and_then(|()| {
        // `rename` replaces an empty directory, and fails at one with entries.
        std::fs::rename(&staging, dst).map_err(|source| ModelError::io("create", dst, source))
    });
    if filled.is_err() {
        // The conversion has already failed; what cannot be removed either changes nothing.
        let _ = std::fs::remove_dir_all(&staging);
    }
    filled
}
