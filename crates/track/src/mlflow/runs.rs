//! Runs: made, found again, marked, ended.

use super::client::{CallError, Client};
use crate::run::file::TRACKING;
use crate::{COMMIT_TAG, Input, RunInfo, SOURCE_TAG, Status, TrackError};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

/// The tag by which a run is found again, on whatever machine it is resumed.
pub(super) const UID: &str = "wmtp.uid";
const PARENT: &str = "mlflow.parentRunId";

/// Limits of the server's (`mlflow/utils/validation.py`).
const ENTITIES: usize = 100;
const KEY: usize = 250;
const PARAM: usize = 6000;
const TAG: usize = 8000;
const DIGEST: usize = 36;
const SOURCE: usize = 60_000;

/// A run at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub id: String,
    pub experiment: String,
    pub artifact_uri: String,
}

impl Run {
    fn read(client: &Client, run: &Value) -> Result<Self, CallError> {
        let text = |key: &str| run["info"][key].as_str().map(str::to_owned);
        match (text("run_id"), text("experiment_id"), text("artifact_uri")) {
            (Some(id), Some(experiment), Some(artifact_uri)) => Ok(Self {
                id,
                experiment,
                artifact_uri,
            }),
            _ => Err(client.not_understood("a run in the answer lacks its id")),
        }
    }
}

