//! `wmtp promote`: a run's model into the registry, with its card.

use super::{Failure, Output, SettingsArgs, track::run_with_settings};
use crate::{
    pipeline::weights_hash,
    report::card::{CardFields, Evaluation, ModelCard},
    run::{RunDir, RunRecord, file, verify},
    settings::Settings,
    track::{self, Address, Registered, Registry, RunInfo, Stage, TrackError},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// `wmtp promote RUN --to staging|production`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run: its name or its directory.
    run: String,
    /// Target stage; production accepts only models that are in staging.
    #[arg(long, value_enum, value_name = "STAGE")]
    to: To,
    /// Which checkpoint; `best`, or `last` where there is no best one, if left out.
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<String>,
    /// Model card fields that the run does not record: a YAML file with intended_use, limits and, unless they
    /// are known, licence and data_licence. Kept with the run.
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Name of the registered model; project, algorithm and data set if left out.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Where run directories are (paths.runs).
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum To {
    Staging,
    Production,
}

/// A checkpoint and what is known of it.
struct Candidate {
    dir: PathBuf,
    name: String,
    path: PathBuf,
    sha256: String,
    info: RunInfo,
}

/// Promotes.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let (dir, settings) = run_with_settings(&args.run, &args.settings, args.output.as_deref())?;
    let record: RunRecord = read_json(&dir.join(file::RECORD))?;
    if record.is_evaluation() {
        return Err(Failure::usage(format!(
            "{} is an evaluation: promote the run that it evaluated",
            dir.display()
        )));
    }
    let candidate = candidate(&args, &dir, &settings)?;
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| default_name(&settings, &candidate.info));
    check_name(&name)?;
    let stage = match args.to {
        To::Staging => Stage::Staging,
        To::Production => Stage::Production,
    };
    let fields = card_fields(args.card.as_deref(), &dir)?;
    let card = card(&candidate, &name, &record, &fields)?;
    let mlflow = &settings.config.tracking.mlflow;
    let address = Address::find(mlflow.uri.as_deref()).map_err(|_| {
        Failure::usage("the registry is an MLflow server's and none is named: set tracking.mlflow.uri or MLFLOW_TRACKING_URI to http://HOST:PORT")
    })?;
    let registry = Registry::new(address, mlflow).map_err(Failure::usage)?;
    let registered = promote(&registry, &candidate, &name, stage, &card)?;
    let saved = serde_json::to_string_pretty(&fields)?;
    for (name, text) in [(FIELDS, &saved), (CARD, &card)] {
        let path = dir.join(name);
        crate::fs::write(&path, text.as_bytes())
            .map_err(|e| Failure::failed(format!("cannot write `{}`: {e}", path.display())))?;
    }
    output.result(
        &json!({
            "name": name,
            "version": registered.version,
            "stage": stage.alias(),
            "alias": stage.alias(),
            "source": registered.source,
            "model_sha256": candidate.sha256,
            "card": dir.join(CARD),
        }),
        &format!(
            "{name} version {} is in {stage} at {}; its card is {}",
            registered.version,
            registry.place(),
            dir.join(CARD).display()
        ),
    )
}

const FIELDS: &str = "model_card.json";
const CARD: &str = "MODEL_CARD.md";

fn candidate(args: &Args, dir: &Path, settings: &Settings) -> Result<Candidate, Failure> {
    let run = RunDir::at(dir);
    let there = |name: &&str| run.checkpoint(name).join(file::MANIFEST).is_file();
    let name = match &args.checkpoint {
        Some(name) => Some(name.as_str()).filter(there),
        None => [file::BEST, file::LAST].into_iter().find(there),
    };
    let Some(name) = name else {
        return Err(Failure::usage(format!(
            "{} has no complete checkpoint {}: train it first, or name another with --checkpoint",
            dir.display(),
            args.checkpoint.as_deref().unwrap_or("best or last")
        )));
    };
    let path = run.checkpoint(name);
    // What is promoted is what was trained and judged, byte for byte.
    verify(&path).map_err(Failure::failed)?;
    Ok(Candidate {
        sha256: weights_hash(&path)?,
        name: name.to_owned(),
        path,
        info: track::own_run(dir, &settings.config.tracking).map_err(Failure::failed)?,
        dir: dir.to_path_buf(),
    })
}

fn card(candidate: &Candidate, name: &str, run: &RunRecord, fields: &CardFields) -> Result<String, Failure> {
    let mut evaluations = Evaluation::of_run(&candidate.dir);
    evaluations.retain(|evaluation| evaluation.is_of(&candidate.sha256));
    if evaluations.is_empty() {
        return Err(Failure::usage(format!(
            "{} was not evaluated as it is: run `wmtp eval mbpp --model {}` first",
            candidate.path.display(),
            candidate.path.display()
        )));
    }
    let recipe = std::fs::read_to_string(candidate.dir.join(file::RECIPE)).map_err(|e| {
        Failure::usage(format!(
            "cannot read `{}`: {e}",
            candidate.dir.join(file::RECIPE).display()
        ))
    })?;
    ModelCard {
        name,
        checkpoint: &candidate.name,
        sha256: &candidate.sha256,
        run,
        trainer: &read_json(&candidate.path.join(file::TRAINER))?,
        manifest: &read_json(&candidate.path.join(file::MANIFEST))?,
        recipe: &recipe,
        evaluations: &evaluations,
        fields,
    }
    .markdown()
    .map_err(Failure::usage)
}

