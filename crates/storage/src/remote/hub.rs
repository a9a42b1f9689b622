//! Models and data sets of a Hugging Face hub, or a server that answers like one.
//!
//! `GET /api/{models|datasets}/{owner}/{name}/revision/{revision}` gives the commit and the names of
//! its files, `/tree/{commit}/{folder}` their sizes and hashes (a server may lack it),
//! `/[datasets/]{owner}/{name}/resolve/{commit}/{file}` the bytes.

use super::{
    Endpoint,
    client::{Advice, Remote},
    is_commit,
};
use crate::{
    HubName, Kind, StorageConfig, StorageError,
    listing::{Listing, ModelFiles, Object, check_model, is_data_file},
};
use opendal::services::Http;
use serde_json::Value;
use std::collections::BTreeSet;

/// Bytes of an answer that names files: some hundred for each.
const MOST_ANSWER: usize = 128 << 20;

/// A connection for one repository.
pub(crate) struct Hub<'a> {
    name: &'a HubName,
    kind: Kind,
    remote: Remote,
}

impl<'a> Hub<'a> {
    pub fn connect(
        name: &'a HubName,
        kind: Kind,
        endpoint: &Endpoint,
        config: &StorageConfig,
    ) -> Result<Self, StorageError> {
        let failed = |problem: &str| StorageError::Network {
            doing: "fetching",
            endpoint: endpoint.shown(),
            uri: name.to_string(),
            problem: problem.to_owned(),
        };
        if !endpoint.url.starts_with("http://") && !endpoint.url.starts_with("https://") {
            return Err(failed("HF_ENDPOINT must start with http:// or https://"));
        }
        let mut service = Http::default().endpoint(&endpoint.url);
        if let Some(token) = &endpoint.token {
            if !token.chars().all(|c| c.is_ascii_graphic()) {
                return Err(failed("HF_TOKEN holds characters that no token has: set it again"));
            }
            service = service.token(token);
        }
        let advice = Advice {
            denied: match endpoint.token {
                Some(_) => {
                    "it may be private or gated, and the token in HF_TOKEN does not open it: check the name, and the token's rights"
                }
                None => {
                    "it may be private or gated, or not exist: check the name, and set HF_TOKEN to a token that may read it"
                }
            },
            not_found: "check owner, name and revision; what is private needs HF_TOKEN",
            is_store: false,
        };
        let remote = Remote::connect(service, endpoint.shown(), name.to_string(), advice, config)?;
        Ok(Self { name, kind, remote })
    }

    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The name that means this commit for good.
    pub fn pinned(&self, commit: &str) -> HubName {
        HubName {
            revision: commit.to_owned(),
            ..self.name.clone()
        }
    }

    /// What is wanted of the files of a commit.
    pub fn listing(&self, commit: &str, files: Vec<String>) -> Result<Listing, StorageError> {
        let objects = self.objects(commit, files)?;
        Ok(Listing {
            uri: self.name.to_string(),
            forever: None,
            name: self.name.name.clone(),
            is_file: false,
            objects,
        })
    }

    fn section(&self) -> &'static str {
        match self.kind {
            Kind::Model => "models",
            Kind::Data => "datasets",
        }
    }

    /// The commit behind the revision, and the names of its files.
    pub fn revision(&self) -> Result<(String, Vec<String>), StorageError> {
        let HubName { owner, name, revision } = self.name;
        let answer = self.json(&format!("api/{}/{owner}/{name}/revision/{revision}", self.section()))?;
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

    /// What is needed of the files, with sizes and hashes where the server has them.
    fn objects(&self, commit: &str, names: Vec<String>) -> Result<Vec<Object>, StorageError> {
        let HubName { owner, name, .. } = self.name;
        let of_model = ModelFiles::of(names.iter().map(String::as_str));
        let wanted: Vec<String> = match self.kind {
            Kind::Model => names.into_iter().filter(|n| of_model.has(n)).collect(),
            Kind::Data => names.into_iter().filter(|n| is_data_file(n)).collect(),
        };
        let folder = |file: &str| file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let folders: BTreeSet<String> = wanted.iter().map(|file| folder(file)).collect();
        let mut described: Vec<Value> = Vec::new();
        for folder in folders {
            let path = format!("api/{}/{owner}/{name}/tree/{commit}/{folder}", self.section());
            match self.json(path.trim_end_matches('/')) {
                Ok(Value::Array(entries)) => described.extend(entries),
                Ok(_) | Err(StorageError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let prefix = if self.kind == Kind::Data { "datasets/" } else { "" };
        let objects: Vec<Object> = wanted
            .into_iter()
            .map(|file| {
                let entry = described.iter().find(|e| e["path"] == file.as_str());
                Object {
                    path: format!("{prefix}{owner}/{name}/resolve/{commit}/{file}"),
                    size: entry.and_then(|e| e["size"].as_u64()),
                    // Only large files have one.
                    sha256: entry.and_then(|e| e["lfs"]["oid"].as_str()).map(str::to_owned),
                    etag: None,
                    name: file,
                }
            })
            .collect();
        if self.kind == Kind::Model {
            check_model(&self.name.to_string(), &objects)?;
        }
        Ok(objects)
    }

    fn json(&self, path: &str) -> Result<Value, StorageError> {
        let about = self.name.to_string();
        let mut bytes = Vec::new();
        self.remote
            .read(path, &about, None, None, &mut |piece| {
                bytes.extend_from_slice(piece);
                match bytes.len() > MOST_ANSWER {
                    true => Err(self.failed("its answer does not end; is HF_ENDPOINT a model hub?")),
                    false => Ok(()),
                }
            })
            .map_err(|broken| self.remote.give_up(broken, &about))?;
        serde_json::from_slice(&bytes).map_err(|_| self.failed("its answer is not JSON; is HF_ENDPOINT a model hub?"))
    }

    fn failed(&self, problem: &str) -> StorageError {
        self.remote.network("fetching", &self.name.to_string(), problem)
    }
}
