//! Large files: the batch request of Git LFS, and the two ways in which the hub takes bytes.
//!
//! The batch API is Git LFS's (<https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>). `basic` is
//! one `PUT`; `multipart`, the hub's own, gives the address of every part in the action's header, next to
//! `chunk_size`, and takes the parts' ETags at the end, as the client of Hugging Face does it
//! (<https://github.com/huggingface/huggingface_hub>, `lfs.py`). Parts of a file that did not arrive whole
//! are sent again: the hub keeps whole files only.

use super::{PushContent, api::Api, local::Local, piece::Piece};
use crate::{StorageError, Transfer};
use reqwest::{Body, Method, Url};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const MEDIA: &str = "application/vnd.git-lfs+json";
/// Files in one batch request.
const BATCH: usize = 100;
/// How often progress is reported.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// Sends those of `files` that the storage lacks; gives the hashes of those.
pub(super) async fn upload(
    api: &Api,
    repository: &str,
    branch: &str,
    files: &[&Local],
    progress: &mut dyn FnMut(&Transfer),
) -> Result<BTreeSet<String>, StorageError> {
    let mut wanted: Vec<(&Local, Value)> = Vec::new();
    for batch in files.chunks(BATCH) {
        let objects = batch
            .iter()
            .map(|f| json!({"oid": f.hash.sha256, "size": f.hash.bytes}));
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "hash_algo": "sha256",
            "ref": {"name": branch},
            "objects": objects.collect::<Vec<_>>(),
        });
        let url = api.url(&format!("{repository}.git/info/lfs/objects/batch"));
        let answer = api.post_bytes(url, MEDIA, body.to_string().into_bytes()).await?;
        let answer = api.json(&answer)?;
        for object in answer["objects"].as_array().into_iter().flatten() {
            let file = batch.iter().find(|f| object["oid"] == f.hash.sha256.as_str());
            let Some(file) = file else { continue };
            if let Some(error) = object["error"]["message"].as_str() {
                let about = about(api, file);
                return Err(api.network(&about, format!("the server says `{error}`")));
            }
            if object["actions"]["upload"].is_object() && !wanted.iter().any(|(f, _)| f.hash.sha256 == file.hash.sha256)
            {
                wanted.push((file, object["actions"].clone()));
            }
        }
    }
    let total = wanted.iter().map(|(file, _)| file.hash.bytes).sum();
    let mut before = 0;
    let mut sent = BTreeSet::new();
    for (file, actions) in wanted {
        let count = Arc::new(AtomicU64::new(0));
        let mut tell = |bytes: u64| {
            progress(&Transfer {
                file: file.name.clone(),
                done: before + bytes.min(file.hash.bytes),
                total: Some(total),
            });
        };
        tell(0);
        let sending = send(api, file, &actions, &count);
        let mut sending = std::pin::pin!(sending);
        loop {
            match tokio::time::timeout(TOLD_EVERY, &mut sending).await {
                Ok(done) => break done?,
                Err(_) => tell(count.load(Ordering::Relaxed)),
            }
        }
        tell(file.hash.bytes);
        before += file.hash.bytes;
        sent.insert(file.hash.sha256.clone());
    }
    Ok(sent)
}

fn about(api: &Api, file: &Local) -> String {
    format!("{} to {}", file.name, api.uri)
}

/// Sends one file as its actions say.
async fn send(api: &Api, file: &Local, actions: &Value, count: &Arc<AtomicU64>) -> Result<(), StorageError> {
    let about = about(api, file);
    let malformed = || {
        api.network(
            &about,
            "its answer says no usable address; is HF_ENDPOINT a model hub?".into(),
        )
    };
    let address = |action: &Value| action["href"].as_str().and_then(|url| Url::parse(url).ok());
    let upload = &actions["upload"];
    let url = address(upload).ok_or_else(malformed)?;
    let none = Map::new();
    let header = upload["header"].as_object().unwrap_or(&none);
    let chunk = match &header.get("chunk_size") {
        Some(Value::String(text)) => Some(text.parse().ok()),
        Some(number) => Some(number.as_u64()),
        None => None,
    };
    match chunk {
        None => {
            put(api, file, &about, url, header, 0..file.hash.bytes, count).await?;
        }
        Some(chunk) => {
            let chunk: u64 = chunk.filter(|bytes| *bytes > 0).ok_or_else(malformed)?;
            let mut etags = Vec::new();
            for part in 0..file.hash.bytes.div_ceil(chunk) {
                // Parts are counted from one, and some servers write 00001.
                let href = header.iter().find(|(key, _)| key.parse() == Ok(part + 1));
                let url = href.and_then(|(_, url)| Url::parse(url.as_str()?).ok());
                let range = part * chunk..((part + 1) * chunk).min(file.hash.bytes);
                let etag = put(api, file, &about, url.ok_or_else(malformed)?, &none, range, count).await?;
                etags.push(json!({"partNumber": part + 1, "etag": etag.ok_or_else(malformed)?}));
            }
            let body = json!({"oid": file.hash.sha256, "parts": etags}).to_string();
            let answer = api.post_bytes(url, MEDIA, body.into_bytes()).await?;
            if !answer.is_success() {
                return Err(api.refusal(&answer, &about));
            }
        }
    }
    if actions["verify"].is_object() {
        let url = address(&actions["verify"]).ok_or_else(malformed)?;
        let body = json!({"oid": file.hash.sha256, "size": file.hash.bytes}).to_string();
        let answer = api.post_bytes(url, MEDIA, body.into_bytes()).await?;
        if !answer.is_success() {
            return Err(api.refusal(&answer, &about));
        }
    }
    Ok(())
}

/// Puts a range of a file's bytes to an address; gives the ETag of the answer.
async fn put(
    api: &Api,
    file: &Local,
    about: &str,
    url: Url,
    header: &Map<String, Value>,
    range: std::ops::Range<u64>,
    count: &Arc<AtomicU64>,
) -> Result<Option<String>, StorageError> {
    let length = range.end - range.start;
    let start = count.load(Ordering::Relaxed);
    let request = || {
        count.store(start, Ordering::Relaxed);
        let mut request = api
            .request(Method::PUT, url.clone())
            .timeout(api.patience(length))
            .header("Content-Length", length);
        for (key, value) in header {
            if let Some(value) = value.as_str() {
                request = request.header(key, value);
            }
        }
        Ok(match &file.content {
            PushContent::Memory(bytes) => {
                let bytes = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
                count.fetch_add(length, Ordering::Relaxed);
                request.body(bytes.to_vec())
            }
            PushContent::Disk(path) => {
                let piece = Piece::open(path, range.start, length, Arc::clone(count));
                request.body(Body::wrap_stream(piece.map_err(|e| file.unreadable(&e))?))
            }
        })
    };
    let answer = api.send(about, request).await?;
    if !answer.is_success() {
        return Err(api.refusal(&answer, about));
    }
    let etag = answer.headers.get("etag").and_then(|v| v.to_str().ok());
    Ok(etag.map(str::to_owned))
}
