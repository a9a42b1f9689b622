//! The cache under several processes, kills and a bound.

use super::{config, noise, storage, wmtp_at};
use crate::{
    common::{json, succeed},
    proxy::{Faults, Proxy},
    s3::{Bucket, endpoint},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use wmtp::storage::{ByteSize, CacheConfig, Kind, StorageConfig};

/// MiB of the large object; 500 in the measured run.
fn large() -> usize {
    std::env::var("WMTP_TEST_OBJECT_MIB").map_or(64, |text| text.parse().expect("a number of MiB")) << 20
}

fn fetch(home: &Path, proxy: &Proxy, uri: &str) -> Command {
    let mut command = wmtp_at(home, &proxy.url());
    command.args(["--json", "cache", "fetch", "--data", uri]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn hash(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn two_processes_that_want_the_same_object_download_it_once() {
    let bucket = Bucket::new("two");
    let bytes = noise(3, large());
    let expected: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    bucket.put("object.bin", bytes);
    let proxy = Proxy::start(&endpoint(), Faults::none());
    let home = tempfile::tempdir().expect("a directory");
    let begun = Instant::now();
    let children: Vec<_> = (0..2)
        .map(|_| {
            fetch(home.path(), &proxy, &bucket.url("object.bin"))
                .spawn()
                .expect("the program starts")
        })
        .collect();
    let mut paths = Vec::new();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path: PathBuf = json(&output)["path"].as_str().expect("a path").into();
        assert_eq!(hash(&path), expected);
        paths.push(path);
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert_eq!(paths[0], paths[1]);
    let gets: Vec<_> = proxy
        .log()
        .into_iter()
        .filter(|e| e.method == "GET" && e.target.contains("object.bin"))
        .collect();
    let passed: u64 = gets.iter().map(|e| e.bytes).sum();
    // Beside the object itself: nothing but empty answers to listings of a directory of its name.
    let whole = large() as u64;
    assert!(
        (whole..whole + 10_000).contains(&passed),
        "{passed} bytes of an object of {whole}"
    );
    println!(
        "two processes, one object of {} MiB: {} GETs, {passed} bytes through the proxy, both done in {seconds:.1} s",
        large() >> 20,
        gets.len()
    );
}

#[test]
fn a_fetch_killed_at_twenty_random_moments_never_leaves_a_wrong_or_partial_file() {
    let bucket = Bucket::new("kills");
    let bytes = noise(4, large());
    let expected: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    let size = bytes.len() as u64;
    bucket.put("object.bin", bytes);
    let proxy = Proxy::start(&endpoint(), Faults::none());
    let home = tempfile::tempdir().expect("a directory");
    let store = home.path().join("cache/store");
    let uri = bucket.url("object.bin");
    // Four parts at a time: the whole takes two seconds, and most kills strike in the middle of it.
    proxy.set_speed(large() / 8);
    let mut random = StdRng::seed_from_u64(11);
    let mut kills = 0;
    let (mut finished, mut in_the_middle) = (0, 0);
    while kills < 20 {
        let mut child = fetch(home.path(), &proxy, &uri)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let moment = Duration::from_secs_f64(random.random_range(0.02..1.5));
        let begun = Instant::now();
        while begun.elapsed() < moment && child.try_wait().expect("a child").is_none() {
            sleep(Duration::from_millis(1));
        }
        if child.try_wait().expect("a child").is_some() {
            finished += 1;
        } else {
            child.kill().expect("it can be killed");
            child.wait().expect("it can be waited for");
            kills += 1;
            let partial = entries(&store.join("partial"));
            in_the_middle += usize::from(partial.iter().any(|p| p.join("data").exists()));
        }
        // What has a place where it would be served is whole.
        for blob in entries(&store.join("blobs")) {
            assert_eq!(Some(hash(&blob).as_str()), blob.file_name().and_then(|n| n.to_str()));
        }
        for tree in entries(&store.join("trees")).iter().filter(|p| p.is_dir()) {
            for file in entries(tree) {
                assert_eq!(hash(&file), expected);
            }
        }
        if store.join("blobs").join(&expected).exists() {
            // Whole: begin again.
            fs::remove_dir_all(&store).expect("the cache can be removed");
        }
    }
    proxy.set_speed(0);
    proxy.clear_log();
    let output = succeed(&mut fetch(home.path(), &proxy, &uri));
    let path: PathBuf = json(&output)["path"].as_str().expect("a path").into();
    assert_eq!(hash(&path), expected);
    let passed: u64 = proxy
        .log()
        .iter()
        .filter(|e| e.method == "GET" && e.target.contains("object.bin"))
        .map(|e| e.bytes)
        .sum();
    assert!(in_the_middle >= 10, "{in_the_middle} of 20 kills struck a download");
    println!(
        "20 kills, {in_the_middle} of them in the middle of the download of {size} bytes, {finished} fetches ended before theirs; the last one took {passed} bytes from the server"
    );
}

#[test]
fn a_fetch_goes_on_where_a_kill_broke_it() {
    let bucket = Bucket::new("resumed");
    bucket.put("object.bin", noise(5, 64 << 20));
    let proxy = Proxy::start(&endpoint(), Faults::none());
    let home = tempfile::tempdir().expect("a directory");
    let uri = bucket.url("object.bin");
    let of_the_object = |proxy: &Proxy| -> u64 {
        let log = proxy.log();
        log.iter()
            .filter(|e| e.method == "GET" && e.range.is_some())
            .map(|e| e.bytes)
            .sum()
    };
    proxy.set_speed(16 << 20);
    let mut child = fetch(home.path(), &proxy, &uri).spawn().expect("the program starts");
    let begun = Instant::now();
    while of_the_object(&proxy) < 32 << 20 {
        assert!(begun.elapsed() < Duration::from_secs(60), "half of it does not arrive");
        sleep(Duration::from_millis(2));
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it can be waited for");
    let first = of_the_object(&proxy);
    proxy.set_speed(0);
    proxy.clear_log();
    succeed(&mut fetch(home.path(), &proxy, &uri));
    let second = of_the_object(&proxy);
    assert!(second <= 40 << 20, "{first} bytes before the kill, {second} after it");
}

#[test]
fn what_was_used_least_recently_leaves_unless_it_is_in_use() {
    let bucket = Bucket::new("bound");
    for name in ["a", "b", "c", "d"] {
        bucket.put(
            &format!("{name}.bin"),
            noise(name.len() as u64 + u64::from(name.as_bytes()[0]), 1_000_000),
        );
    }
    let proxy = Proxy::start(&endpoint(), Faults::none());
    let home = tempfile::tempdir().expect("a directory");
    let bound = |command: &mut Command| {
        command.env("WMTP_STORAGE__CACHE__MAX_SIZE", "2500 kB");
        succeed(command);
        // Times of use are told apart by the file system's clock.
        sleep(Duration::from_millis(20));
    };
    let list = || {
        let document = json(&succeed(
            wmtp_at(home.path(), &endpoint()).args(["--json", "cache", "list"]),
        ));
        let entries = document["entries"].as_array().expect("a list").clone();
        let mut names: Vec<(String, bool)> = entries
            .iter()
            .map(|e| {
                let path = e["path"].as_str().expect("a path");
                (path[path.len() - 5..].to_owned(), e["in_use"] == true)
            })
            .collect();
        names.sort();
        names
    };
    let free = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), false)).collect::<Vec<_>>();

    bound(&mut fetch(home.path(), &proxy, &bucket.url("a.bin")));
    bound(&mut fetch(home.path(), &proxy, &bucket.url("b.bin")));
    bound(&mut fetch(home.path(), &proxy, &bucket.url("a.bin")));
    bound(&mut fetch(home.path(), &proxy, &bucket.url("c.bin")));
    assert_eq!(list(), free(&["a.bin", "c.bin"]), "b was used least recently");

    // This process holds on to a from now on.
    let settings = StorageConfig {
        cache: CacheConfig {
            max_size: Some(ByteSize(2_500_000)),
        },
        ..config(&endpoint())
    };
    let here = storage(home.path(), &settings);
    let a = here
        .resolve(&bucket.url("a.bin"), Kind::Data, &mut |_| ())
        .expect("a file");
    bound(&mut fetch(home.path(), &proxy, &bucket.url("c.bin")));
    bound(&mut fetch(home.path(), &proxy, &bucket.url("d.bin")));
    bound(&mut fetch(home.path(), &proxy, &bucket.url("b.bin")));
    assert_eq!(list(), [("a.bin".to_owned(), true), ("b.bin".to_owned(), false)]);

    let cleaned = json(&succeed(
        wmtp_at(home.path(), &endpoint()).args(["--json", "cache", "clean"]),
    ));
    assert_eq!(
        (&cleaned["removed"], &cleaned["in_use"], &cleaned["kept_bytes"]),
        (&1.into(), &1.into(), &1_000_000.into())
    );
    assert_eq!(list(), [("a.bin".to_owned(), true)]);
    assert_eq!(fs::read(a).expect("what is in use stays").len(), 1_000_000);
}
