//! A connection to a server, as all sources share it: layers, waiting, and errors in sentences.

use super::{
    Broken, NO_END, WEB_PAGE,
    transport::{Bounded, Pages},
};
use crate::{StorageConfig, StorageError};
use backon::{BlockingRetryable, ExponentialBuilder};
use opendal::{
    ErrorKind, HttpTransporter, OperationContext, Operator, blocking,
    layers::{RetryEvent, RetryLayer, TimeoutLayer},
    options::ReaderOptions,
};
use std::{
    future::Future,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The longest wait before a try.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// What to say when a server will not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advice {
    pub denied: &'static str,
    pub not_found: &'static str,
    /// Whether the server is an object store, which has no pages for people.
    pub is_store: bool,
}

/// A server, or a part of one.
#[derive(Clone)]
pub(crate) struct Remote {
    operator: blocking::Operator,
    /// Its address, without credentials.
    pub endpoint: String,
    advice: Advice,
    pub config: StorageConfig,
    pages: Arc<Pages>,
    /// Whether it was said that the server is waited for.
    told: Arc<AtomicBool>,
}

/// Drives all connections: opendal keeps one HTTP client for the process, whose open connections
/// die with the runtime that made them.
pub(crate) fn runtime() -> std::io::Result<&'static tokio::runtime::Runtime> {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let new = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("storage")
        .enable_all()
        .build()?;
    opendal::install_default();
    Ok(RUNTIME.get_or_init(|| new))
}

