//! A stand-in for a model hub that takes pushes: the API that `wmtp push` and the clients of Hugging Face use,
//! with repositories in memory. Large files go to a second address, as they do at the hub.
//!
//! It checks what it is sent: a file's SHA-256 against the name it was announced by, parts against their
//! number, a commit against its parent. What does not fit is answered with status 400 or 422.
#![allow(dead_code, clippy::unwrap_used)] // Each test uses its own part; helpers fail by panicking.

mod http;
mod repository;

pub use http::Request;
pub use repository::{Blob, Repository};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard},
};

/// How the server behaves.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Only this token may write, or read what is private.
    pub token: Option<&'static str>,
    /// Files larger than this are large: the hub's limit is 10 MiB, and ends of names count as well.
    pub large: usize,
    /// Large files that are longer than this arrive in parts of this length.
    pub chunk: Option<usize>,
    /// What goes wrong, and how often.
    pub faults: Vec<Fault>,
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Part of `METHOD /path` of the requests that it meets.
    pub on: &'static str,
    /// The number of requests that are left alone first.
    pub after: usize,
    /// The number of requests that it meets.
    pub times: usize,
    /// What happens.
    pub what: What,
}

/// See [`Fault`].
#[derive(Clone, Debug)]
pub enum What {
    /// This status, and these words as `error`.
    Status(u16, &'static str),
    /// The connection ends in the middle of the request's body.
    Cut,
    /// The request is carried out, and the connection ends without an answer.
    Lost,
}

/// The server, listening until the test's process ends.
pub struct Hub {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    port: u16,
    storage_port: u16,
    state: Mutex<State>,
}

/// What the server holds.
#[derive(Default)]
pub struct State {
    /// By `OWNER/NAME`.
    pub repositories: BTreeMap<String, Repository>,
    /// Bytes of large files, by SHA-256.
    pub large: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<String, BTreeMap<usize, Vec<u8>>>,
    verified: BTreeSet<String>,
    /// All requests so far.
    pub requests: Vec<Request>,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        let headers = vec![("Content-Type".into(), "application/json".into())];
        Self {
            status,
            headers,
            body: body.to_string().into_bytes(),
        }
    }

    fn error(status: u16, words: &str) -> Self {
        Self::json(status, &json!({"error": words}))
    }
}

impl Hub {
    pub fn start(behaviour: Behaviour) -> Self {
        let [(listener, port), (storage, storage_port)] = [(); 2].map(|()| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            (listener, port)
        });
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            port,
            storage_port,
            state: Mutex::default(),
        });
        for listener in [listener, storage] {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || http::serve(stream, |head| shared.cut(head), |r| shared.answer(r)));
                }
            });
        }
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Adds what goes wrong from now on.
    pub fn fault(&self, on: &'static str, after: usize, times: usize, what: What) {
        self.shared
            .behaviour
            .lock()
            .unwrap()
            .faults
            .push(Fault { on, after, times, what });
    }

    /// `METHOD /path` of all requests so far; forgets them.
    pub fn taken(&self) -> Vec<String> {
        self.state().requests.drain(..).map(|request| request.line).collect()
    }

    /// Names and bytes of the files at the head of a branch.
    pub fn files(&self, repository: &str, branch: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let files = &state.repositories[repository].head(branch).unwrap().files;
        files
            .iter()
            .map(|(name, blob)| (name.clone(), blob.bytes.clone()))
            .collect()
    }

    /// The commits of a branch, the first one first: their messages.
    pub fn messages(&self, repository: &str, branch: &str) -> Vec<String> {
        let state = self.state();
        let commits = state.repositories[repository].branches.get(branch);
        commits
            .into_iter()
            .flatten()
            .map(|commit| commit.message.clone())
            .collect()
    }
}

impl Shared {
    /// The fault that meets a request, which is thereby used up.
    fn meets(&self, line: &str, wanted: impl Fn(&What) -> bool) -> Option<What> {
        let mut behaviour = self.behaviour.lock().unwrap();
        for fault in &mut behaviour.faults {
            if line.contains(fault.on) && fault.times > 0 && wanted(&fault.what) {
                if fault.after > 0 {
                    fault.after -= 1;
                    continue;
                }
                fault.times -= 1;
                return Some(fault.what.clone());
            }
        }
        None
    }

    fn cut(&self, line: &str) -> bool {
        self.meets(line, |what| matches!(what, What::Cut)).is_some()
    }

    /// None: the connection ends without an answer.
    fn answer(&self, request: Request) -> Option<Answer> {
        let line = request.line.clone();
        self.state.lock().unwrap().requests.push(request.clone());
        match self.meets(&line, |what| !matches!(what, What::Cut)) {
            Some(What::Status(status, words)) => {
                let mut answer = Answer::error(status, words);
                if status == 429 {
                    answer.headers.push(("Retry-After".into(), "0".into()));
                }
                Some(answer)
            }
            Some(_) => {
                self.route(&request);
                None
            }
            None => Some(self.route(&request)),
        }
    }

