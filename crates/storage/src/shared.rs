//! The cache that Hugging Face's own tools fill: `HF_HOME`, or `~/.cache/huggingface`. It is read only:
//! a model that it holds is not downloaded a second time.

use super::{
    HubName, Kind,
    listing::{Object, check_model},
};
use hf_hub::{CacheRepo, Repo, RepoType};
use std::path::{Path, PathBuf};

/// See the file's first lines.
#[derive(Clone, Debug)]
pub(super) struct SharedCache(hf_hub::Cache);

impl SharedCache {
    /// The user's, by `HF_HOME`.
    pub fn from_environment() -> Self {
        Self(hf_hub::Cache::from_env())
    }

    /// The one in a directory that holds `models--OWNER--NAME`.
    pub fn at(dir: &Path) -> Self {
        Self(hf_hub::Cache::new(dir.to_owned()))
    }

    fn repo(&self, name: &HubName, kind: Kind) -> CacheRepo {
        let kind = match kind {
            Kind::Model => RepoType::Model,
            Kind::Data => RepoType::Dataset,
        };
        let id = format!("{}/{}", name.owner, name.name);
        self.0.repo(Repo::with_revision(id, kind, name.revision.clone()))
    }

    /// The directory of a commit, if it holds every one of `objects` in its listed size.
    pub fn commit(&self, name: &HubName, kind: Kind, commit: &str, objects: &[Object]) -> Option<PathBuf> {
        let dir = self.repo(name, kind).pointer_path(commit);
        let is_here = |object: &Object| {
            let here = std::fs::metadata(dir.join(&object.name)).ok().filter(|m| m.is_file());
            here.is_some_and(|here| object.size.is_none_or(|size| size == here.len()))
        };
        objects.iter().all(is_here).then_some(dir)
    }

    /// For use without a network: the directory of the model's revision as it was last fetched, if its
    /// files make a model.
    pub fn model(&self, name: &HubName) -> Option<PathBuf> {
        let dir = self.repo(name, Kind::Model).get("config.json")?.parent()?.to_owned();
        let entries = std::fs::read_dir(&dir).ok()?.flatten();
        let objects: Vec<Object> = entries
            .map(|entry| Object {
                name: entry.file_name().to_string_lossy().into_owned(),
                path: String::new(),
                size: None,
                sha256: None,
                etag: None,
            })
            .collect();
        check_model(&name.to_string(), &objects).ok()?;
        Some(dir)
    }
}
