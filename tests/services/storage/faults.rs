//! Whatever happens on the way: no run is lost, and no wrong byte is taken for a right one.

use super::{config, noise, storage};
use crate::{
    proxy::{Fault, Faults, Proxy},
    s3::{Bucket, endpoint},
};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use wmtp::{
    run::{CheckpointError, CheckpointStore, Mirror, TrainerState, link_files, verify},
    storage::{Ended, Kind, RemoteRuns, RunMirror, StorageConfig},
};

/// Files of a directory with their bytes.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            (
                path.file_name().expect("a name").to_string_lossy().into_owned(),
                fs::read(&path).expect("a file"),
            )
        })
        .collect()
}

/// A run directory with a small checkpoint of this step, as `last`.
fn keep(store: &CheckpointStore, name: &str) {
    let filled = store.keep(name, |from, to| link_files(from, to, |_| false));
    filled.expect("a checkpoint");
}

fn save(store: &CheckpointStore, seed: u64, step: usize) {
    let state = TrainerState {
        step,
        ..TrainerState::new("recipe".into(), "data".into())
    };
    let write = |dir: &Path, name: &str, bytes: Vec<u8>| {
        fs::write(dir.join(name), bytes).map_err(|e| CheckpointError::Content {
            path: dir.into(),
            problem: e.to_string(),
        })
    };
    store
        .save(&state, |dir| {
            write(dir, "config.json", b"{}".to_vec())?;
            write(dir, "tokenizer.json", noise(seed, 5_000))?;
            write(dir, "model.safetensors", noise(1000 * seed + step as u64, 60_000))?;
            write(dir, "optimizer.bpk", noise(1000 * seed + step as u64 + 500, 30_000))
        })
        .expect("a checkpoint");
}

/// Wrong bytes strike what a hash covers; no client can tell a wrong listing from a true one.
pub fn is_an_object(_: &str, target: &str, _: &str) -> bool {
    !target.contains("list-type")
}

