//! A sweep, read and resolved: every arm's settings are checked before any arm is trained.

use super::{
    SweepError,
    config::{Evaluation, SweepConfig, sweep_schema},
    expand::{Setting, settings},
};
use crate::{
    paths::expand_home,
    run::file,
    settings::{Config, EvalConfig, Pipeline, Recipe, RunConfig, Sources, flow_text, read_file},
    text::suggestion,
    train::{RecordConfig, TrainConfig},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Limit on the number of seeds: more is a typing error.
const MOST_SEEDS: usize = 1000;

/// Settings that the command line adds to all arms.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// Config (true) and recipe files, over the sweep's own.
    pub files: Vec<(bool, PathBuf)>,
    /// `key.path=value`, over the sweep's own `set` and under the swept values.
    pub sets: Vec<String>,
    /// Parent of the sweep's directory, instead of `paths.runs`.
    pub output: Option<PathBuf>,
}

/// A sweep with all its arms.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The sweep file.
    pub path: PathBuf,
    /// Its content.
    pub config: SweepConfig,
    /// Its name.
    pub name: String,
    /// Its directory: run directories of the arms, logs, and the table.
    pub dir: PathBuf,
    /// The settings that are compared.
    pub settings: Vec<Setting>,
    /// Index of the setting that the others are compared with.
    pub baseline: usize,
    /// Every setting with every seed, in the order of seeds: the arms of one seed are a complete comparison.
    pub arms: Vec<Arm>,
    files: Vec<(bool, PathBuf)>,
}

/// One setting with one seed.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Values, seed, and six digits of a hash over all settings that decide the weights.
    pub name: String,
    /// Name of the training run: the sweep's and the arm's.
    pub run_name: String,
    /// Index of its setting.
    pub setting: usize,
    /// Its seed.
    pub seed: u64,
    /// Its pipeline.
    pub pipeline: Pipeline,
    /// Its recipe, as `wmtp train` will resolve it.
    pub recipe: Recipe,
    /// Its config, resolved likewise.
    pub config: Config,
    /// Its evaluations, each with all settings of the recipe's section `eval`.
    pub evaluations: Vec<(Evaluation, EvalConfig)>,
    sets: Vec<String>,
}

impl Sweep {
    /// Reads a sweep file and resolves every arm.
    ///
    /// # Errors
    /// The first error in the file or in an arm's settings.
    pub fn read(path: &Path, overlay: &Overlay) -> Result<Self, SweepError> {
        let config: SweepConfig = read_file(sweep_schema(), path)?;
        let (settings, baseline) = settings(&config, path)?;
        let name = name(&config, path)?;
        let relative = |file: &PathBuf| path.parent().unwrap_or(Path::new("")).join(file);
        let mut files: Vec<_> = config.config.iter().map(|file| (true, relative(file))).collect();
        files.extend(config.recipe.iter().map(|file| (false, relative(file))));
        files.extend(overlay.files.iter().cloned());
        let mut sweep = Self {
            path: path.to_owned(),
            dir: PathBuf::new(),
            name,
            settings,
            baseline,
            arms: Vec::new(),
            files,
            config,
        };
        sweep.check()?;
        sweep.check_overlay(overlay)?;
        let seeds = sweep.config.seeds.clone();
        for seed in seeds {
            for setting in 0..sweep.settings.len() {
                let arm = sweep.arm(setting, seed, overlay)?;
                sweep.arms.push(arm);
            }
        }
        let runs = overlay
            .output
            .clone()
            .or_else(|| Some(expand_home(&sweep.arms.first()?.config.paths.runs)));
        sweep.dir = runs.unwrap_or_default().join(&sweep.name);
        sweep.check_names()?;
        sweep.check_rank()?;
        Ok(sweep)
    }

