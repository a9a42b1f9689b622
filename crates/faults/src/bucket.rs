//! What is behind the HTTP server: an S3 bucket in memory, and an MLflow server that agrees with everything.

use crate::http::{Answer, Request, Service};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// An object, with the metadata that it was sent with.
#[derive(Clone, Debug, Default)]
struct Object {
    bytes: Vec<u8>,
    metadata: Vec<(String, String)>,
    /// Counts the writes, for its ETag.
    version: usize,
}

/// Objects by their keys. The name of the bucket is the first part of a path, whatever it is.
#[derive(Debug, Default)]
pub struct Bucket {
    objects: Mutex<(BTreeMap<String, Object>, usize)>,
    /// Its listings never end.
    endless: bool,
}

impl Bucket {
    /// An empty one, whose listings may have no end.
    pub fn new(endless: bool) -> Self {
        Self {
            endless,
            ..Self::default()
        }
    }

    fn objects(&self) -> MutexGuard<'_, (BTreeMap<String, Object>, usize)> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an object is there whose key ends like this.
    pub fn has(&self, end: &str) -> bool {
        self.objects().0.keys().any(|key| key.ends_with(end))
    }

    fn put(&self, key: String, bytes: Vec<u8>, metadata: Vec<(String, String)>) {
        let (objects, version) = &mut *self.objects();
        *version += 1;
        let object = Object {
            bytes,
            metadata,
            version: *version,
        };
        objects.insert(key, object);
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Answer {
        let part = |name: &str| query.get(name).cloned().unwrap_or_default();
        let (prefix, delimiter) = (part("prefix"), part("delimiter"));
        let mut text = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
        let mut folders = Vec::new();
        for (key, object) in self.objects().0.range(prefix.clone()..) {
            let Some(rest) = key.strip_prefix(&prefix) else { break };
            match rest.split_once(&delimiter).filter(|_| !delimiter.is_empty()) {
                Some((folder, _)) => folders.push(format!("{prefix}{folder}{delimiter}")),
                None => {
                    let size = object.bytes.len();
                    let _ = write!(
                        text,
                        "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                         <ETag>&quot;v{}&quot;</ETag><Size>{size}</Size></Contents>",
                        object.version
                    );
                }
            }
        }
        folders.dedup();
        for folder in folders {
            let _ = write!(text, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
        }
        let more = if self.endless {
            "<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>"
        } else {
            "<IsTruncated>false</IsTruncated>"
        };
        text.push_str(more);
        text.push_str("</ListBucketResult>");
        Answer::new(200, text)
    }

    fn get(&self, key: &str, request: &Request) -> Answer {
        let Some(object) = self.objects().0.get(key).cloned() else {
            return Answer::new(404, "<Error><Code>NoSuchKey</Code></Error>");
        };
        let etag = format!("\"v{}\"", object.version);
        if request.header("if-match").is_some_and(|wanted| wanted != etag) {
            return Answer::new(412, "<Error><Code>PreconditionFailed</Code></Error>");
        }
        let length = object.bytes.len();
        let range = request.header("range").and_then(|text| range_of(text, length));
        let mut answer = match range {
            Some((from, to)) => Answer::new(206, object.bytes[from..to].to_vec()),
            None => Answer::new(200, object.bytes),
        };
        answer.headers = object.metadata;
        if let Some((from, to)) = range {
            let value = format!("bytes {from}-{}/{length}", to.saturating_sub(1));
            answer.headers.push(("Content-Range".into(), value));
        }
        answer.headers.push(("ETag".into(), etag));
        answer
            .headers
            .push(("Last-Modified".into(), "Thu, 01 Jan 2026 00:00:00 GMT".into()));
        answer
    }
}

/// `bytes=5-9` of an object of this length, as a range without its end.
fn range_of(text: &str, length: usize) -> Option<(usize, usize)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = to
        .parse()
        .map_or(length, |last: usize| last.saturating_add(1).min(length));
    (from < to).then_some((from, to))
}

impl Service for Bucket {
    fn answer(&self, request: &Request) -> Answer {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let path = decoded(path);
        let key = path
            .trim_start_matches('/')
            .split_once('/')
            .map_or("", |(_, key)| key)
            .to_owned();
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), decoded(value)))
            .collect();
        match request.method.as_str() {
            "GET" if query.contains_key("list-type") => self.list(&query),
            "GET" | "HEAD" => self.get(&key, request),
            "DELETE" => {
                self.objects().0.remove(&key);
                Answer::new(204, "")
            }
            "PUT" => match request.header("x-amz-copy-source") {
                Some(from) => {
                    let from = decoded(from);
                    let from = from.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
                    let Some(object) = self.objects().0.get(from).cloned() else {
                        return Answer::new(404, "<Error><Code>NoSuchKey</Code></Error>");
                    };
                    self.put(key, object.bytes, object.metadata);
                    Answer::new(200, "<CopyObjectResult><ETag>&quot;v0&quot;</ETag></CopyObjectResult>")
                }
                None => {
                    let kept = |(name, _): &&(String, String)| name.starts_with("x-amz-meta-");
                    let metadata = request.headers.iter().filter(kept).cloned().collect();
                    self.put(key, request.body.clone(), metadata);
                    Answer::new(200, "")
                }
            },
            _ => Answer::new(501, "<Error><Code>NotImplemented</Code></Error>"),
        }
    }
}

