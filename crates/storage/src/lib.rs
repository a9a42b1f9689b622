//! A URI becomes a local path: the disk first, then the cache, then S3 or the model hub. Runs are
//! copied to S3 and fetched back.
//!
//! The only place that speaks to the network for bytes (through opendal) and to the cache directory.
//! It does not know what the bytes mean: which files make a model directory is a list of names here,
//! and `builtin:` names are their owners' affair.

mod cache;
mod config;
mod error;
mod etag;
mod listing;
mod push;
mod remote;
mod runs;
mod shared;
mod size;
mod uri;

use crate::{
    paths::{PathsConfig, expand_home},
    run::{Manifest, file::MANIFEST},
};
use cache::{Cache, Keep};
use listing::{Listing, ModelFiles, Object, check_model, is_data_file, is_model_file};
use remote::{Broken, Found, Hub, Remote, S3, is_commit};
use shared::SharedCache;
use std::path::{Path, PathBuf};
use wmtp_base::{fs, paths, validate};
use wmtp_run as run;

pub use cache::{CacheEntry, Cleaned};
pub use config::{CacheConfig, S3Config, StorageConfig, UploadConfig};
pub use error::StorageError;
pub use push::{Push, PushContent, PushFile, PushState, Pushed, PushedFile};
pub use remote::{Endpoint, Transfer, send_file};
pub use runs::{Ended, Fetched, RemoteRun, RemoteRuns, Report, RunMirror};
pub use size::ByteSize;
pub use uri::{HubName, Kind, Location, S3Url};

/// How often what keeps changing is listed anew.
const LISTINGS: usize = 4;

/// Finds and fetches.
#[derive(Clone, Debug)]
pub struct Storage {
    config: StorageConfig,
    models: PathBuf,
    datasets: PathBuf,
    cache: PathBuf,
    /// Below which tokenised data are.
    root: PathBuf,
    shared: SharedCache,
    endpoint: Endpoint,
}

impl Storage {
    /// With the hub that `HF_ENDPOINT` and `HF_TOKEN` name, or the public one.
    pub fn new(config: &StorageConfig, paths: &PathsConfig) -> Self {
        Self {
            config: config.clone(),
            models: expand_home(&paths.models),
            datasets: expand_home(&paths.datasets),
            cache: expand_home(&paths.cache).join("store"),
            root: expand_home(&paths.cache),
            shared: SharedCache::from_environment(),
            endpoint: Endpoint::from_environment(),
        }
    }

    /// Another hub than the environment's.
    pub fn with_endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// Another cache of Hugging Face's own tools than the environment's: a directory that holds
    /// `models--OWNER--NAME`.
    pub fn with_shared_cache(mut self, dir: &Path) -> Self {
        self.shared = SharedCache::at(dir);
        self
    }