    /// The arm of this name.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.arms
            .iter()
            .position(|arm| arm.name == name || arm.run_name == name)
    }

    /// An arm's values and seed, for people.
    pub fn label(&self, arm: &Arm) -> String {
        let setting = self.settings.get(arm.setting).map(Setting::label).unwrap_or_default();
        format!("{setting}, seed {}", arm.seed)
    }

    fn invalid(&self, key: &str, problem: impl Into<String>) -> SweepError {
        SweepError::Invalid {
            key: key.to_owned(),
            problem: problem.into(),
            path: self.path.clone(),
        }
    }

    fn check(&self) -> Result<(), SweepError> {
        let config = &self.config;
        if config.seeds.is_empty() {
            return Err(self.invalid("seeds", "must hold at least one seed"));
        }
        if config.seeds.len() > MOST_SEEDS {
            return Err(self.invalid("seeds", format!("holds more than {MOST_SEEDS} seeds")));
        }
        let twice = |n: usize| {
            config
                .seeds
                .iter()
                .take(n)
                .any(|seed| Some(seed) == config.seeds.get(n))
        };
        if let Some(n) = (0..config.seeds.len()).find(|n| twice(*n)) {
            return Err(self.invalid("seeds", format!("holds {} twice", config.seeds.get(n).unwrap_or(&0))));
        }
        if config.parallel == super::config::Parallel::Count(0) {
            return Err(self.invalid("parallel", "must be 1 or more, or auto"));
        }
        if config.time_limit_seconds == Some(0) {
            return Err(self.invalid("time_limit_seconds", "must be 1 or more"));
        }
        let names: Vec<_> = config.evaluate.iter().map(|e| e.benchmark).collect();
        if names
            .iter()
            .enumerate()
            .any(|(n, name)| names.iter().take(n).any(|other| other == name))
        {
            return Err(self.invalid("evaluate", "must name each benchmark once"));
        }
        Ok(())
    }

    /// A key that is varied can't also be set for all arms.
    fn check_overlay(&self, overlay: &Overlay) -> Result<(), SweepError> {
        let swept = |key: &str| self.settings.iter().any(|s| s.get(key).is_some());
        let given = overlay.sets.iter().filter_map(|set| set.split('=').next());
        match given
            .chain(self.config.set.keys().map(String::as_str))
            .find(|key| swept(key) || *key == "seed")
        {
            Some(key) => Err(self.invalid(
                key,
                "is set for all arms (`set` or --set) and also varied: remove one of the two",
            )),
            None => Ok(()),
        }
    }

    fn arm(&self, index: usize, seed: u64, overlay: &Overlay) -> Result<Arm, SweepError> {
        let setting = self
            .settings
            .get(index)
            .cloned()
            .unwrap_or(Setting { values: Vec::new() });
        let wrong = |problem: String| SweepError::Arm {
            arm: format!("{}, seed {seed}", setting.label()),
            problem,
        };
        let pipeline = match setting.get("pipeline") {
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|_| wrong(format!("`pipeline` is {value}, it must be critic, rho1 or baseline")))?,
            None => self.config.pipeline,
        };
        let text = |(key, value): (&String, &Value)| format!("{key}={}", flow_text(value));
        let own = setting.values.iter().map(|(key, value)| (key, value));
        let mut sets: Vec<String> = self.config.set.iter().map(text).collect();
        sets.extend(overlay.sets.iter().cloned());
        sets.extend(own.filter(|(key, _)| *key != "pipeline").map(text));
        sets.push(format!("seed={seed}"));
        let resolve = |more: Vec<String>| {
            let loaded = self.sources(pipeline, sets.iter().cloned().chain(more)).load();
            loaded.map_err(|e| wrong(e.to_string()))
        };
        let resolved = resolve(Vec::new())?;
        pipeline.check_scorer(&resolved.recipe.scorer).map_err(wrong)?;
        let mut evaluations = Vec::new();
        for evaluation in &self.config.evaluate {
            evaluations.push((evaluation.clone(), resolve(evaluation.sets())?.recipe.eval));
        }
        let hash = identity(pipeline, &resolved.recipe, &resolved.config);
        let name = format!("{}-s{seed}-{}", setting.name(), hash.get(..6).unwrap_or(&hash));
        Ok(Arm {
            run_name: format!("{}-{name}", self.name),
            name,
            setting: index,
            seed,
            pipeline,
            recipe: resolved.recipe,
            config: resolved.config,
            evaluations,
            sets,
        })
    }

    fn sources(&self, pipeline: Pipeline, sets: impl Iterator<Item = String>) -> Sources {
        let files = self
            .files
            .iter()
            // As `wmtp train`, which trains the arm, has it.
            .fold(
                Sources::new(Some(pipeline)).small_world_unless_named(),
                |sources, (is_config, file)| {
                    if *is_config {
                        sources.config(file)
                    } else {
                        sources.recipe(file)
                    }
                },
            );
        sets.fold(files.environment(), Sources::set)
    }

    /// Two arms of one directory would train the same model: a varied key has no effect.
    fn check_names(&self) -> Result<(), SweepError> {
        for (n, arm) in self.arms.iter().enumerate() {
            if let Some(other) = self.arms.iter().take(n).find(|other| other.name == arm.name) {
                return Err(SweepError::Arm {
                    arm: self.label(arm),
                    problem: format!("its settings are those of {}", self.label(other)),
                });
            }
        }
        Ok(())
    }

    fn check_rank(&self) -> Result<(), SweepError> {
        let known = self.metrics();
        let asked = &self.config.rank_by;
        if known.contains(asked) {
            return Ok(());
        }
        let hint = suggestion(asked, known.iter().map(String::as_str));
        Err(self.invalid(
            "rank_by",
            format!(
                "is {asked}, a figure that no arm has{hint}; known figures: {}",
                known.join(", ")
            ),
        ))
    }

    /// The figures that every finished arm has.
    pub fn metrics(&self) -> Vec<String> {
        let mut names: Vec<String> = ["valid_loss", "best_valid_loss", "valid_ce_head_1"]
            .map(str::to_owned)
            .into();
        for (evaluation, settings) in self.arms.first().into_iter().flat_map(|arm| &arm.evaluations) {
            let mut ks: Vec<usize> = settings.k.iter().copied().chain([1]).collect();
            ks.sort_unstable();
            ks.dedup();
            names.extend(
                ks.iter()
                    .map(|k| format!("{}.pass_at_{k}", evaluation.benchmark.name())),
            );
        }
        names
    }

    /// Arguments of `wmtp` that train an arm from its beginning.
    pub fn train_args(&self, arm: &Arm) -> Vec<String> {
        let mut tags = arm.recipe.run.tags.clone();
        tags.push(format!("sweep={}", self.name));
        let mut args = vec!["train".to_owned(), arm.pipeline.name().into()];
        args.extend(self.settings_args(&arm.sets));
        if !arm.config.tracking.kinds.is_empty() && arm.config.tracking.parent_run.is_none() {
            let dir = std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone());
            let parent = flow_text(&text(&dir).into());
            args.extend(["--set".into(), format!("tracking.parent_run={parent}")]);
        }
        for (flag, value) in [("--run-name", &arm.run_name), ("--tags", &tags.join(","))] {
            args.extend([flag.to_owned(), value.clone()]);
        }
        args.extend(["--output".into(), text(&self.dir), "--plain".into()]);
        args
    }

    /// Arguments that resume an arm's training with the settings in its run directory.
    pub fn resume_args(&self, arm: &Arm) -> Vec<String> {
        [
            "train",
            arm.pipeline.name(),
            "--resume",
            &arm.run_name,
            "--output",
            &text(&self.dir),
            "--plain",
        ]
        .map(str::to_owned)
        .into()
    }

    /// Arguments that print an arm's plan as JSON.
    pub fn plan_args(&self, arm: &Arm) -> Vec<String> {
        let mut args = self.train_args(arm);
        args.extend(["--dry-run".into(), "--json".into()]);
        args
    }

    /// Arguments that evaluate an arm, or resume the evaluation of this name. Config and recipe are those
    /// in the run directory.
    pub fn eval_args(&self, arm: &Arm, index: usize, resume: Option<&str>) -> Vec<String> {
        let Some((evaluation, settings)) = arm.evaluations.get(index) else {
            return Vec::new();
        };
        let mut args = vec!["eval".to_owned(), evaluation.benchmark.name().into()];
        if let Some(name) = resume {
            args.extend(["--resume".into(), name.to_owned()]);
        } else {
            let run = self.run_dir(arm);
            let section = serde_json::to_value(settings).unwrap_or_default();
            args.extend(["--model".into(), text(&evaluation.checkpoint.dir(&run))]);
            args.extend(["--config".into(), text(&run.join(file::CONFIG))]);
            args.extend(["--recipe".into(), text(&run.join(file::RECIPE))]);
            args.extend(["--set".into(), format!("eval={}", flow_text(&section))]);
        }
        args.extend(["--output".into(), text(&self.evals_dir(arm))]);
        args
    }

    fn settings_args(&self, sets: &[String]) -> Vec<String> {
        let files = self.files.iter().flat_map(|(is_config, file)| {
            let flag = if *is_config { "--config" } else { "--recipe" };
            [flag.to_owned(), text(file)]
        });
        files
            .chain(sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]))
            .collect()
    }

    /// An arm's run directory.
    pub fn run_dir(&self, arm: &Arm) -> PathBuf {
        self.dir.join(&arm.run_name)
    }

    /// The directory of an arm's evaluations.
    pub fn evals_dir(&self, arm: &Arm) -> PathBuf {
        self.dir.join("evals").join(&arm.run_name)
    }

    /// Output of an arm's processes.
    pub fn log_file(&self, arm: &Arm) -> PathBuf {
        self.dir.join("logs").join(format!("{}.log", arm.run_name))
    }
}

