//! What several verbs share: settings, the model and the device.

use super::{Failure, Output, completions, runs};
use crate::{
    data::{
        DataConfig,
        source::{Source, SourceOptions},
    },
    device::{self, Capabilities},
    eval::{
        bench::Spec,
        sandbox::{Options, Policy, Sandbox, SandboxError},
    },
    paths::expand_home,
    settings::{Config, EvalPrecision, Pipeline, Settings, Sources},
    stop::Stop,
    storage::{Kind, Location, Storage},
};
use burn::tensor::{DType, Device};
use clap::{
    Arg, ArgMatches, Args, FromArgMatches, ValueHint,
    builder::{PathBufValueParser, TypedValueParser},
    error::ErrorKind,
};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};
use wmtp_model::{MtpLlama, PreparedWeights};

/// `--config`, `--recipe`, `--set` and `--device`, on every verb that has settings.
///
/// Files are merged in the order in which they stand on the command line, `--config` and
/// `--recipe` mixed as they are.
#[derive(Clone, Debug, Default)]
pub struct SettingsArgs {
    /// In order; true: a config file.
    files: Vec<(bool, PathBuf)>,
    sets: Vec<String>,
    device: Option<String>,
    base: Option<String>,
}

const SETTINGS: &str = "Settings";

#[derive(Args)]
struct Flags {
    /// Environment file, merged over the defaults; may be given several times.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS, value_hint = ValueHint::FilePath)]
    config: Vec<PathBuf>,
    /// Recipe file, merged over the built-in recipe; may be given several times.
    #[arg(long, value_name = "FILE", help_heading = SETTINGS, value_hint = ValueHint::FilePath)]
    recipe: Vec<PathBuf>,
    /// One setting, over files and WMTP_ variables; the value is YAML (`wmtp inspect recipe` prints all
    /// keys).
    #[arg(
        long,
        value_name = "KEY.PATH=VALUE",
        help_heading = SETTINGS,
        value_parser = completions::Setting,
        hide_possible_values = true
    )]
    set: Vec<String>,
    /// auto, flex, ndarray, cuda[:N], wgpu[:N] or tch.
    #[arg(
        long,
        value_name = "NAME",
        help_heading = SETTINGS,
        value_parser = completions::DeviceName,
        hide_possible_values = true
    )]
    device: Option<String>,
    /// The base model of a LoRA adapter, or the model of a resumed run, where it is not found under the
    /// name in their files (paths.base).
    #[arg(long, value_name = "URI", help_heading = SETTINGS, value_hint = ValueHint::DirPath)]
    base: Option<String>,
}

impl Args for SettingsArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        Flags::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Flags::augment_args_for_update(command)
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = Flags::from_arg_matches(matches)?;
        let positions = |id: &str| matches.indices_of(id).into_iter().flatten().collect::<Vec<_>>();
        let mut files: Vec<(usize, bool, PathBuf)> = positions("config")
            .into_iter()
            .zip(flags.config)
            .map(|(at, path)| (at, true, path))
            .chain(
                positions("recipe")
                    .into_iter()
                    .zip(flags.recipe)
                    .map(|(at, path)| (at, false, path)),
            )
            .collect();
        files.sort_by_key(|(at, ..)| *at);
        Ok(Self {
            files: files
                .into_iter()
                .map(|(_, is_config, path)| (is_config, path))
                .collect(),
            sets: flags.set,
            device: flags.device,
            base: flags.base,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl SettingsArgs {
    /// Defaults, a pipeline's recipe, the files, the environment, `--set`, `--device`. A verb adds
    /// its own flags to the result.
    pub fn sources(&self, pipeline: Option<Pipeline>) -> Sources {
        let files = self.files.iter().fold(
            Sources::new(pipeline).small_world_unless_named(),
            |sources, (is_config, path)| {
                if *is_config {
                    sources.config(path)
                } else {
                    sources.recipe(path)
                }
            },
        );
        self.sets
            .iter()
            .fold(files.environment(), |sources, text| sources.set(text))
            .flag_text("--device", "devices.backend", self.device.as_deref())
            .flag_text("--base", "paths.base", self.base.as_deref())
    }
}

impl SettingsArgs {
    /// The same with these `key.path=value` settings over the files and below all other `--set`.
    pub fn over(&self, sets: Vec<String>) -> Self {
        let sets = sets.into_iter().chain(self.sets.iter().cloned()).collect();
        Self { sets, ..self.clone() }
    }

    /// Config (true) and recipe files in their order, and all `key.path=value` settings.
    pub fn parts(&self) -> (Vec<(bool, PathBuf)>, Vec<String>) {
        let device = self.device.as_ref().map(|name| format!("devices.backend={name}"));
        let base = self.base.as_ref().map(|base| format!("paths.base={base}"));
        let given = device.into_iter().chain(base);
        (self.files.clone(), self.sets.iter().cloned().chain(given).collect())
    }

    /// The same with two files below all that was given.
    pub fn under(&self, config: PathBuf, recipe: PathBuf) -> Self {
        let mut files = vec![(true, config), (false, recipe)];
        files.extend(self.files.iter().cloned());
        Self { files, ..self.clone() }
    }
}

/// A path that can be written down: settings, records and messages are text.
#[derive(Clone, Copy, Debug)]
pub struct Utf8Path;

impl TypedValueParser for Utf8Path {
    type Value = PathBuf;

    fn parse_ref(&self, command: &clap::Command, arg: Option<&Arg>, value: &OsStr) -> Result<PathBuf, clap::Error> {
        let path = PathBufValueParser::new().parse_ref(command, arg, value)?;
        if value.to_str().is_some() {
            return Ok(path);
        }
        let flag = arg.and_then(Arg::get_long).unwrap_or_default();
        Err(clap::Error::raw(
            ErrorKind::InvalidUtf8,
            format!(
                "--{flag} `{}` is not UTF-8, and settings are text: give another path",
                value.display()
            ),
        ))
    }
}

/// A model that a URI named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// `builtin:NAME`.
    Builtin(String),
    /// A directory of this machine.
    Directory(PathBuf),
}

/// A model and the URI it was asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// As written.
    pub uri: String,
    /// Where it is.
    pub source: ModelSource,
}