/// The run of `info` in `experiment`: the one with id `kept` if that is still it, else the one with
/// its uid, else a new one.
///
/// Making a run is not repeatable: an attempt without an answer may have made one. So every attempt
/// ends with a search, the first run made is taken, and others of the same uid are deleted.
pub(super) fn open(client: &Client, info: &RunInfo, experiment: &str, kept: Option<&str>) -> Result<Run, TrackError> {
    if let Some(id) = kept {
        match get(client, id) {
            Ok(run) if tag(&run, UID) == Some(&info.uid) => {
                if run["info"]["lifecycle_stage"] == "deleted" {
                    return Err(TrackError::Away(format!(
                        "the run {id} is deleted at {}: restore it there, or what is logged stays here",
                        client.place()
                    )));
                }
                return sure(client, &run);
            }
            Ok(_) => {}
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut found = with_uid(client, experiment, &info.uid)?;
    if found.is_empty() {
        create(client, info, experiment)?;
        found = with_uid(client, experiment, &info.uid)?;
    }
    let mut runs = found.iter();
    let first = runs
        .next()
        .ok_or_else(|| client.not_understood("a run that was just made is not found"))?;
    for double in runs {
        let run = Run::read(client, double)?;
        tracing::debug!("deleting the run {}, made twice for want of an answer", run.id);
        client.post("runs/delete", &json!({"run_id": run.id}))?;
    }
    sure(client, first)
}

/// The run, if the server says the same of it once more: a wrong letter in its id or its artifacts'
/// place would send everything elsewhere.
fn sure(client: &Client, run: &Value) -> Result<Run, TrackError> {
    let run = Run::read(client, run)?;
    if Run::read(client, &get(client, &run.id)?)? == run {
        Ok(run)
    } else {
        Err(client.not_understood("two answers about the same run differ").into())
    }
}

/// The run of `info`, if it exists.
pub(super) fn find(client: &Client, info: &RunInfo) -> Result<Option<Run>, TrackError> {
    let answer = match client.get("experiments/get-by-name", &[("experiment_name", &info.experiment)]) {
        Err(error) if error.is_missing() => return Ok(None),
        answer => answer?,
    };
    let experiment = answer["experiment"]["experiment_id"].as_str().unwrap_or_default();
    match with_uid(client, experiment, &info.uid)?.first() {
        Some(run) => sure(client, run).map(Some),
        None => Ok(None),
    }
}

fn create(client: &Client, info: &RunInfo, experiment: &str) -> Result<(), TrackError> {
    let mut tags = vec![
        json!({"key": UID, "value": info.uid}),
        json!({"key": "mlflow.source.name", "value": "wmtp"}),
        json!({"key": "mlflow.source.type", "value": "LOCAL"}),
    ];
    let user = std::env::var("USER").unwrap_or_default();
    if !user.is_empty() {
        tags.push(json!({"key": "mlflow.user", "value": user}));
    }
    if let Some(parent) = &info.parent {
        tags.push(json!({"key": "wmtp.parent_run", "value": parent}));
        match parent_id(client, parent, &info.dir, experiment)? {
            Some(id) => tags.push(json!({"key": PARENT, "value": id})),
            None => tracing::warn!(
                "the parent run {parent} is not at {}: this run is not nested",
                client.place()
            ),
        }
    }
    client.post(
        "runs/create",
        &json!({
            "experiment_id": experiment,
            "run_name": info.name,
            "start_time": info.started,
            "user_id": user,
            "tags": tags,
        }),
    )?;
    Ok(())
}

/// The id of a parent that is named by its directory, by the name of a sibling directory, or by its name in
/// this experiment, or by the id itself.
fn parent_id(client: &Client, parent: &str, dir: &Path, experiment: &str) -> Result<Option<String>, TrackError> {
    let beside = dir.parent().map(|runs| runs.join(parent));
    for dir in [Some(Path::new(parent).to_path_buf()), beside].into_iter().flatten() {
        let ledger = std::fs::read_to_string(dir.join(TRACKING).join("mlflow.json")).unwrap_or_default();
        let ledger: Value = serde_json::from_str(&ledger).unwrap_or_default();
        if let (Some(id), true) = (ledger["kept"]["run_id"].as_str(), ledger["place"] == client.place()) {
            return Ok(Some(id.to_owned()));
        }
        // It has a tracker that has not answered yet, most likely this one: children wait for it.
        let has = |file: &str| dir.join(TRACKING).join(file).is_file();
        if has("spool.jsonl") && !has("mlflow.json") && !has("files.json") {
            return Err(TrackError::Away(format!(
                "the parent run {parent} is not at {} yet",
                client.place()
            )));
        }
    }
    if is_id(parent) {
        match get(client, parent) {
            Ok(_) => return Ok(Some(parent.to_owned())),
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let named = search(
        client,
        experiment,
        &format!("attributes.run_name = '{}'", quoted(parent)),
    )?;
    Ok(named
        .last()
        .and_then(|run| run["info"]["run_id"].as_str())
        .map(str::to_owned))
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn quoted(text: &str) -> String {
    text.replace('\'', "")
}

pub(super) fn get(client: &Client, id: &str) -> Result<Value, CallError> {
    let answer = client.get("runs/get", &[("run_id", id)])?;
    match answer.get("run") {
        Some(run) if run["info"]["run_id"] == id => Ok(run.clone()),
        _ => Err(client.not_understood(format!("asked for the run {id}, it names another"))),
    }
}

pub(super) fn tag<'a>(run: &'a Value, key: &str) -> Option<&'a str> {
    run["data"]["tags"]
        .as_array()?
        .iter()
        .find(|tag| tag["key"] == key)?
        .get("value")?
        .as_str()
}

/// The experiment's runs with this uid, the first made first.
fn with_uid(client: &Client, experiment: &str, uid: &str) -> Result<Vec<Value>, CallError> {
    let runs = search(client, experiment, &format!("tags.`{UID}` = '{}'", quoted(uid)))?;
    if runs.iter().all(|run| tag(run, UID) == Some(uid)) {
        Ok(runs)
    } else {
        Err(client.not_understood("it found a run that was not asked for"))
    }
}

fn search(client: &Client, experiment: &str, filter: &str) -> Result<Vec<Value>, CallError> {
    let answer = client.post(
        "runs/search",
        &json!({
            "experiment_ids": [experiment],
            "filter": filter,
            "order_by": ["attributes.start_time ASC", "attributes.run_id ASC"],
            "max_results": 20,
        }),
    )?;
    Ok(answer["runs"].as_array().cloned().unwrap_or_default())
}

/// Sends the parameters that the run does not have: their values can't change.
pub(super) fn params(client: &Client, run: &Run, params: &BTreeMap<String, String>) -> Result<(), TrackError> {
    let there = get(client, &run.id)?;
    let there: Vec<&str> = there["data"]["params"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|param| param["key"].as_str())
        .collect();
    let new: Vec<Value> = params
        .iter()
        .map(|(key, value)| (cut(key, KEY), value))
        .filter(|(key, _)| !there.contains(key))
        .map(|(key, value)| json!({"key": key, "value": cut(value, PARAM)}))
        .collect();
    log_entries(client, run, "params", &new)
}

/// MLflow's name of a tag.
fn tag_name(key: &str) -> &str {
    match key {
        SOURCE_TAG => "mlflow.source.name",
        COMMIT_TAG => "mlflow.source.git.commit",
        other => other,
    }
}

/// MLflow's word for a status.
fn status_name(status: Status) -> &'static str {
    match status {
        Status::Running => "RUNNING",
        Status::Finished => "FINISHED",
        Status::Failed => "FAILED",
        Status::Killed => "KILLED",
    }
}

/// Sends tags; the same again changes nothing.
pub(super) fn tags(client: &Client, run: &Run, tags: &BTreeMap<String, String>) -> Result<(), TrackError> {
    let tags: Vec<Value> = tags
        .iter()
        .map(|(key, value)| json!({"key": cut(tag_name(key), KEY), "value": cut(value, TAG)}))
        .collect();
    log_entries(client, run, "tags", &tags)
}

/// Sends `params` or `tags` in batches. The server refuses a batch for one bad entry: then its
/// entries are sent one by one, and only those that are refused by themselves are named as refused.
fn log_entries(client: &Client, run: &Run, field: &str, entries: &[Value]) -> Result<(), TrackError> {
    let send = |part: &[Value]| client.post("runs/log-batch", &json!({"run_id": run.id, field: part}));
    let mut refused: Vec<(String, CallError)> = Vec::new();
    for part in entries.chunks(ENTITIES) {
        match send(part) {
            Err(error) if error.is_refusal() => {}
            answer => {
                answer?;
                continue;
            }
        }
        for entry in part {
            match send(std::slice::from_ref(entry)) {
                Err(error) if error.is_refusal() => {
                    refused.push((entry["key"].as_str().unwrap_or_default().to_owned(), error));
                }
                answer => drop(answer?),
            }
        }
    }
    let Some((_, error)) = refused.first() else {
        return Ok(());
    };
    let names: Vec<String> = refused.iter().map(|(key, _)| format!("`{key}`")).collect();
    Err(TrackError::Refused(format!(
        "{} of {} {field} refused ({}): {error}",
        refused.len(),
        entries.len(),
        names.join(", ")
    )))
}

/// Sends data sets; the server keeps one of each name and digest.
pub(super) fn inputs(client: &Client, run: &Run, inputs: &[Input]) -> Result<(), TrackError> {
    let datasets: Vec<Value> = inputs
        .iter()
        .map(|input| {
            json!({
                "tags": [{"key": "mlflow.data.context", "value": input.context}],
                "dataset": {
                    "name": input.name,
                    "digest": cut(&input.digest, DIGEST),
                    "source_type": "local",
                    "source": cut(&json!({"uri": input.source}).to_string(), SOURCE),
                    "profile": input.profile.to_string(),
                },
            })
        })
        .collect();
    client.post("runs/log-inputs", &json!({"run_id": run.id, "datasets": datasets}))?;
    Ok(())
}

pub(super) fn status(client: &Client, run: &Run, status: Status, at: i64) -> Result<(), TrackError> {
    let mut body = json!({"run_id": run.id, "status": status_name(status)});
    if status != Status::Running {
        body["end_time"] = at.into();
    }
    client.post("runs/update", &body)?;
    Ok(())
}

/// At most `most` bytes of a text, cut between characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    match text.char_indices().find(|(at, c)| at + c.len_utf8() > most) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, cut, tags};
    use crate::{
        TrackError,
        mlflow::{address::Address, client::Client},
    };
    use std::{
        collections::BTreeMap,
        io::{BufRead, BufReader, Read, Write},
        net::{TcpListener, TcpStream},
        sync::mpsc,
        time::Duration,
    };

    /// Reads one request and answers 400 where its body holds `bad`, else 200; returns the body.
    fn answer(mut stream: TcpStream) -> String {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body = String::from_utf8(body).unwrap();
        let (status, text) = if body.contains("bad") {
            (
                "400 Bad Request",
                r#"{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}"#,
            )
        } else {
            ("200 OK", "{}")
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
        write!(stream, "{head}content-length: {}\r\n\r\n{text}", text.len()).unwrap();
        body
    }

    #[test]
    fn one_refused_tag_does_not_take_the_others_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (sender, bodies) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if sender.send(answer(stream.unwrap())).is_err() {
                    break;
                }
            }
        });
        let client = Client::new(Address::find(Some(&address)).unwrap(), Duration::from_secs(10)).unwrap();
        let run = Run {
            id: "r".into(),
            experiment: "0".into(),
            artifact_uri: String::new(),
        };
        let given: BTreeMap<String, String> = ["bad", "commit", "seed"]
            .map(|key| (key.to_owned(), "1".to_owned()))
            .into();
        match tags(&client, &run, &given) {
            Err(TrackError::Refused(said)) => {
                assert!(said.starts_with("1 of 3 tags refused (`bad`)"), "{said}");
            }
            other => panic!("{other:?}"),
        }
        let sent: Vec<String> = bodies.try_iter().collect();
        assert_eq!(sent.len(), 4, "a batch, then three: {sent:?}");
        for key in ["commit", "seed"] {
            let alone = |body: &String| body.contains(key) && !body.contains("bad");
            assert!(sent.iter().any(alone), "{key} was not sent alone: {sent:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("aé", 2), "a");
    }
}