impl Evaluation {
    /// `key=value` settings over those of the recipe.
    fn sets(&self) -> Vec<String> {
        let mut sets = self
            .profile
            .map(|profile| self.benchmark.profile(profile))
            .unwrap_or_default();
        let json = serde_json::to_value(self).unwrap_or_default();
        for key in [
            "tasks",
            "variant",
            "samples",
            "k",
            "temperature",
            "max_new_tokens",
            "prompt",
        ] {
            if let Some(value) = json.get(key).filter(|value| !value.is_null()) {
                sets.push(format!("eval.{key}={}", flow_text(value)));
            }
        }
        sets
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// SHA-256 over all settings that decide the weights: without name, tags, recordings and evaluation.
fn identity(pipeline: Pipeline, recipe: &Recipe, config: &Config) -> String {
    let document = serde_json::json!({
        "pipeline": pipeline,
        "recipe": learned(recipe),
        "seed": config.seed,
        "device": config.devices.backend,
    });
    hex::encode(Sha256::digest(document.to_string()))
}

/// The recipe without settings that have no effect on the weights.
pub(super) fn learned(recipe: &Recipe) -> Recipe {
    let train = TrainConfig {
        record: RecordConfig::default(),
        ..recipe.train.clone()
    };
    Recipe {
        train,
        run: RunConfig::default(),
        eval: EvalConfig::default(),
        ..recipe.clone()
    }
}

fn name(config: &SweepConfig, path: &Path) -> Result<String, SweepError> {
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let stem = stem.strip_prefix("sweep.").unwrap_or(&stem).to_owned();
    let name = config.name.clone().unwrap_or(stem);
    let usable = !name.is_empty()
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if usable {
        return Ok(name);
    }
    Err(SweepError::Invalid {
        key: "name".into(),
        problem: format!("is `{name}`, but it names a directory: use letters, digits, `-`, `_` and `.` only"),
        path: path.to_owned(),
    })
}
