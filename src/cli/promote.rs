//! `wmtp promote`: a run's model into the registry, with its card.

use super::{
    Failure, Output, SettingsArgs,
    card::{self, CARD, CardFacts, model_files, read_json},
    track::run_with_settings,
};
use crate::{
    pipeline::weights_hash,
    report::card::CardFields,
    run::{RunRecord, file},
    settings::Settings,
    track::{self, Address, Registered, Registry, RunInfo, Stage, TrackError},
};
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
    #[arg(long, value_name = "DIR", value_parser = crate::cli::common::Utf8Path)]
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
    let fields = card::fields(args.card.as_deref(), &dir)?;
    let card = card(&candidate, &name, &record, &fields)?;
    let mlflow = &settings.config.tracking.mlflow;
    let address = Address::find(mlflow.uri.as_deref()).map_err(|_| {
        Failure::usage("the registry is an MLflow server's and none is named: set tracking.mlflow.uri or MLFLOW_TRACKING_URI to http://HOST:PORT")
    })?;
    let registry = Registry::new(address, mlflow).map_err(Failure::usage)?;
    let registered = promote(&registry, &candidate, &name, stage, &card)?;
    card::save(&dir, &fields, &card)?;
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

fn candidate(args: &Args, dir: &Path, settings: &Settings) -> Result<Candidate, Failure> {
    let (name, path) = card::checkpoint(dir, args.checkpoint.as_deref())?;
    Ok(Candidate {
        sha256: weights_hash(&path)?,
        name,
        path,
        info: track::own_run(dir, &settings.config.tracking).map_err(Failure::failed)?,
        dir: dir.to_path_buf(),
    })
}

fn card(candidate: &Candidate, name: &str, run: &RunRecord, fields: &CardFields) -> Result<String, Failure> {
    let facts = CardFacts::read(&candidate.dir, &candidate.path, &candidate.sha256)?;
    if facts.evaluations.is_empty() {
        return Err(Failure::usage(format!(
            "{} was not evaluated as it is: run `wmtp eval mbpp --model {}` first",
            candidate.path.display(),
            candidate.path.display()
        )));
    }
    facts
        .card(name, &candidate.name, &candidate.sha256, run, fields)
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

/// A run that is not there is usage; a server that does not answer is not.
impl From<TrackError> for Failure {
    fn from(error: TrackError) -> Self {
        match error {
            TrackError::Refused(_) => Self::usage(error),
            TrackError::Away(_) => Self::failed(error),
        }
    }
}
