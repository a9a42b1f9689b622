//! `meta.json`: what a token cache holds, and the checksums by which damage is found.

use super::{
    Writer,
    format::{FORMAT, Record, Width},
};
use crate::{DataError, DatasetReport, OverlapReport, TokenReport, dataset::Mix};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};
use wmtp_base::token_cache::{Label, META};

/// What a token cache holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    #[serde(flatten)]
    pub label: Label,
    pub format: u32,
    pub key: String,
    pub width: Width,
    pub train: SideMeta,
    pub valid: SideMeta,
    pub overlap: OverlapReport,
    pub tokens: TokenReport,
    /// CRC-32 of this file's JSON with 0 here.
    pub checksum: u32,
}

/// One side of the split.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SideMeta {
    pub index_crc: u32,
    pub data_bytes: u64,
    pub hash: String,
    pub mix: Vec<MixPart>,
    pub report: DatasetReport,
}

/// Documents of one source of a mix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MixPart {
    start: usize,
    end: usize,
    /// The bits of the weight: text may not give every number back.
    weight: u64,
}

impl SideMeta {
    pub fn new(index_crc: u32, data_bytes: u64, mix: Mix, hash: String, report: DatasetReport) -> Self {
        let mix = mix.into_iter().map(|(range, weight)| MixPart {
            start: range.start,
            end: range.end,
            weight: weight.to_bits(),
        });
        Self {
            index_crc,
            data_bytes,
            hash,
            mix: mix.collect(),
            report,
        }
    }

    pub fn mix(&self) -> Mix {
        let part = |part: &MixPart| (part.start..part.end, f64::from_bits(part.weight));
        self.mix.iter().map(part).collect()
    }

    /// Bytes of the index.
    pub fn index_bytes(&self) -> u64 {
        (self.report.documents * Record::BYTES) as u64
    }
}

impl Meta {
    fn json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// Writes it into `dir`, with its checksum.
    ///
    /// # Errors
    /// A disk that can't be written.
    pub fn write(mut self, dir: &Path) -> Result<(), DataError> {
        self.checksum = 0;
        self.checksum = crc32fast::hash(&self.json());
        let path = dir.join(META);
        fs::write(&path, self.json()).map_err(|source| Writer::error(&path, source))
    }

    /// Reads it from `dir`. None if there is none, `Err` with what is wrong if it is not the one of this key.
    pub fn read(dir: &Path, key: &str) -> Result<Option<Self>, String> {
        let Ok(bytes) = fs::read(dir.join(META)) else {
            return match dir.is_dir() {
                true => Err(format!("has no {META}")),
                false => Ok(None),
            };
        };
        let meta: Self = serde_json::from_slice(&bytes).map_err(|error| format!("has a damaged {META}: {error}"))?;
        // Numbers that text does not give back exactly would change the JSON: the checksum covers the bytes read.
        let text = String::from_utf8_lossy(&bytes);
        let own = format!("\"checksum\": {}", meta.checksum);
        let (before, after) = text.rsplit_once(&own).unwrap_or_default();
        if crc32fast::hash(format!("{before}\"checksum\": 0{after}").as_bytes()) != meta.checksum {
            return Err(format!("has a changed {META}"));
        }
        if meta.format != FORMAT || meta.key != key {
            return Err("is of another format".into());
        }
        Ok(Some(meta))
    }
}
