//! Model directories from a Hugging Face hub, or a server that answers like one.
//!
//! `GET /api/models/{owner}/{name}/revision/{revision}` gives the commit and the names of its
//! files, `/tree/{commit}` their sizes and hashes (a server may lack it),
//! `/{owner}/{name}/resolve/{commit}/{file}` the bytes. A snapshot is written beside its final
//! place and renamed when every file is complete, so a directory that exists is whole.

use super::{HubName, StorageConfig, StorageError};
use opendal::{
    ErrorKind, Operator, blocking,
    layers::{RetryEvent, RetryLayer, TimeoutLayer},
    services::Http,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The hub's address and the token for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    token: Option<String>,
}

/// Says whether there is a token, never which.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.shown())
            .field("token", &self.token.is_some())
            .finish()
    }
}

impl Endpoint {
    /// An address (`http://` or `https://`) and, for private models, a token.
    pub fn new(url: &str, token: Option<&str>) -> Self {
        let token = token.map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
        Self {
            url: url.trim().trim_end_matches('/').to_owned(),
            token,
        }
    }

    /// `HF_ENDPOINT` (default <https://huggingface.co>) and `HF_TOKEN`.
    pub fn from_environment() -> Self {
        let url = std::env::var("HF_ENDPOINT").ok().filter(|url| !url.trim().is_empty());
        Self::new(
            url.as_deref().unwrap_or("https://huggingface.co"),
            std::env::var("HF_TOKEN").ok().as_deref(),
        )
    }

    /// The address without user name and password.
    fn shown(&self) -> String {
        match self.url.split_once("://") {
            Some((scheme, rest)) => {
                let host_end = rest.find('/').unwrap_or(rest.len());
                let (host, path) = rest.split_at(host_end);
                let host = host.rsplit('@').next().unwrap_or(host);
                format!("{scheme}://{host}{path}")
            }
            None => self.url.clone(),
        }
    }
}

/// A download under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The file that is arriving.
    pub file: String,
    /// Bytes of all files so far.
    pub done: u64,
    /// Bytes of all files together, if the server told.
    pub total: Option<u64>,
}

/// One file of a snapshot.
struct Entry {
    name: String,
    size: Option<u64>,
    /// Only large files have one.
    sha256: Option<String>,
}

/// A connection for one repository.
struct Hub<'a> {
    name: &'a HubName,
    endpoint: &'a Endpoint,
    operator: blocking::Operator,
}

/// Drives all connections: opendal keeps one HTTP client for the process, whose open connections
/// die with the runtime that made them.
fn runtime() -> std::io::Result<&'static tokio::runtime::Runtime> {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let new = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    opendal::install_default();
    Ok(RUNTIME.get_or_init(|| new))
}

/// The directory of this model's snapshot under `cache`, fetched if it is not there.
pub(super) fn model(
    name: &HubName,
    endpoint: &Endpoint,
    config: &StorageConfig,
    cache: &Path,
    progress: &mut dyn FnMut(&Transfer),
) -> Result<PathBuf, StorageError> {
    let repository = cache.join(&name.owner).join(&name.name);
    let reference = repository.join("refs").join(&name.revision);
    let snapshot = |commit: &str| repository.join("snapshots").join(commit);
    let cached = fs::read_to_string(&reference)
        .ok()
        .map(|commit| snapshot(commit.trim()))
        .into_iter()
        .chain(is_commit(&name.revision).then(|| snapshot(&name.revision)))
        .find(|dir| dir.is_dir());
    match &cached {
        // A commit never changes.
        Some(dir) if config.offline || is_commit(&name.revision) => return Ok(dir.clone()),
        None if config.offline => {
            return Err(StorageError::Offline { uri: name.to_string() });
        }
        _ => {}
    }
    let hub = Hub::connect(name, endpoint, config)?;
    let (commit, names) = match (hub.revision(), cached) {
        (Err(error @ StorageError::Network { .. }), Some(dir)) => {
            tracing::warn!("{error}; going on with the copy in the cache, {}", dir.display());
            return Ok(dir);
        }
        (answer, _) => answer?,
    };
    let target = snapshot(&commit);
    if !target.is_dir() {
        let files = hub.files(&commit, names)?;
        fetch(&hub, &commit, &files, &target, progress)?;
    }
    let written = fs::create_dir_all(repository.join("refs")).and_then(|()| fs::write(&reference, &commit));
    written.map_err(|e| cache_error(&reference, &e))?;
    Ok(target)
}

