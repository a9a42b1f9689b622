//! The `meta.yaml` of experiments, runs, data sets and models, as MLflow's file store writes them.

use super::layout::{File, Layout};
use crate::track::{Input, Model, RunInfo, Status};
use serde_json::{Value, json};
use std::fmt::Write;

/// A flat mapping as YAML: JSON's scalars are YAML's.
fn yaml(fields: Value) -> String {
    let mut out = String::new();
    for (key, value) in fields.as_object().into_iter().flatten() {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{key}: {value}");
    }
    out
}

pub(super) fn experiment(layout: &Layout, info: &RunInfo) -> String {
    yaml(json!({
        "artifact_location": uri(&layout.experiment_file("")),
        "creation_time": info.started,
        "experiment_id": layout.experiment_id(),
        "last_update_time": info.started,
        "lifecycle_stage": "active",
        "name": info.experiment,
    }))
}

pub(super) fn run(layout: &Layout, info: &RunInfo, status: Status, at: i64) -> String {
    // The numbers of MLflow's enumeration.
    let number = match status {
        Status::Running => 1,
        Status::Finished => 3,
        Status::Failed => 4,
        Status::Killed => 5,
    };
    yaml(json!({
        "artifact_uri": uri(&layout.file("artifacts")),
        "deleted_time": null,
        "end_time": (status != Status::Running).then_some(at),
        "entry_point_name": "",
        "experiment_id": layout.experiment_id(),
        "lifecycle_stage": "active",
        "run_id": layout.run_id(),
        "run_name": info.name,
        "run_uuid": layout.run_id(),
        "source_name": "wmtp",
        "source_type": 4,
        "source_version": "",
        "start_time": info.started,
        "status": number,
        "tags": [],
        "user_id": std::env::var("USER").unwrap_or_default(),
    }))
}

pub(super) fn dataset(input: &Input, digest: &str) -> String {
    yaml(json!({
        "digest": digest,
        "name": input.name,
        "profile": input.profile.to_string(),
        "schema": null,
        "source": json!({"uri": input.source}).to_string(),
        "source_type": "local",
    }))
}

pub(super) fn input(dataset: &str, context: &str) -> String {
    yaml(json!({
        "source_type": "DATASET",
        "source_id": dataset,
        "destination_type": "RUN",
        "destination_id": dataset,
        "tags": {"mlflow.data.context": context},
    }))
}

pub(super) fn model(id: &str, run: &Layout, model: &Model, place: &File) -> String {
    let at = crate::track::now_millis();
    yaml(json!({
        "artifact_location": uri(place),
        "creation_timestamp": at,
        "experiment_id": run.experiment_id(),
        "last_updated_timestamp": at,
        "lifecycle_stage": "active",
        "model_id": id,
        "model_type": "llama",
        "name": model.name,
        "source_run_id": run.run_id(),
        // READY in MLflow's enumeration.
        "status": 2,
        "status_message": null,
    }))
}

pub(super) fn output(run: &str, model: &str, step: i64) -> String {
    yaml(json!({
        "source_type": "RUN_OUTPUT",
        "source_id": model,
        "destination_type": "MODEL_OUTPUT",
        "destination_id": run,
        "step": step,
        "tags": {},
    }))
}

fn uri(file: &File) -> String {
    let path = file.path.to_string_lossy();
    let encoded: String = path
        .trim_end_matches('/')
        .bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() || b"-_.~/".contains(&b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect();
    format!("file://{encoded}")
}
