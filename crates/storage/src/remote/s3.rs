//! Buckets of S3, Amazon's or any server that speaks its language.
//!
//! Every object that is sent carries the SHA-256 of its bytes in its metadata, so that a download can be
//! verified; other objects are checked against their ETag where that is an MD5. Keys come from the
//! environment alone.

use super::{
    Broken, Found, MOST_ENTRIES, NO_END,
    client::{Advice, Remote},
    sha256, without_credentials,
};
use crate::{S3Url, StorageConfig, StorageError};
use opendal::{
    Buffer, ErrorKind, Metadata, Operator,
    options::{CopyOptions, ListOptions, WriteOptions},
    services,
};
use std::{
    collections::{BTreeMap, HashMap},
    env,
    io::{self, Read},
};

/// Larger objects are sent in parts of this size, or of larger ones where there would be too many.
const PART: u64 = 8 << 20;
/// S3 takes this many parts at most.
const MOST_PARTS: u64 = 10_000;
/// S3 copies larger objects only in parts.
const MOST_COPIED: u64 = 5_000_000_000;

/// Bytes of an object that is read into memory: records of runs and checkpoints have some thousand.
const MOST_WHOLE: u64 = 64 << 20;

/// A bucket.
#[derive(Clone)]
pub(crate) struct S3 {
    pub bucket: String,
    remote: Remote,
}

/// Its name and its server; nothing that a log must not hold.
impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{} at {}", self.bucket, self.remote.endpoint)
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

impl S3 {
    pub fn connect(bucket: &str, config: &StorageConfig) -> Result<Self, StorageError> {
        let region = config.s3.region.clone();
        let region = region
            .or_else(|| variable("AWS_REGION"))
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .unwrap_or_else(|| "us-east-1".into());
        let endpoint = config.s3.endpoint.clone();
        let endpoint = endpoint
            .or_else(|| variable("AWS_ENDPOINT_URL_S3"))
            .or_else(|| variable("AWS_ENDPOINT_URL"))
            .unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let mut service = services::S3::default()
            .bucket(bucket)
            .endpoint(&endpoint)
            .region(&region)
            .checksum_algorithm("md5")
            // Nothing from files or from a machine's own role: what is used is what can be seen.
            .disable_config_load()
            .disable_ec2_metadata();
        let keys = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
        let advice = Advice {
            denied: match keys {
                (Some(_), Some(_)) => {
                    "the keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY do not open it: check them, and what they may do"
                }
                _ => "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may",
            },
            not_found: "check bucket and key, and storage.s3.endpoint",
            is_store: true,
        };
        service = match keys {
            (Some(id), Some(secret)) => {
                let service = service.access_key_id(id.trim()).secret_access_key(secret.trim());
                match variable("AWS_SESSION_TOKEN") {
                    Some(token) => service.session_token(token.trim()),
                    None => service,
                }
            }
            _ => service.skip_signature(),
        };
        let shown = format!("s3://{bucket}");
        let remote = Remote::connect(service, without_credentials(&endpoint), shown, advice, config)?;
        Ok(Self {
            bucket: bucket.to_owned(),
            remote,
        })
    }

    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    pub fn url(&self, key: &str) -> String {
        S3Url {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
        }
        .to_string()
    }

    /// All objects in the directory `key` and below it.
    pub fn list(&self, key: &str) -> Result<Vec<Found>, StorageError> {
        let options = ListOptions {
            recursive: true,
            ..ListOptions::default()
        };
        Ok(self
            .entries(key, options)?
            .into_iter()
            .filter(|(_, metadata)| metadata.is_file())
            .map(|(key, metadata)| found(key, &metadata))
            .collect())
    }

