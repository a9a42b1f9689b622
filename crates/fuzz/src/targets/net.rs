//! Answers of servers: a model hub, S3, MLflow.

use super::{none, server::Server, words};
use crate::{
    Kind, Outcome, Target,
    mutate::{Shape, split},
    scratch::{emptied, put},
    target::FIRST,
};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};
use wmtp_base::paths::PathsConfig;
use wmtp_storage::{
    Endpoint, HubName, Kind as Wanted, Push, PushContent, PushFile, RemoteRun, RemoteRuns, S3Config, Storage,
    StorageConfig,
};
use wmtp_track::{Address, Input, Mlflow, MlflowConfig, Model, Point, RunEvent, RunInfo, Status, Tracker};

/// No second try, and no waiting.
fn config(url: &str) -> StorageConfig {
    StorageConfig {
        retries: 0,
        retry_delay_ms: 1,
        timeout_seconds: 4,
        parallel: 1,
        s3: S3Config {
            endpoint: Some(url.to_owned()),
            region: Some("us-east-1".into()),
        },
        ..StorageConfig::default()
    }
}

fn storage(url: &str, dir: &Path, token: Option<&str>) -> Storage {
    let paths = PathsConfig {
        models: dir.join("models"),
        datasets: dir.join("datasets"),
        cache: dir.join("cache"),
        ..PathsConfig::default()
    };
    Storage::new(&config(url), &paths)
        .with_endpoint(Endpoint::new(url, token))
        .with_shared_cache(&dir.join("shared"))
}

pub(super) const HUB: Target = Target {
    name: "hub-answers",
    what: "a hub's answers: a revision, listings, files",
    kind: Kind::Loader,
    shape: Shape::Parts,
    words: words::NET,
    stack: FIRST,
    seeds: none,
    open: |dir| {
        let server = Server::start();
        let storage = storage(&server.url, dir, None);
        let cache = dir.join("cache");
        let mut executions = 0usize;
        Box::new(move |input| {
            executions += 1;
            emptied(&cache);
            server.says(split(input));
            let kind = [Wanted::Model, Wanted::Data][executions % 2];
            Outcome::of(&storage.resolve("hf://o/n", kind, &mut |_| ()))
        })
    },
};

pub(super) const PUSH: Target = Target {
    name: "push-answers",
    what: "a hub's answers to a push",
    open: |dir| {
        let server = Server::start();
        let storage = storage(&server.url, dir, Some("hf_token"));
        let large = put(&dir.join("large.bin"), &[7; 3000]);
        let file = |name: &str, content: PushContent| PushFile {
            name: name.to_owned(),
            content,
        };
        let push = Push {
            to: HubName {
                owner: "o".into(),
                name: "n".into(),
                revision: "main".into(),
            },
            public: false,
            message: "x".into(),
            files: vec![
                file("config.json", PushContent::Memory(b"{}".to_vec())),
                file("model.safetensors", PushContent::Disk(large)),
            ],
            dry_run: false,
        };
        Box::new(move |input| {
            server.says(split(input));
            Outcome::of(&storage.push(&push, &mut |_| ()))
        })
    },
    ..HUB
};

pub(super) const S3: Target = Target {
    name: "s3-answers",
    what: "S3's answers: listings, heads, files",
    open: |dir| {
        let server = Server::start();
        let storage = storage(&server.url, dir, None);
        let config = config(&server.url);
        let opened = RemoteRuns::open("s3://bucket/runs", &config);
        let run = RemoteRun::open("s3://bucket/runs/run", &config);
        let (Ok(runs), Ok(run)) = (opened, run) else {
            panic!("an address on the loopback")
        };
        let cache = dir.join("cache");
        let mut executions = 0usize;
        Box::new(move |input| {
            executions += 1;
            server.says(split(input));
            match executions % 4 {
                0 => Outcome::of(&runs.names()),
                1 => Outcome::of(&run.newest_step()),
                n => {
                    emptied(&cache);
                    let kind = [Wanted::Model, Wanted::Data][n % 2];
                    Outcome::of(&storage.resolve("s3://bucket/run", kind, &mut |_| ()))
                }
            }
        })
    },
    ..HUB
};

pub(super) const MLFLOW: Target = Target {
    name: "mlflow-answers",
    what: "MLflow's answers to all that is sent of a run",
    open: |dir| {
        let server = Server::start();
        let config = MlflowConfig {
            timeout_seconds: 4.0,
            ..MlflowConfig::default()
        };
        let url = server.url.clone();
        let made = move || {
            let tracker = Address::new(&url, None, None).and_then(|address| Mlflow::new(address, &config));
            tracker.unwrap_or_else(|error| panic!("an address on the loopback: {error}"))
        };
        let mut info = RunInfo {
            uid: String::new(),
            name: "n".into(),
            experiment: "x".into(),
            parent: Some("p".into()),
            dir: dir.to_owned(),
            started: 1,
        };
        let mut tracker = made();
        let mut executions = 0usize;
        Box::new(move |input| {
            // A client takes long to make. A run of another uid begins anew with the same one.
            executions += 1;
            if executions.is_multiple_of(100) {
                tracker = made();
            }
            let (other, uid) = [("\"u\"", "v"), ("\"v\"", "u")][executions % 2];
            uid.clone_into(&mut info.uid);
            let said = String::from_utf8_lossy(input).replace(other, &format!("\"{uid}\""));
            server.says(split(said.as_bytes()));
            tracked(&mut tracker, &info)
        })
    },
    ..HUB
};

/// All that a run sends; what is answered to the first request decides the outcome.
fn tracked(tracker: &mut Mlflow, info: &RunInfo) -> Outcome {
    let started = tracker.start(info, &json!({"run_id": "r"}));
    if started.is_ok() {
        let texts = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let point = Point {
            key: "loss".into(),
            value: 1.0,
            step: 1,
            at: 1,
            series: false,
        };
        let model = Model {
            name: "best".into(),
            step: 1,
            tags: texts.clone(),
        };
        let event = RunEvent {
            step: 1,
            event: "skip".into(),
            reason: "r".into(),
            at: 1,
        };
        let input = Input {
            name: "d".into(),
            digest: "h".into(),
            source: "s".into(),
            context: "training".into(),
            profile: json!({}),
        };
        let _ = (tracker.latest(), tracker.params(&texts), tracker.tags(&texts));
        let _ = (
            tracker.inputs(&[input]),
            tracker.metrics(&[point], true),
            tracker.event(&event),
        );
        let _ = (tracker.model(&model), tracker.status(Status::Finished, 1));
    }
    Outcome::of(&started)
}
