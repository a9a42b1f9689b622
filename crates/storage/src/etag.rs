//! ETags that are hashes: S3 gives an object that was sent at once the MD5 of its bytes, and one that
//! was sent in parts the MD5 of the parts' MD5s and their number. It does not say how large the parts
//! were, but most programs use one of few sizes. Encrypted objects have other ETags.

use md5::{Digest, Md5};
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Part sizes of the usual programs, in MiB.
const USUAL: [u64; 12] = [5, 8, 10, 15, 16, 25, 32, 50, 64, 100, 128, 256];

/// True if the ETag is a hash of these bytes; false says that it is one of others, or none.
pub(super) fn confirms(etag: &str, file: &Path) -> io::Result<bool> {
    let etag = etag.trim_matches('"').to_ascii_lowercase();
    let Some((hash, parts)) = etag.split_once('-') else {
        return Ok(md5_of(file, None)? == etag);
    };
    let Ok(parts) = parts.parse::<u64>() else {
        return Ok(false);
    };
    let size = file.metadata()?.len();
    for part in USUAL.map(|mib| mib << 20) {
        if size.div_ceil(part) == parts && md5_of(file, Some(part))? == hash {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The MD5 of a file, or that of the MD5s of its parts.
fn md5_of(file: &Path, part: Option<u64>) -> io::Result<String> {
    let mut file = File::open(file)?;
    let mut of_parts = Md5::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let mut hash = Md5::new();
        let mut left = part.unwrap_or(u64::MAX);
        let mut ended = false;
        while left > 0 && !ended {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let n = file.read(&mut buffer[..most])?;
            hash.update(&buffer[..n]);
            left -= n as u64;
            ended = n == 0;
        }
        if part.is_none() {
            return Ok(hex::encode(hash.finalize()));
        }
        if Some(left) == part {
            return Ok(hex::encode(of_parts.finalize()));
        }
        of_parts.update(hash.finalize());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_recognised_and_others_not() {
        let dir = tempfile::tempdir().unwrap();
        let small = dir.path().join("small");
        std::fs::write(&small, "hello").unwrap();
        // md5sum's answer.
        assert!(confirms("\"5d41402abc4b2a76b9719d911017c592\"", &small).unwrap());
        assert!(!confirms("\"5d41402abc4b2a76b9719d911017c593\"", &small).unwrap());
        assert!(!confirms("anything", &small).unwrap());
        assert!(!confirms("5d41402abc4b2a76b9719d911017c592-x", &small).unwrap());

        // 12 MiB of zeros in parts of 5, 5 and 2 MiB and of 8 and 4 MiB, by Python's hashlib.
        let large = dir.path().join("large");
        std::fs::write(&large, vec![0; 12 << 20]).unwrap();
        assert!(confirms("4e982d58b6c2ce178ae042c23f9bca6e-3", &large).unwrap());
        assert!(confirms("ebe97f2a4738800fe71edbe389c000a6-2", &large).unwrap());
        assert!(!confirms("ebe97f2a4738800fe71edbe389c000a6-3", &large).unwrap());
    }
}
