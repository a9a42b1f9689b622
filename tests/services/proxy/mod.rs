//! A proxy between a client and an HTTP server that breaks things by a seeded schedule.
//!
//! It understands HTTP/1.1 well enough to know where a message begins and ends, and passes
//! everything else through as it is (the `Host` header included, which S3's signatures cover). One
//! thread a connection; a new connection to the server for every exchange, so that no fault of one
//! exchange reaches the next. It keeps a list of what went through, so that a test can count.
#![allow(dead_code)] // Each test uses its own part.

mod exchange;
mod faults;
mod message;
mod tests;

use exchange::exchange;
use faults::Schedule;
pub use faults::{Fault, Faults};
use socket2::SockRef;
use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A request that came, and what became of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// `GET`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The `Range` header, if there was one.
    pub range: Option<String>,
    /// Status of the answer; 0 if the client got none.
    pub status: u16,
    /// Bytes of the answer's body that were passed on.
    pub bytes: u64,
    /// What was done to it.
    pub fault: Option<Fault>,
}

/// The proxy, listening on loopback until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    schedule: Mutex<Schedule>,
    /// Bytes a second of answers' bodies, 0 for no limit.
    speed: AtomicUsize,
    outage: AtomicBool,
    stopped: AtomicBool,
    log: Mutex<Vec<Exchange>>,
    /// Exchanges that have begun and are not in the log yet.
    busy: AtomicUsize,
    /// Clients that are connected, by a number of their own.
    open: Mutex<Vec<(usize, TcpStream)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// A proxy for `upstream` (`http://host:port`, anything after it is ignored).
    pub fn start(upstream: &str, faults: Faults) -> Self {
        let upstream = upstream.trim_start_matches("http://");
        let upstream = upstream.split('/').next().unwrap_or(upstream).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared {
            upstream,
            schedule: Mutex::new(Schedule::new(faults)),
            busy: AtomicUsize::new(0),
            speed: AtomicUsize::new(0),
            outage: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            log: Mutex::new(Vec::new()),
            open: Mutex::new(Vec::new()),
        });
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || accept(listener, address, &for_thread));
        Self { address, shared }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Another schedule from now on; its count of faults begins at 0.
    pub fn set_faults(&self, faults: Faults) {
        *lock(&self.shared.schedule) = Schedule::new(faults);
    }

    /// True: nobody listens any more and every connection is reset. False: all is well again.
    pub fn set_outage(&self, outage: bool) {
        self.shared.outage.store(outage, Ordering::SeqCst);
        if outage {
            for (_, stream) in lock(&self.shared.open).drain(..) {
                cut(&stream);
            }
        }
        // Until the port is closed, or open again.
        let until = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(self.address).is_err() != outage && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// At most so many bytes a second of each answer; 0 for no limit.
    pub fn set_speed(&self, bytes_per_second: usize) {
        self.shared.speed.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Everything that went through so far, in the order in which it ended. A client has the last byte of its answer
    /// a moment before the exchange is in here, so exchanges that are under way get half a second to end.
    pub fn log(&self) -> Vec<Exchange> {
        let asked = Instant::now();
        while self.shared.busy.load(Ordering::SeqCst) > 0 && asked.elapsed() < Duration::from_millis(500) {
            thread::sleep(Duration::from_millis(1));
        }
        lock(&self.shared.log).clone()
    }

    /// Forgets what went through.
    pub fn clear_log(&self) {
        lock(&self.shared.log).clear();
    }

    /// How many faults there were since the schedule began.
    pub fn struck(&self) -> usize {
        lock(&self.shared.schedule).struck
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for (_, stream) in lock(&self.shared.open).drain(..) {
            cut(&stream);
        }
    }
}

/// Accepts until the proxy is dropped; during an outage the port is closed.
fn accept(listener: TcpListener, address: SocketAddr, shared: &Arc<Shared>) {
    let mut listener = Some(listener);
    let mut number = 0;
    while !shared.stopped.load(Ordering::SeqCst) {
        if shared.outage.load(Ordering::SeqCst) {
            listener = None;
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        let Some(open) = &listener else {
            // Somebody's outgoing connection may hold the port for a moment.
            listener = TcpListener::bind(address).ok();
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        // A closed port must not wait for one more connection.
        let _ = open.set_nonblocking(true);
        match open.accept() {
            Ok((stream, _)) => {
                number += 1;
                let _ = stream.set_nonblocking(false);
                if let Ok(copy) = stream.try_clone() {
                    lock(&shared.open).push((number, copy));
                }
                let shared = Arc::clone(shared);
                thread::spawn(move || {
                    serve(&stream, &shared);
                    lock(&shared.open).retain(|(n, _)| *n != number);
                });
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Once closed, the connection ends with a reset instead of a goodbye.
fn will_reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Ends a connection that a thread of its own is busy with.
fn cut(stream: &TcpStream) {
    will_reset(stream);
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// All exchanges of one connection.
fn serve(client: &TcpStream, shared: &Shared) {
    let _ = client.set_nodelay(true);
    let mut reader = BufReader::with_capacity(1 << 16, client);
    // Waiting for a request costs nothing; a fault is drawn when one comes.
    while reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
        match exchange(&mut reader, client, shared) {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return will_reset(client),
        }
    }
}
