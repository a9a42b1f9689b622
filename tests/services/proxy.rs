//! A proxy between a client and an HTTP server that breaks things by a seeded schedule.
//!
//! It understands HTTP/1.1 well enough to know where a message begins and ends, and passes
//! everything else through as it is (the `Host` header included, which S3's signatures cover). One
//! thread a connection; a new connection to the server for every exchange, so that no fault of one
//! exchange reaches the next. It keeps a list of what went through, so that a test can count.
#![allow(dead_code)] // Each test uses its own part.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use socket2::SockRef;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The connection is reset before the request is read.
    Refused,
    /// The connection is reset in the middle of the request's or the answer's body.
    Reset,
    /// Status 500; the request does not reach the server.
    Error500,
    /// Status 503, `SlowDown` as S3 says it; the request does not reach the server.
    SlowDown,
    /// Silence for [`Faults::stall`] in the middle of the answer, then the rest of it.
    Stall,
    /// The answer ends early, the connection in good order.
    Truncated,
    /// Bytes of the answer are altered, its length is right.
    WrongBytes,
    /// The server does what it was asked to, and the answer is lost.
    LostAnswer,
}

impl Fault {
    pub const ALL: &[Self] = &[
        Self::Refused,
        Self::Reset,
        Self::Error500,
        Self::SlowDown,
        Self::Stall,
        Self::Truncated,
        Self::WrongBytes,
        Self::LostAnswer,
    ];
}

/// How much goes wrong.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Every draw follows from it.
    pub seed: u64,
    /// Share of the exchanges that a fault strikes.
    pub share: f64,
    /// Drawn from these, all alike.
    pub kinds: Vec<Fault>,
    /// Nothing more goes wrong after so many faults.
    pub most: usize,
    /// How long [`Fault::Stall`] is silent.
    pub stall: Duration,
    /// Whether an exchange (method and target) may be struck at all.
    pub strikes: fn(&str, &str) -> bool,
    /// Whether an answer's bytes may be altered, given method, target and content type. What no hash
    /// covers (a listing, say) can't be told from a true answer by any client.
    pub alters: fn(&str, &str, &str) -> bool,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::seeded(0, 0.0, &[])
    }

    /// This share of the exchanges fails in these ways; stalls last a tenth of a second.
    pub fn seeded(seed: u64, share: f64, kinds: &[Fault]) -> Self {
        Self {
            seed,
            share,
            kinds: kinds.to_vec(),
            most: usize::MAX,
            stall: Duration::from_millis(100),
            strikes: |_, _| true,
            alters: |_, _, _| true,
        }
    }
}

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
    faults: Mutex<(Faults, StdRng)>,
    struck: AtomicUsize,
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
        let random = StdRng::seed_from_u64(faults.seed);
        let shared = Arc::new(Shared {
            upstream,
            faults: Mutex::new((faults, random)),
            struck: AtomicUsize::new(0),
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
        let random = StdRng::seed_from_u64(faults.seed);
        *lock(&self.shared.faults) = (faults, random);
        self.shared.struck.store(0, Ordering::SeqCst);
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
        self.shared.struck.load(Ordering::SeqCst)
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

/// A request or an answer up to its body.
struct Head {
    first_line: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let mut line = || -> io::Result<String> {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.ends_with('\n') {
                Ok(line.trim_end().to_owned())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        };
        let first_line = line()?;
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.trim().to_owned(), value.trim().to_owned())),
                None if line.is_empty() => return Ok(Self { first_line, headers }),
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// With this `Connection` header in place of its own, and without what was answered here.
    fn write(&self, out: &mut impl Write, connection: &str) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.first_line);
        for (name, value) in &self.headers {
            let dropped = ["connection", "keep-alive", "expect"];
            if !dropped.iter().any(|d| name.eq_ignore_ascii_case(d)) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        text += &format!("Connection: {connection}\r\n\r\n");
        out.write_all(text.as_bytes())
    }

    fn framing(&self, without: bool, otherwise: Framing) -> Framing {
        let chunked = self.get("transfer-encoding").is_some_and(|v| v.contains("chunked"));
        match self.get("content-length").and_then(|v| v.parse().ok()) {
            _ if without => Framing::Length(0),
            _ if chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => otherwise,
        }
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClosed,
}

/// What happens to a body after so many of its bytes.
#[derive(Clone, Copy)]
enum Tamper {
    Nothing,
    StopAfter(u64),
    AlterAt(u64),
    PauseAfter(u64, Duration),
}

/// Passes a body on. Fails where the tampering says that it stops.
struct Pump<'a, W> {
    to: &'a mut W,
    tamper: Tamper,
    passed: u64,
    speed: usize,
}