/// All files under a temporary name, then the rename.
fn fetch(
    hub: &Hub<'_>,
    commit: &str,
    files: &[Entry],
    target: &Path,
    progress: &mut dyn FnMut(&Transfer),
) -> Result<(), StorageError> {
    let parent = target.parent().unwrap_or(target);
    fs::create_dir_all(parent).map_err(|e| cache_error(parent, &e))?;
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let partial = Partial(parent.join(format!(".{commit}.{}.{number}", std::process::id())));
    // What an earlier process of the same number left behind is not trusted.
    let _ = fs::remove_dir_all(&partial.0);
    fs::create_dir(&partial.0).map_err(|e| cache_error(&partial.0, &e))?;
    let mut transfer = Transfer {
        file: String::new(),
        done: 0,
        total: files.iter().map(|f| f.size).sum::<Option<u64>>(),
    };
    for entry in files {
        transfer.file.clone_from(&entry.name);
        progress(&transfer);
        hub.download(commit, entry, &partial.0.join(&entry.name), &mut |bytes| {
            transfer.done += bytes;
            progress(&transfer);
        })?;
    }
    match fs::rename(&partial.0, target) {
        // Another process was faster; a directory that exists is whole.
        Err(_) if target.is_dir() => Ok(()),
        Err(e) => Err(cache_error(target, &e)),
        Ok(()) => Ok(()),
    }
}

