//! An MLflow server over HTTP: a client of our own with what a run needs, one file for each group
//! of endpoints. Written against MLflow 3's REST interface.

mod address;
mod artifacts;
mod client;
mod experiments;
mod metrics;
mod models;
mod registry;
mod runs;

use super::{Artifact, Input, MlflowConfig, Model, Point, RunEvent, RunInfo, SetupError, Status, TrackError, Tracker};
use client::Client;
use runs::Run;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

pub use address::Address;
pub use registry::{Registered, Registry, SourceRun, Stage};

/// Tracks one run at an MLflow server.
#[derive(Debug)]
pub struct Mlflow {
    client: Client,
    batch: usize,
    run: Option<Run>,
    uid: String,
}

impl Mlflow {
    /// A tracker at this address; nothing is sent yet.
    ///
    /// # Errors
    /// The address names no host.
    pub fn new(address: Address, config: &MlflowConfig) -> Result<Self, SetupError> {
        Ok(Self {
            client: Client::new(address, timeout(config))?,
            batch: config.batch.clamp(1, metrics::MOST),
            run: None,
            uid: String::new(),
        })
    }

    /// Asks the server for one experiment, to see that it answers and lets us in.
    ///
    /// # Errors
    /// What the server or the network says.
    pub fn ask(&self) -> Result<(), TrackError> {
        self.client.post("experiments/search", &json!({"max_results": 1}))?;
        Ok(())
    }

    fn run(&self) -> Result<&Run, TrackError> {
        self.run
            .as_ref()
            .ok_or_else(|| TrackError::Away("the run was not opened".into()))
    }
}

fn timeout(config: &MlflowConfig) -> Duration {
    Duration::try_from_secs_f64(config.timeout_seconds).unwrap_or(Duration::from_secs(30))
}

impl Tracker for Mlflow {
    fn name(&self) -> &str {
        "mlflow"
    }

    fn place(&self) -> String {
        self.client.place().to_owned()
    }

    fn start(&mut self, run: &RunInfo, kept: &Value) -> Result<Value, TrackError> {
        if self.run.is_some() && self.uid == run.uid {
            // After a break; whether the run is still there shows when its metrics are asked for.
            return Ok(kept.clone());
        }
        self.uid.clone_from(&run.uid);
        let experiment = experiments::experiment(&self.client, &run.experiment)?;
        let run = runs::open(&self.client, run, &experiment, kept["run_id"].as_str())?;
        let kept = json!({
            "run_id": run.id,
            "experiment_id": run.experiment,
            "artifact_uri": run.artifact_uri,
            "page": format!("{}/#/experiments/{}/runs/{}", self.client.place(), run.experiment, run.id),
        });
        self.run = Some(run);
        Ok(kept)
    }

    fn latest(&mut self) -> Result<BTreeMap<String, i64>, TrackError> {
        let answer = metrics::latest(&self.client, self.run()?);
        if answer.is_err() {
            self.run = None;
        }
        answer
    }

    fn params(&mut self, params: &BTreeMap<String, String>) -> Result<(), TrackError> {
        runs::params(&self.client, self.run()?, params)
    }

    fn tags(&mut self, tags: &BTreeMap<String, String>) -> Result<(), TrackError> {
        runs::tags(&self.client, self.run()?, tags)
    }

    fn inputs(&mut self, inputs: &[Input]) -> Result<(), TrackError> {
        runs::inputs(&self.client, self.run()?, inputs)
    }

    fn metrics(&mut self, points: &[Point], again: bool) -> Result<(), TrackError> {
        let run = self.run()?;
        // Of a series only what is not there comes this far.
        let (series, others): (Vec<&Point>, Vec<&Point>) = points.iter().partition(|p| p.series);
        metrics::log(&self.client, run, &series)?;
        let others: Vec<Point> = others.into_iter().cloned().collect();
        if again && !others.is_empty() {
            let missing = metrics::missing(&self.client, run, &others)?;
            return metrics::log(&self.client, run, &missing);
        }
        metrics::log(&self.client, run, &others.iter().collect::<Vec<_>>())
    }

    /// MLflow has no events: the last one of each sort is a tag, all of them are in `events.jsonl`.
    fn event(&mut self, event: &RunEvent) -> Result<(), TrackError> {
        let text = format!("step {}: {}", event.step, event.reason);
        let tags = BTreeMap::from([(format!("event.{}", event.event), text)]);
        runs::tags(&self.client, self.run()?, &tags)
    }

    fn artifact(&mut self, artifact: &Artifact) -> Result<(), TrackError> {
        artifacts::upload(&self.client, &self.run()?.artifact_uri, &artifact.file, &artifact.name)
    }

    fn model(&mut self, model: &Model) -> Result<(), TrackError> {
        models::log(&self.client, self.run()?, model).map(drop)
    }

    fn status(&mut self, status: Status, at: i64) -> Result<(), TrackError> {
        runs::status(&self.client, self.run()?, status, at)
    }

    fn batch(&self) -> usize {
        self.batch
    }
}
