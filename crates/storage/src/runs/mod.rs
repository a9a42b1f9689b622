//! Runs on S3.
//!
//! ```text
//! PREFIX/NAME/run.json config.yaml …      the run directory's files
//! PREFIX/NAME/checkpoints/ID/…            a checkpoint, its manifest.json sent last; never changed
//! PREFIX/NAME/index.json                  which checkpoint is `last`, `best`, `previous`, `step-…`
//! ```
//!
//! An ID is the checkpoint's step and the beginning of its manifest's hash. What the index names is
//! complete; a checkpoint that another one takes the place of is removed once the index no longer names it.

mod fetch;
mod sender;
mod snapshot;
mod upload;

pub use fetch::Fetched;
pub use upload::{Ended, Report, RunMirror};

use super::{
    S3Url, StorageConfig, StorageError,
    remote::{S3, sha256},
};
use crate::run::{
    Manifest,
    file::{CHECKPOINTS, LAST, MANIFEST, STEP_PREFIX},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const INDEX: &str = "index.json";

/// `index.json` of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    format: u32,
    /// From the names that a run directory uses to IDs.
    checkpoints: BTreeMap<String, String>,
}

/// The ID of the checkpoint with this manifest.
fn id_of(step: usize, manifest: &[u8]) -> String {
    let hash = sha256(manifest);
    format!("{STEP_PREFIX}{step:06}-{}", &hash[..12])
}

/// The step in an ID.
fn step_of(id: &str) -> Option<usize> {
    id.strip_prefix(STEP_PREFIX)?.split('-').next()?.parse().ok()
}

/// The place under which runs lie, `storage.runs`.
#[derive(Clone, Debug)]
pub struct RemoteRuns {
    s3: S3,
    url: S3Url,
}

/// A run on S3.
#[derive(Clone, Debug)]
pub struct RemoteRun {
    s3: S3,
    url: S3Url,
}

impl RemoteRuns {
    /// Connects; nothing is asked yet.
    ///
    /// # Errors
    /// [`StorageError`] for a URL that is none of S3's, or an unusable address of the server.
    pub fn open(url: &str, config: &StorageConfig) -> Result<Self, StorageError> {
        let url = S3Url::parse(url)?;
        if config.offline {
            return Err(StorageError::Offline { uri: url.to_string() });
        }
        Ok(Self {
            s3: S3::connect(&url.bucket, config)?,
            url,
        })
    }

    /// Where they lie.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// The run of this name, whether it exists or not.
    pub fn run(&self, name: &str) -> RemoteRun {
        RemoteRun {
            s3: self.s3.clone(),
            url: self.url.join(name),
        }
    }

    /// Asks whether the bucket is there, which runs that are not there do not tell. Keys that may not list it are
    /// left alone: they may still write.
    ///
    /// # Errors
    /// [`StorageError`], one sentence.
    pub fn find_bucket(&self) -> Result<(), StorageError> {
        match self.s3.find_bucket() {
            Err(StorageError::Denied { .. }) => Ok(()),
            other => other,
        }
    }

    /// Names of all runs.
    ///
    /// # Errors
    /// [`StorageError`], one sentence.
    pub fn names(&self) -> Result<Vec<String>, StorageError> {
        self.s3.directories(&self.url.key)
    }
}

impl RemoteRun {
    /// Opens `s3://BUCKET/PREFIX/NAME`.
    ///
    /// # Errors
    /// As [`RemoteRuns::open`]; a URL without a name.
    pub fn open(url: &str, config: &StorageConfig) -> Result<Self, StorageError> {
        let parsed = S3Url::parse(url)?;
        let (parent, name) = parsed.split();
        if name.is_empty() {
            return Err(StorageError::BadUri {
                uri: url.to_owned(),
                problem: "names no run: write s3://BUCKET/PREFIX/NAME".into(),
            });
        }
        Ok(RemoteRuns::open(&parent.to_string(), config)?.run(name))
    }

    /// Where it lies.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Its name, and the place where it lies among others.
    pub fn name(&self) -> (String, String) {
        let (parent, name) = self.url.split();
        (name.to_owned(), parent.to_string())
    }

    /// The run of this name in the same place, whether it exists or not.
    pub fn sibling(&self, name: &str) -> Self {
        let (parent, _) = self.url.split();
        Self {
            s3: self.s3.clone(),
            url: parent.join(name),
        }
    }

    /// A small file of the run; None if it does not exist.
    ///
    /// # Errors
    /// [`StorageError`], one sentence.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.s3.get(&self.key(name))
    }

    /// A small file of the newest complete checkpoint; None if it does not exist.
    ///
    /// # Errors
    /// [`StorageError`], one sentence.
    pub fn read_of_newest(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        match self.candidates()?.first() {
            Some(id) => self.read(&format!("{CHECKPOINTS}/{id}/{name}")),
            None => Ok(None),
        }
    }

    /// The step of the newest complete checkpoint.
    ///
    /// # Errors
    /// [`StorageError`], one sentence.
    pub fn newest_step(&self) -> Result<Option<usize>, StorageError> {
        Ok(self.candidates()?.first().and_then(|id| step_of(id)))
    }

    fn key(&self, name: &str) -> String {
        self.url.join(name).key
    }

    fn index(&self) -> Result<Option<Index>, StorageError> {
        let Some(bytes) = self.read(INDEX)? else {
            return Ok(None);
        };
        // One that can't be read is made anew by the next upload; the checkpoints speak for themselves.
        Ok(serde_json::from_slice(&bytes).ok())
    }

    /// Checkpoints that have a manifest, the newest first.
    fn candidates(&self) -> Result<Vec<String>, StorageError> {
        let last = self.index()?.and_then(|index| index.checkpoints.get(LAST).cloned());
        let root = self.key(CHECKPOINTS);
        let end = format!("/{MANIFEST}");
        let mut ids: Vec<String> = self
            .s3
            .list(&root)?
            .iter()
            .filter_map(|found| found.key.strip_prefix(&format!("{root}/"))?.strip_suffix(&end))
            .filter(|id| step_of(id).is_some())
            .map(str::to_owned)
            .collect();
        // At equal steps the one that the index names is the later one.
        ids.sort_by_key(|id| (step_of(id), Some(id) == last.as_ref()));
        ids.reverse();
        Ok(ids)
    }

    /// The manifest of a checkpoint, if it is the one that its ID names.
    fn manifest(&self, id: &str) -> Result<Option<(Vec<u8>, Manifest)>, StorageError> {
        let Some(bytes) = self.read(&format!("{CHECKPOINTS}/{id}/{MANIFEST}"))? else {
            return Ok(None);
        };
        let manifest: Option<Manifest> = serde_json::from_slice(&bytes).ok();
        Ok(manifest
            .filter(|manifest| id_of(manifest.step, &bytes) == id)
            .map(|manifest| (bytes, manifest)))
    }
}

/// The directory that a name of a run's checkpoint stands for: `…/checkpoints/best` is one of its IDs.
pub(super) fn alias(s3: &S3, url: &S3Url) -> Result<Option<S3Url>, StorageError> {
    let (checkpoints, name) = url.split();
    let (run, folder) = checkpoints.split();
    if folder != CHECKPOINTS {
        return Ok(None);
    }
    let run = RemoteRun {
        s3: s3.clone(),
        url: run,
    };
    let index = run.index()?.unwrap_or_default();
    Ok(index.checkpoints.get(name).map(|id| checkpoints.join(id)))
}