fn promote(
    registry: &Registry,
    candidate: &Candidate,
    name: &str,
    stage: Stage,
    card: &str,
) -> Result<Registered, Failure> {
    let run = registry.run(&candidate.info)?;
    let there = registry.version(name, &run, &candidate.sha256)?;
    if stage == Stage::Production {
        let in_use = there.as_ref().map(|version| version.stage.as_str());
        if !matches!(in_use, Some("Staging" | "Production")) {
            return Err(Failure::usage(format!(
                "{} is not in staging as {name}, and only what was tried there goes to production: run `wmtp promote {} --to staging` first",
                candidate.path.display(),
                candidate.dir.display()
            )));
        }
    }
    let at = format!("model/{}", candidate.name);
    let card_file =
        tempfile::NamedTempFile::new().map_err(|e| Failure::failed(format!("cannot write the card: {e}")))?;
    std::fs::write(card_file.path(), card).map_err(|e| Failure::failed(format!("cannot write the card: {e}")))?;
    registry.upload(&run, card_file.path(), "MODEL_CARD.md")?;
    let registered = match there {
        Some(version) => version,
        None => {
            for file in model_files(&candidate.path)? {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                registry.upload(&run, &file, &format!("{at}/{name}"))?;
            }
            registry.upload(&run, card_file.path(), &format!("{at}/README.md"))?;
            let tags = BTreeMap::from([
                ("wmtp.run".to_owned(), candidate.info.name.clone()),
                ("wmtp.checkpoint".to_owned(), candidate.name.clone()),
            ]);
            registry.register(name, &run, &candidate.sha256, &at, &tags, card)?
        }
    };
    registry.promote(&registered, stage, card)?;
    Ok(registered)
}

/// The checkpoint's files without those that only training needs.
fn model_files(checkpoint: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(checkpoint)
        .map_err(|e| Failure::failed(format!("cannot read `{}`: {e}", checkpoint.display())))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && file::is_of_model(&path.file_name().unwrap_or_default().to_string_lossy()))
        .collect();
    files.sort();
    Ok(files)
}

/// What was given now, over what was given for this run before.
fn card_fields(file: Option<&Path>, dir: &Path) -> Result<CardFields, Failure> {
    let before = std::fs::read_to_string(dir.join(FIELDS)).unwrap_or_default();
    let before: CardFields = serde_json::from_str(&before).unwrap_or_default();
    let Some(file) = file else { return Ok(before) };
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::usage(format!("--card: cannot read `{}`: {e}", file.display())))?;
    let bad = |problem: String| Failure::usage(format!("--card: `{}` {problem}", file.display()));
    let documents = <saphyr::Yaml as saphyr::LoadableYamlNode>::load_from_str(&text)
        .map_err(|e| bad(format!("is not valid YAML: {e}")))?;
    let map = documents
        .first()
        .and_then(saphyr::Yaml::as_mapping)
        .ok_or_else(|| bad("must be a map: `intended_use: TEXT` and so on".into()))?;
    let mut fields = before;
    for (key, value) in map {
        let (Some(key), Some(value)) = (key.as_str(), value.as_str()) else {
            return Err(bad("must have texts as keys and values".into()));
        };
        let field = match key {
            "intended_use" => &mut fields.intended_use,
            "limits" => &mut fields.limits,
            "licence" => &mut fields.licence,
            "data_licence" => &mut fields.data_licence,
            _ => {
                return Err(bad(format!(
                    "has a key `{key}`: there are intended_use, limits, licence and data_licence"
                )));
            }
        };
        *field = Some(value.to_owned());
    }
    Ok(fields)
}

/// `wmtp-critic-mbpp`.
fn default_name(settings: &Settings, info: &RunInfo) -> String {
    let rest = info.experiment.strip_prefix("mtp/").unwrap_or(&info.experiment);
    format!("{}-{}", settings.config.project, rest.replace(['/', ':', ' '], "-"))
}

fn check_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.contains(['/', ':', '\'', '%', '"']) {
        return Err(Failure::usage(format!(
            "`{name}` can't name a registered model: leave out / : ' \" and %, or give another with --name"
        )));
    }
    Ok(())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    crate::fs::read_json(path).map_err(|e| Failure::usage(format!("cannot read `{}`: {e}", path.display())))
}

/// A run that is not there is usage; a server that does not answer is not.
impl From<TrackError> for Failure {
    fn from(error: TrackError) -> Self {
        match error {
            TrackError::Refused(_) => Self::usage(error),
            TrackError::Away(_) => Self::failed(error),
        }
    }
}
