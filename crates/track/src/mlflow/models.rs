//! Logged models: what a run made, as entities of their own.

use super::{
    client::Client,
    runs::{self, Run},
};
use crate::{Model, TrackError};
use serde_json::{Value, json};

/// The tag that tells one state of a model from another.
const HASH: &str = "wmtp.model_sha256";

/// Makes the model, or finds it, and names it as the run's output. Its id.
pub(super) fn log(client: &Client, run: &Run, model: &Model) -> Result<String, TrackError> {
    let id = match find(client, run, model)? {
        Some(id) => id,
        None => {
            create(client, run, model)?;
            find(client, run, model)?.ok_or_else(|| client.not_understood("a model that was just made is not found"))?
        }
    };
    client.patch(
        &format!("logged-models/{id}"),
        &json!({"model_id": id, "status": "LOGGED_MODEL_READY"}),
    )?;
    let there = runs::get(client, &run.id)?;
    let outputs = there["outputs"]["model_outputs"].as_array().into_iter().flatten();
    if !outputs.into_iter().any(|output| output["model_id"] == id.as_str()) {
        let answer = client.post(
            "runs/outputs",
            &json!({"run_id": run.id, "models": [{"model_id": id, "step": model.step}]}),
        );
        answer?;
    }
    Ok(id)
}

fn create(client: &Client, run: &Run, model: &Model) -> Result<(), TrackError> {
    let tags: Vec<Value> = model
        .tags
        .iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
    client.post(
        "logged-models",
        &json!({
            "experiment_id": run.experiment,
            "name": name(&model.name),
            "model_type": "llama",
            "source_run_id": run.id,
            "tags": tags,
        }),
    )?;
    Ok(())
}

/// The run's model of this name and hash, the first made.
fn find(client: &Client, run: &Run, model: &Model) -> Result<Option<String>, TrackError> {
    let answer = client.post(
        "logged-models/search",
        &json!({
            "experiment_ids": [run.experiment],
            "filter": format!("source_run_id = '{}'", run.id),
            "max_results": 50,
        }),
    )?;
    let hash = model.tags.get(HASH);
    let mut found: Vec<(i64, String)> = answer["models"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|m| m["info"]["name"] == name(&model.name).as_str() && m["info"]["source_run_id"] == run.id.as_str())
        .filter(|m| {
            let tags = m["info"]["tags"].as_array();
            let there = tags.into_iter().flatten().find(|tag| tag["key"] == HASH);
            there.and_then(|tag| tag["value"].as_str()) == hash.map(String::as_str)
        })
        .filter_map(|m| {
            let made = m["info"]["creation_timestamp_ms"].as_i64().unwrap_or(0);
            Some((made, m["info"]["model_id"].as_str()?.to_owned()))
        })
        .collect();
    found.sort();
    Ok(found.into_iter().next().map(|(_, id)| id))
}

/// A name with only what the server takes.
fn name(name: &str) -> String {
    name.chars()
        .map(|c| if "/:.%\"'".contains(c) { '_' } else { c })
        .collect()
}
