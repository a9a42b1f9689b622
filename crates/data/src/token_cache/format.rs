//! The bytes of a token cache: a record of fixed size for each document, and its payload.
//!
//! All numbers are little-endian. `NAME.index` holds a [`Record`] of [`Record::BYTES`] bytes for each document,
//! `NAME.data` their payloads in the same order, without gaps: the token ids (2 bytes each if the vocabulary has
//! at most 65,536 tokens, else 4), the untrained ranges (start and end, 4 bytes each), the ranges with weights
//! (start, end, weight as f32), and the name in UTF-8. A record has the CRC-32 of its payload and one of itself.

use crate::Tokenized;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Changes when the same sources give other bytes here.
pub(super) const FORMAT: u32 = 1;
/// Largest vocabulary whose ids are stored in 2 bytes.
const NARROW: usize = 1 << 16;

/// How ids are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Width {
    /// In 2 bytes.
    #[serde(rename = "u16")]
    Narrow,
    /// In 4 bytes.
    #[serde(rename = "u32")]
    Wide,
}

impl Width {
    /// For a vocabulary of this size.
    pub fn of(vocabulary: usize) -> Self {
        if vocabulary <= NARROW { Self::Narrow } else { Self::Wide }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Narrow => 2,
            Self::Wide => 4,
        }
    }
}

/// Where a document's payload is, and what has a fixed size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Record {
    /// Of the payload, in bytes from the start of the file.
    pub offset: u64,
    pub sample: u64,
    pub problem: u32,
    /// Tokens.
    pub len: u32,
    pub prompt_len: u32,
    /// Ranges that are not trained.
    pub untrained: u32,
    /// Ranges with a weight.
    pub given: u32,
    /// Bytes of the name.
    pub name: u32,
    pub reward: Option<f32>,
    /// CRC-32 of the payload.
    pub payload: u32,
}

impl Record {
    /// Bytes of a record.
    pub const BYTES: usize = 56;

    /// With the CRC-32 of all but itself at the end.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let words = [
            self.problem,
            self.len,
            self.prompt_len,
            self.untrained,
            self.given,
            self.name,
            u32::from(self.reward.is_some()),
            self.reward.unwrap_or_default().to_bits(),
            self.payload,
        ];
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend(self.sample.to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let mut record = [0; Self::BYTES];
        record.copy_from_slice(&bytes);
        record
    }

    /// None if the bytes are not a record as it was written.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        if bytes.len() != Self::BYTES || crc32fast::hash(content) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (offset, rest) = content.split_first_chunk::<8>()?;
        let (sample, rest) = rest.split_first_chunk::<8>()?;
        let mut words = words(rest);
        let mut word = || words.next();
        Some(Self {
            offset: u64::from_le_bytes(*offset),
            sample: u64::from_le_bytes(*sample),
            problem: word()?,
            len: word()?,
            prompt_len: word()?,
            untrained: word()?,
            given: word()?,
            name: word()?,
            reward: {
                let (is_some, bits) = (word()?, word()?);
                (is_some != 0).then_some(f32::from_bits(bits))
            },
            payload: word()?,
        })
    }

    /// Bytes of the payload.
    pub fn payload_bytes(&self, width: Width) -> u64 {
        u64::from(self.len) * width.bytes()
            + u64::from(self.untrained) * 8
            + u64::from(self.given) * 12
            + u64::from(self.name)
    }
}

/// Writes a document's payload over `payload`, and gives its record; `offset` is where the payload goes. None if
/// a number does not fit: an id above the vocabulary that `width` was chosen for, a name of 4 GiB.
pub(super) fn encode(document: &Tokenized, width: Width, offset: u64, payload: &mut Vec<u8>) -> Option<Record> {
    let word = |number: usize| u32::try_from(number).ok();
    payload.clear();
    for &token in &document.tokens {
        match width {
            Width::Narrow => payload.extend(u16::try_from(token).ok()?.to_le_bytes()),
            Width::Wide => payload.extend(token.to_le_bytes()),
        }
    }
    let mut range = |range: &Range<usize>| -> Option<()> {
        payload.extend(word(range.start)?.to_le_bytes());
        payload.extend(word(range.end)?.to_le_bytes());
        Some(())
    };
    document.untrained.iter().try_for_each(&mut range)?;
    for (range, weight) in &document.given {
        payload.extend(word(range.start)?.to_le_bytes());
        payload.extend(word(range.end)?.to_le_bytes());
        payload.extend(weight.to_le_bytes());
    }
    payload.extend(document.name.as_bytes());
    Some(Record {
        offset,
        sample: document.sample as u64,
        problem: document.problem,
        len: word(document.tokens.len())?,
        prompt_len: word(document.prompt_len)?,
        untrained: word(document.untrained.len())?,
        given: word(document.given.len())?,
        name: word(document.name.len())?,
        reward: document.reward,
        payload: crc32fast::hash(payload),
    })
}

