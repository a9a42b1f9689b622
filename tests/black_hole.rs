//! Servers that never answer, never come to an end, or are none: a run does not wait for those that only receive
//! copies, and an error says within seconds what is wrong.

mod common;

use common::wmtp;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A server on loopback that answers each request, a connection for each. Its address and the number of requests.
fn server(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    let (count, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (count, answer) = (Arc::clone(&counted), Arc::clone(&answer));
            thread::spawn(move || {
                let mut request = Vec::new();
                let mut piece = [0; 4096];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(0) | Err(_) => return,
                        Ok(n) => request.extend_from_slice(&piece[..n]),
                    }
                }
                count.fetch_add(1, Ordering::SeqCst);
                answer(&String::from_utf8_lossy(&request), &mut stream);
            });
        }
    });
    (address, count)
}

fn respond(stream: &mut TcpStream, status: &str, kind: &str, body: &str) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
}

fn with_keys(command: &mut Command) -> &mut Command {
    command
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
}

/// `wmtp train` of a few steps that is uploaded to `endpoint`.
fn train(home: &Path, endpoint: &str, set: &[&str]) -> Command {
    let mut command = wmtp(home);
    with_keys(&mut command).args(["train", "baseline", "--plain", "--output", "runs", "--run-name", "r"]);
    command.args(["--max-steps", "3", "--set", &format!("storage.s3.endpoint={endpoint}")]);
    let small = [
        "data.train_tasks=[602,631]",
        "data.valid_tasks=[511,515]",
        "data.seq_len=256",
        "train.record.documents=0",
        "storage.runs=s3://bucket/runs",
        "storage.upload.wait_seconds=1",
    ];
    command.args(small.iter().chain(set).flat_map(|set| ["--set", set]));
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must end within `most`.
fn within(command: &mut Command, most: Duration) -> Output {
    let begun = Instant::now();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let output = child
        .expect("the program starts")
        .wait_with_output()
        .expect("its output");
    assert!(
        begun.elapsed() < most,
        "{command:?} took {:?}:\n{}",
        begun.elapsed(),
        text(&output)
    );
    output
}

#[test]
fn training_begins_within_ten_seconds_of_a_server_that_never_answers() {
    // It accepts and is silent, for longer than the test lasts.
    let silent = || server(|_, _| thread::sleep(Duration::from_secs(600)));
    let (s3, asked) = silent();
    let (mlflow, _) = silent();
    let home = tempfile::tempdir().expect("a directory");
    let tracked = [
        "tracking.kinds=[mlflow]",
        &format!("tracking.mlflow.uri={mlflow}"),
        "tracking.wait_seconds=1",
    ];
    let begun = Instant::now();
    let child = train(home.path(), &s3, &tracked)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let metrics = home.path().join("runs/r/metrics.jsonl");
    let first_step = loop {
        let lines = std::fs::read_to_string(&metrics).unwrap_or_default();
        if lines.lines().any(|line| line.contains("\"grad_norm\"")) {
            break begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no step after a minute");
        thread::sleep(Duration::from_millis(20));
    };
    assert!(
        first_step < Duration::from_secs(10),
        "the first step came after {first_step:?}"
    );
    let output = child.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    // What it waited for is said, and at the end what is missing there.
    let said = text(&output);
    assert!(asked.load(Ordering::SeqCst) > 0);
    let warning = said
        .lines()
        .find(|line| line.starts_with("warning: ") && line.contains("s3://bucket/runs/r"));
    assert!(
        warning.is_some_and(|line| line.contains("checkpoints will be uploaded as soon as that works")),
        "{said}"
    );
    assert!(said.contains("are not at s3://bucket/runs/r"), "{said}");
}

#[test]
fn who_is_waited_for_is_said_after_five_seconds() {
    let (address, _) = server(|_, _| thread::sleep(Duration::from_secs(600)));
    let home = tempfile::tempdir().expect("a directory");
    let mut command = generate(home.path(), &address);
    command.args(["--set", "storage.retries=0", "--set", "storage.timeout_seconds=7"]);
    let output = within(&mut command, Duration::from_secs(20));
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let waiting = format!("waiting for {address}, which has not answered for 5 s");
    assert_eq!(said.lines().filter(|line| line.contains(&waiting)).count(), 1, "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
}

/// A page of a listing: as S3 writes it.
fn page(keys: &[String], more: Option<&str>) -> String {
    let contents: String = keys
        .iter()
        .map(|key| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag>\
                 <Size>1</Size></Contents>"
            )
        })
        .collect();
    let token = more.map_or(String::new(), |token| match token {
        "" => String::new(),
        token => format!("<NextContinuationToken>{token}</NextContinuationToken>"),
    });
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><Name>bucket</Name><IsTruncated>{}</IsTruncated>{token}{contents}\
         </ListBucketResult>",
        more.is_some()
    )
}

