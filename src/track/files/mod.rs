//! MLflow's file layout: a directory `mlruns` that MLflow's own file store reads and
//! `mlflow migrate-filestore` turns into a database.
//!
//! ```text
//! mlruns/<experiment>/meta.yaml
//! mlruns/<experiment>/datasets/<id>/meta.yaml
//! mlruns/<experiment>/models/<id>/meta.yaml, tags/<key>
//! mlruns/<experiment>/<run>/meta.yaml
//!                           params/<key>  tags/<key>  metrics/<key>  inputs/<id>/meta.yaml
//!                           outputs/<model>/meta.yaml  artifacts/...
//! ```
//!
//! Limits: one process writes a run; the registry is a server's (`wmtp promote`).

mod layout;
mod meta;

use super::{Artifact, Input, Model, Point, RunEvent, RunInfo, Status, TrackError, Tracker, describe::short_hash};
use layout::Layout;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Tracks one run in MLflow's file layout.
#[derive(Debug)]
pub struct MlflowFiles {
    root: PathBuf,
    run: Option<Layout>,
}

impl MlflowFiles {
    /// A tracker that writes below `dir`; nothing is written yet.
    pub fn new(dir: &Path) -> Self {
        Self {
            root: std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf()),
            run: None,
        }
    }

    fn run(&self) -> Result<&Layout, TrackError> {
        self.run
            .as_ref()
            .ok_or_else(|| TrackError::Away("the run was not opened".into()))
    }
}

impl Tracker for MlflowFiles {
    fn name(&self) -> &str {
        "files"
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }

    /// Ids follow from the experiment's name and the run's uid, so that a run is found again.
    fn start(&mut self, run: &RunInfo, _kept: &Value) -> Result<Value, TrackError> {
        let layout = Layout::open(&self.root, run)?;
        let kept = json!({"run_id": layout.run_id(), "experiment_id": layout.experiment_id()});
        self.run = Some(layout);
        Ok(kept)
    }

    fn latest(&mut self) -> Result<BTreeMap<String, i64>, TrackError> {
        let run = self.run()?;
        let mut latest = BTreeMap::new();
        for key in run.keys("metrics")? {
            let lines = run.metric_lines(&key)?;
            if let Some(step) = lines.iter().map(|(_, step)| *step).max() {
                latest.insert(key, step);
            }
        }
        Ok(latest)
    }

    fn params(&mut self, params: &BTreeMap<String, String>) -> Result<(), TrackError> {
        let run = self.run()?;
        let there: BTreeSet<String> = run.keys("params")?.into_iter().collect();
        for (key, value) in params.iter().filter(|(key, _)| !there.contains(*key)) {
            run.write("params", key, value)?;
        }
        Ok(())
    }

    fn tags(&mut self, tags: &BTreeMap<String, String>) -> Result<(), TrackError> {
        let run = self.run()?;
        tags.iter().try_for_each(|(key, value)| run.write("tags", key, value))
    }

    fn inputs(&mut self, inputs: &[Input]) -> Result<(), TrackError> {
        let run = self.run()?;
        for input in inputs {
            let digest: String = input.digest.chars().take(36).collect();
            let id = short_hash(&format!("{}\n{digest}", input.name));
            run.experiment_file(&format!("datasets/{id}/meta.yaml"))
                .write(&meta::dataset(input, &digest))?;
            let input_id = short_hash(&format!("{id}\n{}", run.run_id()));
            run.file(&format!("inputs/{input_id}/meta.yaml"))
                .write(&meta::input(&id, &input.context))?;
        }
        Ok(())
    }

    fn metrics(&mut self, points: &[Point], again: bool) -> Result<(), TrackError> {
        let run = self.run()?;
        let mut by_key: BTreeMap<&str, Vec<&Point>> = BTreeMap::new();
        for point in points {
            by_key.entry(&point.key).or_default().push(point);
        }
        for (key, points) in by_key {
            let there: BTreeSet<(i64, i64)> = if again {
                run.metric_lines(key)?.into_iter().collect()
            } else {
                BTreeSet::new()
            };
            let new = points.into_iter().filter(|p| !there.contains(&(p.at, p.step)));
            let lines: String = new
                .map(|p| format!("{} {} {}\n", p.at, number(p.value), p.step))
                .collect();
            run.append_metric(key, &lines)?;
        }
        Ok(())
    }