    /// Names of the directories in the directory `key`.
    pub fn directories(&self, key: &str) -> Result<Vec<String>, StorageError> {
        let entries = self.entries(key, ListOptions::default())?;
        let mut names: Vec<String> = entries
            .into_iter()
            .filter(|(_, metadata)| metadata.is_dir())
            .filter_map(|(path, _)| path.trim_end_matches('/').rsplit('/').next().map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    fn entries(&self, key: &str, options: ListOptions) -> Result<Vec<(String, Metadata)>, StorageError> {
        let directory = if key.is_empty() {
            "/".to_owned()
        } else {
            format!("{key}/")
        };
        let about = self.url(key);
        let listed = self.remote.patiently(|| {
            let explain = |e: opendal::Error| self.remote.explain("listing", &e, &about);
            let endless = || Broken::Final(self.remote.network("listing", &about, NO_END));
            self.remote.begin_listing();
            let lister = self.remote.operator().lister_options(&directory, options.clone());
            let mut entries = BTreeMap::new();
            for (count, entry) in lister.map_err(explain)?.enumerate() {
                let (path, metadata) = entry.map_err(explain)?.into_parts();
                // A server that gives the same page again and again names what it named before.
                if entries.insert(path, metadata).is_some() || count >= MOST_ENTRIES {
                    return Err(endless());
                }
            }
            Ok(entries)
        });
        match listed {
            Ok(entries) => Ok(entries
                .into_iter()
                .filter(|(path, _)| path.trim_end_matches('/') != key)
                .collect()),
            Err(broken) => Err(self.remote.give_up(broken, &about)),
        }
    }

    /// Looks for the bucket. Objects that are not there say nothing: without a bucket none is.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] without it; others where the server does not say.
    pub fn find_bucket(&self) -> Result<(), StorageError> {
        let about = format!("s3://{}", self.bucket);
        let options = ListOptions {
            limit: Some(1),
            ..ListOptions::default()
        };
        let found = self.remote.patiently(|| {
            let explain = |e: opendal::Error| self.remote.explain("listing", &e, &about);
            self.remote.begin_listing();
            let mut lister = self
                .remote
                .operator()
                .lister_options("/", options.clone())
                .map_err(explain)?;
            lister.next().transpose().map(|_| ()).map_err(explain)
        });
        found.map_err(|broken| match self.remote.give_up(broken, &about) {
            StorageError::NotFound { endpoint, uri, .. } => StorageError::NotFound {
                endpoint,
                uri,
                advice: "make the bucket, or check its name and storage.s3.endpoint",
            },
            other => other,
        })
    }

    /// Metadata of one object; None if it does not exist.
    pub fn stat(&self, key: &str) -> Result<Option<Found>, StorageError> {
        let about = self.url(key);
        let stat = self.remote.patiently(|| match self.remote.operator().stat(key) {
            // A page that another server answers with has a length, too, and nothing says that it is not the object's.
            Ok(metadata) if metadata.is_file() && metadata.etag().is_none() => {
                let problem = "the answer has no ETag, as every answer of S3 about an object has";
                Err(Broken::Again(self.remote.network("fetching", &about, problem)))
            }
            Ok(metadata) => Ok(metadata.is_file().then(|| found(key.to_owned(), &metadata))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.remote.explain("fetching", &e, &about)),
        });
        stat.map_err(|broken| self.remote.give_up(broken, &about))
    }

    /// A small object, verified; None if it does not exist.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let about = self.url(key);
        let got = self.remote.patiently(|| {
            let Some(found) = self.stat(key)? else { return Ok(None) };
            let mut bytes = Vec::new();
            let too_large = || {
                self.remote
                    .network("fetching", &about, "it is larger than such a file can be")
            };
            if found.size > MOST_WHOLE {
                return Err(too_large().into());
            }
            let read = self
                .remote
                .read(key, &about, None, found.etag.as_deref(), &mut |piece| {
                    bytes.extend_from_slice(piece);
                    match bytes.len() as u64 > MOST_WHOLE {
                        true => Err(too_large()),
                        false => Ok(()),
                    }
                });
            let again = |problem: &str| Err(Broken::Again(self.remote.network("fetching", &about, problem)));
            match read {
                // Removed, or written anew, since it was asked about.
                Err(Broken::Changed | Broken::Final(StorageError::NotFound { .. })) => again("it keeps changing"),
                Err(broken) => Err(broken),
                Ok(()) if bytes.len() as u64 != found.size => again("it arrived cut short"),
                Ok(())
                    if found
                        .sha256
                        .as_ref()
                        .is_some_and(|expected| *expected != sha256(&bytes)) =>
                {
                    again("its bytes are not those that were sent")
                }
                Ok(()) => Ok(Some(bytes)),
            }
        });
        got.map_err(|broken| self.remote.give_up(broken, &about))
    }

    /// Sends a small object.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let sha256 = sha256(bytes);
        self.send(key, bytes.len() as u64, &sha256, &mut || Ok(bytes), &mut |_| ())
    }

    /// Sends `size` bytes of what `open` gives, in parallel parts if there are several.
    /// `progress` gets the number of further bytes sent.
    pub fn send<R: Read>(
        &self,
        key: &str,
        size: u64,
        sha256: &str,
        open: &mut dyn FnMut() -> Result<R, StorageError>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), StorageError> {
        let about = self.url(key);
        let mut reported = 0;
        let sent = self.remote.patiently(|| {
            let mut from = open()?;
            let mut passed = 0;
            let result = self.try_send(key, size, sha256, &mut from, &mut |bytes| {
                passed += bytes;
                // A second try is no progress until it is beyond the first.
                if passed > reported {
                    progress(passed - reported);
                    reported = passed;
                }
            });
            match result {
                // It may have arrived, and only the answer not.
                Err(broken) => match self.stat(key) {
                    Ok(Some(there)) if there.size == size && there.sha256.as_deref() == Some(sha256) => Ok(()),
                    _ => Err(match broken {
                        // What the server says of an upload in parts that it has ended already.
                        Broken::Final(error @ StorageError::NotFound { .. }) => Broken::Again(error),
                        broken => broken,
                    }),
                },
                done => done,
            }
        });
        sent.map_err(|broken| self.remote.give_up(broken, &about))
    }

