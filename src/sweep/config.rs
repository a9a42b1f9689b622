use crate::{
    data::PromptStyle,
    eval::{Profile, bench::Spec},
    run::{RunDir, file},
    settings::{Pipeline, TaskChoice, Temperatures},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::{Map, Value};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A sweep file, `sweep.*.yaml`: which settings are tried, with which seeds, and how they are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SweepConfig {
    /// Name of the sweep's directory and beginning of its runs' names; the file's name if left out.
    pub name: Option<String>,
    /// Which pipeline trains; `pipeline` may also be swept.
    pub pipeline: Pipeline,
    /// Config files of all arms, relative to this file.
    pub config: Vec<PathBuf>,
    /// Recipe files of all arms, relative to this file.
    pub recipe: Vec<PathBuf>,
    /// Settings of all arms; they override the files: `optim.lr: 1e-4`.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub set: Map<String, Value>,
    /// Every combination of these: `weights.temperature: [0.5, 0.7, 1.0]`. The last key varies fastest.
    #[schemars(with = "BTreeMap<String, Vec<Value>>")]
    pub grid: Map<String, Value>,
    /// Settings drawn at random, instead of a grid.
    pub random: Option<RandomConfig>,
    /// Seeds: every setting is trained once with each.
    pub seeds: Vec<u64>,
    /// The setting that the others are compared with, added to them if it is not among them; the
    /// first one if left out.
    #[schemars(with = "Option<BTreeMap<String, Value>>")]
    pub baseline: Option<Map<String, Value>>,
    /// Benchmarks on which every arm is evaluated.
    pub evaluate: Vec<Evaluation>,
    /// The figure that the table is sorted by: `valid_loss`, `best_valid_loss`, `valid_ce_head_1`, or
    /// a benchmark's pass@k, `mbpp.pass_at_1`.
    pub rank_by: String,
    /// Number of arms that run at the same time.
    pub parallel: Parallel,
    /// Seconds after which an arm is stopped; a later start of the sweep resumes it. Unlimited if left out.
    pub time_limit_seconds: Option<u64>,
    /// What happens to the other arms when one fails.
    pub on_failure: OnFailure,
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self {
            name: None,
            pipeline: Pipeline::Baseline,
            config: Vec::new(),
            recipe: Vec::new(),
            set: Map::new(),
            grid: Map::new(),
            random: None,
            seeds: vec![42],
            baseline: None,
            evaluate: Vec::new(),
            rank_by: "valid_loss".into(),
            parallel: Parallel::Word(ParallelWord::Auto),
            time_limit_seconds: None,
            on_failure: OnFailure::GoOn,
        }
    }
}

/// Settings drawn at random. Draw i of a key depends on the seed, i and the key only: a larger `n`
/// or another key keeps the others' values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RandomConfig {
    /// Different settings to draw.
    pub n: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// The distribution of each key.
    #[schemars(with = "BTreeMap<String, Distribution>")]
    pub draw: Map<String, Value>,
}

/// The distribution of a value. Numbers that are not whole are rounded to 4 significant digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Distribution {
    /// One of several values with equal probability.
    Choice(ChoiceConfig),
    /// Any number between two.
    Uniform(RangeConfig),
    /// Any number between two above 0, its logarithm uniform.
    LogUniform(RangeConfig),
    /// Any whole number between two, both included.
    Integers(IntegersConfig),
}

/// Settings of `kind: choice`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChoiceConfig {
    /// The values.
    pub values: Vec<Value>,
}

/// Settings of `kind: uniform` and `kind: log-uniform`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeConfig {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Settings of `kind: integers`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntegersConfig {
    /// Smallest.
    pub low: i64,
    /// Largest.
    pub high: i64,
}

/// One benchmark for every arm. Keys left out have the value of the recipe's section `eval`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Evaluation {
    /// The benchmark.
    pub benchmark: BenchmarkName,
    /// A named protocol; the other keys override it.
    pub profile: Option<Profile>,
    /// Which checkpoint.
    pub checkpoint: CheckpointName,
    /// Problems.
    pub tasks: Option<TaskChoice>,
    /// Which of the benchmark's sets.
    pub variant: Option<String>,
    /// Completions for each problem and temperature.
    pub samples: Option<usize>,
    /// The k of pass@k.
    pub k: Option<Vec<usize>>,
    /// Sampling temperature, or several; 0 is greedy.
    pub temperature: Option<Temperatures>,
    /// Maximum new tokens per completion.
    pub max_new_tokens: Option<usize>,
    /// How a problem becomes a prompt.
    pub prompt: Option<PromptStyle>,
}

/// A benchmark whose problems are built in, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct BenchmarkName(&'static str);

impl Default for BenchmarkName {
    fn default() -> Self {
        Self(Spec::built_in().next().unwrap_or_default())
    }
}

impl BenchmarkName {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// The `key=value` settings of one of its protocols.
    pub fn profile(self, profile: Profile) -> Vec<String> {
        Spec::named(self.0)
            .map(|spec| spec.profile(profile))
            .unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for BenchmarkName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let found = Spec::built_in().find(|known| *known == name);
        found
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("no built-in benchmark `{name}`")))
    }
}

impl JsonSchema for BenchmarkName {
    fn schema_name() -> Cow<'static, str> {
        "BenchmarkName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A benchmark whose problems are built in.",
            "type": "string",
            "enum": Spec::built_in().collect::<Vec<_>>(),
        })
    }
}

/// A checkpoint of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointName {
    /// With the lowest validation loss; the last one where none was kept.
    #[default]
    Best,
    /// The last one.
    Last,
}

impl CheckpointName {
    /// The checkpoint's directory in the run `run`.
    pub fn dir(self, run: &Path) -> PathBuf {
        let run = RunDir::at(run);
        match self {
            Self::Best => run.best_or_last(),
            Self::Last => run.checkpoint(file::LAST),
        }
    }
}

/// How many arms run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Parallel {
    /// As many as free memory and cores allow.
    Word(ParallelWord),
    /// This number.
    Count(usize),
}

/// See [`Parallel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ParallelWord {
    /// As memory and cores allow; one at a time on a GPU.
    Auto,
}

/// What happens to the other arms when one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// They continue; the table lists the failed arm with the reason.
    GoOn,
    /// Running arms save a checkpoint and stop, and no further arm is started.
    Stop,
}

/// The JSON Schema of a sweep file, for editors.
pub fn sweep_schema() -> Value {
    schemars::schema_for!(SweepConfig).to_value()
}
