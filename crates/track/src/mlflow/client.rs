//! Requests to an MLflow server, one after the other, from whatever thread holds the client.

use super::address::{Access, Address};
use crate::{SetupError, TrackError, text::shorten};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::Value;
use std::{net::IpAddr, path::Path, time::Duration};

/// Bytes of an answer: a page of a metric's history has two million, a file that is read back four times as many.
const MOST_BYTES: usize = 64 << 20;

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// No answer, or one that can't be understood: it may have been carried out.
    #[error("{place} gave no clear answer: {problem}")]
    Unclear { place: String, problem: String },
    /// The server says no.
    #[error("{place} answers {status}{}: {message}", if code.is_empty() { String::new() } else { format!(" {code}") })]
    Status {
        place: String,
        status: u16,
        /// `RESOURCE_DOES_NOT_EXIST` and the like.
        code: String,
        message: String,
    },
}

impl CallError {
    /// Whether what was asked about is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }

    /// Whether the server will never carry out this request.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Status {
                status: 400 | 413 | 422,
                ..
            }
        )
    }

    /// Whether the resource to be created exists already.
    pub fn is_there(&self) -> bool {
        matches!(self, Self::Status { code, .. } if code == "RESOURCE_ALREADY_EXISTS")
    }
}

/// A request that the server will never carry out is refused; after anything else it is made again:
/// a server may be restarted, a token renewed.
impl From<CallError> for TrackError {
    fn from(error: CallError) -> Self {
        match &error {
            refusal if refusal.is_refusal() => Self::Refused(error.to_string()),
            CallError::Status { status: 401 | 403, .. } => Self::Away(format!(
                "{error} (set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)"
            )),
            _ => Self::Away(error.to_string()),
        }
    }
}

/// A connection to one server.
#[derive(Debug)]
pub(super) struct Client {
    address: Address,
    base: Url,
    http: reqwest::Client,
    /// Only polled inside a call: there is no other thread.
    runtime: tokio::runtime::Runtime,
    timeout: Duration,
}

