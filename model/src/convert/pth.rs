//! Writing PyTorch checkpoint files: a dictionary of tensors.
//!
//! What is written is what `torch.save` of a plain dictionary gives: a zip archive with a pickle
//! (protocol 2) of tensor descriptions and one entry per tensor. The pickle names only what
//! `torch.load(weights_only=True)` allows.

use std::borrow::Cow;
use std::io::{self, Seek, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::error::ModelError;
use crate::names::TensorSpec;
use crate::raw::SaveDtype;
use crate::tensor_file;

/// A tensor to be written. `bytes` is called when the tensor is written.
pub(super) struct OutgoingTensor<'a> {
    pub(super) spec: TensorSpec,
    pub(super) dtype: SaveDtype,
    pub(super) bytes: Box<dyn Fn() -> Cow<'a, [u8]> + 'a>,
}

/// Writes a checkpoint, complete or not at all; one tensor is in memory at a time.
pub(super) fn write(path: &Path, tensors: &[OutgoingTensor<'_>]) -> Result<(), ModelError> {
    let root = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    tensor_file::replace(path, |out| {
        let mut zip = ZipWriter::new(out);
        add(&mut zip, format!("{root}/data.pkl"), &pickle(tensors))?;
        add(&mut zip, format!("{root}/byteorder"), b"little")?;
        for (key, tensor) in tensors.iter().enumerate() {
            let bytes = (tensor.bytes)();
            if bytes.len() != tensor.spec.shape.iter().product::<usize>() * tensor.dtype.size() {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the source has {} bytes for `{}`", bytes.len(), tensor.spec.name),
                ));
            }
            add(&mut zip, format!("{root}/data/{key}"), &bytes)?;
        }
        // The version of the container that every PyTorch since 1.6 reads.
        add(&mut zip, format!("{root}/version"), b"3\n")?;
        zip.finish()?;
        Ok(())
    })
}

/// Adds an entry: uncompressed, and aligned to 64 bytes so that a mapped file can be used in place.
fn add(zip: &mut ZipWriter<impl Write + Seek>, name: String, data: &[u8]) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        // 1980-01-01, the format's first date: equal contents give equal archives.
        .last_modified_time(DateTime::default())
        .with_alignment(64)
        .large_file(u32::try_from(data.len()).is_err());
    zip.start_file(name, options)?;
    zip.write_all(data)
}

/// Opcodes of pickle protocol 2, as in Python's `pickletools`.
mod op {
    pub(super) const PROTO: u8 = 0x80;
    pub(super) const EMPTY_DICT: u8 = b'}';
    pub(super) const MARK: u8 = b'(';
    pub(super) const SETITEMS: u8 = b'u';
    pub(super) const STOP: u8 = b'.';
    pub(super) const GLOBAL: u8 = b'c';
    pub(super) const TUPLE: u8 = b't';
    pub(super) const EMPTY_TUPLE: u8 = b')';
    pub(super) const REDUCE: u8 = b'R';
    pub(super) const BINPERSID: u8 = b'Q';
    pub(super) const BINUNICODE: u8 = b'X';
    pub(super) const BININT: u8 = b'J';
    pub(super) const LONG1: u8 = 0x8a;
    pub(super) const NEWFALSE: u8 = 0x89;
}

/// `{name: _rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict()), …}`.
fn pickle(tensors: &[OutgoingTensor<'_>]) -> Vec<u8> {
    let mut out = vec![op::PROTO, 2, op::EMPTY_DICT, op::MARK];
    for (key, tensor) in tensors.iter().enumerate() {
        push_text(&mut out, &tensor.spec.name);
        push_tensor(&mut out, key, &tensor.spec.shape, tensor.dtype);
    }
    out.extend([op::SETITEMS, op::STOP]);
    out
}

fn push_tensor(out: &mut Vec<u8>, key: usize, shape: &[usize], dtype: SaveDtype) {
    push_global(out, "torch._utils", "_rebuild_tensor_v2");
    out.push(op::MARK);
    // The storage is named by the tuple ("storage", class, key, device, number of elements).
    out.push(op::MARK);
    push_text(out, "storage");
    let class = match dtype {
        SaveDtype::F32 => "FloatStorage",
        SaveDtype::F16 => "HalfStorage",
        SaveDtype::Bf16 => "BFloat16Storage",
    };
    push_global(out, "torch", class);
    push_text(out, &key.to_string());
    push_text(out, "cpu");
    push_int(out, shape.iter().product());
    out.extend([op::TUPLE, op::BINPERSID]);
    push_int(out, 0);
    let strides = (0..shape.len()).map(|i| shape.iter().skip(i + 1).product());
    push_tuple(out, shape.iter().copied());
    push_tuple(out, strides);
    out.push(op::NEWFALSE);
    push_global(out, "collections", "OrderedDict");
    out.extend([op::EMPTY_TUPLE, op::REDUCE, op::TUPLE, op::REDUCE]);
}

fn push_tuple(out: &mut Vec<u8>, values: impl Iterator<Item = usize>) {
    out.push(op::MARK);
    values.for_each(|value| push_int(out, value));
    out.push(op::TUPLE);
}

fn push_global(out: &mut Vec<u8>, module: &str, name: &str) {
    out.push(op::GLOBAL);
    out.extend(format!("{module}\n{name}\n").into_bytes());
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(op::BINUNICODE);
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn push_int(out: &mut Vec<u8>, value: usize) {
    if let Ok(value) = i32::try_from(value) {
        out.push(op::BININT);
        out.extend(value.to_le_bytes());
    } else {
        // Nine bytes: the last one keeps the number positive.
        out.extend([op::LONG1, 9]);
        out.extend((value as u64).to_le_bytes());
        out.push(0);
    }
}
