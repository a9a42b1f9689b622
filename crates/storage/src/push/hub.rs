//! The requests of a push, in their order: the repository, what its branch has, which files are large, their
//! bytes, the commit.
//!
//! The hub's API is described at <https://huggingface.co/docs/hub/api>; what that page leaves out is as in
//! Hugging Face's own clients (<https://github.com/huggingface/huggingface_hub>, `_commit_api.py`, and
//! <https://github.com/huggingface/hf-hub>). Their newer transfer, Xet, is not used: the hub takes both, and
//! the crate `hf-hub` sends large files by Xet alone.

use super::{Push, PushState, Pushed, PushedFile, api::Api, lfs, local::Local};
use crate::{
    Endpoint, StorageConfig, StorageError, Transfer,
    listing::is_model_file,
    remote::{is_commit, runtime},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Bytes of a file by which the hub tells whether it is a text.
const SAMPLE: usize = 512;
/// Files in one request that asks which are large.
const PREUPLOAD: usize = 256;

/// What the branch has.
struct Branch {
    exists: bool,
    /// Its head; of a new one, that of `main`.
    commit: Option<String>,
    /// Files of its root, as the hub lists them.
    files: Vec<Value>,
}

/// See [`crate::Storage::push`].
pub(super) fn push(
    push: &Push,
    endpoint: &Endpoint,
    config: &StorageConfig,
    progress: &mut dyn FnMut(&Transfer),
) -> Result<Pushed, StorageError> {
    let api = Api::new(endpoint, push.to.to_string(), config)?;
    if is_commit(&push.to.revision) {
        return Err(StorageError::BadUri {
            uri: api.uri,
            problem: "names a commit: push to a branch".into(),
        });
    }
    let mut files = Vec::new();
    for file in &push.files {
        files.push(Local::new(&file.name, &file.content)?);
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let runtime = runtime().map_err(|e| api.network(&api.uri, e.to_string()))?;
    runtime.block_on(Pusher { push, api: &api, files }.run(progress))
}

struct Pusher<'a> {
    push: &'a Push,
    api: &'a Api,
    files: Vec<Local>,
}

impl Pusher<'_> {
    async fn run(&self, progress: &mut dyn FnMut(&Transfer)) -> Result<Pushed, StorageError> {
        let there = self.api.get(&self.path("")).await?;
        let private = match &there {
            Some(info) => self.visibility(info)?,
            None => !self.push.public,
        };
        if there.is_none() && !self.push.dry_run {
            self.create(private).await?;
        }
        let branch = match &there {
            Some(_) => self.branch().await?,
            // The hub makes `main`, with a first commit.
            None if !self.push.dry_run => self.branch().await?,
            None => Branch {
                exists: false,
                commit: None,
                files: Vec::new(),
            },
        };
        let mut states = Vec::new();
        for file in &self.files {
            states.push(match self.entry(&branch, file) {
                Some(entry) if file.is(entry)? => PushState::Unchanged,
                _ => PushState::Sent,
            });
        }
        let removed = self.removed(&branch);
        let changed = !removed.is_empty() || states.contains(&PushState::Sent);
        let mut commit = branch.commit.clone();
        if !self.push.dry_run {
            let mut large = BTreeSet::new();
            if changed {
                large = self.send(&branch, &mut states, progress).await?;
            }
            if !branch.exists {
                self.create_branch().await?;
            }
            if changed {
                commit = self.commit(&branch, &states, &large, &removed).await?;
            }
        }
        let files = self.files.iter().zip(states).map(|(file, state)| PushedFile {
            name: file.name.clone(),
            bytes: file.hash.bytes,
            sha256: file.hash.sha256.clone(),
            state,
        });
        Ok(Pushed {
            url: format!("{}/{}", self.api.endpoint, self.repository()),
            created: there.is_none(),
            private,
            commit,
            committed: changed && !self.push.dry_run,
            files: files.collect(),
            removed,
        })
    }

    /// Sends the large files among those that changed, and notes which the storage had; gives their names.
    async fn send(
        &self,
        branch: &Branch,
        states: &mut [PushState],
        progress: &mut dyn FnMut(&Transfer),
    ) -> Result<BTreeSet<String>, StorageError> {
        // A new branch is made last: until then files are sent for the one that it begins from.
        let sending = if branch.exists { self.revision() } else { "main" };
        let large = self.large(sending, states).await?;
        let sent = lfs::upload(self.api, &self.repository(), sending, &large, progress).await?;
        let large: BTreeSet<String> = large.iter().map(|file| file.name.clone()).collect();
        for (file, state) in self.files.iter().zip(states) {
            let stored = large.contains(&file.name) && !sent.contains(&file.hash.sha256);
            if *state == PushState::Sent && stored {
                *state = PushState::Stored;
            }
        }
        Ok(large)
    }

    fn repository(&self) -> String {
        format!("{}/{}", self.push.to.owner, self.push.to.name)
    }

    fn revision(&self) -> &str {
        &self.push.to.revision
    }

    fn path(&self, rest: &str) -> String {
        format!("api/models/{}{rest}", self.repository())
    }

    /// Whether a repository is private; one that everybody sees is only pushed to where that was asked for.
    fn visibility(&self, info: &Value) -> Result<bool, StorageError> {
        match info["private"].as_bool() {
            Some(false) if !self.push.public => Err(StorageError::BadUri {
                uri: self.api.uri.clone(),
                problem: "is public: add --public to push to it, or name another repository".into(),
            }),
            Some(private) => Ok(private),
            None => Err(self.api.network(
                &self.api.uri,
                "its answer describes no repository; is HF_ENDPOINT a model hub?".into(),
            )),
        }
    }

    async fn create(&self, private: bool) -> Result<(), StorageError> {
        let body = json!({
            "type": "model",
            "organization": self.push.to.owner,
            "name": self.push.to.name,
            "private": private,
        });
        let answer = self.api.post("api/repos/create", &body).await?;
        // 409: it is there already. A lost answer is not repeated in vain.
        if answer.status != 409 {
            self.api.json(&answer)?;
        }
        Ok(())
    }

    /// What the branch has; one that does not exist has what `main` has, from which it will begin.
    async fn branch(&self) -> Result<Branch, StorageError> {
        let revision = self.revision();
        let at = |branch: &str| self.path(&format!("/revision/{branch}"));
        let (exists, from, info) = match self.api.get(&at(revision)).await? {
            None if revision != "main" => (false, "main", self.api.get(&at("main")).await?),
            info => (true, revision, info),
        };
        let tree = match info {
            Some(_) => self.api.get(&self.path(&format!("/tree/{from}"))).await?,
            None => None,
        };
        let files = tree.as_ref().and_then(Value::as_array).cloned();
        Ok(Branch {
            exists,
            commit: info.and_then(|info| info["sha"].as_str().filter(|sha| is_commit(sha)).map(str::to_owned)),
            files: files.unwrap_or_default(),
        })
    }

    fn entry<'b>(&self, branch: &'b Branch, file: &Local) -> Option<&'b Value> {
        branch.files.iter().find(|entry| entry["path"] == file.name.as_str())
    }

    /// Files of another model: shards or heads of an earlier push that this one lacks would be read with it.
    fn removed(&self, branch: &Branch) -> Vec<String> {
        let names = branch.files.iter().filter(|entry| entry["type"] == "file");
        names
            .filter_map(|entry| entry["path"].as_str())
            .filter(|name| is_model_file(name) && !self.files.iter().any(|file| file.name == *name))
            .map(str::to_owned)
            .collect()
    }

    /// Those of the changed files that go to the LFS storage.
    async fn large(&self, branch: &str, states: &[PushState]) -> Result<Vec<&Local>, StorageError> {
        let changed = self.files.iter().zip(states);
        let changed: Vec<&Local> = changed
            .filter(|(_, state)| **state == PushState::Sent)
            .map(|(file, _)| file)
            .collect();
        let mut large = Vec::new();
        for files in changed.chunks(PREUPLOAD) {
            let mut described = Vec::new();
            for file in files {
                described.push(json!({
                    "path": file.name,
                    "size": file.hash.bytes,
                    "sha": file.hash.sha256,
                    "sample": STANDARD.encode(file.first(SAMPLE as u64)?),
                }));
            }
            let path = self.path(&format!("/preupload/{branch}"));
            let answer = self.api.post(&path, &json!({"files": described})).await?;
            let answer = self.api.json(&answer)?;
            let modes = answer["files"].as_array().into_iter().flatten();
            let lfs: BTreeSet<&str> = modes
                .filter(|mode| mode["uploadMode"] == "lfs")
                .filter_map(|mode| mode["path"].as_str())
                .collect();
            // The storage takes no empty files.
            large.extend(
                files
                    .iter()
                    .filter(|f| f.hash.bytes > 0 && lfs.contains(f.name.as_str())),
            );
        }
        Ok(large)
    }

    async fn create_branch(&self) -> Result<(), StorageError> {
        let path = self.path(&format!("/branch/{}", self.revision()));
        let answer = self.api.post(&path, &json!({})).await?;
        if !answer.is_success() && answer.status != 409 {
            return Err(self.api.refusal(&answer, &self.api.uri));
        }
        Ok(())
    }

    /// Makes the commit; gives its hash, where the hub says it.
    async fn commit(
        &self,
        branch: &Branch,
        states: &[PushState],
        large: &BTreeSet<String>,
        removed: &[String],
    ) -> Result<Option<String>, StorageError> {
        let mut header = json!({"summary": self.push.message, "description": ""});
        if let Some(parent) = &branch.commit {
            // Refused if the branch is another by now.
            header["parentCommit"] = json!(parent);
        }
        let mut lines = vec![json!({"key": "header", "value": header})];
        for (file, state) in self.files.iter().zip(states) {
            match (state, large.contains(&file.name)) {
                (PushState::Unchanged, _) => {}
                (_, true) => lines.push(json!({"key": "lfsFile", "value": {
                    "path": file.name, "algo": "sha256", "oid": file.hash.sha256, "size": file.hash.bytes,
                }})),
                (_, false) => lines.push(json!({"key": "file", "value": {
                    "path": file.name, "encoding": "base64",
                    "content": STANDARD.encode(file.first(file.hash.bytes)?),
                }})),
            }
        }
        lines.extend(
            removed
                .iter()
                .map(|name| json!({"key": "deletedFile", "value": {"path": name}})),
        );
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let url = self.api.url(&self.path(&format!("/commit/{}", self.revision())));
        let answer = self
            .api
            .post_bytes(url, "application/x-ndjson", body.into_bytes())
            .await?;
        // An answer that was lost, and then a second try: the first one made the commit.
        if answer.status == 412
            && let Some(commit) = self.is_done().await?
        {
            return Ok(Some(commit));
        }
        Ok(self.api.json(&answer)?["commitOid"].as_str().map(str::to_owned))
    }

    /// The branch's commit, if it has all files.
    async fn is_done(&self) -> Result<Option<String>, StorageError> {
        let branch = self.branch().await?;
        for file in &self.files {
            match self.entry(&branch, file) {
                Some(entry) if file.is(entry)? => {}
                _ => return Ok(None),
            }
        }
        Ok(branch.commit)
    }
}
