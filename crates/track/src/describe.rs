//! From settings and a run's directory to its trackers.

#[cfg(feature = "mlflow")]
use super::{Address, Mlflow};
use super::{MlflowConfig, RunInfo, SetupError, Tracker, TrackerKind, Tracking, TrackingConfig, figures};
use crate::run::{RunDir, RunError, RunRecord, file};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

/// The trackers that `tracking.kinds` names.
///
/// # Errors
/// No address of a server, or one that can't be used.
pub fn trackers(config: &TrackingConfig) -> Result<Vec<Box<dyn Tracker>>, SetupError> {
    let mut kinds = config.kinds.clone();
    kinds.dedup();
    let tracker = |kind| match kind {
        TrackerKind::Mlflow => mlflow(&config.mlflow),
    };
    kinds.into_iter().map(tracker).collect()
}

#[cfg(feature = "mlflow")]
fn mlflow(config: &MlflowConfig) -> Result<Box<dyn Tracker>, SetupError> {
    let address = Address::find(config.uri.as_deref())?;
    Ok(Box::new(Mlflow::new(address, config)?))
}

#[cfg(not(feature = "mlflow"))]
fn mlflow(_: &MlflowConfig) -> Result<Box<dyn Tracker>, SetupError> {
    Err(SetupError(NOT_BUILT.into()))
}

/// Why there is no MLflow.
#[cfg(not(feature = "mlflow"))]
const NOT_BUILT: &str =
    "this program was built without MLflow: build it with the feature `mlflow`, or set `tracking.kinds` to []";

/// Whether the MLflow server of the settings answers, waiting at most 10 s: where it is, or what is
/// wrong, in a sentence.
///
/// # Errors
/// No usable address, no answer, or a refusal.
#[cfg(feature = "mlflow")]
pub fn ask_mlflow(config: &MlflowConfig) -> Result<String, String> {
    let address = Address::find(config.uri.as_deref()).map_err(|e| e.to_string())?;
    let config = MlflowConfig {
        timeout_seconds: config.timeout_seconds.min(10.0),
        ..config.clone()
    };
    let server = Mlflow::new(address, &config).map_err(|e| e.to_string())?;
    server.ask().map_err(|e| e.to_string())?;
    Ok(format!("{} answers", server.place()))
}

/// That there is no MLflow in this program.
///
/// # Errors
/// Always.
#[cfg(not(feature = "mlflow"))]
pub fn ask_mlflow(_: &MlflowConfig) -> Result<String, String> {
    Err(NOT_BUILT.into())
}

/// What a run's directory says of it.
///
/// # Errors
/// `run.json` can't be read.
pub fn own_run(dir: &Path, config: &TrackingConfig) -> Result<RunInfo, RunError> {
    let path = dir.join(file::RECORD);
    let failed = RunError::io("reading", &path);
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let record: RunRecord = serde_json::from_str(&text).unwrap_or_default();
    let dir = std::path::absolute(dir).map_err(RunError::io("finding", dir))?;
    let directory = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let algorithm = record.algorithm.unwrap_or_else(|| "unknown".into());
    // An evaluation says `eval-mbpp`.
    let (algorithm, data) = match algorithm.strip_prefix("eval-") {
        Some(benchmark) => ("eval".to_owned(), benchmark.to_owned()),
        None => (algorithm, data_name(&record.data.unwrap_or_default())),
    };
    let started = record
        .started
        .and_then(|t| t.parse::<jiff::Timestamp>().ok())
        .map_or_else(super::now_millis, jiff::Timestamp::as_millisecond);
    Ok(RunInfo {
        // Runs from before there were uids are identified by their whole record.
        uid: record
            .uid
            .unwrap_or_else(|| short_hash(&format!("{directory}\n{text}"))),
        name: record.name.unwrap_or(directory),
        experiment: config
            .experiment
            .clone()
            .unwrap_or_else(|| format!("mtp/{algorithm}/{data}")),
        parent: config.parent_run.clone(),
        dir,
        started,
    })
}

/// `builtin:mbpp` is `mbpp`, a directory or URI its last part.
pub fn data_name(source: &str) -> String {
    let last = source
        .trim_end_matches('/')
        .rsplit(['/', ':'])
        .next()
        .unwrap_or_default();
    if last.is_empty() {
        "data".into()
    } else {
        last.to_owned()
    }
}

/// The first 32 hexadecimal digits of the SHA-256 of `text`.
pub fn short_hash(text: &str) -> String {
    let mut hash = hex::encode(Sha256::digest(text));
    hash.truncate(32);
    hash
}

/// Tells trackers what `metrics.jsonl` holds in its first `bytes` bytes: a run that was not tracked,
/// or whose spool stayed on a machine that is gone.
///
/// # Errors
/// The file can't be read.
pub fn import(tracking: &Tracking, run: &RunDir, bytes: u64) -> Result<(), RunError> {
    let path = run.file(file::METRICS);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RunError::io("reading", &path)(error)),
    };
    let lines = BufReader::new(std::io::Read::take(file, bytes));
    for line in lines.lines() {
        let line = line.map_err(RunError::io("reading", &path))?;
        let Ok(line) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if let Some(step) = line.get("step").and_then(Value::as_i64) {
            tracking.imported(figures::series(&line), step, figures::values(&line));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_filed_under_its_algorithm_and_data() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("run.json"),
            r#"{"uid": "u", "name": "n", "algorithm": "critic", "data": "builtin:mbpp", "started": "1970-01-01T00:00:01Z"}"#,
        )
        .unwrap();
        let run = own_run(dir.path(), &TrackingConfig::default()).unwrap();
        assert_eq!(
            (run.experiment.as_str(), run.uid.as_str(), run.started),
            ("mtp/critic/mbpp", "u", 1000)
        );
        for (source, name) in [
            ("data/my-set/", "my-set"),
            ("s3://bucket/x", "x"),
            ("builtin:mbpp", "mbpp"),
            ("", "data"),
        ] {
            assert_eq!(data_name(source), name);
        }
    }

    #[test]
    fn an_evaluation_without_a_run_is_filed_under_its_benchmark() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("run.json"), r#"{"algorithm": "eval-mbpp"}"#).unwrap();
        let run = own_run(dir.path(), &TrackingConfig::default()).unwrap();
        assert_eq!(run.experiment, "mtp/eval/mbpp");
        assert_eq!(run.uid.len(), 32);
    }
}
