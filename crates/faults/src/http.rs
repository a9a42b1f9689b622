//! A small HTTP server on loopback that answers as a service does, or badly in one of several manners.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Larger requests are cut off.
const MOST: u64 = 64 << 20;

/// A request.
#[derive(Debug, Default)]
pub struct Request {
    pub method: String,
    /// Path and query as they were sent.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without headers of its own.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }
}

/// What is behind the server.
pub trait Service: Send + Sync {
    /// Answers a request.
    fn answer(&self, request: &Request) -> Answer;
}

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    /// As its service does.
    Works,
    /// The connection is reset before anything is read.
    Resets,
    /// The request is read, and nothing is answered.
    Silent,
    /// Every answer is this late.
    Slow(Duration),
    /// This status, with a sentence.
    Status(u16),
    /// The service does what it was asked to, and the answer ends in the middle.
    Cut,
    /// Another page than was asked for, with status 200.
    Nonsense,
    /// A share of the requests is answered in one of the other manners, the rest works.
    Flaky(f64),
}

struct Shared {
    service: Arc<dyn Service>,
    state: Mutex<(Manner, StdRng)>,
    stop: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, (Manner, StdRng)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manner of the next answer.
    fn manner(&self) -> Manner {
        let (manner, random) = &mut *self.state();
        let Manner::Flaky(share) = *manner else { return *manner };
        if !random.random_bool(share) {
            return Manner::Works;
        }
        match random.random_range(0..6) {
            0 => Manner::Resets,
            1 => Manner::Slow(Duration::from_millis(random.random_range(10..200))),
            2 => Manner::Status(500),
            3 => Manner::Status(503),
            4 => Manner::Nonsense,
            _ => Manner::Cut,
        }
    }
}

/// A server; it ends on drop.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Server {
    /// Starts one on a free port.
    pub fn start(service: Arc<dyn Service>, manner: Manner, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            service,
            state: Mutex::new((manner, StdRng::seed_from_u64(seed))),
            stop: AtomicBool::new(false),
        });
        let inside = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if inside.stop.load(Ordering::Relaxed) {
                    return;
                }
                let inside = Arc::clone(&inside);
                // A client that goes away in the middle is no failure of the server.
                thread::spawn(move || _ = serve(&inside, stream));
            }
        });
        Ok(Self { shared, address })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers in another manner from now on.
    pub fn set(&self, manner: Manner) {
        self.shared.state().0 = manner;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

/// An address of this machine where nobody listens.
pub fn nobody() -> io::Result<String> {
    Ok(format!("http://{}", TcpListener::bind(("127.0.0.1", 0))?.local_addr()?))
}

/// One exchange; the connection is closed after it.
fn serve(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let manner = shared.manner();
    if manner == Manner::Resets {
        // Bytes that were not read make the kernel reset the connection.
        return stream.shutdown(Shutdown::Both);
    }
    let request = read(&mut BufReader::new(&stream))?;
    match manner {
        Manner::Silent => {
            while !shared.stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        Manner::Slow(pause) => thread::sleep(pause),
        _ => {}
    }
    // A server that takes an object, says so, and has not got it, is found out by nobody.
    let is_flaky = matches!(shared.state().0, Manner::Flaky(_));
    let manner = match manner {
        Manner::Nonsense if is_flaky && !["GET", "HEAD"].contains(&request.method.as_str()) => Manner::Status(500),
        manner => manner,
    };
    let answer = match manner {
        Manner::Status(status) => Answer::new(status, "<html><body>The server is unwell.</body></html>"),
        Manner::Nonsense => Answer::new(200, "<html><body>Log in to use this network.</body></html>"),
        _ => shared.service.answer(&request),
    };
    let mut bytes = format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n", answer.status).into_bytes();
    for (name, value) in &answer.headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    bytes.extend(format!("Content-Length: {}\r\n\r\n", answer.body.len()).into_bytes());
    if request.method != "HEAD" {
        bytes.extend(&answer.body);
    }
    let length = if manner == Manner::Cut {
        bytes.len() * 2 / 3
    } else {
        bytes.len()
    };
    stream.write_all(&bytes[..length])?;
    stream.shutdown(Shutdown::Write)
}

fn read(from: &mut impl BufRead) -> io::Result<Request> {
    let first = line(from)?;
    let mut words = first.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let mut request = Request {
        method: word(),
        target: word(),
        ..Request::default()
    };
    loop {
        let header = line(from)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        request
            .headers
            .push((name.trim().to_lowercase(), value.trim().to_owned()));
    }
    if request
        .header("transfer-encoding")
        .is_some_and(|value| value.contains("chunked"))
    {
        loop {
            let size = line(from)?;
            let size = size.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 || request.body.len() as u64 + size > MOST {
                break;
            }
            from.by_ref().take(size).read_to_end(&mut request.body)?;
            line(from)?;
        }
    } else {
        let length = request.header("content-length").and_then(|text| text.parse().ok());
        let length: u64 = length.unwrap_or_default();
        from.take(length.min(MOST)).read_to_end(&mut request.body)?;
    }
    Ok(request)
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.by_ref().take(16 << 10).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Service for Echo {
        fn answer(&self, request: &Request) -> Answer {
            let text = format!("{} {} {}", request.method, request.target, request.body.len());
            Answer::new(200, text)
        }
    }

    fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("a timeout");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn requests_are_read_whole_and_answered() {
        let server = Server::start(Arc::new(Echo), Manner::Works, 1).expect("a server");
        let plain = ask(&server, "PUT /a?b=1 HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello");
        assert!(
            plain.starts_with("HTTP/1.1 200") && plain.ends_with("PUT /a?b=1 5"),
            "{plain}"
        );
        let chunked = "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\nabcd\r\n0\r\n\r\n";
        assert!(ask(&server, chunked).ends_with("PUT /a 7"));
        let head = ask(&server, "HEAD /a HTTP/1.1\r\n\r\n");
        assert!(
            head.contains("Content-Length: 9") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
    }

    #[test]
    fn every_manner_is_bad_in_its_own_way() {
        let request = "GET / HTTP/1.1\r\n\r\n";
        let server = Server::start(Arc::new(Echo), Manner::Works, 1).expect("a server");
        let answer = |manner: Manner| {
            server.set(manner);
            ask(&server, request)
        };
        assert_eq!(answer(Manner::Resets), "");
        assert_eq!(answer(Manner::Silent), "");
        assert!(answer(Manner::Status(503)).starts_with("HTTP/1.1 503"));
        assert!(answer(Manner::Nonsense).contains("Log in"));
        assert!(answer(Manner::Slow(Duration::from_millis(20))).ends_with("GET / 0"));
        let whole = answer(Manner::Works);
        let cut = answer(Manner::Cut);
        assert!(cut.len() < whole.len() && whole.starts_with(&cut), "{cut}");
        let answers: Vec<String> = (0..40).map(|_| answer(Manner::Flaky(0.5))).collect();
        let good = answers.iter().filter(|answer| **answer == whole).count();
        assert!((8..36).contains(&good), "{good} of 40");
        let nobody = nobody().expect("an address");
        assert!(TcpStream::connect(nobody.trim_start_matches("http://")).is_err());
    }
}