    /// The local path of `uri`, fetched if it has to be. `progress` is called for every
    /// piece that arrives.
    ///
    /// A plain relative path is looked for here, then under `paths.models` or `paths.datasets`;
    /// `hf://owner/name` is `owner/name` there, `s3://bucket/key` is `bucket/key` there, else the
    /// cache's, else (`hf://`) the cache of Hugging Face's own tools, else the server's. What the cache
    /// gives stays there as long as this process lives.
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
                let list = |cache: &Cache| {
                    let hub = Hub::connect(&name, kind, &self.endpoint, &self.config)?;
                    let (commit, files) = hub.revision()?;
                    let forever = kind.key(&hub.pinned(&commit).to_string());
                    if let Some(path) = cache.know_as(&kind.key(&name.to_string()), &forever)? {
                        return Ok(Answer::Here(path));
                    }
                    let listing = Listing {
                        forever: Some(forever),
                        ..hub.listing(&commit, files)?
                    };
                    if let Some(dir) = self.shared.commit(&name, kind, &commit, &listing.objects) {
                        return Ok(Answer::Here(dir));
                    }
                    Ok(Answer::There(Box::new((listing, hub.remote().clone()))))
                };
                let fetched = self.fetched(&kind.key(&name.to_string()), is_commit(&name.revision), &list, progress);
                match fetched {
                    Err(
                        error @ (StorageError::Offline { .. }
                        | StorageError::Network { .. }
                        | StorageError::NotBuilt { .. }),
                    ) if kind == Kind::Model => {
                        let dir = self.shared.model(&name).ok_or(error)?;
                        tracing::warn!("the hub was not asked; using `{}`", dir.display());
                        Ok(dir)
                    }
                    other => other,
                }
            }
            Location::S3(url) => {
                let local = self.root(kind).join(&url.bucket).join(&url.key);
                if local.exists() {
                    return self.local(&local, kind);
                }
                let list = |_: &Cache| {
                    let s3 = S3::connect(&url.bucket, &self.config)?;
                    let listing = listing(&s3, &url, &url, kind)?;
                    Ok(Answer::There(Box::new((listing, s3.remote().clone()))))
                };
                self.fetched(&kind.key(&url.to_string()), false, &list, progress)
            }
        }
    }

    /// What lies in the cache, downloads and tokenised data, the last used first.
    ///
    /// # Errors
    /// [`StorageError::Cache`].
    pub fn cached(&self) -> Result<Vec<CacheEntry>, StorageError> {
        let mut entries = cache::list(&self.cache)?;
        entries.extend(cache::tokens::list(&self.root)?);
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        Ok(entries)
    }

    /// Removes from the cache what was used least recently until at most `keep` bytes stay, and
    /// what broke off; None: that alone. Tokenised data are removed before downloads: they can be made
    /// again without a network. What a process uses stays.
    ///
    /// # Errors
    /// [`StorageError::Cache`]; also while another process fetches something.
    pub fn clean(&self, keep: Option<ByteSize>, dry_run: bool) -> Result<Cleaned, StorageError> {
        let layout = cache::Layout::new(self.cache.clone());
        let downloads = cache::size_of(&layout)?;
        let of_tokens = keep.map_or(Keep::Complete, |size| Keep::Bytes(size.0.saturating_sub(downloads)));
        let tokens = cache::tokens::clean(&self.root, of_tokens, dry_run)?;
        let keep = keep.map_or(Keep::Complete, |size| {
            Keep::Bytes(size.0.saturating_sub(tokens.kept_bytes))
        });
        let cleaned = cache::clean(&layout, keep, dry_run)?;
        let mut cleaned = cleaned.ok_or_else(|| StorageError::Cache {
            path: self.cache.display().to_string(),
            reason: "a process is adding to it, try again when it is done".into(),
        })?;
        cleaned += tokens;
        Ok(cleaned)
    }

    /// From the cache or from its source. `forever`: what the URI means never changes.
    fn fetched(
        &self,
        uri: &str,
        forever: bool,
        list: &dyn Fn(&Cache) -> Result<Answer, StorageError>,
        progress: &mut dyn FnMut(&Transfer),
    ) -> Result<PathBuf, StorageError> {
        let cache = Cache::new(self.cache.clone(), self.config.cache.max_size);
        let cached = cache.find(uri)?;
        match &cached {
            Some(path) if self.config.offline || forever => return Ok(path.clone()),
            None if self.config.offline => {
                return Err(StorageError::Offline {
                    uri: uri.trim_start_matches(uri::DATA_MARK).to_owned(),
                });
            }
            _ => {}
        }
        let mut left = LISTINGS;
        loop {
            left -= 1;
            let (listing, remote) = match (list(&cache), &cached) {
                (Err(error @ (StorageError::Network { .. } | StorageError::NotBuilt { .. })), Some(path)) => {
                    tracing::warn!("{error}; using the copy in the cache, {}", path.display());
                    return Ok(path.clone());
                }
                (Ok(Answer::Here(path)), _) => return Ok(path),
                (Ok(Answer::There(found)), _) => *found,
                (Err(error), _) => return Err(error),
            };
            match cache.get(uri, &listing, &remote, progress) {
                Ok(path) => return Ok(path),
                // Listed a moment ago, and another thing now: as if it had been asked for now.
                Err(Broken::Changed) if left > 0 => {}
                Err(broken) => return Err(remote.give_up(broken, &listing.uri)),
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
            Kind::Model => "does not exist: give a directory, builtin:micro, hf://OWNER/NAME or s3://BUCKET/KEY".into(),
            Kind::Data => {
                "does not exist: give a file, a directory, a pattern, builtin:mbpp, hf://OWNER/NAME or s3://BUCKET/KEY"
                    .into()
            }
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

/// What a source says to a question.
enum Answer {
    /// It is what the cache has here.
    Here(PathBuf),
    /// It holds this.
    There(Box<(Listing, Remote)>),
}

/// What lies at `at`; `asked` is what it was asked for by.
fn listing(s3: &S3, asked: &S3Url, at: &S3Url, kind: Kind) -> Result<Listing, StorageError> {
    let found = s3.list(&at.key)?;
    let (_, name) = asked.split();
    let mut listing = Listing {
        uri: asked.to_string(),
        forever: None,
        name: name.to_owned(),
        is_file: false,
        objects: Vec::new(),
    };
    if found.is_empty() {
        if let Some(file) = s3.stat(&at.key)? {
            if kind == Kind::Model {
                return Err(missing(
                    Path::new(&listing.uri),
                    kind,
                    "is a file: give the directory that holds config.json".into(),
                ));
            }
            listing.is_file = true;
            listing.objects.push(Object {
                name: name.to_owned(),
                path: file.key,
                size: Some(file.size),
                sha256: file.sha256,
                etag: file.etag,
            });
            return Ok(listing);
        }
        return match runs::alias(s3, at)? {
            Some(target) if target != *at => self::listing(s3, asked, &target, kind),
            _ => Err(StorageError::NotFound {
                endpoint: s3.remote().endpoint.clone(),
                uri: listing.uri,
                advice: "check bucket and key, and storage.s3.endpoint",
            }),
        };
    }
    let manifest = manifest_of(s3, at, &found)?;
    let prefix = format!("{}/", at.key);
    let of_model = ModelFiles::of(found.iter().filter_map(|file| file.key.strip_prefix(&prefix)));
    for file in found {
        let Some(name) = file.key.strip_prefix(&prefix).map(str::to_owned) else {
            continue;
        };
        let wanted = match kind {
            Kind::Model => of_model.has(&name),
            Kind::Data => is_data_file(&name),
        };
        if !wanted {
            continue;
        }
        let listed = manifest.as_ref().and_then(|m| m.files.get(&name));
        let sha256 = match listed {
            Some(hash) => Some(hash.sha256.clone()),
            // Only asked about one by one do objects tell their hash.
            None => s3.stat(&file.key)?.and_then(|known| known.sha256),
        };
        listing.objects.push(Object {
            name,
            path: file.key,
            size: Some(file.size),
            sha256,
            etag: file.etag,
        });
    }
    if kind == Kind::Model {
        check_model(&listing.uri, &listing.objects)?;
        let here = |name: &str| listing.objects.iter().any(|o| o.name == name);
        let absent = manifest
            .iter()
            .flat_map(|m| m.files.keys())
            .find(|name| is_model_file(name) && !here(name));
        if let Some(absent) = absent {
            return Err(StorageError::NotAModel {
                uri: listing.uri,
                problem: format!("{absent}, which its manifest lists, is not there"),
            });
        }
    }
    Ok(listing)
}

/// The manifest of a directory that this program wrote.
fn manifest_of(s3: &S3, at: &S3Url, found: &[Found]) -> Result<Option<Manifest>, StorageError> {
    let key = at.join(MANIFEST).key;
    if !found.iter().any(|file| file.key == key) {
        return Ok(None);
    }
    let bytes = s3.get(&key)?.unwrap_or_default();
    Ok(serde_json::from_slice(&bytes).ok())
}