    fn try_send(
        &self,
        key: &str,
        size: u64,
        sha256: &str,
        from: &mut impl Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), Broken> {
        let about = self.url(key);
        let unreadable = |e: io::Error| StorageError::Disk {
            what: "reading what is to become",
            path: about.clone(),
            reason: e.to_string(),
        };
        let part = PART.max(size.div_ceil(MOST_PARTS)).next_multiple_of(1 << 20);
        let options = WriteOptions {
            user_metadata: Some(HashMap::from([("sha256".to_owned(), sha256.to_owned())])),
            content_type: Some("application/octet-stream".into()),
            chunk: usize::try_from(part).ok(),
            concurrent: self.remote.config.parallel,
            ..WriteOptions::default()
        };
        let mut next = |left: u64| -> Result<Vec<u8>, StorageError> {
            let mut bytes = Vec::new();
            Read::by_ref(from)
                .take(left.min(part))
                .read_to_end(&mut bytes)
                .map_err(unreadable)?;
            if bytes.is_empty() && left > 0 {
                return Err(unreadable(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(bytes)
        };
        if size <= part {
            let bytes = next(size)?;
            if bytes.len() as u64 != size {
                return Err(unreadable(io::ErrorKind::UnexpectedEof.into()).into());
            }
            let sent = self.remote.operator().write_options(key, bytes, options);
            sent.map_err(|e| self.remote.explain("sending", &e, &about))?;
            progress(size);
            return Ok(());
        }
        // The blocking interface can't abort.
        let sent = self.remote.wait(&about, |operator: Operator| async move {
            let mut writer = operator.writer_options(key, options).await.map_err(Failed::Server)?;
            let mut left = size;
            let mut result = Ok(());
            while left > 0 && result.is_ok() {
                result = match next(left) {
                    Ok(bytes) => {
                        let n = bytes.len() as u64;
                        left -= n;
                        let written = writer.write(Buffer::from(bytes)).await;
                        progress(n);
                        written.map_err(Failed::Server)
                    }
                    Err(error) => Err(Failed::Disk(error)),
                };
            }
            if result.is_ok() {
                result = writer.close().await.map(|_| ()).map_err(Failed::Server);
            }
            if result.is_err() {
                // Best effort: the parts cost until the bucket's own rule removes them.
                let _ = writer.abort().await;
            }
            result
        })?;
        sent.map_err(|failed| match failed {
            Failed::Server(e) => self.remote.explain("sending", &e, &about),
            Failed::Disk(error) => Broken::Final(error),
        })
    }

    /// Copies inside the bucket; false if the server does not do that, or not for such a large object.
    pub fn copy(&self, from: &str, to: &str, size: u64) -> Result<bool, StorageError> {
        if size > MOST_COPIED {
            return Ok(false);
        }
        let about = self.url(to);
        let copied = self.remote.patiently(|| {
            let copied = self.remote.operator().copy_options(from, to, CopyOptions::default());
            copied.map_err(|e| self.remote.explain("sending", &e, &about))
        });
        match copied {
            Ok(_) => Ok(true),
            Err(Broken::Final(StorageError::NotFound { .. }) | Broken::Changed) => Ok(false),
            Err(broken) => Err(self.remote.give_up(broken, &about)),
        }
    }

    /// Removes one object, if it exists.
    pub fn delete(&self, key: &str) -> Result<(), StorageError> {
        let about = self.url(key);
        let deleted = self.remote.patiently(|| {
            let deleted = self.remote.operator().delete(key);
            deleted.map_err(|e| self.remote.explain("removing", &e, &about))
        });
        match deleted {
            Ok(()) | Err(Broken::Final(StorageError::NotFound { .. })) => Ok(()),
            Err(broken) => Err(self.remote.give_up(broken, &about)),
        }
    }
}

/// Who failed while parts were sent.
enum Failed {
    Server(opendal::Error),
    Disk(StorageError),
}

fn found(key: String, metadata: &Metadata) -> Found {
    Found {
        key,
        size: metadata.content_length(),
        etag: metadata.etag().map(str::to_owned),
        sha256: metadata
            .user_metadata()
            .and_then(|m| m.get("sha256").map(str::to_owned)),
    }
}