impl Remote {
    /// Connects; nothing is asked yet. `shown` names what is asked for in log lines.
    pub fn connect(
        builder: impl opendal::Builder,
        endpoint: String,
        shown: String,
        advice: Advice,
        config: &StorageConfig,
    ) -> Result<Self, StorageError> {
        let failed = |problem: String| StorageError::Network {
            doing: "fetching",
            endpoint: endpoint.clone(),
            uri: shown.clone(),
            problem,
        };
        let timeout = Duration::from_secs(config.timeout_seconds);
        let about = shown.clone();
        let pages = Arc::new(Pages::default());
        let told = Arc::new(AtomicBool::new(false));
        let transport = HttpTransporter::new(Bounded {
            inner: HttpTransporter::default(),
            pages: Arc::clone(&pages),
            is_store: advice.is_store,
            endpoint: endpoint.clone(),
            told: Arc::clone(&told),
        });
        let operator = Operator::new(builder)
            .map_err(|e| failed(root_cause(&e)))?
            .with_context(OperationContext::new().with_http_transport(transport))
            .layer(TimeoutLayer::new().with_timeout(timeout).with_io_timeout(timeout))
            .layer(
                RetryLayer::new()
                    .with_jitter()
                    .with_min_delay(Duration::from_millis(config.retry_delay_ms))
                    .with_max_delay(LONGEST_DELAY)
                    .with_max_times(config.retries)
                    .with_notify(move |event: RetryEvent<'_>| {
                        tracing::debug!("{about}: {}, trying again", root_cause(event.err));
                    }),
            );
        let _guard = runtime().map_err(|e| failed(e.to_string()))?.enter();
        let operator = blocking::Operator::new(operator).map_err(|e| failed(root_cause(&e)))?;
        Ok(Self {
            operator,
            endpoint,
            advice,
            config: config.clone(),
            pages,
            told,
        })
    }

    /// Nobody waits for this connection: that it is silent is not said.
    pub fn quiet(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// A listing begins: its pages are counted.
    pub fn begin_listing(&self) {
        self.pages.begin();
    }

    /// The calls that have an opendal method of their own.
    pub fn operator(&self) -> &blocking::Operator {
        &self.operator
    }

    /// Waits for what only the asynchronous interface can do.
    pub fn wait<F: Future>(&self, about: &str, call: impl FnOnce(Operator) -> F) -> Result<F::Output, StorageError> {
        let runtime = runtime().map_err(|e| self.network("sending", about, &e.to_string()))?;
        Ok(runtime.block_on(call(self.operator.clone().into())))
    }

    /// Streams one object, or a range of its bytes; only the version with this ETag, if one is given.
    pub fn read(
        &self,
        path: &str,
        about: &str,
        range: Option<Range<u64>>,
        etag: Option<&str>,
        piece: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<(), Broken> {
        let explain = |error: &opendal::Error| self.explain("fetching", error, about);
        let options = ReaderOptions {
            if_match: etag.map(str::to_owned),
            ..ReaderOptions::default()
        };
        let reader = self.operator.reader_options(path, options).map_err(|e| explain(&e))?;
        let pieces = match range {
            Some(range) => reader.into_iterator(range),
            None => reader.into_iterator(..),
        };
        for buffer in pieces.map_err(|e| explain(&e))? {
            for bytes in buffer.map_err(|e| explain(&e))? {
                piece(&bytes)?;
            }
        }
        Ok(())
    }

    /// Tries until it works or `storage.retries` are used up, waiting longer each time. The layers
    /// below do the same for what they can see to be a passing failure; this is for the rest: a wrong
    /// length, say, or a wrong hash.
    pub fn patiently<T>(&self, attempt: impl FnMut() -> Result<T, Broken>) -> Result<T, Broken> {
        let delays = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(self.config.retry_delay_ms))
            .with_max_delay(LONGEST_DELAY)
            .with_max_times(self.config.retries);
        attempt
            .retry(delays)
            .when(|broken| matches!(broken, Broken::Again(_)))
            .notify(|broken, _| {
                if let Broken::Again(error) = broken {
                    tracing::debug!("{error}; trying again");
                }
            })
            .call()
            .map_err(|broken| match broken {
                Broken::Again(error) => Broken::Final(error),
                other => other,
            })
    }

    /// What went wrong, as a sentence, and whether another try may help.
    pub fn explain(&self, doing: &'static str, error: &opendal::Error, about: &str) -> Broken {
        let endpoint = self.endpoint.clone();
        let uri = about.to_owned();
        let again = |problem: &str| {
            let error_ = self.network(doing, about, problem);
            if error.is_persistent() {
                Broken::Final(error_)
            } else {
                Broken::Again(error_)
            }
        };
        if let Some(known) = [NO_END, WEB_PAGE].into_iter().find(|known| error.message() == *known) {
            return Broken::Final(self.network(doing, about, known));
        }
        match (error.kind(), status(error)) {
            (ErrorKind::ConditionNotMatch, _) | (_, Some(412)) => Broken::Changed,
            (ErrorKind::NotFound, _) | (_, Some(404)) => Broken::Final(StorageError::NotFound {
                endpoint,
                uri,
                advice: self.advice.not_found,
            }),
            (ErrorKind::PermissionDenied, status) | (_, status @ Some(401 | 403)) => {
                Broken::Final(StorageError::Denied {
                    endpoint,
                    uri,
                    status: status.unwrap_or(403),
                    advice: self.advice.denied,
                })
            }
            (_, Some(429)) => again("the server wants fewer requests (status 429), try again later"),
            (_, Some(status)) => again(&format!("the server answered with status {status}")),
            (_, None) => again(&format!("{}, check the connection and try again", root_cause(error))),
        }
    }

    /// An error of this server.
    pub fn network(&self, doing: &'static str, about: &str, problem: &str) -> StorageError {
        StorageError::Network {
            doing,
            endpoint: self.endpoint.clone(),
            uri: about.to_owned(),
            problem: problem.to_owned(),
        }
    }

    /// The end of all tries.
    pub fn give_up(&self, broken: Broken, about: &str) -> StorageError {
        match broken {
            Broken::Again(error) | Broken::Final(error) => error,
            Broken::Changed => StorageError::Changed {
                endpoint: self.endpoint.clone(),
                uri: about.to_owned(),
            },
        }
    }
}

/// The HTTP status: opendal has no accessor, but writes the response into its error.
fn status(error: &opendal::Error) -> Option<u16> {
    let text = error.to_string();
    let (_, rest) = text.rsplit_once("response: Parts { status: ")?;
    rest.get(..3)?.parse().ok()
}

/// The innermost reason, without addresses and headers.
fn root_cause(error: &opendal::Error) -> String {
    if let Some(status) = status(error) {
        return format!("the server answered with status {status}");
    }
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut text = error.message().lines().next().unwrap_or_default().to_owned();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}
