//! The files of a run's directory, and what reports make of them.

use super::{none, words};
use crate::{
    Kind, Outcome, Target,
    mutate::{Shape, split},
    scratch::{emptied, put, spread},
    target::FIRST,
};
use serde_json::Value;
use std::collections::BTreeMap;
use wmtp::report::{self, Run};
use wmtp_run::{
    CheckpointStore, EdgesLine, EventLine, HistogramLine, Manifest, MetricsLine, Renewal, Resumption, RunDir, RunLock,
    RunRecord, StepLine, TokensLine, read_steps, verify,
};
use wmtp_track::{TrackingConfig, flatten, metric_key, own_run, series, values};

pub(super) const RECORD: Target = Target {
    name: "run-record",
    what: "run.json",
    kind: Kind::Memory,
    shape: Shape::Json,
    words: words::RUNS,
    stack: FIRST,
    seeds: none,
    open: |dir| {
        let dir = dir.to_owned();
        let mut executions = 0usize;
        Box::new(move |input| {
            put(&dir.join("run.json"), input);
            let record = RunRecord::read(&dir);
            let _ = own_run(&dir, &TrackingConfig::default());
            put(&dir.join(".lock"), input);
            let _ = RunLock::take(&dir).map(|lock| lock.note.clone());
            executions += 1;
            if executions.is_multiple_of(8) {
                let hashes = BTreeMap::from([("data_sha256".to_owned(), "hash".to_owned())]);
                let renewal = Renewal {
                    recipe_sha256: Some("hash".into()),
                    inputs_sha256: hashes.clone(),
                    hashes,
                    ..Renewal::default()
                };
                let _ = RunDir::at(&dir).note_resumption(&renewal, &Resumption::default());
            }
            Outcome::of_option(&record)
        })
    },
};

pub(super) const TRAINER: Target = Target {
    name: "trainer",
    what: "trainer.json of a checkpoint",
    open: |dir| {
        let run = dir.to_owned();
        let last = emptied(&run.join("checkpoints/last"));
        put(&last.join("manifest.json"), br#"{"format": 1, "step": 1, "files": {}}"#);
        Box::new(move |input| {
            put(&last.join("trainer.json"), input);
            let _ = RunDir::at(&run).trainer_state("last");
            Outcome::of(&verify(&last))
        })
    },
    ..RECORD
};

pub(super) const MANIFEST: Target = Target {
    name: "manifest",
    what: "manifest.json of a checkpoint, and the choice of the newest one",
    open: |dir| {
        let root = dir.join("checkpoints");
        let last = emptied(&root.join("last"));
        put(&last.join("trainer.json"), b"{}");
        put(&last.join("a.bin"), b"a");
        Box::new(move |input| {
            put(&last.join("manifest.json"), input);
            let manifest = Manifest::read(&last);
            if let Ok(store) = CheckpointStore::open(root.clone()) {
                let _ = store.newest(&mut |_| ());
            }
            Outcome::of(&manifest)
        })
    },
    ..RECORD
};

pub(super) const METRICS: Target = Target {
    name: "metrics",
    what: "lines of metrics.jsonl, events.jsonl, weights.jsonl and tokens.jsonl",
    shape: Shape::JsonLines,
    open: |_| {
        Box::new(|input| {
            let mut outcome = Outcome::refused("no line");
            for line in input.split(|byte| *byte == b'\n') {
                let _ = serde_json::from_slice::<EventLine>(line);
                let _ = serde_json::from_slice::<EdgesLine>(line);
                let _ = serde_json::from_slice::<HistogramLine>(line);
                let _ = serde_json::from_slice::<TokensLine>(line);
                let Ok(value) = serde_json::from_slice::<Value>(line) else {
                    continue;
                };
                let figures = values(&value);
                let _ = (series(&value), flatten(&value).len());
                figures.keys().for_each(|key| drop(metric_key(key)));
                let parsed = MetricsLine::parse(value);
                if let Ok(MetricsLine::Step(line)) = &parsed {
                    let _ = (line.ce(1), StepLine::heads(&[0.5]).len());
                }
                outcome = Outcome::of(&parsed);
            }
            outcome
        })
    },
    ..RECORD
};

pub(super) const STEPS: Target = Target {
    name: "steps",
    what: "steps.jsonl",
    shape: Shape::JsonLines,
    open: |dir| {
        let dir = dir.to_owned();
        Box::new(move |input| {
            put(&dir.join("steps.jsonl"), input);
            Outcome::of(&read_steps(&dir))
        })
    },
    ..RECORD
};

pub(super) const DIRECTORY: Target = Target {
    name: "run-directory",
    what: "a run's or evaluation's directory, and its report",
    kind: Kind::Loader,
    shape: Shape::Parts,
    open: |dir| {
        let (run, other) = (dir.join("run"), dir.join("other"));
        let output = dir.join("report");
        Box::new(move |input| {
            let parts = split(input);
            spread(&run, &parts);
            let read = Run::read_any(&run);
            if let Ok(found) = &read {
                let _ = report::figures_json(found);
                let _ = report::write_of(found, Some(&output));
                // Compared with the same without its first file after the record.
                spread(
                    &other,
                    &[parts.get(..1).unwrap_or_default(), parts.get(2..).unwrap_or_default()].concat(),
                );
                if let Ok(second) = Run::read_any(&other) {
                    let both = [found.clone(), second];
                    let _ = report::paired_differences(&both);
                    let _ = report::write_comparison(&both, &output);
                }
            }
            Outcome::of(&read)
        })
    },
    ..RECORD
};
