//! The optimizer's moments in a checkpoint: burnpack files, compared by their values.

use burn_pack::{DType, Reader};
use std::{collections::BTreeMap, path::Path};

/// The values of a file's tensors by name, as f32: the type that they are stored in may change when a run is
/// resumed at its end, the values may not.
///
/// # Errors
/// A sentence, where the file can't be read.
pub fn read(path: &Path) -> Result<BTreeMap<String, Vec<f32>>, String> {
    let failed = |error: String| format!("`{}` can't be read: {error}", path.display());
    let reader = Reader::from_file(path).map_err(|e| failed(e.to_string()))?;
    let tensors = reader.into_tensors().map_err(|e| failed(e.to_string()))?;
    let mut found = BTreeMap::new();
    for tensor in tensors {
        let (name, dtype) = (tensor.name.clone(), tensor.dtype);
        let bytes = tensor.into_bytes().map_err(|e| failed(format!("{name}: {e}")))?;
        let values = match dtype {
            DType::F32 => bytes.chunks_exact(4).map(f32_of).collect(),
            DType::BF16 => bytes.chunks_exact(2).map(bf16_of).collect(),
            // Counters, kept as their bytes.
            _ => bytes.iter().map(|byte| f32::from(*byte)).collect(),
        };
        found.insert(name, values);
    }
    Ok(found)
}

fn f32_of(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn bf16_of(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([0, 0, bytes[0], bytes[1]])
}

/// Whether two files hold the same values, bit for bit; otherwise the first tensor that differs.
///
/// # Errors
/// A sentence about the difference, or about a file that can't be read.
pub fn compare(expected: &Path, found: &Path) -> Result<(), String> {
    let (expected, found) = (read(expected)?, read(found)?);
    if expected.keys().ne(found.keys()) {
        return Err(format!("{} moments instead of {}", found.len(), expected.len()));
    }
    let same = |a: &[f32], b: &[f32]| a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits()));
    match expected.iter().find(|(name, values)| !same(values, &found[*name])) {
        Some((name, _)) => Err(format!("the moments `{name}` differ")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_pack::{Bytes, Tensor, Writer};

    fn write(path: &Path, dtype: DType, bytes: &[u8]) {
        let values = Bytes::from_bytes_vec(bytes.to_vec());
        let tensor = Tensor::new("a.moment".into(), dtype, vec![2], Some(1), values);
        let packed = Writer::new(vec![tensor]).into_bytes().expect("a pack");
        std::fs::write(path, &packed[..]).expect("a file");
    }

    #[test]
    fn values_are_compared_and_not_the_types_that_hold_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let (wide, narrow, other) = (
            dir.path().join("wide"),
            dir.path().join("narrow"),
            dir.path().join("other"),
        );
        write(&wide, DType::F32, &[0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
        write(&narrow, DType::BF16, &[0x80, 0x3f, 0, 0xc0]);
        write(&other, DType::BF16, &[0x81, 0x3f, 0, 0xc0]);
        assert_eq!(read(&narrow).expect("moments")["a.moment"], [1.0, -2.0]);
        assert_eq!(compare(&wide, &narrow), Ok(()));
        let error = compare(&wide, &other).expect_err("they differ");
        assert!(error.contains("a.moment"), "{error}");
        std::fs::write(&other, b"nothing").expect("a file");
        assert!(compare(&wide, &other).is_err());
    }
}
