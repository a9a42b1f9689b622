//! The model registry: models, their versions, aliases and stages.

use super::{
    Address, artifacts,
    client::{CallError, Client},
    runs, timeout,
};
use crate::{MlflowConfig, RunInfo, SetupError, TrackError};
use backon::{BlockingRetryable, ExponentialBuilder};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

/// Where a model stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Tried.
    Staging,
    /// In use.
    Production,
}

impl Stage {
    /// MLflow's word for the stage.
    pub fn name(self) -> &'static str {
        match self {
            Self::Staging => "Staging",
            Self::Production => "Production",
        }
    }

    /// The alias that goes with it.
    pub fn alias(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.alias())
    }
}

/// A version of a registered model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The registered model.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `None`, `Staging`, `Production` or `Archived`.
    pub stage: String,
    /// Where its files are.
    pub source: String,
}

/// A server's registry, asked by a command that waits for the answer: what gets no clear answer is
/// tried again a few times.
#[derive(Debug)]
pub struct Registry {
    client: Client,
}

/// The run that a model comes from, at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRun(runs::Run);

impl SourceRun {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.0.id
    }
}

impl Registry {
    const RETRIES: usize = 5;

    /// A registry at this address; nothing is asked yet.
    ///
    /// # Errors
    /// The address names no host.
    pub fn new(address: Address, config: &MlflowConfig) -> Result<Self, SetupError> {
        Ok(Self {
            client: Client::new(address, timeout(config))?,
        })
    }

    /// The server's address, without credentials.
    pub fn place(&self) -> &str {
        self.client.place()
    }

    /// The run at the server, which has to be there.
    ///
    /// # Errors
    /// The server does not answer; the run was not delivered to it.
    pub fn run(&self, info: &RunInfo) -> Result<SourceRun, TrackError> {
        self.patiently(|| {
            let id = runs::find(&self.client, info)?.ok_or_else(|| {
                TrackError::Refused(format!(
                    "the run {} is not at {}: send it there with `wmtp track sync {}`",
                    info.name,
                    self.place(),
                    info.dir.display()
                ))
            })?;
            Ok(SourceRun(id))
        })
    }

    /// Sends a file of the run.
    ///
    /// # Errors
    /// [`TrackError`].
    pub fn upload(&self, run: &SourceRun, file: &Path, name: &str) -> Result<(), TrackError> {
        self.patiently(|| artifacts::upload(&self.client, &run.0.artifact_uri, file, name))
    }

    /// The version of `name` that was made from this run with this hash of the weights.
    ///
    /// # Errors
    /// [`TrackError`].
    pub fn version(&self, name: &str, run: &SourceRun, sha256: &str) -> Result<Option<Registered>, TrackError> {
        self.patiently(|| Ok(self.find(name, run, sha256)?))
    }

    /// Registers the files under `path` of the run as a version of `name`, unless it exists.
    ///
    /// # Errors
    /// [`TrackError`].
    pub fn register(
        &self,
        name: &str,
        run: &SourceRun,
        sha256: &str,
        path: &str,
        tags: &BTreeMap<String, String>,
        description: &str,
    ) -> Result<Registered, TrackError> {
        self.patiently(|| {
            match self.client.get("registered-models/get", &[("name", name)]) {
                Err(error) if error.is_missing() => {
                    match self.client.post("registered-models/create", &json!({"name": name})) {
                        Err(error) if !error.is_there() => return Err(error.into()),
                        _ => {}
                    }
                }
                answer => drop(answer?),
            }
            if let Some(found) = self.find(name, run, sha256)? {
                return Ok(found);
            }
            let tags: Vec<Value> = tags
                .iter()
                .map(|(key, value)| json!({"key": key, "value": value}))
                .chain([json!({"key": SHA256, "value": sha256})])
                .collect();
            self.client.post(
                "model-versions/create",
                &json!({
                    "name": name,
                    "source": format!("{}/{path}", run.0.artifact_uri),
                    "run_id": run.id(),
                    "description": description,
                    "tags": tags,
                }),
            )?;
            self.find(name, run, sha256)?.ok_or_else(|| {
                self.client
                    .not_understood("a version that was just made is not found")
                    .into()
            })
        })
    }

    /// Moves a version to a stage and its alias to it; another version in that stage is archived.
    ///
    /// # Errors
    /// [`TrackError`].
    pub fn promote(&self, version: &Registered, to: Stage, description: &str) -> Result<(), TrackError> {
        let (name, number) = (&version.name, &version.version);
        self.patiently(|| {
            self.client.patch(
                "model-versions/update",
                &json!({"name": name, "version": number, "description": description}),
            )?;
            self.client.post(
                "model-versions/transition-stage",
                &json!({
                    "name": name,
                    "version": number,
                    "stage": to.name(),
                    "archive_existing_versions": true,
                }),
            )?;
            self.client.post(
                "registered-models/alias",
                &json!({"name": name, "alias": to.alias(), "version": number}),
            )?;
            Ok(())
        })?;
        if to == Stage::Production {
            self.leave(version, Stage::Staging)?;
        }
        Ok(())
    }

    /// Takes a stage's alias off a version that has left it.
    fn leave(&self, version: &Registered, stage: Stage) -> Result<(), TrackError> {
        let alias = [("name", version.name.as_str()), ("alias", stage.alias())];
        self.patiently(|| match self.client.get("registered-models/alias", &alias) {
            Ok(answer) if answer["model_version"]["version"] == version.version.as_str() => {
                self.client.delete(
                    "registered-models/alias",
                    &json!({"name": version.name, "alias": stage.alias()}),
                )?;
                Ok(())
            }
            // Nobody's, or another version's.
            Ok(_) => Ok(()),
            Err(CallError::Status { status: 400 | 404, .. }) => Ok(()),
            Err(error) => Err(error.into()),
        })
    }

    fn find(&self, name: &str, run: &SourceRun, sha256: &str) -> Result<Option<Registered>, CallError> {
        let filter = format!("name = '{name}' and run_id = '{}'", run.id());
        let answer = self
            .client
            .get("model-versions/search", &[("filter", &filter), ("max_results", "100")])?;
        let versions = answer["model_versions"].as_array().into_iter().flatten();
        let mut found: Vec<(u64, Registered)> = versions
            .filter(|v| v["name"] == name && v["run_id"] == run.id())
            .filter(|v| {
                let tags = v["tags"].as_array().into_iter().flatten();
                tags.into_iter()
                    .any(|tag| tag["key"] == SHA256 && tag["value"] == sha256)
            })
            .filter_map(|v| {
                let text = |key: &str| v[key].as_str().map(str::to_owned);
                let version = text("version")?;
                let registered = Registered {
                    name: name.to_owned(),
                    stage: text("current_stage").unwrap_or_default(),
                    source: text("source").unwrap_or_default(),
                    version: version.clone(),
                };
                Some((version.parse().ok()?, registered))
            })
            .collect();
        found.sort_by_key(|(number, _)| *number);
        Ok(found.into_iter().next().map(|(_, version)| version))
    }

    fn patiently<T>(&self, call: impl FnMut() -> Result<T, TrackError>) -> Result<T, TrackError> {
        let delays = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(250))
            .with_max_times(Self::RETRIES);
        call.retry(delays)
            .when(|error| matches!(error, TrackError::Away(_)))
            .notify(|error, _| tracing::debug!("{error}, trying again"))
            .call()
    }
}

/// Tells a version's weights from another's.
const SHA256: &str = "wmtp.model_sha256";