    /// As at a server: the last one of each sort is a tag.
    fn event(&mut self, event: &RunEvent) -> Result<(), TrackError> {
        let text = format!("step {}: {}", event.step, event.reason);
        self.run()?.write("tags", &format!("event.{}", event.event), &text)
    }

    fn artifact(&mut self, artifact: &Artifact) -> Result<(), TrackError> {
        self.run()?
            .file(&format!("artifacts/{}", artifact.name))
            .copy_of(&artifact.file)
    }

    fn model(&mut self, model: &Model) -> Result<(), TrackError> {
        let run = self.run()?;
        let hash = model.tags.get("wmtp.model_sha256").map_or("", String::as_str);
        let id = format!("m-{}", short_hash(&format!("{}\n{}\n{hash}", run.run_id(), model.name)));
        let at = format!("models/{id}");
        let place = run.experiment_file(&format!("{at}/artifacts"));
        run.experiment_file(&format!("{at}/meta.yaml"))
            .write(&meta::model(&id, run, model, &place))?;
        for (key, value) in &model.tags {
            run.experiment_file(&format!("{at}/tags/{}", layout::file_name(key)))
                .write(value)?;
        }
        for empty in ["params", "metrics", "artifacts"] {
            run.experiment_file(&format!("{at}/{empty}")).make_dir()?;
        }
        run.file(&format!("outputs/{id}/meta.yaml"))
            .write(&meta::output(run.run_id(), &id, model.step))
    }

    fn status(&mut self, status: Status, at: i64) -> Result<(), TrackError> {
        self.run()?.status(status, at)
    }

    fn batch(&self) -> usize {
        10_000
    }
}

/// As Python reads it.
fn number(value: f64) -> String {
    if value.is_finite() {
        format!("{value:?}")
    } else if value.is_nan() {
        "nan".into()
    } else if value > 0.0 {
        "inf".into()
    } else {
        "-inf".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: i64, at: i64, value: f64) -> Point {
        Point {
            key: "loss".into(),
            value,
            step,
            at,
            series: true,
        }
    }

    fn started(root: &Path) -> (MlflowFiles, PathBuf) {
        let run = RunInfo {
            uid: "u".into(),
            name: "n".into(),
            experiment: "mtp/critic/mbpp".into(),
            started: 5,
            ..RunInfo::default()
        };
        let mut files = MlflowFiles::new(root);
        files.start(&run, &Value::Null).unwrap();
        let layout = files.run.as_ref().unwrap();
        let dir = root.join(layout.experiment_id()).join(layout.run_id());
        (files, dir)
    }

    #[test]
    fn metrics_are_lines_of_time_value_and_step() {
        let root = tempfile::tempdir().unwrap();
        let (mut files, dir) = started(root.path());
        files
            .metrics(
                &[point(1, 10, 0.5), point(2, 20, f64::NAN), point(3, 30, f64::INFINITY)],
                false,
            )
            .unwrap();
        let text = std::fs::read_to_string(dir.join("metrics/loss")).unwrap();
        assert_eq!(text, "10 0.5 1\n20 nan 2\n30 inf 3\n");
        assert_eq!(files.latest().unwrap(), BTreeMap::from([("loss".to_owned(), 3)]));
    }

    #[test]
    fn a_line_that_a_killed_process_left_unfinished_is_written_again_once() {
        let root = tempfile::tempdir().unwrap();
        let (mut files, dir) = started(root.path());
        files.metrics(&[point(1, 10, 0.5)], false).unwrap();
        let path = dir.join("metrics/loss");
        std::fs::write(&path, "10 0.5 1\n20 0.2").unwrap();
        let (mut files, _) = started(root.path());
        assert_eq!(files.latest().unwrap()["loss"], 1);
        files.metrics(&[point(1, 10, 0.5), point(2, 20, 0.25)], true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "10 0.5 1\n20 0.25 2\n");
    }

    #[test]
    fn a_parameter_keeps_its_first_value_and_a_tag_its_last() {
        let root = tempfile::tempdir().unwrap();
        let (mut files, dir) = started(root.path());
        for value in ["1", "2"] {
            let one = BTreeMap::from([("optim.lr".to_owned(), value.to_owned())]);
            files.params(&one).unwrap();
            files.tags(&one).unwrap();
        }
        assert_eq!(std::fs::read_to_string(dir.join("params/optim.lr")).unwrap(), "1");
        assert_eq!(std::fs::read_to_string(dir.join("tags/optim.lr")).unwrap(), "2");
        assert_eq!(std::fs::read_to_string(dir.join("tags/mlflow.runName")).unwrap(), "n");
    }
}
