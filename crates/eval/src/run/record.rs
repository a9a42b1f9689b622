//! `run.json`: what a run was asked for. A resumed run must have the same.

use super::{read_error, write_whole};
use crate::{Benchmark, EvalError, EvalRequest, TooLong, VerdictCache, sandbox::Runner, verdict::HARNESS};
use serde_json::{Value, json};
use std::path::Path;
use wmtp_base::text::shorten;
use wmtp_run::{RunRecord, file};

/// Everything that decides `samples.jsonl` and `eval.json`.
pub(super) fn asked_for(
    benchmark: &dyn Benchmark,
    request: &EvalRequest,
    runner: &dyn Runner,
) -> Result<Value, EvalError> {
    let mut material = Vec::new();
    for &task in &request.tasks {
        material.push(benchmark.prompt(task)?);
        material.extend(benchmark.material(task)?);
    }
    let mut asked = json!({
        "benchmark": benchmark.name(),
        "variant": benchmark.variant(),
        "prompt": benchmark.prompt_style(),
        "tasks": request.tasks,
        "samples": request.samples,
        "k": request.k,
        "temperature": request.temperatures,
        "top_p": request.top_p,
        "seed": request.seed,
        "max_new_tokens": request.max_new_tokens,
        "limits": format!("{:?}", request.limits),
        "problems": VerdictCache::key(material),
        "harness": VerdictCache::key([HARNESS]),
        "python": runner.python(),
        "sandbox": runner.level(),
        "origin": request.origin,
    });
    // Runs of earlier versions have no such field, and refuse.
    if let (TooLong::Fail, Some(fields)) = (request.too_long, asked.as_object_mut()) {
        fields.insert("too_long".into(), json!(request.too_long));
    }
    Ok(asked)
}

/// Begins a new run in the request's directory, or makes sure that the one there is the same.
pub(super) fn begin_or_go_on(request: &EvalRequest, asked: &Value) -> Result<(), EvalError> {
    let dir = &request.output;
    let path = dir.join(file::RECORD);
    let there = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(read_error(&path)(error)),
    };
    match (there, request.resume) {
        (Some(_), false) => Err(EvalError::Request(format!(
            "{} holds a run already: resume it with --resume, or evaluate into another directory",
            dir.display()
        ))),
        (None, true) => Err(EvalError::Request(format!(
            "{} holds no evaluation to resume: there is no {}",
            dir.display(),
            file::RECORD
        ))),
        (Some(text), true) => {
            same(dir, &text, asked)?;
            if dir.join(file::TIMING).exists() && !super::part::path(dir).exists() {
                return Err(EvalError::Request(format!(
                    "the run in {} has ended: there is nothing to resume, its report is eval.json",
                    dir.display()
                )));
            }
            Ok(())
        }
        (None, false) => {
            for (name, text) in &request.files {
                write_whole(&dir.join(name), text)?;
            }
            let benchmark = asked.get("benchmark").and_then(Value::as_str).unwrap_or_default();
            let record = RunRecord {
                kind: Some(RunRecord::EVALUATION.into()),
                algorithm: Some(format!("eval-{benchmark}")),
                version: Some(env!("CARGO_PKG_VERSION").into()),
                request: Some(asked.clone()),
                ..RunRecord::default()
            };
            write_whole(&path, &format!("{:#}\n", json!(record)))
        }
    }
}

fn same(dir: &Path, text: &str, asked: &Value) -> Result<(), EvalError> {
    let record: RunRecord = serde_json::from_str(text).unwrap_or_default();
    let Some(was) = record.request.as_ref().and_then(Value::as_object) else {
        return Err(EvalError::Request(format!(
            "{} is no evaluation: its {} does not say what it was asked for",
            dir.display(),
            file::RECORD
        )));
    };
    let differs = asked
        .as_object()
        .into_iter()
        .flatten()
        // Through text: what was written and read may have lost the last bit of a number.
        .find(|(key, now)| was.get(*key).map(Value::to_string) != Some(now.to_string()));
    let Some((key, now)) = differs else { return Ok(()) };
    let before = was.get(key).unwrap_or(&Value::Null);
    Err(EvalError::Request(format!(
        "the run in {} cannot be resumed with another `{key}`: it was {}, now it is {}; give the same, or start a new run",
        dir.display(),
        shown(before),
        shown(now)
    )))
}

/// A value short enough for a sentence.
fn shown(value: &Value) -> String {
    shorten(&value.to_string(), 80)
}
