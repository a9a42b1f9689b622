//! A stand-in for the model hub: HTTP/1.1 by hand, GET, HEAD and Range, one thread a connection.

use sha2::{Digest, Sha256};
use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The commit that `main` names.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the server behaves.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Only this token opens anything.
    pub token: Option<&'static str>,
    /// So many requests are answered with status 500 first.
    pub errors_first: usize,
    /// So many times `model.safetensors` breaks off: half-way first, then at once.
    pub truncate_times: usize,
    /// `model.safetensors` has another last byte than listed.
    pub corrupt: bool,
    /// There is no listing with sizes.
    pub no_tree: bool,
    /// This file is listed, but not there.
    pub missing: Option<&'static str>,
    /// Files whose names end in one of these are not listed.
    pub unlisted: &'static [&'static str],
    /// The API answers with a web page.
    pub not_json: bool,
}

/// The server, listening until the test ends.
pub struct Server {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Behaviour,
    files: Vec<(&'static str, Vec<u8>)>,
    requests: Mutex<Vec<String>>,
    truncated: AtomicUsize,
}

impl Server {
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let weights = (0..3_000_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let shared = Arc::new(Shared {
            behaviour,
            files: vec![
                (".gitattributes", b"x".to_vec()),
                ("README.md", b"# model".to_vec()),
                ("config.json", b"{\"model_type\": \"llama\"}".to_vec()),
                ("generation_config.json", b"{}".to_vec()),
                ("model.safetensors", weights),
                ("mtp_heads.safetensors", vec![7; 1000]),
                ("onnx/model.safetensors", vec![1; 10]),
                ("pytorch_model.bin", vec![9; 10]),
                ("tokenizer.json", b"{\"version\": \"1.0\"}".to_vec()),
                ("tokenizer_config.json", Vec::new()),
            ],
            requests: Mutex::new(Vec::new()),
            truncated: AtomicUsize::new(0),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&for_thread);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Vec<u8>)> {
        self.shared.files.iter().map(|(name, bytes)| (*name, bytes))
    }

    pub fn file(&self, name: &str) -> &Vec<u8> {
        self.files().find(|(n, _)| *n == name).unwrap().1
    }

    /// Request lines so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

struct Request {
    head: bool,
    path: String,
    authorization: Option<String>,
    range: Option<(usize, Option<usize>)>,
}

impl Shared {
    /// Answers requests on one connection until it closes.
    fn serve(&self, stream: TcpStream) {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while let Some(request) = self.read(&mut reader) {
            if self.answer(&request, &mut writer).is_none() {
                return;
            }
        }
    }

    fn read(&self, reader: &mut BufReader<TcpStream>) -> Option<Request> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        self.requests.lock().unwrap().push(lines.first()?.clone());
        let mut words = lines.first()?.split(' ');
        let (method, path) = (words.next()?, words.next()?.to_owned());
        let header = |name: &str| {
            lines.iter().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let range = header("range").and_then(|r| {
            let (start, end) = r.strip_prefix("bytes=")?.split_once('-')?;
            Some((start.parse().ok()?, end.parse().ok()))
        });
        Some(Request {
            head: method == "HEAD",
            path,
            authorization: header("authorization"),
            range,
        })
    }

    /// None closes the connection.
    fn answer(&self, request: &Request, out: &mut TcpStream) -> Option<()> {
        let b = &self.behaviour;
        if self.requests.lock().unwrap().len() <= b.errors_first {
            return send(out, request, 500, b"it hurts");
        }
        if let Some(token) = b.token
            && request.authorization.as_deref() != Some(&format!("Bearer {token}"))
        {
            return send(out, request, 401, b"Invalid username or password.");
        }
        // A data set of the same name and files.
        let path = request
            .path
            .replacen("/api/datasets/", "/api/models/", 1)
            .replacen("/datasets/", "/", 1);
        let path = path.as_str();
        let revisions = ["main", COMMIT].map(|r| format!("/api/models/owner/model/revision/{r}"));
        if revisions.iter().any(|r| r == path) {
            let page = if b.not_json {
                "<html>hello</html>".to_owned()
            } else {
                self.listing()
            };
            return send(out, request, 200, page.as_bytes());
        }
        let tree = format!("/api/models/owner/model/tree/{COMMIT}");
        if path == tree && !b.no_tree {
            return send(out, request, 200, self.tree("").as_bytes());
        }
        if path == format!("{tree}/onnx") && !b.no_tree {
            return send(out, request, 200, self.tree("onnx").as_bytes());
        }
        let name = path.strip_prefix(&format!("/owner/model/resolve/{COMMIT}/"));
        let file = name
            .filter(|n| Some(*n) != b.missing)
            .and_then(|n| self.files.iter().find(|(f, _)| f == &n));
        let Some((name, bytes)) = file else {
            return send(out, request, 404, b"Repository or file not found");
        };
        if *name == "model.safetensors" {
            if b.corrupt {
                let mut other = bytes.clone();
                *other.last_mut()? ^= 1;
                return send(out, request, 200, &other);
            }
            if self.truncated.load(Ordering::SeqCst) < b.truncate_times {
                let times = self.truncated.fetch_add(1, Ordering::SeqCst);
                let (status, body, headers) = part(request, bytes);
                head(out, status, body.len(), &headers)?;
                // Half of it the first time, nothing more after that.
                out.write_all(&body[..if times == 0 { body.len() / 2 } else { 0 }])
                    .ok()?;
                return None;
            }
        }
        send(out, request, 200, bytes)
    }

    fn listed(&self) -> impl Iterator<Item = &(&'static str, Vec<u8>)> {
        let unlisted = self.behaviour.unlisted;
        self.files
            .iter()
            .filter(move |(name, _)| !unlisted.iter().any(|end| name.ends_with(end)) || name.contains('/'))
    }

    fn listing(&self) -> String {
        let siblings: Vec<_> = self
            .listed()
            .map(|(name, _)| serde_json::json!({"rfilename": name}))
            .collect();
        serde_json::json!({"id": "owner/model", "sha": COMMIT, "siblings": siblings}).to_string()
    }

    /// The files of one folder.
    fn tree(&self, folder: &str) -> String {
        let entries: Vec<_> = self
            .listed()
            .filter(|(name, _)| name.rsplit_once('/').map_or("", |(folder, _)| folder) == folder)
            .map(|(name, bytes)| {
                let mut entry = serde_json::json!({"type": "file", "path": name, "size": bytes.len()});
                if name.ends_with(".safetensors") {
                    let oid: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
                    entry["lfs"] = serde_json::json!({"oid": oid, "size": bytes.len()});
                }
                entry
            })
            .collect();
        serde_json::Value::Array(entries).to_string()
    }
}

/// The part of a body that a Range header asks for.
fn part<'a>(request: &Request, body: &'a [u8]) -> (u16, &'a [u8], String) {
    match request.range {
        Some((start, end)) if start < body.len() => {
            let end = end.map_or(body.len(), |end| (end + 1).min(body.len()));
            let header = format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, body.len());
            (206, &body[start..end], header)
        }
        Some(_) => (416, &[], String::new()),
        None => (200, body, String::new()),
    }
}

fn send(out: &mut TcpStream, request: &Request, status: u16, body: &[u8]) -> Option<()> {
    let (status, body, headers) = if status == 200 {
        part(request, body)
    } else {
        (status, body, String::new())
    };
    head(out, status, body.len(), &headers)?;
    if !request.head {
        out.write_all(body).ok()?;
    }
    out.flush().ok()
}

fn head(out: &mut TcpStream, status: u16, length: usize, headers: &str) -> Option<()> {
    write!(out, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n").ok()
}
