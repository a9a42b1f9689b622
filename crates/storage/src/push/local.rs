//! A file that is pushed, and whether the hub has it.

use super::PushContent;
use crate::{StorageError, remote::sha256, run::FileHash};
use serde_json::Value;
use sha1::{Digest, Sha1};
use std::{
    fs::File,
    io::{self, Read},
};

/// A file with its hash.
pub(super) struct Local {
    pub name: String,
    pub content: PushContent,
    pub hash: FileHash,
}

impl Local {
    pub fn new(name: &str, content: &PushContent) -> Result<Self, StorageError> {
        let mut local = Self {
            name: name.to_owned(),
            content: content.clone(),
            hash: FileHash {
                bytes: 0,
                sha256: String::new(),
            },
        };
        local.hash = match content {
            PushContent::Memory(bytes) => FileHash {
                bytes: bytes.len() as u64,
                sha256: sha256(bytes),
            },
            PushContent::Disk(path) => FileHash::of(path).map_err(|e| local.unreadable(&e))?,
        };
        Ok(local)
    }

    pub fn unreadable(&self, error: &io::Error) -> StorageError {
        let path = match &self.content {
            PushContent::Disk(path) => path.display().to_string(),
            PushContent::Memory(_) => self.name.clone(),
        };
        StorageError::Disk {
            what: "reading",
            path,
            reason: error.to_string(),
        }
    }

    pub fn first(&self, bytes: u64) -> Result<Vec<u8>, StorageError> {
        match &self.content {
            PushContent::Memory(all) => Ok(all.iter().copied().take(bytes as usize).collect()),
            PushContent::Disk(path) => {
                let mut head = Vec::new();
                let file = File::open(path).map_err(|e| self.unreadable(&e))?;
                file.take(bytes)
                    .read_to_end(&mut head)
                    .map_err(|e| self.unreadable(&e))?;
                Ok(head)
            }
        }
    }

    /// Git's name of a file with these bytes.
    pub fn blob(&self) -> Result<String, StorageError> {
        let bytes = self.first(self.hash.bytes)?;
        let mut hash = Sha1::new();
        hash.update(format!("blob {}\0", bytes.len()));
        hash.update(&bytes);
        Ok(hex::encode(hash.finalize()))
    }

    /// Whether an entry of the hub's tree is this file.
    pub fn is(&self, entry: &Value) -> Result<bool, StorageError> {
        if entry["size"].as_u64() != Some(self.hash.bytes) {
            return Ok(false);
        }
        match entry["lfs"]["oid"].as_str() {
            Some(oid) => Ok(oid == self.hash.sha256),
            None => Ok(entry["oid"] == self.blob()?.as_str()),
        }
    }
}