/// A directory that is removed if it was not renamed away.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl<'a> Hub<'a> {
    fn connect(name: &'a HubName, endpoint: &'a Endpoint, config: &StorageConfig) -> Result<Self, StorageError> {
        let failed = |problem: String| StorageError::Network {
            endpoint: endpoint.shown(),
            uri: name.to_string(),
            problem,
        };
        if !endpoint.url.starts_with("http://") && !endpoint.url.starts_with("https://") {
            return Err(failed("HF_ENDPOINT must start with http:// or https://".into()));
        }
        let mut service = Http::default().endpoint(&endpoint.url);
        if let Some(token) = &endpoint.token {
            if !token.chars().all(|c| c.is_ascii_graphic()) {
                return Err(failed(
                    "HF_TOKEN holds characters that no token has: set it again".into(),
                ));
            }
            service = service.token(token);
        }
        let timeout = Duration::from_secs(config.timeout_seconds);
        let shown = name.to_string();
        let operator = Operator::new(service)
            .map_err(|e| failed(root_cause(&e)))?
            .layer(TimeoutLayer::new().with_timeout(timeout).with_io_timeout(timeout))
            .layer(
                RetryLayer::new()
                    .with_jitter()
                    .with_min_delay(Duration::from_millis(200))
                    .with_max_delay(Duration::from_secs(10))
                    .with_max_times(config.retries)
                    .with_notify(move |event: RetryEvent<'_>| {
                        tracing::warn!("{shown}: {}, trying again", root_cause(event.err));
                    }),
            );
        let _guard = runtime().map_err(|e| failed(e.to_string()))?.enter();
        let operator = blocking::Operator::new(operator).map_err(|e| failed(root_cause(&e)))?;
        Ok(Self {
            name,
            endpoint,
            operator,
        })
    }

    /// The commit behind the revision, and the names of its files.
    fn revision(&self) -> Result<(String, Vec<String>), StorageError> {
        let HubName { owner, name, revision } = self.name;
        let answer = self.json(&format!("api/models/{owner}/{name}/revision/{revision}"))?;
        let commit = answer["sha"].as_str().filter(|sha| is_commit(sha)).map(str::to_owned);
        let names = answer["siblings"].as_array().map(|siblings| {
            siblings
                .iter()
                .filter_map(|s| s["rfilename"].as_str().map(str::to_owned))
                .collect()
        });
        match (commit, names) {
            (Some(commit), Some(names)) => Ok((commit, names)),
            _ => Err(self.failed("its answer has no commit or no list of files; is HF_ENDPOINT a model hub?")),
        }
    }

    /// What a model directory needs of the files, with sizes and hashes where the server has them.
    fn files(&self, commit: &str, names: Vec<String>) -> Result<Vec<Entry>, StorageError> {
        let HubName { owner, name, .. } = self.name;
        let tree = match self.json(&format!("api/models/{owner}/{name}/tree/{commit}")) {
            Ok(tree) => tree,
            Err(StorageError::NotFound { .. }) => Value::Null,
            Err(error) => return Err(error),
        };
        let described = |file: &str| tree.as_array().and_then(|all| all.iter().find(|e| e["path"] == file));
        let entries: Vec<Entry> = names
            .into_iter()
            .filter(|file| is_model_file(file))
            .map(|file| {
                let entry = described(&file);
                let sha256 = entry.and_then(|e| e["lfs"]["oid"].as_str()).map(str::to_owned);
                Entry {
                    size: entry.and_then(|e| e["size"].as_u64()),
                    sha256,
                    name: file,
                }
            })
            .collect();
        let unusable = |problem: &str| {
            Err(StorageError::NotAModel {
                uri: self.name.to_string(),
                problem: problem.to_owned(),
            })
        };
        if !entries.iter().any(|e| e.name == "config.json") {
            return unusable("it has no config.json");
        }
        if !entries.iter().any(|e| e.name.ends_with(".safetensors")) {
            return unusable("it has no *.safetensors file; convert its weights first");
        }
        Ok(entries)
    }

    fn json(&self, path: &str) -> Result<Value, StorageError> {
        let mut bytes = Vec::new();
        self.read(path, None, &self.name.to_string(), &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        serde_json::from_slice(&bytes).map_err(|_| self.failed("its answer is not JSON; is HF_ENDPOINT a model hub?"))
    }

    /// One file, its size and hash checked.
    fn download(
        &self,
        commit: &str,
        entry: &Entry,
        path: &Path,
        arrived: &mut dyn FnMut(u64),
    ) -> Result<(), StorageError> {
        let HubName { owner, name, .. } = self.name;
        let from = format!("{owner}/{name}/resolve/{commit}/{}", entry.name);
        let about = format!("{} of {}", entry.name, self.name);
        let mut file = File::create(path).map_err(|e| cache_error(path, &e))?;
        let (mut hash, mut size) = (Sha256::new(), 0);
        if entry.size != Some(0) {
            self.read(&from, entry.size, &about, &mut |piece| {
                hash.update(piece);
                size += piece.len() as u64;
                arrived(piece.len() as u64);
                file.write_all(piece).map_err(|e| cache_error(path, &e))
            })?;
        }
        file.sync_all().map_err(|e| cache_error(path, &e))?;
        if let Some(expected) = entry.size.filter(|expected| *expected != size) {
            return Err(self.failed_file(
                &about,
                &format!("{size} bytes arrived instead of {expected}, try again"),
            ));
        }
        let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if entry.sha256.as_ref().is_some_and(|expected| *expected != digest) {
            return Err(self.failed_file(&about, "its SHA-256 is not the one that the hub lists, try again"));
        }
        Ok(())
    }

    /// Streams one address, the first `size` bytes if known; the retry layer goes on where a
    /// connection broke.
    fn read(
        &self,
        path: &str,
        size: Option<u64>,
        about: &str,
        piece: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let reader = self.operator.reader(path).map_err(|e| self.explain(&e, about))?;
        let pieces = match size {
            Some(size) => reader.into_iterator(0..size),
            None => reader.into_iterator(..),
        };
        for buffer in pieces.map_err(|e| self.explain(&e, about))? {
            let buffer = buffer.map_err(|e| self.explain(&e, about))?;
            for bytes in buffer {
                piece(&bytes)?;
            }
        }
        Ok(())
    }

    fn explain(&self, error: &opendal::Error, about: &str) -> StorageError {
        let endpoint = self.endpoint.shown();
        let uri = about.to_owned();
        match (error.kind(), status(error)) {
            (ErrorKind::NotFound, _) | (_, Some(404)) => StorageError::NotFound { endpoint, uri },
            (_, Some(status @ (401 | 403))) => StorageError::Denied {
                endpoint,
                uri,
                status,
                advice: match self.endpoint.token {
                    Some(_) => "and the token in HF_TOKEN does not open it: check the name, and the token's rights",
                    None => "or not exist: check the name, and set HF_TOKEN to a token that may read it",
                },
            },
            (_, Some(429)) => self.failed_file(about, "the server wants fewer requests (status 429), try again later"),
            (_, Some(status)) => self.failed_file(about, &format!("the server answered with status {status}")),
            (_, None) => self.failed_file(
                about,
                &format!("{}, check the connection and try again", root_cause(error)),
            ),
        }
    }

    fn failed(&self, problem: &str) -> StorageError {
        self.failed_file(&self.name.to_string(), problem)
    }

    fn failed_file(&self, about: &str, problem: &str) -> StorageError {
        StorageError::Network {
            endpoint: self.endpoint.shown(),
            uri: about.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

/// The files of a model directory; none lies in a folder of its own.
fn is_model_file(name: &str) -> bool {
    const EXACT: &[&str] = &[
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "adapter_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
    ];
    let flat = !name.contains(['/', '\\']) && !name.starts_with('.');
    let tokenizer = name.starts_with("tokenizer") && (name.ends_with(".json") || name.ends_with(".model"));
    // Some repositories carry a second copy of the weights under other tensor names.
    let weights = name.ends_with(".safetensors") && !name.starts_with("consolidated");
    flat && (EXACT.contains(&name) || tokenizer || weights)
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The HTTP status: opendal has no accessor, but writes the response into its error.
fn status(error: &opendal::Error) -> Option<u16> {
    let text = error.to_string();
    let (_, rest) = text.rsplit_once("response: Parts { status: ")?;
    rest.get(..3)?.parse().ok()
}

/// The innermost reason, without addresses and headers.
fn root_cause(error: &opendal::Error) -> String {
    if let Some(status) = status(error) {
        return format!("the server answered with status {status}");
    }
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut text = error.message().lines().next().unwrap_or_default().to_owned();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

fn cache_error(path: &Path, error: &std::io::Error) -> StorageError {
    StorageError::Cache {
        path: path.display().to_string(),
        reason: error.to_string(),
    }
}
