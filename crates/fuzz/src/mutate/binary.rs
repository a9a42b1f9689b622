//! Formats with lengths inside: safetensors and protocol buffers.

use super::{bytes, json};
use crate::Random;

/// The header or the data changed, with a length that fits the header, or seldom another one.
pub fn safetensors(input: &[u8], other: &[u8], words: &[&str], random: &mut Random) -> Option<Vec<u8>> {
    let parts = |file: &[u8]| -> Option<(Vec<u8>, Vec<u8>)> {
        let (length, rest) = file.split_first_chunk::<8>()?;
        let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        Some((header.to_vec(), data.to_vec()))
    };
    let (mut header, mut data) = parts(input)?;
    let (other, _) = parts(other).unwrap_or_default();
    match random.below(8) {
        0 | 1 => {
            let length = data.len();
            data = bytes::changed(data, &header, &[], random);
            if !random.once_in(4) {
                data.resize(length, 0);
            }
        }
        2 => header = bytes::changed(header, &other, words, random),
        _ => header = json::document(&header, &other, words, random)?,
    }
    if !random.once_in(4) {
        // As long as the header says, so that only its content is in question.
        header = fitting(&header, data.len()).unwrap_or(header);
    }
    let length = match random.below(12) {
        0 => random.bits() >> random.below(64),
        _ => header.len() as u64,
    };
    Some([&length.to_le_bytes()[..], &header, &data].concat())
}

/// The header with offsets that lie one behind the other and end with the data, in the order of their beginnings.
fn fitting(header: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut value: serde_json::Value = serde_json::from_slice(header).ok()?;
    let map = value.as_object_mut()?;
    let mut tensors: Vec<&mut serde_json::Value> = map
        .values_mut()
        .filter(|tensor| tensor["data_offsets"].is_array())
        .collect();
    tensors.sort_by_key(|tensor| tensor["data_offsets"][0].as_u64());
    let last = tensors.len().saturating_sub(1);
    let mut end = 0u64;
    for (number, tensor) in tensors.into_iter().enumerate() {
        let offsets = &tensor["data_offsets"];
        let size = offsets[1].as_u64()?.saturating_sub(offsets[0].as_u64()?);
        let next = if number == last {
            length as u64
        } else {
            end.saturating_add(size)
        };
        tensor["data_offsets"] = serde_json::json!([end, next]);
        end = next;
    }
    serde_json::to_vec(&value).ok()
}

/// A field: number and what follows the key.
#[derive(Clone)]
enum Content {
    Varint(u64),
    Eight(Vec<u8>),
    Four(Vec<u8>),
    Bytes(Vec<u8>),
}

/// One field changed, left out, repeated or moved; of a message inside, likewise.
pub fn protobuf(input: &[u8], words: &[&str], random: &mut Random) -> Option<Vec<u8>> {
    let mut fields = read(input)?;
    if fields.is_empty() {
        return None;
    }
    let at = random.below(fields.len());
    match random.below(8) {
        0 => {
            fields.remove(at);
        }
        1 => {
            let copy = fields.get(at)?.clone();
            let to = random.below(fields.len() + 1);
            fields.insert(to, copy);
        }
        2 => {
            let to = random.below(fields.len());
            fields.swap(at, to);
        }
        3 => fields.get_mut(at)?.0 = 1 + random.below(50) as u64,
        _ => {
            let (_, content) = fields.get_mut(at)?;
            *content = match std::mem::replace(content, Content::Varint(0)) {
                Content::Varint(_) => Content::Varint(random.bits() >> random.below(64)),
                Content::Four(_) => {
                    let float = [0.0, -0.0, 1.0, f32::NAN, f32::INFINITY, f32::MIN, f32::MAX][random.below(7)];
                    Content::Four(float.to_le_bytes().to_vec())
                }
                Content::Eight(_) => Content::Eight(random.bits().to_le_bytes().to_vec()),
                Content::Bytes(inner) => Content::Bytes(match random.once_in(3) {
                    true => bytes::changed(inner, input, words, random),
                    false => {
                        protobuf(&inner, words, random).unwrap_or_else(|| bytes::changed(inner, input, words, random))
                    }
                }),
            };
        }
    }
    Some(write(&fields))
}

fn read(mut input: &[u8]) -> Option<Vec<(u64, Content)>> {
    let mut fields = Vec::new();
    while !input.is_empty() {
        let key = varint(&mut input)?;
        let mut take = |count: usize| {
            let (taken, rest) = input.split_at_checked(count)?;
            input = rest;
            Some(taken.to_vec())
        };
        let content = match key & 7 {
            0 => Content::Varint(varint(&mut input)?),
            1 => Content::Eight(take(8)?),
            5 => Content::Four(take(4)?),
            2 => {
                let length = usize::try_from(varint(&mut input)?).ok()?;
                let (taken, rest) = input.split_at_checked(length)?;
                input = rest;
                Content::Bytes(taken.to_vec())
            }
            _ => return None,
        };
        fields.push((key >> 3, content));
    }
    Some(fields)
}

fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write(fields: &[(u64, Content)]) -> Vec<u8> {
    let mut out = Vec::new();
    let put = |mut value: u64, out: &mut Vec<u8>| {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    };
    for (number, content) in fields {
        let wire = match content {
            Content::Varint(_) => 0,
            Content::Eight(_) => 1,
            Content::Bytes(_) => 2,
            Content::Four(_) => 5,
        };
        put((number << 3) | wire, &mut out);
        match content {
            Content::Varint(value) => put(*value, &mut out),
            Content::Eight(bytes) | Content::Four(bytes) => out.extend(bytes),
            Content::Bytes(bytes) => {
                put(bytes.len() as u64, &mut out);
                out.extend(bytes);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        // Field 1: 150, field 2: "testing", field 3: a float, as in the format's own description.
        let message = b"\x08\x96\x01\x12\x07testing\x1d\x00\x00\x80\x3f";
        assert_eq!(write(&read(message).unwrap()), message);
        assert!(read(b"\x0b").is_none());
        assert!(read(b"\x12\x7f").is_none());
    }

    #[test]
    fn a_header_fits_its_data() {
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[9,13]},"__metadata__":{"k":"v"}}"#;
        let file = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat();
        let mut random = Random::new(1);
        let mut whole = |_: &u32| {
            let changed = safetensors(&file, &file, &["b"], &mut random).unwrap();
            let length = u64::from_le_bytes(*changed.first_chunk().unwrap()) as usize;
            let header = changed.get(8..8 + length)?;
            let value: serde_json::Value = serde_json::from_slice(header).ok()?;
            (value["a"]["data_offsets"] == serde_json::json!([0, 4])).then_some(())
        };
        assert!((0..300).filter_map(|n| whole(&n)).count() > 60);
    }
}