/// Finds a model, fetching it if it has to be; progress on standard error. A run's directory, or `auto`
/// for the newest run, stands for its best checkpoint.
pub(super) fn resolve_model(uri: &str, config: &Config, output: &Output) -> Result<Model, Failure> {
    if let Some(checkpoint) = runs::checkpoint_of(uri, &expand_home(&config.paths.runs))? {
        say!("{}", runs::said(uri, &checkpoint));
        return Ok(Model {
            uri: checkpoint.display().to_string(),
            source: ModelSource::Directory(checkpoint),
        });
    }
    resolve(uri, Kind::Model, config, output).map(|source| Model {
        uri: uri.to_owned(),
        source,
    })
}

/// Finds a model or data set: the part of [`resolve_model`] that both share.
pub(super) fn resolve(uri: &str, kind: Kind, config: &Config, output: &Output) -> Result<ModelSource, Failure> {
    if let Location::Builtin(name) = Location::parse(uri)? {
        let (what, known) = match kind {
            Kind::Model => ("model", crate::pipeline::BUILTIN_MODELS.to_vec()),
            Kind::Data => {
                let training = crate::pipeline::TRAINING_SETS.iter().copied();
                let mut known: Vec<&str> = Spec::built_in().collect();
                known.extend(training.filter(|name| Spec::built_in().all(|other| other != *name)));
                ("data set", known)
            }
        };
        if !known.contains(&name.as_str()) {
            return Err(Failure::usage(format!(
                "there is no built-in {what} `{name}`: there is builtin:{}",
                known.join(", builtin:")
            )));
        }
        return Ok(ModelSource::Builtin(name));
    }
    let mut bar = output.transfer_bar(uri);
    let path = Storage::new(&config.storage, &config.paths).resolve(uri, kind, &mut |transfer| {
        bar.set(&transfer.file, transfer.done, transfer.total)
    })?;
    Ok(ModelSource::Directory(path))
}

/// The device that the settings name, with the name of what `auto` became.
pub(super) fn open_device(settings: &Settings) -> Result<(String, Device), Failure> {
    Ok(device::resolve(&settings.config.devices.backend)?)
}

/// A directory that is written must not exist yet, or be empty.
pub(super) fn check_free(target: &Path) -> Result<(), Failure> {
    let occupied = std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some());
    if occupied || target.is_file() {
        return Err(Failure::usage(format!(
            "`{}` is not empty: give a directory that does not exist yet",
            target.display()
        )));
    }
    Ok(())
}

/// `FILE`, or standard input for `-`.
pub(super) fn read_text(path: &str) -> Result<String, Failure> {
    if path == "-" {
        return std::io::read_to_string(std::io::stdin())
            .map_err(|e| Failure::failed(format!("cannot read standard input: {e}")));
    }
    std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("cannot read `{path}`: {e}")))
}

