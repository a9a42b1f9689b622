//! HTTP/1.1 by hand, one thread a connection.

use super::Answer;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `METHOD /path`.
    pub line: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn method(&self) -> &str {
        self.line.split(' ').next().unwrap()
    }

    /// Without a query.
    pub fn path(&self) -> &str {
        self.line.split([' ', '?']).nth(1).unwrap()
    }
}

/// Answers the requests of one connection. `cut` says by a request's line whether the connection ends in the
/// middle of its body.
pub fn serve(stream: TcpStream, cut: impl Fn(&str) -> bool, answer: impl Fn(Request) -> Option<Answer>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader, &cut) {
        let is_head = request.method() == "HEAD";
        let Some(answer) = answer(request) else { return };
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        if !answer.headers.iter().any(|(name, _)| name == "Content-Length") {
            head += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let body: &[u8] = if is_head { &[] } else { &answer.body };
        let sent = writer
            .write_all(format!("{head}\r\n").as_bytes())
            .and_then(|()| writer.write_all(body));
        if sent.is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>, cut: impl Fn(&str) -> bool) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let header = |name: &str| {
        lines.iter().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let line = lines.first()?.rsplit_once(' ')?.0.to_owned();
    let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
    if header("expect").is_some() {
        reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let mut body = vec![0; if cut(&line) { length / 2 } else { length }];
    reader.read_exact(&mut body).ok()?;
    if body.len() < length {
        return None;
    }
    Some(Request {
        line,
        authorization: header("authorization"),
        range: header("range"),
        body,
    })
}
