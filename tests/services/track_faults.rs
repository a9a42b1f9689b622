//! Tracking while something breaks: every point is there once in the end.

use crate::{
    common::{json, succeed, wmtp},
    proxy::{Fault, Faults, Proxy},
    unique,
    world::{kept, mlflow, read_back, run_dir, train, written_metrics},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use wmtp::track::{self, Address, Mlflow, MlflowConfig, RunInfo, Status, Tracker, Tracking, TrackingConfig};

fn config(interval: f64, wait: f64) -> TrackingConfig {
    TrackingConfig {
        interval_seconds: interval,
        wait_seconds: wait,
        ..TrackingConfig::default()
    }
}

fn tracker(uri: &str, batch: usize) -> Box<dyn Tracker> {
    let settings = MlflowConfig {
        batch,
        // A busy server's late answer is no fault of the schedule.
        timeout_seconds: 30.0,
        ..MlflowConfig::default()
    };
    Box::new(Mlflow::new(Address::new(uri, None, None).unwrap(), &settings).unwrap())
}

fn info(dir: &Path, experiment: &str, name: &str) -> RunInfo {
    RunInfo {
        uid: unique(name),
        name: name.to_owned(),
        experiment: experiment.to_owned(),
        parent: None,
        dir: dir.to_path_buf(),
        started: 1_700_000_000_000,
    }
}

/// 200 schedules of everything that the proxy can do to an exchange. Each run has a series, points by
/// themselves, parameters, tags and a file; every other one is opened twice, as after a restart.
#[test]
fn under_200_random_schedules_of_faults_every_point_is_there_once() {
    const SCHEDULES: u64 = 200;
    const STEPS: i64 = 24;
    const WORKERS: u64 = 6;
    let experiment = unique("faults");
    let server = mlflow();
    let begun = Instant::now();
    let struck: Vec<usize> = std::thread::scope(|scope| {
        // Most of the time is spent waiting before the next try.
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (experiment, server) = (&experiment, &server);
                scope.spawn(move || {
                    let schedules = (0..SCHEDULES).filter(|seed| seed % WORKERS == worker);
                    schedules
                        .map(|seed| one_schedule(seed, STEPS, experiment, server))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    let delivered = begun.elapsed();
    let runs = read_back("histories", &server, &experiment);
    let runs = runs.as_array().unwrap();
    assert_eq!(runs.len() as u64, SCHEDULES, "a run is missing or there twice");
    for run in runs {
        let name = run["name"].as_str().unwrap();
        assert_eq!(run["status"], "FINISHED", "{name}");
        assert_eq!(run["params"]["seed"], name, "{name}");
        // What a step's tracking took is known from the second step of a process on.
        let processes = 1 + name.parse::<i64>().unwrap() % 2;
        for (key, count) in [("loss", STEPS), ("track_ms", STEPS - processes), ("alone", STEPS / 4)] {
            let mut steps: Vec<i64> = run["metrics"][key]
                .as_array()
                .unwrap_or_else(|| panic!("{name} has no {key}"))
                .iter()
                .map(|p| p[0].as_i64().unwrap())
                .collect();
            let points = steps.len();
            steps.sort_unstable();
            steps.dedup();
            assert_eq!((points as i64, steps.len() as i64), (count, count), "{name}: {key}");
        }
    }
    let total: usize = struck.iter().sum();
    println!(
        "{SCHEDULES} schedules with {total} faults delivered in {:.1} s, read back in {:.1} s",
        delivered.as_secs_f64(),
        begun.elapsed().as_secs_f64() - delivered.as_secs_f64()
    );
    assert!(total as u64 > 2 * SCHEDULES, "only {total} faults struck");
}

fn one_schedule(seed: u64, steps: i64, experiment: &str, server: &str) -> usize {
    let faults = Faults {
        stall: Duration::from_millis(20),
        most: 5,
        ..Faults::seeded(seed, 0.3, Fault::ALL)
    };
    let proxy = Proxy::start(server, faults);
    let dir = tempfile::tempdir().unwrap();
    let name = format!("{seed}");
    let info = info(dir.path(), experiment, &name);
    let open = |wait| Tracking::open(info.clone(), vec![tracker(&proxy.url(), 40)], &config(0.01, wait)).unwrap();
    let mut tracking = open(0.0);
    tracking.status(Status::Running);
    tracking.params(BTreeMap::from([("seed".to_owned(), name.clone())]));
    for step in 1..=steps {
        if seed % 2 == 1 && step == steps / 2 {
            // A process that ended without waiting; the next one computes some steps again.
            tracking.close();
            drop(tracking);
            std::thread::sleep(Duration::from_millis(30));
            tracking = open(0.0);
            for again in step - 4..step {
                tracking.series("train", again, values(again));
            }
        }
        tracking.series("train", step, values(step));
        if step % 4 == 0 {
            tracking.metrics(step, BTreeMap::from([("alone".to_owned(), step as f64)]));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, &name).unwrap();
    tracking.artifact(&file, "notes.txt");
    tracking.status(Status::Finished);
    tracking.close();
    drop(tracking);
    // Whoever delivers the rest.
    let until = Instant::now() + Duration::from_secs(240);
    loop {
        let rest = open(20.0);
        let summary = rest.close();
        let done = !summary.trackers.is_empty() && summary.left(dir.path()).is_empty();
        if done {
            assert_eq!(summary.trackers[0].refused, Vec::<String>::new(), "schedule {seed}");
            return proxy.struck();
        }
        assert!(Instant::now() < until, "schedule {seed} is not delivered: {summary:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn values(step: i64) -> BTreeMap<String, f64> {
    BTreeMap::from([("loss".to_owned(), 1.0 / step as f64)])
}

/// 3,125 steps of 16 values.
#[test]
fn fifty_thousand_points_of_a_run_reach_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = unique("many");
    let tracking = Tracking::open(
        info(dir.path(), &experiment, "many"),
        vec![tracker(&mlflow(), 1000)],
        &config(1.0, 300.0),
    )
    .unwrap();
    let begun = Instant::now();
    for step in 1..=3125 {
        let values = (0..16).map(|k| (format!("metric_{k}"), f64::from(step * k).sin()));
        tracking.series("points", i64::from(step), values.collect());
    }
    let logged = begun.elapsed();
    tracking.status(Status::Finished);
    let summary = tracking.close();
    let delivered = begun.elapsed();
    assert_eq!(summary.left(dir.path()), Vec::<String>::new());
    let run = &read_back("histories", &mlflow(), &experiment)[0];
    let mut different = std::collections::BTreeSet::new();
    let mut points = 0;
    for (key, history) in run["metrics"].as_object().unwrap() {
        for point in history.as_array().unwrap() {
            points += 1;
            let (step, value) = (point[0].as_i64().unwrap(), point[1].as_str().unwrap());
            let k: i64 = key.trim_start_matches("metric_").parse().unwrap();
            assert_eq!(
                value.parse::<f64>().unwrap(),
                ((step * k) as f64).sin(),
                "{key} at {step}"
            );
            different.insert((key.clone(), step));
        }
    }
    assert_eq!((points, different.len()), (50_000, 50_000));
    println!(
        "50,000 points: {:.3} s in calls of the run ({:.1} us each), delivered after {:.1} s",
        logged.as_secs_f64(),
        1e6 * summary.seconds / summary.calls as f64,
        delivered.as_secs_f64()
    );
}

fn complete(run: &Path, server: &str) {
    let ledger = kept(run, "mlflow");
    let id = ledger["kept"]["run_id"].as_str().unwrap();
    let there = read_back("run", server, id);
    for (key, written) in written_metrics(run) {
        let mut steps: Vec<i64> = there["metrics"][&key]
            .as_array()
            .unwrap_or_else(|| panic!("no metric {key}"))
            .iter()
            .map(|p| p[0].as_i64().unwrap())
            .collect();
        steps.sort_unstable();
        let expected: Vec<i64> = written.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, expected, "{key}");
    }
    assert_eq!(there["status"], "FINISHED");
}

#[test]
fn a_run_without_its_server_is_trained_and_delivered_later() {
    let proxy = Proxy::start(&mlflow(), Faults::none());
    proxy.set_outage(true);
    let home = tempfile::tempdir().unwrap();
    let experiment = unique("outage");
    let mut command = train(home.path(), &proxy.url(), &experiment, "away", 6);
    let output = succeed(command.args(["--set", "tracking.wait_seconds=0.5"]));
    let summary = json(&output);
    assert!(summary["finished"].as_bool().unwrap());
    assert!(summary["tracking"]["trackers"][0]["left"].as_u64().unwrap() > 6);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("wmtp track sync"), "{said}");

    let sync = |wait: &str| {
        let mut command = wmtp(home.path());
        command.args(["track", "sync", "away", "--output", "runs", "--json", "--wait", wait]);
        command
    };
    assert_eq!(sync("0.3").output().unwrap().status.code(), Some(1));
    proxy.set_outage(false);
    proxy.set_faults(Faults {
        most: 3,
        ..Faults::seeded(3, 0.3, Fault::ALL)
    });
    for _ in 0..2 {
        // The second time there is nothing to do, and nothing is doubled.
        let summary = json(&succeed(&mut sync("20")));
        assert_eq!(summary["trackers"][0]["left"], 0);
    }
    complete(&run_dir(home.path(), "away"), &mlflow());
}

/// Killed in the middle, then continued from the checkpoint before: the same run at the server, the
/// steps that were computed twice there once.
#[test]
fn a_killed_and_resumed_run_goes_on_at_the_server() {
    let home = tempfile::tempdir().unwrap();
    let experiment = unique("killed");
    let dir = run_dir(home.path(), "killed");
    let every = ["--set", "train.checkpoint.last_every=10"];
    let mut child = train(home.path(), &mlflow(), &experiment, "killed", 60)
        .args(every)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    let lines = || std::fs::read_to_string(dir.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    while lines() < 15 {
        assert!(Instant::now() < until, "it does not train");
        std::thread::sleep(Duration::from_millis(2));
    }
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    let before = lines();
    assert!((15..60).contains(&before), "killed too late, after {before} lines");
    let mut resumed = train(home.path(), &mlflow(), &experiment, "killed", 60);
    succeed(resumed.args(every).args(["--resume", "killed"]));
    complete(&dir, &mlflow());
    let runs = read_back("histories", &mlflow(), &experiment);
    assert_eq!(runs.as_array().unwrap().len(), 1);
}

/// A machine is gone with everything that it had logged and not delivered; another one has the run's
/// directory as it was at a checkpoint, without the spool.
#[test]
fn a_run_that_lost_its_spool_goes_on_at_the_server_without_doubles() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = unique("lost");
    let info = info(dir.path(), &experiment, "lost");
    let open = || Tracking::open(info.clone(), vec![tracker(&mlflow(), 1000)], &config(0.01, 20.0)).unwrap();
    let tracking = open();
    (1..=30).for_each(|step| tracking.series("train", step, values(step)));
    assert!(tracking.close().left(dir.path()).is_empty());
    drop(tracking);
    std::thread::sleep(Duration::from_millis(100));
    std::fs::remove_dir_all(dir.path().join(wmtp::run::file::TRACKING)).unwrap();
    let tracking = open();
    assert!(!tracking.resumed());
    (21..=40).for_each(|step| tracking.series("train", step, values(step)));
    assert!(tracking.close().left(dir.path()).is_empty());
    let runs = read_back("histories", &mlflow(), &experiment);
    assert_eq!(runs.as_array().unwrap().len(), 1);
    let mut steps: Vec<i64> = runs[0]["metrics"]["loss"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p[0].as_i64().unwrap())
        .collect();
    steps.sort_unstable();
    assert_eq!(steps, (1..=40).collect::<Vec<_>>());
}

/// What the server itself does with the same points sent twice.
#[test]
fn the_server_keeps_one_of_equal_points() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = unique("twice");
    let mut tracker = tracker(&mlflow(), 1000);
    let run = info(dir.path(), &experiment, "twice");
    tracker.start(&run, &Value::Null).unwrap();
    let points: Vec<track::Point> = [0.5, f64::NAN, f64::INFINITY]
        .into_iter()
        .enumerate()
        .map(|(step, value)| track::Point {
            key: "x".into(),
            value,
            step: step as i64,
            at: 1_700_000_000_000,
            series: true,
        })
        .collect();
    tracker.metrics(&points[..1], false).unwrap();
    tracker.metrics(&points, false).unwrap();
    tracker.metrics(&points, false).unwrap();
    let runs = read_back("histories", &mlflow(), &experiment);
    let mut found: Vec<String> = runs[0]["metrics"]["x"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    found.sort();
    assert_eq!(
        found,
        [r#"[0,"0.5"]"#, r#"[1,"nan"]"#, r#"[2,"1.7976931348623157e+308"]"#]
    );
}
