//! A repository of the stand-in: branches of commits, each with all its files.

use super::Answer;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use std::collections::BTreeMap;

/// A file of a commit.
#[derive(Clone, Debug)]
pub struct Blob {
    pub bytes: Vec<u8>,
    pub large: bool,
}

impl Blob {
    /// Git's name of it, or of the pointer that stands for a large file.
    fn oid(&self) -> String {
        let content = match self.large {
            true => format!(
                "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
                self.sha256(),
                self.bytes.len()
            )
            .into_bytes(),
            false => self.bytes.clone(),
        };
        let mut hash = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
        hash.update(content);
        hex::encode(hash.finalize())
    }

    fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.bytes))
    }
}

/// A commit.
#[derive(Clone, Debug)]
pub struct Commit {
    pub oid: String,
    pub message: String,
    pub files: BTreeMap<String, Blob>,
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Repository {
    id: String,
    pub private: bool,
    /// Commits by branch, the first one first.
    pub branches: BTreeMap<String, Vec<Commit>>,
}

impl Repository {
    /// With the first commit that the hub makes.
    pub fn new(id: &str, private: bool) -> Self {
        let mut new = Self {
            id: id.to_owned(),
            private,
            branches: BTreeMap::new(),
        };
        let attributes = Blob {
            bytes: b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n".to_vec(),
            large: false,
        };
        new.commit(
            "main",
            "initial commit".into(),
            [(".gitattributes".to_owned(), attributes)].into(),
        );
        new
    }

    pub fn head(&self, branch: &str) -> Option<&Commit> {
        self.branches.get(branch)?.last()
    }

    pub fn commit(&mut self, branch: &str, message: String, files: BTreeMap<String, Blob>) -> String {
        let commits = self.branches.entry(branch.to_owned()).or_default();
        let mut hash = Sha1::new_with_prefix(format!("{} {branch} {} {message}", self.id, commits.len()));
        for (name, blob) in &files {
            hash.update(format!("{name} {}", blob.oid()));
        }
        let oid = hex::encode(hash.finalize());
        commits.push(Commit {
            oid: oid.clone(),
            message,
            files,
        });
        oid
    }

    /// False: there is one of this name.
    pub fn branch_from_main(&mut self, branch: &str) -> bool {
        let is_new = !self.branches.contains_key(branch);
        if is_new {
            self.branches.insert(branch.to_owned(), self.branches["main"].clone());
        }
        is_new
    }

    fn revision(&self, revision: &str) -> Option<&Commit> {
        let by_hash = || self.branches.values().flatten().find(|commit| commit.oid == revision);
        self.head(revision).or_else(by_hash)
    }

    /// `GET /api/models/OWNER/NAME/...`.
    pub fn describe(&self, rest: &[&str]) -> Option<Value> {
        match rest {
            [] | ["revision", _] => {
                let commit = self.revision(rest.get(1).unwrap_or(&"main"))?;
                let siblings: Vec<Value> = commit.files.keys().map(|name| json!({"rfilename": name})).collect();
                Some(json!({
                    "id": self.id, "modelId": self.id, "private": self.private, "sha": commit.oid, "siblings": siblings,
                }))
            }
            ["tree", revision] => {
                let files = self.revision(revision)?.files.iter().map(|(name, blob)| {
                    let mut entry = json!({
                        "type": "file", "path": name, "size": blob.bytes.len(), "oid": blob.oid(),
                    });
                    if blob.large {
                        entry["lfs"] = json!({"oid": blob.sha256(), "size": blob.bytes.len(), "pointerSize": 134});
                    }
                    entry
                });
                Some(Value::Array(files.collect()))
            }
            _ => None,
        }
    }

    /// `GET /OWNER/NAME/resolve/REVISION/FILE`.
    pub fn resolve(&self, revision: &str, file: &str) -> Option<Answer> {
        let commit = self.revision(revision)?;
        let blob = commit.files.get(file)?;
        let etag = if blob.large { blob.sha256() } else { blob.oid() };
        let headers = vec![
            ("X-Repo-Commit".into(), commit.oid.clone()),
            ("ETag".into(), format!("\"{etag}\"")),
            ("Accept-Ranges".into(), "bytes".into()),
            ("Content-Length".into(), blob.bytes.len().to_string()),
        ];
        Some(Answer {
            status: 200,
            headers,
            body: blob.bytes.clone(),
        })
    }
}
