//! PyTorch's files: zip archives with a pickle inside.

use super::bytes;
use crate::Random;

/// Opcodes of pickle, protocol 2.
const OPCODES: &[u8] =
    b"(.0123FGIJKLMNPQRSTUVXa])be}ghijlopqrstu\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x94\x95";

/// The file that the archive `zip` has under a name that ends with `end`, where it is stored uncompressed.
pub fn stored(zip: &[u8], end: &str) -> Option<Vec<u8>> {
    let mut at = 0;
    loop {
        let rest = zip.get(at..)?;
        at += rest.windows(4).position(|window| window == b"PK\x03\x04")?;
        let number = |offset: usize, width: usize| {
            let bytes = zip.get(at + offset..at + offset + width)?;
            Some(bytes.iter().rev().fold(0usize, |n, byte| n << 8 | usize::from(*byte)))
        };
        let (size, name, extra) = (number(18, 4)?, number(26, 2)?, number(28, 2)?);
        let found = zip.get(at + 30..at + 30 + name)?;
        let data = at + 30 + name + extra;
        if found.ends_with(end.as_bytes()) {
            return zip.get(data..data + size).map(<[u8]>::to_vec);
        }
        at = data + size;
    }
}

/// A zip archive of these files, uncompressed.
pub fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let offset = out.len() as u32;
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc32fast::hash(content).to_le_bytes());
        common.extend([(content.len() as u32).to_le_bytes(); 2].concat());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.bytes());
        out.extend(*content);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.bytes());
    }
    let (start, size) = (out.len() as u32, directory.len() as u32);
    out.extend(directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend([(files.len() as u16).to_le_bytes(); 2].concat());
    out.extend(size.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// One change of a pickle.
pub fn changed(input: &[u8], words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut input = input.to_vec();
    let at = random.below(input.len() + 1);
    match random.below(6) {
        0 => {
            let opcode = random.pick(OPCODES).copied().unwrap_or(b'.');
            match input.get_mut(at) {
                Some(byte) => *byte = opcode,
                None => input.push(opcode),
            }
        }
        1 => input.splice(at..at, random.pick(OPCODES).copied()).for_each(drop),
        2 => {
            // The number of one of the opcodes with 4 bytes: lengths, sizes, strides.
            let places: Vec<usize> = (0..input.len().saturating_sub(5))
                .filter(|&at| b"JXBT".contains(&input[at]))
                .collect();
            let values = [0, 1, -1, i32::MAX, i32::MIN, 1 << 20, 3];
            let value = values[random.below(values.len())];
            if let Some(&place) = random.pick(&places) {
                input.splice(place + 1..place + 5, value.to_le_bytes());
            }
        }
        3 => {
            // Levels of lists, tuples or marks.
            let opcode = [&b"("[..], b"]", b"}", b"N\x85", b"(l", b"2"][random.below(6)];
            let times = [3, 200, 5000, 20_000][random.below(4)];
            input.splice(at..at, opcode.repeat(times));
        }
        4 => {
            // A number of any size: its length and its bytes.
            let length = random.below(12) as u8;
            let bytes = random.bits().to_le_bytes();
            let number = [0x8a, length]
                .into_iter()
                .chain(bytes.into_iter().cycle().take(length.into()));
            input.splice(at..at, number);
        }
        _ => return bytes::changed(input, &[], words, random),
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_an_archive_come_back() {
        let zip = zipped(&[("a/data.pkl", b"pickle"), ("a/data/0", b"\x00\x01")]);
        assert_eq!(stored(&zip, "data.pkl").as_deref(), Some(&b"pickle"[..]));
        assert_eq!(stored(&zip, "data/0").as_deref(), Some(&b"\x00\x01"[..]));
        assert_eq!(stored(&zip, "none"), None);
    }
}
