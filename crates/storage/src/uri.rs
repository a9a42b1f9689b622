//! What a user wrote for a model or a data set, taken apart.

use super::StorageError;
use std::path::PathBuf;

/// Where something lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A path of this machine.
    Path(PathBuf),
    /// `builtin:NAME`, compiled into the program.
    Builtin(String),
    /// `hf://OWNER/NAME[@REVISION]`.
    Hub(HubName),
    /// `s3://BUCKET/KEY`.
    S3(S3Url),
}

/// An object, or all those whose keys begin with a directory's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Url {
    /// The bucket.
    pub bucket: String,
    /// The key, without slashes at its ends; empty for the bucket itself.
    pub key: String,
}

impl S3Url {
    /// Takes `s3://BUCKET[/KEY]` apart.
    ///
    /// # Errors
    /// [`StorageError::BadUri`] for another form.
    pub fn parse(uri: &str) -> Result<Self, StorageError> {
        let rest = uri.strip_prefix("s3://").ok_or("is not on S3: write s3://BUCKET/KEY");
        rest.and_then(s3_url).map_err(|problem| StorageError::BadUri {
            uri: uri.to_owned(),
            problem: problem.to_owned(),
        })
    }

    /// `name` under this one.
    pub fn join(&self, name: &str) -> Self {
        let separator = if self.key.is_empty() { "" } else { "/" };
        Self {
            bucket: self.bucket.clone(),
            key: format!("{}{separator}{name}", self.key),
        }
    }

    /// The directory that this one lies in, and its name there.
    pub fn split(&self) -> (Self, &str) {
        let (parent, name) = self.key.rsplit_once('/').unwrap_or(("", &self.key));
        let parent = Self {
            bucket: self.bucket.clone(),
            key: parent.to_owned(),
        };
        (parent, name)
    }
}

impl std::fmt::Display for S3Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "s3://{}", self.bucket),
            key => write!(f, "s3://{}/{key}", self.bucket),
        }
    }
}

/// A repository on the model hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// User or organisation.
    pub owner: String,
    /// Repository.
    pub name: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl std::fmt::Display for HubName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hf://{}/{}", self.owner, self.name)?;
        if self.revision == "main" {
            Ok(())
        } else {
            write!(f, "@{}", self.revision)
        }
    }
}

impl Location {
    /// Takes a path or URI apart; nothing is looked up.
    ///
    /// # Errors
    /// [`StorageError::BadUri`] for a URI of an unknown or incomplete form.
    pub fn parse(uri: &str) -> Result<Self, StorageError> {
        let bad = |problem: &str| StorageError::BadUri {
            uri: uri.to_owned(),
            problem: problem.to_owned(),
        };
        if uri.trim().is_empty() {
            return Err(bad(
                "is empty: write a directory, builtin:NAME, hf://OWNER/NAME or s3://BUCKET/KEY",
            ));
        }
        if let Some(name) = uri.strip_prefix("builtin:") {
            return if name.is_empty() {
                Err(bad("names nothing after `builtin:`"))
            } else {
                Ok(Self::Builtin(name.to_owned()))
            };
        }
        if let Some(path) = uri.strip_prefix("file:") {
            let path = match path.strip_prefix("//") {
                Some(rest) if rest.starts_with('/') => rest,
                Some(_) => {
                    return Err(bad("names a host: write file:///absolute/path or a plain path"));
                }
                None => path,
            };
            return if path.is_empty() {
                Err(bad("names no path"))
            } else {
                Ok(Self::Path(path.into()))
            };
        }
        if let Some(rest) = uri.strip_prefix("hf://") {
            return hub_name(rest).map(Self::Hub).map_err(bad);
        }
        if uri.starts_with("s3://") {
            let url = S3Url::parse(uri)?;
            return if url.key.is_empty() {
                Err(bad("names a whole bucket: write s3://BUCKET/KEY"))
            } else {
                Ok(Self::S3(url))
            };
        }
        match uri.split_once("://") {
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => Err(bad(
                "has an unknown scheme: write a directory, file:, builtin:, hf://OWNER/NAME or s3://BUCKET/KEY",
            )),
            _ => Ok(Self::Path(uri.into())),
        }
    }
}

