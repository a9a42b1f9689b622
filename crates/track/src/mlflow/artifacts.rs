//! Files of a run: through the server's proxy, straight to S3, or into a directory, whichever the
//! run's artifact URI says.

use super::client::Client;
use crate::{
    TrackError,
    storage::{S3Url, StorageConfig, StorageError, send_file},
};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Files up to this size are read back after they were sent.
const READ_BACK: u64 = 8 << 20;

/// Where a URI says that files go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Proxy(String),
    S3 { bucket: String, key: String },
    Directory(PathBuf),
}

fn place(uri: &str) -> Result<Place, TrackError> {
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", uri));
    let host = rest.strip_prefix("//").and_then(|rest| rest.split('/').next());
    let path = match rest.strip_prefix("//") {
        // `//host/path` names another host in the scheme's own way; for the server's proxy it is this one.
        Some(with_host) if scheme != "s3" => with_host.split_once('/').map_or("", |(_, path)| path),
        Some(path) => path,
        None => rest,
    };
    match scheme {
        "mlflow-artifacts" => Ok(Place::Proxy(path.trim_matches('/').to_owned())),
        "s3" => {
            let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
            Ok(Place::S3 {
                bucket: bucket.to_owned(),
                key: key.trim_matches('/').to_owned(),
            })
        }
        "file" if host.is_some_and(|host| !["", "localhost"].contains(&host)) => Err(TrackError::Refused(format!(
            "files can't be sent to {}, a directory of another machine: start the server with --artifacts-destination",
            crate::redact::redact(uri)
        ))),
        "file" => Ok(Place::Directory(PathBuf::from(format!(
            "/{}",
            path.trim_start_matches('/')
        )))),
        "" if uri.starts_with('/') => Ok(Place::Directory(uri.into())),
        _ => Err(TrackError::Refused(format!(
            "files can't be sent to {}: the server should use its artifact proxy (mlflow-artifacts:) or s3:",
            crate::redact::redact(uri)
        ))),
    }
}

/// Sends a file as `name` under the URI. The same again replaces it.
pub(super) fn upload(client: &Client, uri: &str, file: &Path, name: &str) -> Result<(), TrackError> {
    let read = |e: std::io::Error| TrackError::Refused(format!("reading `{}` failed: {e}", file.display()));
    match place(uri)? {
        Place::Proxy(root) => {
            let bytes = fs::metadata(file).map_err(read)?.len();
            let path = format!("{root}/{name}");
            if bytes > READ_BACK {
                return Ok(client.upload(&path, file, bytes)?);
            }
            // The file may grow while it is sent (a log): what is sent is one state of it.
            let content = fs::read(file).map_err(read)?;
            client.upload_bytes(&path, content.clone())?;
            let there = client.download(&path)?;
            if Sha256::digest(&there) == Sha256::digest(&content) {
                Ok(())
            } else {
                Err(TrackError::Away(format!(
                    "{} gives other bytes back than were sent as {name}",
                    client.place()
                )))
            }
        }
        Place::S3 { bucket, key } => upload_to_s3(&bucket, &format!("{key}/{name}"), file),
        Place::Directory(root) => {
            // A directory of the server's machine: only where that is this one. Another one's word must not say
            // where files are written here.
            if !client.is_here() || !root.parent().and_then(Path::parent).is_some_and(Path::is_dir) {
                return Err(TrackError::Refused(format!(
                    "{} keeps files in its own directory {}, which is not on this machine: start it with --artifacts-destination",
                    client.place(),
                    root.display()
                )));
            }
            let target = root.join(name);
            let copy = || {
                fs::create_dir_all(target.parent().unwrap_or(&root))?;
                fs::copy(file, &target)
            };
            copy()
                .map(drop)
                .map_err(|e| TrackError::Away(format!("writing `{}` failed: {e}", target.display())))
        }
    }
}

/// Sends a file with the keys in the environment, to the server that `MLFLOW_S3_ENDPOINT_URL` names,
/// or to the one that `storage` would take.
fn upload_to_s3(bucket: &str, key: &str, file: &Path) -> Result<(), TrackError> {
    let mut config = StorageConfig {
        // The delivery retries.
        retries: 1,
        ..StorageConfig::default()
    };
    config.s3.endpoint = std::env::var("MLFLOW_S3_ENDPOINT_URL")
        .ok()
        .filter(|url| !url.trim().is_empty());
    let url = S3Url {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    };
    send_file(file, &url, &config).map_err(|error| match error {
        StorageError::Disk { .. } => TrackError::Refused(error.to_string()),
        _ => TrackError::Away(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's word must not say where this machine's files are written.
    #[test]
    fn a_directory_of_another_machine_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run.json");
        fs::write(&file, "{}").unwrap();
        let root = dir.path().join("a/b");
        fs::create_dir_all(&root).unwrap();
        let send = |address: &str| {
            let address = super::super::Address::new(address, None, None).unwrap();
            let client = Client::new(address, std::time::Duration::from_secs(1)).unwrap();
            upload(&client, &format!("file://{}", root.display()), &file, "run.json")
        };
        let error = send("http://mlflow.example:5000").unwrap_err().to_string();
        assert!(error.contains("--artifacts-destination"), "{error}");
        assert!(!root.join("run.json").exists());
        send("http://127.0.0.1:5000").unwrap();
        assert!(root.join("run.json").exists());
    }

    #[test]
    fn artifact_uris_say_where_files_go() {
        let proxy = |path: &str| Place::Proxy(path.into());
        assert_eq!(
            place("mlflow-artifacts:/1/abc/artifacts").unwrap(),
            proxy("1/abc/artifacts")
        );
        assert_eq!(place("mlflow-artifacts://host:5000/1/abc").unwrap(), proxy("1/abc"));
        let s3 = Place::S3 {
            bucket: "b".into(),
            key: "1/x".into(),
        };
        assert_eq!(place("s3://b/1/x/").unwrap(), s3);
        for uri in ["/srv/1/x", "file:///srv/1/x", "file://localhost/srv/1/x"] {
            assert_eq!(place(uri).unwrap(), Place::Directory("/srv/1/x".into()));
        }
        assert!(place("gs://b/x").is_err());
        assert!(
            place("file://other/srv/1/x")
                .unwrap_err()
                .to_string()
                .contains("another machine")
        );
    }
}