impl<W: Write> Pump<'_, W> {
    fn body(&mut self, from: &mut impl BufRead, framing: Framing) -> io::Result<()> {
        match framing {
            Framing::Length(length) => self.pass(from, length),
            Framing::UntilClosed => self.pass_all(from),
            Framing::Chunked => loop {
                let mut line = String::new();
                from.read_line(&mut line)?;
                self.to.write_all(line.as_bytes())?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
                self.pass(from, size)?;
                let mut end = String::new();
                // The last chunk may be followed by trailers.
                while from.read_line(&mut end)? > 2 && size == 0 {
                    self.to.write_all(end.as_bytes())?;
                    end.clear();
                }
                self.to.write_all(b"\r\n")?;
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }

    fn pass(&mut self, from: &mut impl BufRead, length: u64) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let n = self.piece(&mut from.take(left))?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= n;
        }
        Ok(())
    }

    fn pass_all(&mut self, from: &mut impl BufRead) -> io::Result<()> {
        while self.piece(from)? > 0 {}
        Ok(())
    }

    fn piece(&mut self, from: &mut impl Read) -> io::Result<u64> {
        let mut buffer = [0; 1 << 16];
        let mut most = buffer.len();
        if self.speed > 0 {
            most = most.min((self.speed / 50).max(1));
        }
        // Up to the place where something happens, so that it happens there.
        if let Tamper::StopAfter(at) | Tamper::PauseAfter(at, _) = self.tamper
            && at > self.passed
        {
            most = most.min(usize::try_from(at - self.passed).unwrap_or(most));
        }
        match self.tamper {
            Tamper::StopAfter(at) if at <= self.passed => {
                self.to.flush()?;
                return Err(io::ErrorKind::Interrupted.into());
            }
            Tamper::PauseAfter(at, time) if at <= self.passed => {
                self.to.flush()?;
                self.tamper = Tamper::Nothing;
                thread::sleep(time);
            }
            _ => {}
        }
        let n = from.read(&mut buffer[..most])?;
        if let Tamper::AlterAt(at) = self.tamper
            && (self.passed..self.passed + n as u64).contains(&at)
        {
            buffer[usize::try_from(at - self.passed).unwrap_or(0)] ^= 0x55;
        }
        self.to.write_all(&buffer[..n])?;
        self.passed += n as u64;
        if self.speed > 0 {
            thread::sleep(Duration::from_secs_f64(n as f64 / self.speed as f64));
        }
        Ok(n as u64)
    }
}

/// One request and its answer; true if the connection may be used again.
fn exchange(reader: &mut BufReader<&TcpStream>, mut client: &TcpStream, shared: &Shared) -> io::Result<bool> {
    let request = Head::read(reader)?;
    if shared.outage.load(Ordering::SeqCst) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let mut words = request.first_line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let (fault, at, stall) = draw(shared, &method, &target);
    let mut entry = Exchange {
        range: request.get("range").map(str::to_owned),
        method,
        target,
        status: 0,
        bytes: 0,
        fault,
    };
    shared.busy.fetch_add(1, Ordering::SeqCst);
    let result = forward(&request, reader, &mut client, shared, &mut entry, at, stall);
    lock(&shared.log).push(entry);
    shared.busy.fetch_sub(1, Ordering::SeqCst);
    result
}