/// Trains nothing, but saves, copies, fetches and serves through a proxy that breaks every fourth
/// exchange.
fn schedule(bucket: &Bucket, seed: u64, count: &Mutex<HashMap<Fault, usize>>) {
    let kinds = Fault::ALL;
    let proxy = Proxy::start(
        &endpoint(),
        Faults {
            stall: Duration::from_millis(30),
            alters: is_an_object,
            ..Faults::seeded(seed, 0.25, kinds)
        },
    );
    let settings: StorageConfig = config(&proxy.url());
    let home = tempfile::tempdir().expect("a directory");
    let name = format!("run-{seed}");
    let run = home.path().join("runs").join(&name);
    fs::create_dir_all(&run).expect("a directory");
    fs::write(run.join("run.json"), format!("{{\"seed\": {seed}}}")).expect("a file");
    let runs = RemoteRuns::open(&bucket.url("faults"), &settings).expect("a connection");
    let report = Box::new(|_, event: &'static str, reason: String| panic!("{event}: {reason}"));
    let mirror = RunMirror::start(runs.run(&name), &run, 0, report).expect("a thread");
    let mirror = Arc::new(mirror);
    let store = CheckpointStore::open(run.join("checkpoints")).expect("a store");
    let store = store.with_mirror(Some(mirror.clone() as Arc<dyn Mirror>));
    for step in 1..=3 {
        fs::write(run.join("metrics.jsonl"), noise(step as u64, 1000 * step)).expect("a file");
        save(&store, seed, step);
        if step == 2 {
            keep(&store, "best");
        }
    }
    let ended = mirror.finish(Duration::from_secs(60), &mut |_| ());
    assert_eq!(ended, Ended::Complete, "schedule {seed}");

    let machine = tempfile::tempdir().expect("a directory");
    let fetched = runs.run(&name).fetch(&machine.path().join("runs"), &mut |_| ());
    let fetched = fetched.unwrap_or_else(|e| panic!("schedule {seed}: {e}"));
    assert_eq!(
        (fetched.step, fetched.passed_over.as_slice()),
        (3, [].as_slice()),
        "schedule {seed}"
    );
    for file in ["checkpoints/last", "checkpoints/best"] {
        assert!(
            contents(&fetched.dir.join(file)) == contents(&run.join(file)),
            "schedule {seed}: {file}"
        );
    }
    for file in ["run.json", "metrics.jsonl"] {
        let read = |dir: &Path| fs::read(dir.join(file)).expect("a file");
        assert!(read(&fetched.dir) == read(&run), "schedule {seed}: {file}");
    }
    verify(&fetched.dir.join("checkpoints/last")).expect("it is whole");

    let uri = format!("{}/checkpoints/best", runs.run(&name).url());
    let model = storage(machine.path(), &settings).resolve(&uri, Kind::Model, &mut |_| ());
    let model = model.unwrap_or_else(|e| panic!("schedule {seed}: {e}"));
    let expected = contents(&run.join("checkpoints/best"));
    for (file, bytes) in contents(&model) {
        assert!(expected[&file] == bytes, "schedule {seed}: {file} of {uri}");
    }
    let mut count = count.lock().expect("no thread panicked");
    for fault in proxy.log().iter().filter_map(|exchange| exchange.fault) {
        *count.entry(fault).or_default() += 1;
    }
}

#[test]
fn two_hundred_schedules_of_faults_lose_and_spoil_nothing() {
    let schedules = std::env::var("WMTP_TEST_SCHEDULES").map_or(200, |text| text.parse().expect("a number"));
    let bucket = Bucket::new("faults");
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let count = Mutex::new(HashMap::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= schedules {
                        return;
                    }
                    schedule(&bucket, seed as u64, &count);
                }
            });
        }
    });
    let count = count.into_inner().expect("no thread panicked");
    println!(
        "{schedules} schedules in {:.0} s, faults: {count:?}",
        begun.elapsed().as_secs_f64()
    );
    let missing: Vec<_> = Fault::ALL.iter().filter(|fault| !count.contains_key(fault)).collect();
    assert!(missing.is_empty() || schedules < 50, "{missing:?} never struck");
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let bucket = Bucket::new("silent");
    let bytes = noise(6, 1_000_000);
    bucket.put("object.bin", bytes.clone());
    let silent = Faults {
        stall: Duration::from_secs(30),
        most: 2,
        ..Faults::seeded(1, 1.0, &[Fault::Stall])
    };
    let proxy = Proxy::start(&endpoint(), silent);
    let home = tempfile::tempdir().expect("a directory");
    let settings = StorageConfig {
        timeout_seconds: 1,
        ..config(&proxy.url())
    };
    let begun = Instant::now();
    let path = storage(home.path(), &settings).resolve(&bucket.url("object.bin"), Kind::Data, &mut |_| ());
    assert!(fs::read(path.expect("a file")).expect("a file") == bytes);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_half_sent_or_damaged_checkpoint_is_never_taken_and_the_one_before_is() {
    let bucket = Bucket::new("damage");
    let settings = config(&endpoint());
    let home = tempfile::tempdir().expect("a directory");
    let run = home.path().join("run");
    fs::create_dir_all(&run).expect("a directory");
    fs::write(run.join("run.json"), "{}").expect("a file");
    let runs = RemoteRuns::open(&bucket.url("runs"), &settings).expect("a connection");
    let store = CheckpointStore::open(run.join("checkpoints")).expect("a store");
    let send = |step: usize| {
        save(&store, 1, step);
        let report = Box::new(|_, event: &'static str, reason: String| panic!("{event}: {reason}"));
        let mirror = RunMirror::start(runs.run("run"), &run, 0, report).expect("a thread");
        assert_eq!(mirror.finish(Duration::from_secs(20), &mut |_| ()), Ended::Complete);
    };
    send(1);
    send(2);
    let taken = || {
        let machine = tempfile::tempdir().expect("a directory");
        let fetched = runs
            .run("run")
            .fetch(machine.path(), &mut |_| ())
            .expect("a checkpoint");
        (fetched.step, fetched.passed_over.len())
    };
    assert_eq!(taken(), (2, 0));

    let names = bucket.names("runs/run/checkpoints");
    let file = |step: &str, end: &str| {
        let found = names
            .iter()
            .find(|n| n.starts_with(step) && n.ends_with(end))
            .expect("a file");
        format!("runs/run/checkpoints/{found}")
    };
    let model = file("step-000002", "model.safetensors");
    let whole = bucket.get(&model);
    let mut altered = whole.clone();
    altered[30_000] ^= 1;
    for wrong in [altered, whole[..50_000].to_vec()] {
        bucket.put(&model, wrong);
        assert_eq!(taken(), (1, 1));
    }
    bucket.delete(&model);
    assert_eq!(taken(), (1, 1));
    bucket.put(&model, whole);
    assert_eq!(taken(), (2, 0));
    bucket.delete(&file("step-000002", "manifest.json"));
    assert_eq!(taken(), (1, 0), "without its manifest it is none");
    bucket.put(&file("step-000001", "manifest.json"), "{\"format\": 1, \"st");
    let machine = tempfile::tempdir().expect("a directory");
    let error = runs
        .run("run")
        .fetch(machine.path(), &mut |_| ())
        .expect_err("none is left")
        .to_string();
    assert!(
        error.contains("no complete checkpoint") && error.contains("step-000001"),
        "{error}"
    );
    assert_eq!(
        fs::read_dir(machine.path())
            .expect("a directory")
            .filter(|e| e.as_ref().is_ok_and(|e| e.file_name() == "run"))
            .count(),
        0
    );
}

#[test]
fn the_retention_rule_holds_on_s3_too() {
    let bucket = Bucket::new("retention");
    let settings = config(&endpoint());
    let home = tempfile::tempdir().expect("a directory");
    let run = home.path().join("run");
    fs::create_dir_all(&run).expect("a directory");
    let runs = RemoteRuns::open(&bucket.url("runs"), &settings).expect("a connection");
    let report = Box::new(|_, event: &'static str, reason: String| panic!("{event}: {reason}"));
    let mirror = Arc::new(RunMirror::start(runs.run("run"), &run, 2, report).expect("a thread"));
    let store = CheckpointStore::open(run.join("checkpoints")).expect("a store");
    let store = store.with_mirror(Some(mirror.clone() as Arc<dyn Mirror>));
    for step in 1..=6 {
        save(&store, 1, step);
        if step == 1 {
            keep(&store, "best");
        }
        if step % 2 == 0 {
            keep(&store, &format!("step-{step:06}"));
            store.prune(2).expect("pruned");
        }
        // Each reaches S3 before the next.
        let begun = Instant::now();
        while runs.run("run").newest_step() != Ok(Some(step)) {
            assert!(begun.elapsed() < Duration::from_secs(20), "step {step} does not arrive");
            thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(mirror.finish(Duration::from_secs(20), &mut |_| ()), Ended::Complete);
    let mut steps: Vec<String> = bucket
        .names("runs/run/checkpoints")
        .iter()
        .filter(|n| n.ends_with("manifest.json"))
        .map(|n| n[..11].to_owned())
        .collect();
    steps.sort();
    assert_eq!(
        steps,
        ["step-000001", "step-000004", "step-000005", "step-000006"],
        "best, two kept ones, previous and last"
    );
    assert_eq!(
        bucket.names("runs/run/checkpoints").len(),
        4 * 6,
        "and nothing of others"
    );
}