fn hub_name(rest: &str) -> Result<HubName, &'static str> {
    let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
    let (owner, name) = repository.split_once('/').ok_or("must be hf://OWNER/NAME")?;
    let usable = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    if !usable(owner) || !usable(name) {
        return Err("must be hf://OWNER/NAME or hf://OWNER/NAME@REVISION, with letters, digits, `-`, `_` and `.`");
    }
    if !usable(revision) {
        return Err("names a revision that can't be used: write a branch or tag without slashes, or a commit's hash");
    }
    Ok(HubName {
        owner: owner.into(),
        name: name.into(),
        revision: revision.into(),
    })
}

fn s3_url(rest: &str) -> Result<S3Url, &'static str> {
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let of_a_bucket = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    if bucket.len() < 3 || !bucket.chars().all(of_a_bucket) || !bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err("must be s3://BUCKET/KEY, the bucket of three or more small letters, digits, `-` and `.`");
    }
    let key = key.strip_suffix('/').unwrap_or(key);
    let usable = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    if !key.is_empty() && !key.split('/').all(usable) {
        return Err("has a key that can't be used: no empty part, `.` or `..` between its slashes");
    }
    Ok(S3Url {
        bucket: bucket.into(),
        key: key.into(),
    })
}

/// What is asked for: decides where to look and what an error calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A model directory.
    Model,
    /// A data set, a directory or a file.
    Data,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Data => "data set",
        }
    }

    /// What the cache knows it by.
    pub(crate) fn key(self, uri: &str) -> String {
        match self {
            Self::Model => uri.to_owned(),
            Self::Data => format!("{DATA_MARK}{uri}"),
        }
    }
}

/// Sets data sets apart from models of the same name in the cache.
pub(crate) const DATA_MARK: &str = "data ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let path = |p: &str| Location::Path(p.into());
        let hub = |owner: &str, name: &str, revision: &str| {
            Location::Hub(HubName {
                owner: owner.into(),
                name: name.into(),
                revision: revision.into(),
            })
        };
        let s3 = |bucket: &str, key: &str| {
            Location::S3(S3Url {
                bucket: bucket.into(),
                key: key.into(),
            })
        };
        for (uri, location) in [
            ("models/x", path("models/x")),
            ("/abs", path("/abs")),
            ("C:x", path("C:x")),
            ("file:rel/x", path("rel/x")),
            ("file:/abs/x", path("/abs/x")),
            ("file:///abs/x", path("/abs/x")),
            ("builtin:micro", Location::Builtin("micro".into())),
            ("hf://o/n", hub("o", "n", "main")),
            ("s3://bucket/a", s3("bucket", "a")),
            ("s3://a-b.c/a/b c/d/", s3("a-b.c", "a/b c/d")),
            ("hf://o-1/n_2.3@v1.0", hub("o-1", "n_2.3", "v1.0")),
        ] {
            assert_eq!(Location::parse(uri).unwrap(), location, "{uri}");
        }
    }

    #[test]
    fn what_is_refused() {
        for uri in [
            "",
            " ",
            "builtin:",
            "file:",
            "file://host/x",
            "hf://",
            "hf://o",
            "hf://o/",
            "hf:///n",
            "hf://o/n/m",
            "hf://o/n@",
            "hf://o/n@refs/pr/1",
            "hf://../n",
            "hf://o/..",
            "s3://",
            "s3://bucket",
            "s3://bucket/",
            "s3://b/k",
            "s3:///key",
            "s3://Bucket/k",
            "s3://bucket//k",
            "s3://bucket/a/../b",
            "s3://bucket/a//b",
            "https://h/x",
            "gs://b/k",
        ] {
            let error = Location::parse(uri).unwrap_err().to_string();
            assert!(error.contains(&format!("`{uri}`")), "{error}");
        }
    }
}
