//! Messages of HTTP/1.1: their heads, where they end, and how they are passed on.

use std::{
    io::{self, BufRead, Read, Write},
    thread,
    time::Duration,
};

/// A request or an answer up to its body.
pub struct Head {
    pub first_line: String,
    headers: Vec<(String, String)>,
}

impl Head {
    pub fn read(reader: &mut impl BufRead) -> io::Result<Self> {
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

    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// With this `Connection` header in place of its own, and without what was answered here.
    pub fn write(&self, out: &mut impl Write, connection: &str) -> io::Result<()> {
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

    /// How the body ends: there is none if `without`, and it ends `otherwise` where no header says it.
    pub fn framing(&self, without: bool, otherwise: Framing) -> Framing {
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
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClosed,
}

/// What happens to a body after so many of its bytes.
#[derive(Clone, Copy)]
pub enum Tamper {
    Nothing,
    StopAfter(u64),
    AlterAt(u64),
    PauseAfter(u64, Duration),
}

/// Passes a body on. Fails where the tampering says that it stops.
pub struct Pump<'a, W> {
    to: &'a mut W,
    tamper: Tamper,
    /// Bytes that were passed on.
    pub passed: u64,
    speed: usize,
}

impl<'a, W: Write> Pump<'a, W> {
    /// To `to`, at most `speed` bytes a second; 0 for no limit.
    pub fn new(to: &'a mut W, tamper: Tamper, speed: usize) -> Self {
        Self {
            to,
            tamper,
            passed: 0,
            speed,
        }
    }

    pub fn body(&mut self, from: &mut impl BufRead, framing: Framing) -> io::Result<()> {
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
