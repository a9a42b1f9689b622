//! The proxy by itself.

use super::{
    Fault, Faults, Proxy,
    message::{Framing, Head, Pump, Tamper},
};
use std::{
    io::{self, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

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
            if Pump::new(&mut nowhere, Tamper::Nothing, 0)
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
    Pump::new(&mut body, Tamper::Nothing, 0).body(&mut reader, head.framing(false, Framing::UntilClosed))?;
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