/// Percent-encoded text.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match code
            .and_then(|two| u8::from_str_radix(two, 16).ok())
            .filter(|_| *first == b'%')
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An MLflow server that has one experiment and one run, and keeps files.
#[derive(Debug, Default)]
pub struct Agreeing {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// Every field that any of its answers has.
const AGREES: &str = r#"{
    "experiment_id": "1",
    "experiment": {"experiment_id": "1", "name": "e", "lifecycle_stage": "active", "artifact_location": "mlflow-artifacts:/1"},
    "run": {
        "info": {"run_id": "r1", "run_uuid": "r1", "experiment_id": "1", "status": "RUNNING", "lifecycle_stage": "active",
                 "artifact_uri": "mlflow-artifacts:/1/r1/artifacts"},
        "data": {"metrics": [], "params": [], "tags": []}
    },
    "runs": [], "metrics": [], "models": [],
    "model": {"info": {"model_id": "m1", "experiment_id": "1", "name": "last", "tags": []}}
}"#;

impl Service for Agreeing {
    fn answer(&self, request: &Request) -> Answer {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let is_file = request.target.contains("mlflow-artifacts");
        match request.method.as_str() {
            "PUT" if is_file => {
                files.insert(request.target.clone(), request.body.clone());
                Answer::new(200, "{}")
            }
            "GET" if is_file => match files.get(&request.target) {
                Some(bytes) => Answer::new(200, bytes.clone()),
                None => Answer::new(404, "{}"),
            },
            _ => {
                let mut answer = Answer::new(200, AGREES);
                answer.headers.push(("Content-Type".into(), "application/json".into()));
                answer
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(bucket: &Bucket, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        bucket.answer(&Request {
            method: method.into(),
            target: target.into(),
            headers: headers.iter().map(own).collect(),
            body: body.into(),
        })
    }

    #[test]
    fn objects_are_kept_with_their_metadata_and_listed_by_folders() {
        let bucket = Bucket::default();
        let hash = [("x-amz-meta-sha256", "abc")];
        assert_eq!(ask(&bucket, "PUT", "/b/runs/a/run.json", &hash, "hello").status, 200);
        assert_eq!(ask(&bucket, "PUT", "/b/runs/a/c%2Fx.bin", &[], "x").status, 200);
        let copied = ask(
            &bucket,
            "PUT",
            "/b/runs/z",
            &[("x-amz-copy-source", "/b/runs/a/run.json")],
            "",
        );
        assert_eq!(copied.status, 200);
        let found = ask(&bucket, "GET", "/b/runs/z", &[("range", "bytes=1-3")], "");
        assert_eq!((found.status, found.body.as_slice()), (206, b"ell".as_slice()));
        assert!(found.headers.contains(&("x-amz-meta-sha256".into(), "abc".into())));
        assert_eq!(
            ask(&bucket, "GET", "/b/runs/z", &[("if-match", "\"v1\"")], "").status,
            412
        );
        let listed = ask(
            &bucket,
            "GET",
            "/b?list-type=2&prefix=runs%2Fa%2F&delimiter=%2F",
            &[],
            "",
        );
        let listed = String::from_utf8(listed.body).expect("text");
        assert!(
            listed.contains("<Key>runs/a/run.json</Key>") && listed.contains("<Size>5</Size>"),
            "{listed}"
        );
        assert!(
            listed.contains("<CommonPrefixes><Prefix>runs/a/c/</Prefix>"),
            "{listed}"
        );
        assert!(
            !listed.contains("runs/z") && listed.contains("<IsTruncated>false"),
            "{listed}"
        );
        assert_eq!(ask(&bucket, "DELETE", "/b/runs/z", &[], "").status, 204);
        assert_eq!(ask(&bucket, "HEAD", "/b/runs/z", &[], "").status, 404);
        assert!(bucket.has("c/x.bin") && !bucket.has("z"));
    }

    #[test]
    fn the_tracking_server_agrees_with_everything_and_keeps_files() {
        let server = Agreeing::default();
        let ask = |method: &str, target: &str, body: &str| {
            server.answer(&Request {
                method: method.into(),
                target: target.into(),
                headers: Vec::new(),
                body: body.into(),
            })
        };
        let answer = ask("POST", "/api/2.0/mlflow/runs/create", "{}");
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer["run"]["info"]["run_id"], "r1");
        let file = "/api/2.0/mlflow-artifacts/artifacts/1/r1/artifacts/run.json";
        assert_eq!(ask("GET", file, "").status, 404);
        ask("PUT", file, "text");
        assert_eq!(ask("GET", file, "").body, b"text");
    }
}
