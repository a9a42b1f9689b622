//! What every HTTP answer is held to, below opendal: a listing ends, what is read whole is small, and a web page is
//! no answer of an object store.
//!
//! opendal reads each page of a listing, and each error, into memory before it looks at it, and asks for pages as
//! long as the server says that there are more.

use super::{MOST_ENTRIES, NO_END, WEB_PAGE};
use futures_core::Stream;
use http::{Method, Request, Response, header::CONTENT_TYPE};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, Result};
use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Bytes of all pages of a listing: [`MOST_ENTRIES`] objects with usual names take less.
const MOST_BYTES: u64 = 128 << 20;
/// Bytes of a page, which has up to 1000 objects.
const MOST_PAGE: u64 = 16 << 20;
/// Bytes of any other answer that is read whole: errors, and what the server says of an upload.
const MOST_OTHER: u64 = 4 << 20;
/// Pages of a listing: a page has up to 1000 objects, and servers may give less.
const MOST_PAGES: usize = MOST_ENTRIES / 10;
/// Time of a listing: [`MOST_ENTRIES`] objects take some seconds.
const LONGEST: Duration = Duration::from_secs(120);
/// Requests for the same page. More than `storage.retries` can be.
const MOST_SAME: usize = 30;

/// A server that is silent for so long is named.
const SILENCE: Duration = Duration::from_secs(5);

/// How far a listing is.
#[derive(Debug, Default)]
pub(super) struct Pages {
    asked: Mutex<Asked>,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Asked {
    since: Option<Instant>,
    pages: usize,
    /// The last request, and how often it was made.
    last: String,
    same: usize,
}

impl Pages {
    /// A listing begins.
    pub fn begin(&self) {
        *self.asked() = Asked::default();
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// A page is asked for; false if the listing has had enough of them.
    fn next(&self, address: &str) -> bool {
        let mut asked = self.asked();
        let since = *asked.since.get_or_insert_with(Instant::now);
        asked.pages += 1;
        if asked.last == address {
            asked.same += 1;
        } else {
            (asked.last, asked.same) = (address.to_owned(), 1);
        }
        asked.pages <= MOST_PAGES && asked.same <= MOST_SAME && since.elapsed() <= LONGEST
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process's transport, with these bounds.
pub(super) struct Bounded {
    pub inner: HttpTransporter,
    pub pages: Arc<Pages>,
    /// Whether the server is an object store, which has no pages for people.
    pub is_store: bool,
    /// Its address, without credentials.
    pub endpoint: String,
    /// Whether it was said that it is waited for; once is enough.
    pub told: Arc<AtomicBool>,
}

impl Bounded {
    /// Sends a request, and says what is waited for where that takes long.
    async fn answer(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let mut answer = pin!(self.inner.fetch(request));
        if let Ok(answered) = timeout(SILENCE, answer.as_mut()).await {
            return answered;
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            let seconds = SILENCE.as_secs();
            tracing::warn!("waiting for {}, which has not answered for {seconds} s", self.endpoint);
        }
        answer.await
    }
}

impl HttpTransport for Bounded {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let query = request.uri().query().unwrap_or_default();
        let is_listing = self.is_store && query.split('&').any(|part| part == "list-type=2");
        if is_listing && !self.pages.next(&request.uri().to_string()) {
            return Err(no_end());
        }
        let is_get = request.method() == Method::GET;
        let response = self.answer(request).await?;
        if self.is_store && is_web_page(&response) {
            return Err(Error::new(ErrorKind::Unexpected, WEB_PAGE));
        }
        if is_get && !is_listing && response.status().is_success() {
            // An object, which is read as it comes.
            return Ok(response);
        }
        let pages = is_listing.then(|| Arc::clone(&self.pages));
        let (parts, body) = response.into_parts();
        let body = body.map_inner(|inner| {
            Box::new(Counted {
                inner,
                left: if is_listing { MOST_PAGE } else { MOST_OTHER },
                pages,
            })
        });
        Ok(Response::from_parts(parts, body))
    }
}

/// Whether it is a page for people: of another server, or of a network that wants a login first. An object that is
/// a page has the store's marks. An error of a proxy before the store passes by itself.
fn is_web_page(response: &Response<HttpBody>) -> bool {
    let headers = response.headers();
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_page = kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"));
    let of_store = ["etag", "x-amz-request-id", "x-amz-id-2"];
    is_page && !response.status().is_server_error() && !of_store.iter().any(|name| headers.contains_key(*name))
}

fn no_end() -> Error {
    Error::new(ErrorKind::Unexpected, NO_END)
}

/// A body that ends with an error where it grows too long.
struct Counted {
    inner: Box<dyn Stream<Item = Result<Buffer>> + Send + Sync + Unpin>,
    /// Bytes that may still come.
    left: u64,
    /// Of a listing, whose pages are counted together.
    pages: Option<Arc<Pages>>,
}

impl Stream for Counted {
    type Item = Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.inner).poll_next(context);
        let Poll::Ready(Some(Ok(buffer))) = &next else {
            return next;
        };
        let bytes = buffer.len() as u64;
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(0);
        let of_listing = |pages: &Arc<Pages>| pages.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let fits = left.is_some() && self.pages.as_ref().map_or(0, of_listing) <= MOST_BYTES;
        if fits { next } else { Poll::Ready(Some(Err(no_end()))) }
    }
}
