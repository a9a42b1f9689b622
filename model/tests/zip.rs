//! The zip writer behind PyTorch files: read back by another implementation.

#[path = "../src/convert/zip.rs"]
mod zip;

use burn_store::pytorch_reader::PytorchReader;
use zip::{ZipWriter, crc32};

/// `{"w": tensor}` of four f32 in key "0", as `torch.save` pickles it.
const PICKLE: &[u8] = b"\x80\x02}(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\x04\x00\x00\x00tQJ\x00\x00\x00\x00(J\x02\x00\x00\x00J\x02\x00\x00\x00t(J\x02\x00\x00\x00J\x01\x00\x00\x00t\x89ccollections\nOrderedDict\n)RtRu.";

fn archive(limit: u64) -> Vec<u8> {
    let values: Vec<u8> = [1.5f32, -2.0, 0.25, 8.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut bytes = Vec::new();
    let mut zip = ZipWriter::with_limit(&mut bytes, limit);
    zip.add("m/data.pkl", PICKLE).unwrap();
    zip.add("m/data/0", &values).unwrap();
    zip.add("m/version", b"3\n").unwrap();
    zip.finish().unwrap();
    bytes
}

#[test]
fn checksums_are_those_of_the_standard() {
    // The check value of CRC-32/ISO-HDLC, and known values of short inputs.
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
    assert_eq!(crc32(b"a"), 0xe8b7_be43);
    assert_eq!(crc32(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
}

#[test]
fn archives_are_read_back_with_and_without_zip64_fields() {
    let dir = tempfile::tempdir().unwrap();
    // A limit of 0 puts every size and offset into its 64-bit field, as in files above 4 GiB.
    for (name, limit) in [("narrow.pth", u64::from(u32::MAX)), ("wide.pth", 0), ("mixed.pth", 100)] {
        let path = dir.path().join(name);
        std::fs::write(&path, archive(limit)).unwrap();
        let reader = PytorchReader::new(&path).unwrap();
        let tensor = reader.get("w").unwrap();
        assert_eq!(tensor.shape(), [2, 2], "{name}");
        let expected: Vec<u8> = [1.5f32, -2.0, 0.25, 8.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(tensor.read().unwrap(), expected, "{name}");
    }
}

#[test]
fn the_default_archive_starts_every_entry_at_a_multiple_of_64() {
    let mut bytes = Vec::new();
    let mut zip = ZipWriter::new(&mut bytes);
    zip.add("m/data.pkl", PICKLE).unwrap();
    zip.add("m/data/0", &[7; 16]).unwrap();
    zip.add("m/data/1", &[9; 100]).unwrap();
    zip.finish().unwrap();
    for data in [PICKLE, &[7; 16], &[9; 100]] {
        let at = bytes.windows(data.len()).position(|window| window == data).unwrap();
        assert_eq!(at % 64, 0);
    }
}
