//! What a training run keeps of the evaluations of its checkpoints: results, and outcomes by problem.

use super::{
    ReportError,
    run::{Evaluation, Run},
};
use crate::run::{RunDir, file, run_of_checkpoint};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Samples of one problem, a line of `NAME.problems.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProblemLine {
    pub temperature: Option<f64>,
    pub task_id: String,
    pub samples: usize,
    pub passed: usize,
}

/// The run whose checkpoint a model directory is, with the checkpoint's name.
pub fn run_of(model: &Path) -> Option<(PathBuf, String)> {
    let model = model.canonicalize().ok()?;
    let run = run_of_checkpoint(&model)?;
    Some((run.to_owned(), model.file_name()?.to_string_lossy().into_owned()))
}

/// Keeps an evaluation's result (`wmtp eval --json`) in the directory of the run whose checkpoint
/// `model` is, so that the run's directory says everything about it. Returns the run's directory; None
/// where the model is no run's checkpoint.
///
/// # Errors
/// A file that can't be written.
pub fn keep(model: &Path, result: &Value) -> Result<Option<PathBuf>, ReportError> {
    let Some((run, checkpoint)) = run_of(model) else {
        return Ok(None);
    };
    let step = RunDir::at(&run).trainer_state(&checkpoint).map(|state| state.step);
    keep_in(&run, &checkpoint, step, false, result)?;
    Ok(Some(run))
}

/// Keeps an evaluation's result in a run's directory. `what` was evaluated: a checkpoint, or a stage;
/// `intermediate`: before the run's last stage.
///
/// # Errors
/// As [`keep`].
pub fn keep_in(
    run: &Path,
    what: &str,
    step: Option<usize>,
    intermediate: bool,
    result: &Value,
) -> Result<(), ReportError> {
    let mut kept = result.clone();
    if let Some(object) = kept.as_object_mut() {
        object.insert("checkpoint".into(), what.into());
        if intermediate {
            object.insert("intermediate".into(), true.into());
        }
        object.insert("step".into(), step.into());
    }
    let name = result["run_dir"].as_str().and_then(|dir| Path::new(dir).file_name());
    let name = name.map_or("evaluation".into(), |name| name.to_string_lossy().into_owned());
    let dir = run.join(file::EVALUATIONS);
    let path = dir.join(format!("{name}.json"));
    let failed = |source| ReportError::Write {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(&dir).map_err(failed)?;
    let text = format!("{kept:#}\n");
    crate::fs::write(&path, text.as_bytes()).map_err(failed)?;
    if let Some(made) = result["run_dir"].as_str() {
        keep_outcomes(&Path::new(made).join(file::SAMPLES), &dir, &name)?;
    }
    Ok(())
}

/// Copies an evaluation's outcomes, a line for each temperature and problem, into `dir`, so that a run can
/// be compared without the evaluation's own directory. An evaluation without `samples.jsonl` leaves none.
///
/// # Errors
/// A file that can't be read or written.
fn keep_outcomes(samples: &Path, dir: &Path, name: &str) -> Result<(), ReportError> {
    let path = problems_file(dir, name);
    let failed = |source| ReportError::Write {
        path: path.clone(),
        source,
    };
    let text = match fs::read_to_string(samples) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut counts: Vec<ProblemLine> = Vec::new();
    let mut places: BTreeMap<(Option<u64>, String), usize> = BTreeMap::new();
    for line in text.lines().filter_map(parsed) {
        let key = (line.temperature.map(f64::to_bits), line.task_id.clone());
        let place = *places.entry(key).or_insert(counts.len());
        match counts.get_mut(place) {
            Some(count) => {
                count.samples += line.samples;
                count.passed += line.passed;
            }
            None => counts.push(line),
        }
    }
    let mut out = String::new();
    for line in &counts {
        let line = serde_json::to_string(line).map_err(|e| failed(std::io::Error::other(e)))?;
        out += &line;
        out.push('\n');
    }
    crate::fs::write(&path, out.as_bytes()).map_err(failed)
}

/// The outcomes of an evaluation: kept with the run, or where the evaluation was made.
pub(super) fn read(run: &Run, evaluation: &Evaluation) -> Result<Vec<ProblemLine>, String> {
    let mut places = vec![problems_file(&run.dir.join(file::EVALUATIONS), &evaluation.name)];
    if run.evaluation {
        places = vec![run.dir.join(file::SAMPLES)];
    } else if let Some(dir) = evaluation.report["run_dir"].as_str() {
        places.push(Path::new(dir).join(file::SAMPLES));
    }
    let found = places.iter().find(|path| path.is_file()).ok_or_else(|| {
        format!(
            "`{}`: its outcomes by problem are not there (`{}`); evaluate again, or give the evaluation's directory",
            evaluation.name,
            places.last().map(|path| path.display().to_string()).unwrap_or_default()
        )
    })?;
    let text = fs::read_to_string(found).map_err(|e| format!("`{}` can't be read: {e}", found.display()))?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| {
            parsed(line).ok_or_else(|| format!("`{}`, line {number}: neither a sample nor a problem", found.display()))
        })
        .collect()
}

/// A line of `NAME.problems.jsonl`, or of `samples.jsonl`: one sample.
fn parsed(line: &str) -> Option<ProblemLine> {
    let value: Value = serde_json::from_str(line).ok()?;
    let (samples, passed) = match value["passed"] {
        Value::Bool(passed) => (1, usize::from(passed)),
        _ => (
            usize::try_from(value["samples"].as_u64()?).ok()?,
            usize::try_from(value["passed"].as_u64()?).ok()?,
        ),
    };
    Some(ProblemLine {
        temperature: value["temperature"].as_f64(),
        task_id: value["task_id"].as_str()?.to_owned(),
        samples,
        passed,
    })
}

fn problems_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.problems.jsonl"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_is_kept_in_the_run_whose_checkpoint_it_is_of() {
        let home = tempfile::tempdir().unwrap();
        let model = home.path().join("run/checkpoints/best");
        fs::create_dir_all(&model).unwrap();
        assert!(
            keep(&model, &crate::report::evaluation::example()).unwrap().is_none(),
            "no run.json: no run"
        );
        fs::write(home.path().join("run/run.json"), "{}").unwrap();
        fs::write(model.join("trainer.json"), r#"{"step": 42}"#).unwrap();
        let run = keep(&model, &crate::report::evaluation::example()).unwrap().unwrap();
        let text = fs::read_to_string(run.join("evaluations/eval-mbpp-1.json")).unwrap();
        let kept: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&kept["checkpoint"], &kept["step"]), (&"best".into(), &42.into()));
        assert_eq!(
            kept["temperatures"],
            crate::report::evaluation::example()["temperatures"]
        );
        assert!(
            keep(home.path(), &crate::report::evaluation::example())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn outcomes_are_kept_by_temperature_and_problem() {
        let home = tempfile::tempdir().unwrap();
        let outcomes = [("Mbpp/11", true), ("Mbpp/12", false), ("Mbpp/11", false)];
        let lines = outcomes.map(|(task, passed)| {
            json!({"task_id": task, "passed": passed, "temperature": 0.8, "sample": 0}).to_string() + "\n"
        });
        let samples = home.path().join("samples.jsonl");
        fs::write(&samples, lines.concat()).unwrap();
        keep_outcomes(&samples, home.path(), "e").unwrap();
        let text = fs::read_to_string(home.path().join("e.problems.jsonl")).unwrap();
        let first: ProblemLine = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((first.task_id.as_str(), first.samples, first.passed), ("Mbpp/11", 2, 1));
        assert_eq!(text.lines().count(), 2);
        assert!(keep_outcomes(Path::new("nowhere"), home.path(), "none").is_ok());
    }
}