/// Asks for a model that a listing has to be read for.
fn generate(home: &Path, endpoint: &str) -> Command {
    let mut command = wmtp(home);
    with_keys(&mut command).args(["generate", "--model", "s3://bucket/model", "--prompt", "x"]);
    command.args([
        "--set",
        &format!("storage.s3.endpoint={endpoint}"),
        "--set",
        "storage.retry_delay_ms=1",
    ]);
    command
}

#[test]
fn a_listing_without_end_is_given_up() {
    let home = tempfile::tempdir().expect("a directory");
    let numbers = AtomicUsize::new(0);
    type Answer = Box<dyn Fn(&mut TcpStream) + Send + Sync>;
    let listings: [(&str, Answer); 4] = [
        // The same page for ever, with a token and without one.
        (
            "same",
            Box::new(|stream| respond(stream, "200 OK", "application/xml", &page(&[], Some("again")))),
        ),
        (
            "none",
            Box::new(|stream| respond(stream, "200 OK", "application/xml", &page(&[], Some("")))),
        ),
        // New objects for ever.
        (
            "new",
            Box::new(move |stream| {
                let n = numbers.fetch_add(1000, Ordering::SeqCst);
                let keys: Vec<String> = (n..n + 1000).map(|i| format!("model/{i}.json")).collect();
                respond(
                    stream,
                    "200 OK",
                    "application/xml",
                    &page(&keys, Some(&format!("t{n}"))),
                );
            }),
        ),
        // A page that never ends.
        (
            "body",
            Box::new(|stream| {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nConnection: close\r\n\r\n";
                let _ = stream.write_all(head.as_bytes());
                let part = "<Contents><Key>k</Key></Contents>".repeat(2000);
                while stream.write_all(part.as_bytes()).is_ok() {}
            }),
        ),
    ];
    for (name, answer) in listings {
        let (address, asked) = server(move |request, stream| {
            if request.contains("list-type=2") {
                return answer(stream);
            }
            respond(stream, "404 Not Found", "application/xml", "");
        });
        let output = within(&mut generate(home.path(), &address), Duration::from_secs(60));
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert_eq!(said.lines().count(), 1, "{name}: {said}");
        assert!(
            said.contains("listing s3://bucket/model") && said.contains("its listing does not end"),
            "{name}: {said}"
        );
        assert!(asked.load(Ordering::SeqCst) < 1000, "{name}: {asked:?} requests");
    }
}

#[test]
fn a_web_page_is_no_s3_server() {
    let home = tempfile::tempdir().expect("a directory");
    for status in ["200 OK", "404 Not Found"] {
        let (address, _) =
            server(move |_, stream| respond(stream, status, "text/html; charset=utf-8", "<html>Log in</html>"));
        let output = within(&mut generate(home.path(), &address), Duration::from_secs(30));
        let said = text(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("web page") && said.contains("captive portal"), "{said}");
    }
    // A page of another kind, of which HEAD tells no more than its length.
    let (address, _) = server(|request, stream| {
        let body = match request.contains("list-type=2") {
            true => page(&["model/config.json".to_owned()], None),
            false => "{}".to_owned(),
        };
        respond(stream, "200 OK", "application/octet-stream", &body);
    });
    let output = within(&mut generate(home.path(), &address), Duration::from_secs(30));
    let said = text(&output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("has no ETag"), "{said}");
    // A proxy before the store that fails for a moment is tried again, as any other error.
    let (address, asked) = server(|_, stream| respond(stream, "502 Bad Gateway", "text/html", "<html></html>"));
    let output = within(&mut generate(home.path(), &address), Duration::from_secs(30));
    assert!(text(&output).contains("status 502"), "{}", text(&output));
    assert!(asked.load(Ordering::SeqCst) > 1);
}

#[test]
fn a_bucket_that_is_not_there_is_named_before_training() {
    let home = tempfile::tempdir().expect("a directory");
    let (address, _) = server(|request, stream| {
        let body = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>none</Message></Error>";
        let body = if request.starts_with("HEAD") { "" } else { body };
        respond(stream, "404 Not Found", "application/xml", body);
    });
    let output = within(
        &mut train(home.path(), &address, &["storage.retries=0"]),
        Duration::from_secs(60),
    );
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let warning = said
        .find("has no s3://bucket: make the bucket, or check its name")
        .expect(&said);
    let step = said
        .find("step     3")
        .or_else(|| said.find("validation loss"))
        .expect(&said);
    assert!(warning < step, "{said}");
}
