//! What is reached over the network: S3 ([`S3`]), a model hub ([`Hub`]), and the connection that both share
//! ([`Remote`]). Built without the feature `remote`, none can be connected to: see `absent`.

#[cfg(not(feature = "remote"))]
mod absent;
#[cfg(feature = "remote")]
mod client;
#[cfg(feature = "remote")]
mod hub;
#[cfg(feature = "remote")]
mod s3;
#[cfg(feature = "remote")]
mod transport;

use crate::{S3Url, StorageConfig, StorageError, run::FileHash};
use sha2::{Digest, Sha256};
use std::{fmt, fs::File, io, path::Path};

#[cfg(not(feature = "remote"))]
pub(crate) use absent::{Hub, Remote, S3};
#[cfg(feature = "remote")]
pub(crate) use {
    client::{Remote, runtime},
    hub::Hub,
    s3::S3,
};

/// Objects in a listing; more are a server that never comes to an end.
#[cfg(feature = "remote")]
const MOST_ENTRIES: usize = 250_000;
/// What is wrong with a listing that is too long.
#[cfg(feature = "remote")]
const NO_END: &str = "its listing does not end: give a directory with fewer objects, or check storage.s3.endpoint";
/// What is wrong with a page for people.
#[cfg(feature = "remote")]
const WEB_PAGE: &str = "it answers with a web page, which no S3 server does: check storage.s3.endpoint, and whether this network wants a login first (a captive portal)";

/// A download or upload under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The file that is arriving.
    pub file: String,
    /// Bytes of all files so far.
    pub done: u64,
    /// Bytes of all files together, if they are known.
    pub total: Option<u64>,
}

/// Why a try failed.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "remote"),
    allow(dead_code, reason = "nothing is tried without a connection")
)]
pub(crate) enum Broken {
    /// Another try may succeed.
    Again(StorageError),
    /// It was tried often enough, or trying does not help.
    Final(StorageError),
    /// The object is no longer the one that was listed.
    Changed,
}

impl From<StorageError> for Broken {
    fn from(error: StorageError) -> Self {
        Self::Final(error)
    }
}

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

    /// The address, with user name and password if it has them.
    #[cfg(feature = "remote")]
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The token: for a request's header, and for nothing that is shown.
    #[cfg(feature = "remote")]
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The address without user name and password.
    pub(crate) fn shown(&self) -> String {
        without_credentials(&self.url)
    }
}

/// True for the hash of a commit, which never changes.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// An object of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub key: String,
    pub size: u64,
    pub etag: Option<String>,
    /// Known only from a request for the single object, and only for objects that this program sent.
    pub sha256: Option<String>,
}

/// An address without user name and password.
pub(crate) fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host_end = rest.find('/').unwrap_or(rest.len());
            let (host, path) = rest.split_at(host_end);
            let host = host.rsplit('@').next().unwrap_or(host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// In lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Uploads a file to `url` and returns when it is complete; large files are sent in parts.
///
/// # Errors
/// The file can't be read; the bucket can't be reached or refuses it, after all tries.
pub fn send_file(file: &Path, url: &S3Url, config: &StorageConfig) -> Result<(), StorageError> {
    let unreadable = |e: io::Error| StorageError::Disk {
        what: "reading",
        path: file.display().to_string(),
        reason: e.to_string(),
    };
    // A log may grow meanwhile: what is sent is what was hashed.
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    let hash = FileHash::of_first(file, size).map_err(unreadable)?;
    let mut open = || File::open(file).map_err(unreadable);
    S3::connect(&url.bucket, config)?.send(&url.key, hash.bytes, &hash.sha256, &mut open, &mut |_| ())
}
