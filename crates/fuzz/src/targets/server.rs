//! A server on the loopback whose answers are an input: one part for each request, its name the status.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// The answers, and how many were given.
#[derive(Default)]
struct Answers {
    parts: Vec<(String, Vec<u8>)>,
    given: usize,
}

/// A server, listening as long as the process lives.
pub(super) struct Server {
    pub url: String,
    answers: Arc<Mutex<Answers>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = match TcpListener::bind("127.0.0.1:0") {
            Ok(listener) => listener,
            Err(error) => panic!("no port on the loopback: {error}"),
        };
        let port = listener.local_addr().map_or(0, |address| address.port());
        let answers = Arc::new(Mutex::new(Answers::default()));
        let shared = Arc::clone(&answers);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    // A client may leave in the middle.
                    let _ = serve(stream, &shared);
                });
            }
        });
        Self {
            url: format!("http://127.0.0.1:{port}"),
            answers,
        }
    }

    /// What is answered from now on; the last answer is given again and again.
    pub fn says(&self, parts: Vec<(String, Vec<u8>)>) {
        if let Ok(mut answers) = self.answers.lock() {
            *answers = Answers { parts, given: 0 };
        }
    }
}

fn serve(stream: TcpStream, answers: &Mutex<Answers>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(is_head) = request(&mut reader)? {
        let (name, body) = {
            let mut answers = answers.lock().map_err(|_| std::io::ErrorKind::Other)?;
            let at = answers.given.min(answers.parts.len().saturating_sub(1));
            answers.given += 1;
            answers.parts.get(at).cloned().unwrap_or_default()
        };
        let status = name
            .get(..3)
            .and_then(|status| status.parse().ok())
            .unwrap_or(200u16)
            .clamp(200, 599);
        // An ETag that is none of the body's, and what an answer to HEAD wants.
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nETag: \"0123\"\r\nLast-Modified: Mon, 30 Nov 2026 00:00:00 GMT\r\n\r\n",
            body.len()
        );
        let has_body = !is_head && status != 204 && status != 304;
        let bytes = [head.as_bytes(), if has_body { &body } else { &[] }].concat();
        writer.write_all(&bytes)?;
    }
    Ok(())
}

/// Reads a request; whether it is one for a head alone. None at the end.
fn request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<bool>> {
    let mut is_head = None;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if is_head.is_none() {
            is_head = Some(line.starts_with("head "));
        }
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap_or(0);
        }
        if line.starts_with("expect:") {
            reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if line.is_empty() {
            break;
        }
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    Ok(is_head)
}