    fn route(&self, request: &Request) -> Answer {
        let path = request.path();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let body = || serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
        let method = request.method();
        let writes = method == "POST" || method == "PUT";
        let token = self.behaviour.lock().unwrap().token;
        let is_known = token.is_none_or(|token| request.authorization.as_deref() == Some(&format!("Bearer {token}")));
        let to_storage = parts[0] == "storage";
        if writes && !is_known && !to_storage {
            return Answer::error(401, "Invalid username or password.");
        }
        match (method, parts.as_slice()) {
            ("POST", ["api", "repos", "create"]) => self.create(&body()),
            ("PUT", ["storage", oid, part]) => self.store(oid, part, &request.body),
            ("POST", ["storage", oid, "complete"]) => self.complete(oid, &body()),
            ("POST", [_, name, "info", "lfs", "objects", "batch"]) if name.ends_with(".git") => self.batch(&body()),
            ("POST", ["verify"]) => self.verify(&body()),
            ("POST", ["api", "models", owner, name, rest @ ..]) => {
                let mut state = self.state.lock().unwrap();
                let State {
                    repositories, large, ..
                } = &mut *state;
                let Some(repository) = repositories.get_mut(&format!("{owner}/{name}")) else {
                    return Answer::error(404, "Repository not found");
                };
                match rest {
                    ["preupload", branch] => self.preupload(repository, branch, &body()),
                    ["branch", branch] => match repository.branch_from_main(branch) {
                        true => Answer::json(200, &json!({})),
                        false => Answer::error(409, "Reference already exists"),
                    },
                    ["commit", branch] => commit(repository, branch, &request.body, large),
                    _ => Answer::error(404, "no such page"),
                }
            }
            ("GET" | "HEAD", ["api", "models", owner, name, rest @ ..]) => {
                let state = self.state.lock().unwrap();
                match state.repositories.get(&format!("{owner}/{name}")) {
                    Some(repository) if is_known || !repository.private => match repository.describe(rest) {
                        Some(document) => Answer::json(200, &document),
                        None => Answer::error(404, "Invalid rev id"),
                    },
                    _ if !is_known => Answer::error(401, "Invalid username or password."),
                    _ => Answer::error(404, "Repository not found"),
                }
            }
            ("GET" | "HEAD", [owner, name, "resolve", revision, file]) => {
                let state = self.state.lock().unwrap();
                let repository = state.repositories.get(&format!("{owner}/{name}"));
                let repository = repository.filter(|repository| is_known || !repository.private);
                match repository.and_then(|repository| repository.resolve(revision, file)) {
                    Some(answer) => answer,
                    None => Answer::error(404, "Entry not found"),
                }
            }
            _ => Answer::error(404, "no such page"),
        }
    }

    fn create(&self, body: &Value) -> Answer {
        let (Some(owner), Some(name), Some(private)) = (
            body["organization"].as_str(),
            body["name"].as_str(),
            body["private"].as_bool(),
        ) else {
            return Answer::error(400, "organization, name and private are needed");
        };
        let id = format!("{owner}/{name}");
        let mut state = self.state.lock().unwrap();
        if state.repositories.contains_key(&id) {
            return Answer::error(409, "You already created this model repo");
        }
        state.repositories.insert(id.clone(), Repository::new(&id, private));
        Answer::json(
            200,
            &json!({"url": format!("http://127.0.0.1:{}/{id}", self.port), "id": "0"}),
        )
    }

    fn preupload(&self, repository: &Repository, branch: &str, body: &Value) -> Answer {
        if repository.head(branch).is_none() {
            return Answer::error(404, "Invalid rev id");
        }
        let limit = self.behaviour.lock().unwrap().large;
        let files = body["files"].as_array().unwrap().iter().map(|file| {
            let (path, size) = (file["path"].as_str().unwrap(), file["size"].as_u64().unwrap());
            let sample = STANDARD.decode(file["sample"].as_str().unwrap()).unwrap();
            assert_eq!(
                sample.len() as u64,
                size.min(512),
                "{path}: the sample is the file's beginning"
            );
            let large = path.ends_with(".safetensors") || path.ends_with(".bin") || size > limit as u64;
            json!({"path": path, "uploadMode": if large { "lfs" } else { "regular" }, "shouldIgnore": false})
        });
        Answer::json(200, &json!({"files": files.collect::<Vec<_>>()}))
    }

