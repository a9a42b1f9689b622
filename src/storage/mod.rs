//! A URI becomes a local path: the disk first, then the cache, then the model hub.
//!
//! The only place that speaks to the network (through opendal) and to the cache directory. It does
//! not know what the bytes mean: which files make a model directory is a list of names here, and
//! `builtin:` names are their owners' affair.

mod config;
mod error;
mod hub;
mod uri;

use crate::settings::{PathsConfig, expand_home};
use std::path::{Path, PathBuf};

pub use config::StorageConfig;
pub use error::StorageError;
pub use hub::{Endpoint, Transfer};
pub use uri::{HubName, Location};

/// What is asked for: decides where to look and what an error calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model directory.
    Model,
    /// A data set, a directory or a file.
    Data,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Data => "data set",
        }
    }
}

/// Finds and fetches.
#[derive(Clone, Debug)]
pub struct Storage {
    config: StorageConfig,
    models: PathBuf,
    datasets: PathBuf,
    cache: PathBuf,
    endpoint: Endpoint,
}

impl Storage {
    /// With the hub that `HF_ENDPOINT` and `HF_TOKEN` name, or the public one.
    pub fn new(config: &StorageConfig, paths: &PathsConfig) -> Self {
        Self {
            config: config.clone(),
            models: expand_home(&paths.models),
            datasets: expand_home(&paths.datasets),
            cache: expand_home(&paths.cache),
            endpoint: Endpoint::from_environment(),
        }
    }

    /// Another hub than the environment's.
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// The local path of `uri`, fetched if it has to be. `progress` hears of every piece that
    /// arrives.
    ///
    /// A plain relative path is looked for here, then under `paths.models` or `paths.datasets`;
    /// `hf://owner/name` is `owner/name` there, else the cache's, else the hub's.
    ///
    /// # Errors
    /// [`StorageError`], one sentence; `builtin:` names are refused, for they have no path.
    pub fn resolve(&self, uri: &str, kind: Kind, progress: &mut dyn FnMut(&Transfer)) -> Result<PathBuf, StorageError> {
        match Location::parse(uri)? {
            Location::Path(path) => self.local(&path, kind),
            Location::Builtin(_) => Err(StorageError::BadUri {
                uri: uri.to_owned(),
                problem: "is built into the program and has no path".into(),
            }),
            Location::Hub(name) => {
                let local = self.root(kind).join(&name.owner).join(&name.name);
                if name.revision == "main" && local.is_dir() {
                    return Ok(local);
                }
                match kind {
                    Kind::Model => hub::model(
                        &name,
                        &self.endpoint,
                        &self.config,
                        &self.cache.join("hub/models"),
                        progress,
                    ),
                    Kind::Data => Err(StorageError::BadUri {
                        uri: uri.to_owned(),
                        problem: "names a model: data comes from a directory or builtin:NAME".into(),
                    }),
                }
            }
        }
    }

    fn root(&self, kind: Kind) -> &Path {
        match kind {
            Kind::Model => &self.models,
            Kind::Data => &self.datasets,
        }
    }

    fn local(&self, path: &Path, kind: Kind) -> Result<PathBuf, StorageError> {
        let expanded = expand_home(path);
        let under_root = self.root(kind).join(&expanded);
        let Some(found) = [expanded.clone(), under_root].into_iter().find(|p| p.exists()) else {
            return Err(missing(path, kind, self.advice(path, kind)));
        };
        if kind == Kind::Model && !found.is_dir() {
            return Err(missing(
                path,
                kind,
                "is a file: give the directory that holds config.json".into(),
            ));
        }
        Ok(found)
    }

    fn advice(&self, path: &Path, kind: Kind) -> String {
        let text = path.display().to_string();
        let looks_like_hub = Location::parse(&format!("hf://{text}")).is_ok();
        match kind {
            Kind::Model if looks_like_hub => {
                format!("does not exist: give a directory, builtin:micro, or hf://{text} for the model hub's")
            }
            Kind::Model => "does not exist: give a directory, builtin:micro or hf://OWNER/NAME".into(),
            Kind::Data => "does not exist: give a directory or builtin:mbpp".into(),
        }
    }
}

fn missing(path: &Path, kind: Kind, problem: String) -> StorageError {
    StorageError::Missing {
        what: kind.name(),
        path: path.display().to_string(),
        problem,
    }
}
