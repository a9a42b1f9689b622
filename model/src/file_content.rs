//! What a file holds instead of what its name says: downloads that went wrong, and other formats.

/// A sentence that says what `bytes` (the beginning of a file) are and what to do, where they are
/// something else than a model's file: a Git LFS pointer, a web page, a hub's error, a PyTorch
/// checkpoint, GGUF, HDF5, gzip, or nothing. None where they are none of these.
pub fn other_content(bytes: &[u8]) -> Option<&'static str> {
    let head: Vec<u8> = bytes.iter().take(512).map(u8::to_ascii_lowercase).collect();
    let text = head.trim_ascii_start();
    let begins = |with: &[&str]| with.iter().any(|with| text.starts_with(with.as_bytes()));
    if head.is_empty() {
        Some("it is empty: fetch it again")
    } else if begins(&["version https://git-lfs.github.com/"]) {
        Some("it is a Git LFS pointer instead of the file: run `git lfs pull` in its repository, or download it again")
    } else if begins(&["<!doctype", "<html", "<?xml", "<head", "<error"]) {
        Some("it is a web page instead of the file: the address, or the permission, was wrong; download it again")
    } else if begins(&[
        "{\"error",
        "{\"message",
        "entry not found",
        "repository not found",
        "invalid username or password",
        "access to model",
        "not found",
        "404",
    ]) {
        Some(
            "it is a server's error message instead of the file: check the address and the access, and download it again",
        )
    } else if head.starts_with(b"pk\x03\x04") || head.starts_with(b"\x80\x02") {
        Some("it is a PyTorch checkpoint: give it the name `pytorch_model.bin`, under which it is read")
    } else if head.starts_with(b"gguf") {
        Some("it is a GGUF file, which is not read: take the safetensors files that it was made from")
    } else if head.starts_with(b"\x89hdf") {
        Some("it is an HDF5 file (TensorFlow): convert it to safetensors (docs/models.md)")
    } else if head.starts_with(b"\x1f\x8b") {
        Some("it is compressed with gzip: unpack it")
    } else {
        None
    }
}

/// Why `bytes` are no safetensors file. `error` is the reader's own reason.
pub(crate) fn not_safetensors(bytes: &[u8], error: &dyn std::fmt::Display) -> String {
    if let Some(other) = other_content(bytes) {
        return other.to_owned();
    }
    if let Some(announced) = announced_size(bytes) {
        if announced > bytes.len() as u64 {
            return format!(
                "it is truncated: it has {} of {announced} bytes; download it again",
                bytes.len()
            );
        }
        if announced < bytes.len() as u64 {
            return format!(
                "it has {} bytes and its header describes {announced}: it is damaged, download it again",
                bytes.len()
            );
        }
    }
    format!("{error}; it may be truncated or damaged, download it again")
}

/// Size of the whole file according to its beginning; none if that is no safetensors header.
fn announced_size(bytes: &[u8]) -> Option<u64> {
    let length = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    // The format's own limit: a larger number is no length.
    if length > 100_000_000 || bytes.get(8) != Some(&b'{') {
        return None;
    }
    let Some(header) = bytes.get(8..8 + length as usize) else {
        return Some(8 + length);
    };
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let ends = header.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    Some(8 + length + ends.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_download_leaves_is_named() {
        for (bytes, word) in [
            (
                &b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 134\n"[..],
                "Git LFS pointer",
            ),
            (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
            (b"\n  <html>", "web page"),
            (
                b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>",
                "web page",
            ),
            (b"Entry not found", "server's error"),
            (b"{\"error\":\"Repository not found\"}", "server's error"),
            (b"", "empty"),
            (b"PK\x03\x04archive/data.pkl", "PyTorch checkpoint"),
            (b"\x80\x02}q\x00", "PyTorch checkpoint"),
            (b"GGUF\x03\x00", "GGUF"),
            (b"\x1f\x8b\x08", "gzip"),
        ] {
            let said = other_content(bytes).unwrap_or("nothing");
            assert!(said.contains(word), "{said} instead of {word}");
        }
        assert_eq!(other_content(b"{\n  \"architectures\": []}"), None);
        assert_eq!(other_content(b"\x10\0\0\0\0\0\0\0{\"a\":1}"), None);
    }

    #[test]
    fn a_file_cut_anywhere_is_truncated() {
        let header = br#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        file.extend_from_slice(&[0; 8]);
        assert_eq!(announced_size(&file), Some(file.len() as u64));
        for cut in [20, header.len() + 8, file.len() - 1] {
            let said = not_safetensors(&file[..cut], &"reason");
            assert!(said.starts_with("it is truncated"), "{cut}: {said}");
        }
        file.push(0);
        assert!(not_safetensors(&file, &"reason").contains("damaged"));
        assert!(not_safetensors(b"abc", &"reason").starts_with("reason"));
    }
}