/// A model's directory; the built-in one is written into the cache first.
pub(super) fn model_dir(model: &Model, config: &Config, device: &Device) -> Result<PathBuf, Failure> {
    match &model.source {
        ModelSource::Directory(dir) => Ok(dir.clone()),
        ModelSource::Builtin(name) => Ok(crate::pipeline::builtin_model(
            name,
            &expand_home(&config.paths.cache),
            device,
        )?),
    }
}

/// What the data loader takes: `builtin:NAME` and `none` as they are, or a directory of this machine.
pub(super) fn data_source(uri: &str, config: &Config, output: &Output) -> Result<String, Failure> {
    // A pattern names files of this machine: the reader of the data finds them.
    let is_pattern = uri.contains(['*', '?', '[']) && !uri.contains("://") && !Path::new(uri).exists();
    if uri == DataConfig::NO_PROBLEMS || is_pattern {
        return Ok(uri.to_owned());
    }
    Ok(match resolve(uri, Kind::Data, config, output)? {
        ModelSource::Builtin(_) => uri.to_owned(),
        ModelSource::Directory(dir) => dir.to_string_lossy().into_owned(),
    })
}

/// The type of weights that `eval.precision` sets, checked against what the device can do.
pub(super) fn generation_dtype(settings: &Settings, device_name: &str, device: &Device) -> Result<DType, Failure> {
    let precision = settings.recipe.eval.precision;
    if precision != EvalPrecision::F32 && !Capabilities::of(device).bf16 {
        return Err(Failure::usage(format!(
            "`eval.precision` other than f32 works on flex only so far, and this run is on {device_name}; leave it out, or take --device flex"
        )));
    }
    Ok(precision.dtype())
}

/// The weights as `eval.precision` asks for, with those of the heads that draft or without.
pub(super) fn prepared_weights(
    settings: &Settings,
    model: &MtpLlama,
    drafts: bool,
) -> Result<Option<PreparedWeights>, Failure> {
    let quantization = settings.recipe.eval.precision.quantization();
    PreparedWeights::new(model, drafts, quantization).map_err(|error| Failure::usage(error.to_string()))
}

/// The sandbox, with every layer unless `unsafe_exec`.
pub(super) fn sandbox(unsafe_exec: bool) -> Result<Sandbox, Failure> {
    let policy = if unsafe_exec {
        Policy::UnsafeExec
    } else {
        Policy::Refuse
    };
    let made = Sandbox::with(&Options {
        policy,
        ..Options::default()
    });
    made.map_err(|error| match error {
        SandboxError::Layer { .. } => Failure::failed(format!(
            "{error}. Pass --unsafe-exec to run untrusted programs without it"
        )),
        _ => error.into(),
    })
}

/// What SIGINT and SIGTERM ask to stop.
pub(super) fn stop_on_signals() -> Result<Stop, Failure> {
    let stop = Stop::default();
    stop.on_signals()
        .map_err(|e| Failure::failed(format!("cannot listen to signals: {e}")))?;
    Ok(stop)
}

/// Rows of a data file that a command reads: of a file, a folder, a pattern or a URI.
pub(super) fn open_rows(name: &str, settings: &Settings, output: &Output) -> Result<Source, Failure> {
    if name.starts_with("builtin:") {
        return Err(Failure::usage(format!(
            "`{name}` is built in, and rows of a file are wanted: give a file, a folder or a pattern"
        )));
    }
    let path = data_source(name, &settings.config, output)?;
    let data = &settings.recipe.data;
    let options = SourceOptions {
        split: data.split.clone(),
        columns: data.columns.clone(),
        max_rows: data.max_rows,
    };
    Ok(Source::open(Path::new(&path), &options)?)
}

/// Where a command writes rows: as given, or beside the file that it reads, with `ending` in the name.
pub(super) fn rows_output(given: Option<&Path>, read: &str, ending: &str) -> Result<PathBuf, Failure> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let file = Path::new(read);
            if !file.is_file() {
                return Err(Failure::usage(format!(
                    "`{read}` is no file whose name could be used: say where rows are written with --output FILE"
                )));
            }
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let stem = name.split('.').next().unwrap_or_default();
            file.with_file_name(format!("{stem}.{ending}.jsonl"))
        }
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match parent.filter(|parent| !parent.is_dir()) {
        Some(parent) => Err(Failure::usage(format!(
            "--output: there is no directory `{}`",
            parent.display()
        ))),
        None => Ok(path),
    }
}