    fn batch(&self, body: &Value) -> Answer {
        let transfers = body["transfers"].as_array().cloned().unwrap_or_default();
        if body["operation"] != "upload" || body["hash_algo"] != "sha256" || !transfers.contains(&json!("basic")) {
            return Answer::error(422, "not a batch request");
        }
        let chunk = self.behaviour.lock().unwrap().chunk;
        let state = self.state.lock().unwrap();
        let storage = |oid: &str, part: &str| format!("http://127.0.0.1:{}/storage/{oid}/{part}", self.storage_port);
        let objects = body["objects"].as_array().unwrap().iter().map(|object| {
            let (oid, size) = (
                object["oid"].as_str().unwrap(),
                object["size"].as_u64().unwrap() as usize,
            );
            if state.large.contains_key(oid) {
                return json!({"oid": oid, "size": size});
            }
            let upload = match chunk {
                Some(chunk) if size > chunk => {
                    let mut header = json!({"chunk_size": chunk.to_string()});
                    for part in 1..=size.div_ceil(chunk) {
                        header[format!("{part:05}")] = json!(storage(oid, &part.to_string()));
                    }
                    json!({"href": storage(oid, "complete"), "header": header})
                }
                _ => json!({"href": storage(oid, "whole"), "header": {"X-Signed": "yes"}}),
            };
            let verify = json!({"href": format!("http://127.0.0.1:{}/verify", self.port)});
            json!({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
        });
        Answer::json(
            200,
            &json!({"transfer": "multipart", "objects": objects.collect::<Vec<_>>()}),
        )
    }

    fn store(&self, oid: &str, part: &str, body: &[u8]) -> Answer {
        let mut state = self.state.lock().unwrap();
        let hash = hex::encode(Sha256::digest(body));
        match part.parse() {
            Ok(part) => {
                state
                    .parts
                    .entry(oid.to_owned())
                    .or_default()
                    .insert(part, body.to_vec());
            }
            Err(_) if hash != oid => return Answer::error(422, "other bytes than announced"),
            Err(_) => {
                state.large.insert(oid.to_owned(), body.to_vec());
            }
        }
        Answer {
            status: 200,
            headers: vec![("ETag".into(), format!("\"{hash}\""))],
            body: Vec::new(),
        }
    }

    fn complete(&self, oid: &str, body: &Value) -> Answer {
        let mut state = self.state.lock().unwrap();
        let parts = state.parts.remove(oid).unwrap_or_default();
        let announced = body["parts"].as_array().unwrap();
        let mut whole = Vec::new();
        for (at, (number, bytes)) in parts.iter().enumerate() {
            let etag = format!("\"{}\"", hex::encode(Sha256::digest(bytes)));
            if announced[at] != json!({"partNumber": number, "etag": etag}) {
                return Answer::error(422, "parts do not fit");
            }
            whole.extend_from_slice(bytes);
        }
        if body["oid"] != oid || announced.len() != parts.len() || hex::encode(Sha256::digest(&whole)) != oid {
            return Answer::error(422, "other bytes than announced");
        }
        state.large.insert(oid.to_owned(), whole);
        Answer::json(200, &json!({}))
    }

    fn verify(&self, body: &Value) -> Answer {
        let mut state = self.state.lock().unwrap();
        let oid = body["oid"].as_str().unwrap_or_default().to_owned();
        match state.large.get(&oid) {
            Some(bytes) if body["size"] == bytes.len() => {
                state.verified.insert(oid);
                Answer::json(200, &json!({}))
            }
            _ => Answer::error(404, "not there"),
        }
    }
}

/// `POST .../commit/BRANCH`: every line is checked before anything changes.
fn commit(repository: &mut Repository, branch: &str, body: &[u8], large: &BTreeMap<String, Vec<u8>>) -> Answer {
    let Some(head) = repository.head(branch) else {
        return Answer::error(404, "Invalid rev id");
    };
    let mut files = head.files.clone();
    let parent = head.oid.clone();
    let mut message = None;
    for line in String::from_utf8(body.to_vec()).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let value = &line["value"];
        let path = value["path"].as_str().unwrap_or_default().to_owned();
        match line["key"].as_str().unwrap() {
            "header" => {
                if value["parentCommit"].as_str().is_some_and(|given| given != parent) {
                    return Answer::error(412, "A commit has happened since. Please refresh and try again.");
                }
                message = value["summary"].as_str().map(str::to_owned);
            }
            "file" if value["encoding"] == "base64" => {
                let bytes = STANDARD.decode(value["content"].as_str().unwrap()).unwrap();
                files.insert(path, Blob { bytes, large: false });
            }
            "lfsFile" if value["algo"] == "sha256" => match large.get(value["oid"].as_str().unwrap()) {
                Some(bytes) => drop(files.insert(
                    path,
                    Blob {
                        bytes: bytes.clone(),
                        large: true,
                    },
                )),
                None => return Answer::error(400, "LFS pointer pointed to a file that does not exist"),
            },
            "deletedFile" => {
                if files.remove(&path).is_none() {
                    return Answer::error(400, "no such file");
                }
            }
            other => return Answer::error(400, other),
        }
    }
    let Some(message) = message.filter(|text| !text.is_empty()) else {
        return Answer::error(400, "a commit needs a summary");
    };
    let oid = repository.commit(branch, message, files);
    Answer::json(
        200,
        &json!({"success": true, "commitOid": oid, "commitUrl": format!("x/commit/{oid}")}),
    )
}