/// The fault of this exchange, the share of the body after which it strikes, and a stall's length.
fn draw(shared: &Shared, method: &str, target: &str) -> (Option<Fault>, f64, Duration) {
    let mut faults = lock(&shared.faults);
    let (faults, random) = &mut *faults;
    let strikes = random.random_bool(faults.share.clamp(0.0, 1.0));
    let kind = faults.kinds.choose(random).copied();
    let at = random.random_range(0.0..1.0);
    let kind = kind
        .filter(|_| strikes && (faults.strikes)(method, target) && shared.struck.load(Ordering::SeqCst) < faults.most);
    if kind.is_some() {
        shared.struck.fetch_add(1, Ordering::SeqCst);
    }
    (kind, at, faults.stall)
}

fn forward(
    request: &Head,
    reader: &mut BufReader<&TcpStream>,
    client: &mut &TcpStream,
    shared: &Shared,
    entry: &mut Exchange,
    at: f64,
    stall: Duration,
) -> io::Result<bool> {
    let fault = entry.fault;
    if fault == Some(Fault::Refused) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    if request.get("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let sent = request.framing(false, Framing::Length(0));
    if let Some(Fault::Error500 | Fault::SlowDown) = fault {
        let nowhere = &mut io::sink();
        pump(nowhere, Tamper::Nothing, 0).body(reader, sent)?;
        entry.status = if fault == Some(Fault::SlowDown) { 503 } else { 500 };
        return refuse(client, entry.status).map(|()| true);
    }
    let mut server = TcpStream::connect(&shared.upstream)?;
    server.set_nodelay(true)?;
    request.write(&mut server, "close")?;
    // A reset strikes the larger body: the request's where it has one.
    let upload = matches!(sent, Framing::Length(1..) | Framing::Chunked);
    let place = |framing| match framing {
        Framing::Length(length) => (length as f64 * at) as u64,
        Framing::Chunked | Framing::UntilClosed => (100.0 * at) as u64,
    };
    let tamper = match fault {
        Some(Fault::Reset) if upload => Tamper::StopAfter(place(sent)),
        _ => Tamper::Nothing,
    };
    pump(&mut server, tamper, 0).body(reader, sent)?;

    let mut from = BufReader::with_capacity(1 << 16, &server);
    let mut answer = Head::read(&mut from)?;
    while answer.first_line.contains(" 100 ") {
        answer = Head::read(&mut from)?;
    }
    if fault == Some(Fault::LostAnswer) {
        io::copy(&mut from, &mut io::sink())?;
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let status = answer.first_line.split(' ').nth(1).and_then(|s| s.parse().ok());
    entry.status = status.unwrap_or(0);
    let without = entry.method == "HEAD" || matches!(entry.status, 204 | 304);
    let framing = answer.framing(without, Framing::UntilClosed);
    let alters = lock(&shared.faults).0.alters;
    let content_type = answer.get("content-type").unwrap_or_default();
    let tamper = match fault {
        Some(Fault::Reset | Fault::Truncated) => Tamper::StopAfter(place(framing)),
        Some(Fault::Stall) => Tamper::PauseAfter(place(framing), stall),
        Some(Fault::WrongBytes) if alters(&entry.method, &entry.target, content_type) => {
            Tamper::AlterAt(place(framing))
        }
        _ => Tamper::Nothing,
    };
    let again = framing != Framing::UntilClosed;
    answer.write(client, if again { "keep-alive" } else { "close" })?;
    let mut pump = pump(client, tamper, shared.speed.load(Ordering::SeqCst));
    let result = pump.body(&mut from, framing);
    entry.bytes = pump.passed;
    client.flush()?;
    match (result, fault) {
        // In good order, only too early.
        (Err(_), Some(Fault::Truncated)) => Ok(false),
        (result, _) => result.map(|()| again),
    }
}

fn pump<W: Write>(to: &mut W, tamper: Tamper, speed: usize) -> Pump<'_, W> {
    Pump {
        to,
        tamper,
        passed: 0,
        speed,
    }
}

fn refuse(client: &mut &TcpStream, status: u16) -> io::Result<()> {
    let (reason, code) = match status {
        503 => ("Service Unavailable", "SlowDown"),
        _ => ("Internal Server Error", "InternalError"),
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>Please try again.</Message></Error>"
    );
    write!(
        client,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

mod tests {
    use super::*;

    const BODY: usize = 300_000;

    fn byte(i: usize) -> u8 {
        (i % 251) as u8
    }

    /// A server that answers every request with the same body, and counts them.
    fn server() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
                let Ok(head) = Head::read(&mut reader) else { continue };
                let mut nowhere = io::sink();
                if pump(&mut nowhere, Tamper::Nothing, 0)
                    .body(&mut reader, head.framing(false, Framing::Length(0)))
                    .is_err()
                {
                    continue;
                }
                seen.fetch_add(1, Ordering::SeqCst);
                let body: Vec<u8> = (0..BODY).map(byte).collect();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        (url, count)
    }

    /// Status and body of one exchange with a request body of 100,000 bytes.
    fn ask(proxy: &Proxy) -> io::Result<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(proxy.address)?;
        stream.write_all(b"PUT /x?y HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")?;
        stream.write_all(&vec![7; 100_000])?;
        let mut reader = BufReader::new(&stream);
        let head = Head::read(&mut reader)?;
        let status = head
            .first_line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or(0);
        let mut body = Vec::new();
        pump(&mut body, Tamper::Nothing, 0).body(&mut reader, head.framing(false, Framing::UntilClosed))?;
        Ok((status, body))
    }

    fn whole() -> Vec<u8> {
        (0..BODY).map(byte).collect()
    }

    #[test]
    fn without_faults_everything_passes_unchanged() {
        let (url, count) = server();
        let proxy = Proxy::start(&url, Faults::none());
        for _ in 0..3 {
            assert_eq!(ask(&proxy).expect("an answer"), (200, whole()));
        }
        assert_eq!(count.load(Ordering::SeqCst), 3);
        let log = proxy.log();
        assert_eq!(log.len(), 3);
        assert_eq!((log[0].method.as_str(), log[0].target.as_str()), ("PUT", "/x?y"));
        assert_eq!((log[0].status, log[0].bytes, log[0].fault), (200, BODY as u64, None));
    }

    #[test]
    fn each_fault_is_what_it_is_called() {
        for &fault in Fault::ALL {
            let (url, count) = server();
            let faults = Faults {
                most: 1,
                ..Faults::seeded(5, 1.0, &[fault])
            };
            let proxy = Proxy::start(&url, faults);
            let begun = Instant::now();
            let answer = ask(&proxy);
            match fault {
                Fault::Refused | Fault::Reset | Fault::Truncated | Fault::LostAnswer => {
                    assert!(answer.is_err(), "{fault:?}");
                }
                Fault::Error500 => assert_eq!(answer.expect("an answer").0, 500),
                Fault::SlowDown => assert_eq!(answer.expect("an answer").0, 503),
                Fault::Stall => {
                    assert_eq!(answer.expect("an answer"), (200, whole()));
                    assert!(begun.elapsed() >= Duration::from_millis(100));
                }
                Fault::WrongBytes => {
                    let (status, body) = answer.expect("an answer");
                    assert_eq!((status, body.len()), (200, BODY));
                    let other = body.iter().zip(whole()).filter(|(a, b)| **a != *b).count();
                    assert_eq!(other, 1);
                }
            }
            let reached = match fault {
                Fault::Refused | Fault::Reset | Fault::Error500 | Fault::SlowDown => 0,
                _ => 1,
            };
            assert_eq!(count.load(Ordering::SeqCst), reached, "{fault:?}");
            assert_eq!(ask(&proxy).expect("the one fault is over"), (200, whole()), "{fault:?}");
            assert_eq!(proxy.struck(), 1);
        }
    }

    #[test]
    fn in_an_outage_nobody_listens() {
        let (url, _) = server();
        let proxy = Proxy::start(&url, Faults::none());
        for _ in 0..2 {
            proxy.set_outage(true);
            let error = ask(&proxy).expect_err("nobody listens");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            proxy.set_outage(false);
            assert_eq!(ask(&proxy).expect("all is well again"), (200, whole()));
        }
    }
}