impl Client {
    pub fn new(address: Address, timeout: Duration) -> Result<Self, SetupError> {
        let failed = |problem: String| SetupError(format!("{} can't be used: {problem}", address.url()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| failed(e.to_string()))?;
        let http = reqwest::Client::builder()
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            // Servers close a connection after some seconds of silence, and a request on one that is
            // just being closed gets no answer.
            .pool_idle_timeout(Duration::from_secs(2))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("wmtp/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| failed(cause(&e)))?;
        let base = Url::parse(address.url()).map_err(|e| failed(e.to_string()))?;
        if base.cannot_be_a_base() {
            return Err(failed("it names no host".into()));
        }
        Ok(Self {
            address,
            base,
            http,
            runtime,
            timeout,
        })
    }

    /// The server's address, without credentials.
    pub fn place(&self) -> &str {
        self.address.url()
    }

    /// `POST /api/2.0/mlflow/{path}` with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.json(Method::POST, path, &[], Some(body))
    }

    /// `PATCH`, as [`Client::post`].
    pub fn patch(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.json(Method::PATCH, path, &[], Some(body))
    }

    /// `DELETE`, as [`Client::post`].
    pub fn delete(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.json(Method::DELETE, path, &[], Some(body))
    }

    /// `GET /api/2.0/mlflow/{path}?...`.
    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, CallError> {
        self.json(Method::GET, path, query, None)
    }

    fn json(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, CallError> {
        let mut url = self.url(
            &["api", "2.0", "mlflow"]
                .into_iter()
                .chain(path.split('/'))
                .collect::<Vec<_>>(),
        );
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.open(method, url).timeout(self.timeout);
        if let Some(body) = body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.to_string());
        }
        let bytes = self.runtime.block_on(async {
            let response = request.send().await.map_err(|e| self.unclear(&e))?;
            self.checked(response).await
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(value),
            _ => Err(self.not_understood("the answer is no JSON object: is this an MLflow server?")),
        }
    }

    /// Puts a file to `path` of the server's artifact proxy.
    pub fn upload(&self, path: &str, file: &Path, bytes: u64) -> Result<(), CallError> {
        let url = self.artifact_url(path);
        let patience = self.timeout + Duration::from_secs(bytes / (256 << 10));
        self.runtime.block_on(async {
            let file = tokio::fs::File::open(file).await.map_err(|e| CallError::Unclear {
                place: file.display().to_string(),
                problem: e.to_string(),
            })?;
            let response = self
                .open(Method::PUT, url)
                .timeout(patience)
                .header("Content-Type", "application/octet-stream")
                .header("Content-Length", bytes)
                .body(reqwest::Body::from(file))
                .send()
                .await
                .map_err(|e| self.unclear(&e))?;
            self.checked(response).await.map(drop)
        })
    }

    /// Puts bytes to `path` of the server's artifact proxy.
    pub fn upload_bytes(&self, path: &str, bytes: Vec<u8>) -> Result<(), CallError> {
        let request = self
            .open(Method::PUT, self.artifact_url(path))
            .timeout(self.timeout + Duration::from_secs(bytes.len() as u64 / (256 << 10)))
            .header("Content-Type", "application/octet-stream")
            .body(bytes);
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|e| self.unclear(&e))?;
            self.checked(response).await.map(drop)
        })
    }

    /// A small file of the artifact proxy.
    pub fn download(&self, path: &str) -> Result<Vec<u8>, CallError> {
        let url = self.artifact_url(path);
        self.runtime.block_on(async {
            let response = self
                .open(Method::GET, url)
                .timeout(self.timeout)
                .send()
                .await
                .map_err(|e| self.unclear(&e))?;
            self.checked(response).await
        })
    }

    pub fn not_understood(&self, problem: impl Into<String>) -> CallError {
        CallError::Unclear {
            place: self.place().to_owned(),
            problem: problem.into(),
        }
    }

    fn artifact_url(&self, path: &str) -> Url {
        let proxy = ["api", "2.0", "mlflow-artifacts", "artifacts"];
        self.url(&proxy.into_iter().chain(path.split('/')).collect::<Vec<_>>())
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments.iter().filter(|s| !s.is_empty()));
        }
        url
    }

    fn open(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        let request = self.http.request(method, url);
        match &self.address.access {
            Access::Open => request,
            Access::Bearer(token) => request.bearer_auth(token),
            Access::Basic(name, password) => request.basic_auth(name, Some(password)),
        }
    }

    /// Whether the server is on this machine, by its address.
    pub fn is_here(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default();
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        host == "localhost" || address.is_some_and(|address| address.is_loopback())
    }

    async fn checked(&self, mut response: Response) -> Result<Vec<u8>, CallError> {
        let status = response.status();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|e| self.unclear(&e))? {
            if body.len() + piece.len() > MOST_BYTES {
                return Err(self.not_understood("its answer does not end: is this an MLflow server?"));
            }
            body.extend_from_slice(&piece);
        }
        if status.is_success() {
            return Ok(body);
        }
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (code, mut message) = (text("error_code"), text("message"));
        if message.is_empty() {
            message = reason(status);
        }
        Err(CallError::Status {
            place: self.place().to_owned(),
            status: status.as_u16(),
            code,
            message: shortened(&message),
        })
    }

    fn unclear(&self, error: &reqwest::Error) -> CallError {
        self.not_understood(cause(error))
    }
}

fn reason(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("no reason given").to_lowercase()
}

/// One line of at most 300 characters.
fn shortened(message: &str) -> String {
    shorten(&message.split_whitespace().collect::<Vec<_>>().join(" "), 300)
}

/// The innermost reason, in the operating system's words where it is one.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    crate::redact::redact(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    fn client(address: &str) -> Client {
        Client::new(Address::new(address, None, None).unwrap(), Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn this_machine_is_known_by_its_address() {
        for here in ["http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"] {
            assert!(client(here).is_here(), "{here}");
        }
        for there in [
            "http://mlflow.example",
            "http://10.0.0.7:5000",
            "http://localhost.example",
        ] {
            assert!(!client(there).is_here(), "{there}");
        }
    }

    #[test]
    fn an_answer_without_end_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
            while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
        });
        let error = client(&address).get("runs/get", &[]).unwrap_err().to_string();
        assert!(error.contains("its answer does not end"), "{error}");
    }
}