/// The document of a record and its payload; None if the payload is not the one that was written.
pub(super) fn decode(record: &Record, payload: &[u8], width: Width) -> Option<Tokenized> {
    if crc32fast::hash(payload) != record.payload {
        return None;
    }
    let (tokens, rest) = payload.split_at_checked(usize::try_from(u64::from(record.len) * width.bytes()).ok()?)?;
    let (untrained, rest) = rest.split_at_checked(record.untrained as usize * 8)?;
    let (given, name) = rest.split_at_checked(record.given as usize * 12)?;
    let tokens = match width {
        Width::Narrow => {
            let (pairs, _) = tokens.as_chunks::<2>();
            pairs.iter().map(|pair| u32::from(u16::from_le_bytes(*pair))).collect()
        }
        Width::Wide => words(tokens).collect(),
    };
    let range = |start: u32, end: u32| start as usize..end as usize;
    let untrained: Vec<u32> = words(untrained).collect();
    let given: Vec<u32> = words(given).collect();
    let (untrained, given) = (untrained.as_chunks::<2>().0, given.as_chunks::<3>().0);
    Some(Tokenized {
        sample: usize::try_from(record.sample).ok()?,
        name: str::from_utf8(name).ok()?.to_owned(),
        problem: record.problem,
        tokens,
        prompt_len: record.prompt_len as usize,
        untrained: untrained.iter().map(|&[start, end]| range(start, end)).collect(),
        given: given
            .iter()
            .map(|&[start, end, weight]| (range(start, end), f32::from_bits(weight)))
            .collect(),
        reward: record.reward,
    })
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `zlib.crc32` of Python over the bytes of the first test.
    const PAYLOAD_CRC: u32 = 0x1ce4_7a2c;

    fn document() -> Tokenized {
        Tokenized {
            sample: 7,
            name: "é.jsonl:3".into(),
            problem: 2,
            tokens: vec![1, 258, 65_535],
            prompt_len: 1,
            untrained: std::iter::once(1..2).collect(),
            given: vec![(2..3, 0.5)],
            reward: Some(1.0),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_description() {
        let mut payload = Vec::new();
        let record = encode(&document(), Width::Narrow, 16, &mut payload).unwrap();
        let mut expected = vec![1, 0, 2, 1, 255, 255];
        expected.extend([1, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend([2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0x3f]);
        expected.extend("é.jsonl:3".as_bytes());
        assert_eq!(payload, expected);
        assert_eq!(record.payload, PAYLOAD_CRC);
        let bytes = record.bytes();
        let mut expected = vec![16, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
        for word in [2u32, 3, 1, 1, 1, 10, 1, 0x3f80_0000, PAYLOAD_CRC] {
            expected.extend(word.to_le_bytes());
        }
        assert_eq!(bytes[..52], expected[..]);
        assert_eq!(record.payload_bytes(Width::Narrow), payload.len() as u64);
    }

    #[test]
    fn a_document_comes_back_in_both_widths() {
        for (width, last) in [(Width::Narrow, 65_535), (Width::Wide, 70_000)] {
            let mut document = document();
            document.tokens[2] = last;
            for reward in [None, Some(0.0), Some(0.25)] {
                document.reward = reward;
                let mut payload = Vec::new();
                let record = encode(&document, width, 0, &mut payload).unwrap();
                assert_eq!(Record::read(&record.bytes()), Some(record));
                assert_eq!(decode(&record, &payload, width), Some(document.clone()));
            }
        }
        let mut wide = document();
        wide.tokens[0] = 65_536;
        assert!(encode(&wide, Width::Narrow, 0, &mut Vec::new()).is_none());
        assert_eq!((Width::of(65_536), Width::of(65_537)), (Width::Narrow, Width::Wide));
    }

    #[test]
    fn every_changed_bit_is_found() {
        let mut payload = Vec::new();
        let record = encode(&document(), Width::Narrow, 0, &mut payload).unwrap();
        for byte in 0..payload.len() {
            let mut changed = payload.clone();
            changed[byte] ^= 4;
            assert_eq!(decode(&record, &changed, Width::Narrow), None, "byte {byte}");
        }
        for byte in 0..Record::BYTES {
            let mut changed = record.bytes();
            changed[byte] ^= 4;
            assert_eq!(Record::read(&changed), None, "byte {byte}");
        }
        assert_eq!(Record::read(&record.bytes()[1..]), None);
    }
}
