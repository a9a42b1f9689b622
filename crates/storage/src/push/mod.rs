//! A model directory becomes one commit in a repository of the model hub.
//!
//! Large files go to the repository's LFS storage first, small ones inside the commit; nothing is visible in
//! the repository before the commit, which is the last request. Files that the branch or the storage has
//! already, by their hash, are not sent: that is how an interrupted push resumes.

#[cfg(feature = "remote")]
mod api;
#[cfg(feature = "remote")]
mod hub;
#[cfg(feature = "remote")]
mod lfs;
#[cfg(feature = "remote")]
mod local;
#[cfg(feature = "remote")]
mod piece;

use crate::{HubName, Storage, StorageError, Transfer};
use std::path::PathBuf;

/// What is pushed, and where.
#[derive(Clone, Debug)]
pub struct Push {
    /// The repository; its revision is the branch.
    pub to: HubName,
    /// Create the repository public, or push to one that is. Otherwise a new one is private, and one that is
    /// public is refused.
    pub public: bool,
    /// Message of the commit.
    pub message: String,
    /// The files, none in a folder.
    pub files: Vec<PushFile>,
    /// Only find out what would be sent.
    pub dry_run: bool,
}

/// A file of a [`Push`].
#[derive(Clone, Debug)]
pub struct PushFile {
    /// Its name in the repository.
    pub name: String,
    /// Its bytes.
    pub content: PushContent,
}

/// Where the bytes of a [`PushFile`] are.
#[derive(Clone, Debug)]
pub enum PushContent {
    /// In a file.
    Disk(PathBuf),
    /// Here.
    Memory(Vec<u8>),
}

/// What a push did; of a dry run, what it would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The repository's page.
    pub url: String,
    /// Whether the repository was created.
    pub created: bool,
    /// Whether it is private.
    pub private: bool,
    /// The commit; of a dry run, or if the branch had everything, the one that the branch names, if any.
    pub commit: Option<String>,
    /// Whether a commit was made.
    pub committed: bool,
    /// The files, by name.
    pub files: Vec<PushedFile>,
    /// Model files that the branch had and that are no part of this model: removed by the commit.
    pub removed: Vec<String>,
}

/// A file of a push that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedFile {
    /// Its name in the repository.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// Whether it was sent.
    pub state: PushState,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushState {
    /// The branch has it with the same bytes.
    Unchanged,
    /// The repository's storage has the bytes, from an earlier push: only the commit names it.
    Stored,
    /// Its bytes were sent; in a dry run: they would be, unless the storage has them.
    Sent,
}

impl Storage {
    /// Pushes files to the hub that `HF_ENDPOINT` names, with the token in `HF_TOKEN`.
    ///
    /// The repository is created if it does not exist, and so is a branch other than `main`. `progress` is
    /// called while large files are sent.
    ///
    /// # Errors
    /// [`StorageError`], one sentence; the branch is then as it was, and bytes that were sent need not be
    /// sent again.
    pub fn push(&self, push: &Push, progress: &mut dyn FnMut(&Transfer)) -> Result<Pushed, StorageError> {
        #[cfg(feature = "remote")]
        {
            if self.config.offline {
                return Err(StorageError::BadUri {
                    uri: push.to.to_string(),
                    problem: "cannot be pushed to, for storage.offline forbids the network: set it to false".into(),
                });
            }
            hub::push(push, &self.endpoint, &self.config, progress)
        }
        #[cfg(not(feature = "remote"))]
        {
            let _ = progress;
            Err(StorageError::NotBuilt {
                uri: push.to.to_string(),
            })
        }
    }
}
