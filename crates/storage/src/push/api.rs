//! Requests to the hub's HTTP API: the token, retries, and refusals in sentences.

use crate::{Endpoint, StorageConfig, StorageError, remote::without_credentials};
use reqwest::{Method, RequestBuilder, Url, header::HeaderMap};
use serde_json::Value;
use std::time::Duration;
use wmtp_base::{redact::redact, text::shorten};

/// The longest wait before a try.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// The longest wait that a server may ask for; if it asks for more, the request fails.
const LONGEST_ASKED: u64 = 60;
/// A server that is silent for so long is named.
const SILENCE: Duration = Duration::from_secs(5);
/// Bytes a second of the slowest connection that is waited for.
const SLOWEST: u64 = 256 << 10;
/// Characters of a server's own words that are shown.
const SHOWN: usize = 200;

/// A connection to one hub, for one repository.
pub(super) struct Api {
    http: reqwest::Client,
    base: Url,
    token: String,
    /// The address, without credentials.
    pub endpoint: String,
    /// `hf://OWNER/NAME`.
    pub uri: String,
    config: StorageConfig,
}

/// What a server said, whatever it was.
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Api {
    /// Nothing is asked yet.
    pub fn new(endpoint: &Endpoint, uri: String, config: &StorageConfig) -> Result<Self, StorageError> {
        let failed = |problem: String| StorageError::Network {
            doing: "sending",
            endpoint: endpoint.shown(),
            uri: uri.clone(),
            problem,
        };
        let base = Url::parse(endpoint.url()).ok();
        let base = base.filter(|url| ["http", "https"].contains(&url.scheme()));
        let base = base.ok_or_else(|| failed("HF_ENDPOINT must start with http:// or https://".into()))?;
        let token = endpoint.token().ok_or_else(|| StorageError::BadUri {
            uri: uri.clone(),
            problem: "cannot be pushed to without a token: set HF_TOKEN to one with write access".into(),
        })?;
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(failed(
                "HF_TOKEN holds characters that no token has: set it again".into(),
            ));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(config.timeout_seconds))
            // The token goes to the server that it was meant for, and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("wmtp/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| failed(cause(&e)))?;
        Ok(Self {
            http,
            base,
            token: token.to_owned(),
            endpoint: endpoint.shown(),
            uri,
            config: config.clone(),
        })
    }

    /// The address of `path` on this hub.
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path.split('/'));
        }
        url
    }

    /// A request that carries the token, if it goes to this hub.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let is_here = url.origin() == self.base.origin();
        let request = self.http.request(method, url);
        match is_here {
            true => request.bearer_auth(&self.token),
            false => request,
        }
    }

    /// The time that a request with a body of this size may take.
    pub fn patience(&self, bytes: u64) -> Duration {
        Duration::from_secs(self.config.timeout_seconds + bytes / SLOWEST)
    }

    /// Makes a request, again after a broken connection, a rate limit or a server's failure, until
    /// `storage.retries` are used up. `about` names what is sent.
    pub async fn send(
        &self,
        about: &str,
        mut request: impl FnMut() -> Result<RequestBuilder, StorageError>,
    ) -> Result<Answer, StorageError> {
        let mut delay = Duration::from_millis(self.config.retry_delay_ms);
        for left in (0..=self.config.retries).rev() {
            let (problem, asked) = match self.attempt(request()?).await {
                Ok(answer) if !matches!(answer.status, 429 | 500 | 502 | 503 | 504) => return Ok(answer),
                Ok(answer) => {
                    let asked = answer
                        .headers
                        .get("retry-after")
                        .and_then(|v| v.to_str().ok()?.parse().ok());
                    let problem = match answer.status {
                        429 => "the server wants fewer requests (status 429), try again later".to_owned(),
                        status => format!("the server answered with status {status}"),
                    };
                    (problem, asked)
                }
                Err(error) => (format!("{}, check the connection and try again", cause(&error)), None),
            };
            let asked: u64 = asked.unwrap_or_default();
            if left == 0 || asked > LONGEST_ASKED {
                return Err(self.network(about, problem));
            }
            tracing::debug!("{about}: {problem}; trying again");
            tokio::time::sleep(delay.max(Duration::from_secs(asked))).await;
            delay = (2 * delay).min(LONGEST_DELAY);
        }
        Err(self.network(about, "it was not tried".into()))
    }

    /// Sends a request, and says what is waited for where that takes long.
    async fn attempt(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let request = request.build()?;
        // What is sent takes its own time.
        let sent = request
            .body()
            .map_or(Some(0), |body| body.as_bytes().map(|bytes| bytes.len() as u64));
        let silence = sent.map(|bytes| SILENCE + Duration::from_secs(bytes / SLOWEST));
        let mut response = std::pin::pin!(self.http.execute(request));
        let response = match tokio::time::timeout(silence.unwrap_or(Duration::MAX), response.as_mut()).await {
            Ok(response) => response?,
            Err(_) => {
                let seconds = SILENCE.as_secs();
                tracing::warn!("waiting for {}, which has not answered for {seconds} s", self.endpoint);
                response.await?
            }
        };
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await?.to_vec(),
        })
    }

    /// `GET`; None: status 404.
    pub async fn get(&self, path: &str) -> Result<Option<Value>, StorageError> {
        let request = || {
            let request = self.request(Method::GET, self.url(path));
            Ok(request.timeout(self.patience(0)))
        };
        let answer = self.send(&self.uri, request).await?;
        match answer.status {
            404 => Ok(None),
            _ => self.json(&answer).map(Some),
        }
    }

    /// `POST` of a JSON document to a path of the hub.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, StorageError> {
        self.post_bytes(self.url(path), "application/json", body.to_string().into_bytes())
            .await
    }

    /// `POST` of bytes of this media type, which is also the one of the answer that is accepted.
    pub async fn post_bytes(&self, url: Url, media: &str, body: Vec<u8>) -> Result<Answer, StorageError> {
        let patience = self.patience(body.len() as u64);
        let accepted = match media {
            "application/x-ndjson" => "application/json",
            other => other,
        };
        let request = || {
            let request = self.request(Method::POST, url.clone());
            Ok(request
                .timeout(patience)
                .header("Accept", accepted)
                .header("Content-Type", media)
                .body(body.clone()))
        };
        self.send(&self.uri, request).await
    }

    /// A successful answer's document.
    pub fn json(&self, answer: &Answer) -> Result<Value, StorageError> {
        if !answer.is_success() {
            return Err(self.refusal(answer, &self.uri));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| self.network(&self.uri, "its answer is not JSON; is HF_ENDPOINT a model hub?".into()))
    }

    /// What an answer without success means.
    pub fn refusal(&self, answer: &Answer, about: &str) -> StorageError {
        let (endpoint, uri, status) = (self.endpoint.clone(), about.to_owned(), answer.status);
        let refused = |problem: String| StorageError::Refused {
            endpoint: self.endpoint.clone(),
            uri: about.to_owned(),
            status,
            problem,
        };
        match status {
            401 | 403 => StorageError::Denied {
                endpoint,
                uri,
                status,
                advice: "the token in HF_TOKEN may not write there: check the name, and that the token has write access",
            },
            404 => StorageError::NotFound {
                endpoint,
                uri,
                advice: "check owner, name and branch, and that the token in HF_TOKEN may write there",
            },
            409 => refused("something else is changing the repository: push again in a moment".into()),
            412 => {
                refused("its branch changed meanwhile: push again, large files that arrived are not sent again".into())
            }
            413 => refused(
                "it is larger than the server takes: export it with --dtype bf16, or ask the hub for more".into(),
            ),
            300..=399 => refused("it is at another address now: give the repository's new name".into()),
            _ => refused(match words(answer) {
                Some(words) => format!("the server says `{words}`"),
                None => "the server gives no reason".into(),
            }),
        }
    }

    /// A failure of this server.
    pub fn network(&self, about: &str, problem: String) -> StorageError {
        StorageError::Network {
            doing: "sending",
            endpoint: self.endpoint.clone(),
            uri: about.to_owned(),
            problem,
        }
    }
}

/// The server's own words: the hub has them in a header and as `error` in its document.
fn words(answer: &Answer) -> Option<String> {
    let header = answer.headers.get("x-error-message").and_then(|v| v.to_str().ok());
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let words = header.or(document["error"].as_str()).or(document["message"].as_str())?;
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(shorten(&redact(&line), SHOWN)).filter(|words| !words.is_empty())
}

/// The innermost reason, without addresses that could hold credentials.
pub(super) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    redact(&without_credentials(&cause.to_string()))
}
