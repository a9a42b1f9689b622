//! One request and its answer, with what goes wrong on the way.

use super::{
    Exchange, Shared,
    faults::Fault,
    lock,
    message::{Framing, Head, Pump, Tamper},
};
use std::{
    io::{self, BufReader, Write},
    net::TcpStream,
    sync::atomic::Ordering,
    time::Duration,
};

/// One request and its answer; true if the connection may be used again.
pub fn exchange(reader: &mut BufReader<&TcpStream>, mut client: &TcpStream, shared: &Shared) -> io::Result<bool> {
    let request = Head::read(reader)?;
    if shared.outage.load(Ordering::SeqCst) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let mut words = request.first_line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let (fault, at, stall) = lock(&shared.schedule).draw(&method, &target);
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
        Pump::new(nowhere, Tamper::Nothing, 0).body(reader, sent)?;
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
    Pump::new(&mut server, tamper, 0).body(reader, sent)?;

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
    let alters = lock(&shared.schedule).faults.alters;
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
    let mut pump = Pump::new(client, tamper, shared.speed.load(Ordering::SeqCst));
    let result = pump.body(&mut from, framing);
    entry.bytes = pump.passed;
    client.flush()?;
    match (result, fault) {
        // In good order, only too early.
        (Err(_), Some(Fault::Truncated)) => Ok(false),
        (result, _) => result.map(|()| again),
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
