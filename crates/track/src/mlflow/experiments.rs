//! Experiments: found by name, made if they are not there.

use super::client::{CallError, Client};
use crate::TrackError;
use serde_json::{Value, json};

/// The id of the experiment with this name.
///
/// The id is asked for in both directions: a wrong digit on the way would file the run elsewhere.
pub(super) fn experiment(client: &Client, name: &str) -> Result<String, TrackError> {
    let found = match by_name(client, name) {
        Err(error) if error.is_missing() => {
            match client.post("experiments/create", &json!({"name": name})) {
                Ok(_) => {}
                // Another process was faster.
                Err(error) if error.is_there() => {}
                Err(error) => return Err(error.into()),
            }
            by_name(client, name)?
        }
        answer => answer?,
    };
    if found["lifecycle_stage"] == "deleted" {
        return Err(TrackError::Away(format!(
            "the experiment {name} is deleted at {}: restore it there, or set tracking.experiment",
            client.place()
        )));
    }
    let id = found["experiment_id"].as_str().unwrap_or_default().to_owned();
    let back = client.get("experiments/get", &[("experiment_id", &id)])?;
    if back["experiment"]["name"] == name {
        Ok(id)
    } else {
        Err(client
            .not_understood(format!("experiment {id} is not {name}, whose id it should be"))
            .into())
    }
}

fn by_name(client: &Client, name: &str) -> Result<Value, CallError> {
    let answer = client.get("experiments/get-by-name", &[("experiment_name", name)])?;
    match answer.get("experiment") {
        Some(experiment) if experiment["name"] == name => Ok(experiment.clone()),
        _ => Err(client.not_understood(format!("asked for the experiment {name}, it names another"))),
    }
}
