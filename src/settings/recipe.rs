use crate::{
    data::{BatchingConfig, DataConfig, PromptStyle},
    device::Capabilities,
    eval::{TooLong, bench, sandbox::Limits},
    scorer::{ScorerConfig, WeightsConfig},
    train::{FallbackConfig, LossConfig, OptimConfig, PrecisionConfig, StatePrecision, TrainConfig},
    validate::{Check, NAMELESS, Validate, Violation, blank, has_nameless, in_half_open, non_negative},
};
use burn::tensor::DType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use wmtp_model::Quantization;

/// What is trained: one experiment, `recipe.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Name and tags.
    pub run: RunConfig,
    /// Which models.
    pub model: ModelConfig,
    /// Which data.
    pub data: DataConfig,
    /// The scorer: how much each token matters.
    pub scorer: ScorerConfig,
    /// From scores to weights.
    pub weights: WeightsConfig,
    /// From weights to the loss.
    pub loss: LossConfig,
    /// The optimizer and its schedule.
    pub optim: OptimConfig,
    /// Tokens in a step.
    pub batching: BatchingConfig,
    /// How long, what is kept.
    pub train: TrainConfig,
    /// What happens when a step fails.
    pub fallback: FallbackConfig,
    /// How `wmtp eval` samples.
    pub eval: EvalConfig,
}

impl Validate for Recipe {
    /// The sections' own rules, and those between sections.
    fn check(&self, check: &mut Check) {
        check.section("run", &self.run);
        check.section("model", &self.model);
        check.section("data", &self.data);
        check.section("scorer", &self.scorer);
        self.check_models(check);
        check.section("weights", &self.weights);
        check.section("loss", &self.loss);
        check.section("optim", &self.optim);
        check.within("batching", |check| self.batching.check(self.data.seq_len, check));
        check.section("train", &self.train);
        check.when(
            self.train.head_warmup.steps > 0 && self.model.mtp.n_heads < 2,
            "train.head_warmup.steps",
            "needs heads beyond the first: raise model.mtp.n_heads, or leave it at 0",
        );
        check.section("fallback", &self.fallback);
        check.section("eval", &self.eval);
    }
}

impl Recipe {
    /// The models that the scorer needs must be named.
    fn check_models(&self, check: &mut Check) {
        let needs = self.scorer.models_needed();
        let scorer = self.scorer.innermost().name();
        let pretrained = self.train.pretrain.steps > 0;
        check.when(
            pretrained && self.train.lora.is_some(),
            "train.pretrain.steps",
            "must be 0 with `train.lora`: adapters are trained on a model that knows something already",
        );
        if needs.reference.is_some() && !pretrained && blank(self.model.reference.as_deref()) {
            check.say("model.reference", format!(
                " is missing: the scorer `{scorer}` compares with a reference model, so set it to a directory or URI with the same tokenizer"
            ));
        }
        if needs.reward && blank(self.model.reward.as_deref()) {
            check.say("model.reward", format!(
                " is missing: the scorer `{scorer}` with `reward: reward_model` needs one, so set it to a directory or URI, or use `reward: verified`"
            ));
        }
    }

    /// What a training run on the device `name` asks for beyond its capabilities.
    ///
    /// # Errors
    /// The first such setting.
    pub fn check_device(&self, name: &str, device: Capabilities) -> Result<(), Violation> {
        let rule = |leave: &str| {
            format!("works on flex only so far, and this run is on {name}; {leave}, or take --device flex")
        };
        let bf16 = format!("other than f32 {}", rule("leave it out"));
        let problems = Check::of("", |check| {
            let (precision, state) = (self.train.precision, self.optim.state);
            check.when(
                precision != PrecisionConfig::F32 && !device.bf16,
                "train.precision",
                &bf16,
            );
            check.when(state != StatePrecision::F32 && !device.bf16, "optim.state", &bf16);
            check.when(
                self.loss.filter > 0.0 && !device.loss_filter,
                "loss.filter",
                rule("set it to 0"),
            );
        });
        problems.into_iter().next().map_or(Ok(()), Err)
    }
}

/// Recipe section `run`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the run; made from the algorithm and the time if absent.
    pub name: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
}

/// Bytes: a file system takes 255 in a name, and some are added to it.
const LONGEST_NAME: usize = 200;

impl Validate for RunConfig {
    fn check(&self, check: &mut Check) {
        if let Some(name) = &self.name {
            let usable = !name.is_empty()
                && !name.starts_with('.')
                && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
            check.when(
                !usable,
                "name",
                "names a directory: use letters, digits, `-`, `_` and `.` only",
            );
            check.when(
                name == "auto",
                "name",
                "must not be `auto`, which stands for the newest run: choose another name",
            );
            check.when(name.len() > LONGEST_NAME, "name", "must have at most 200 bytes");
        }
        check.when(has_nameless(&self.tags), "tags", NAMELESS);
    }
}

/// Recipe section `model`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The model that is trained: `builtin:micro`, a directory or a URI.
    pub base: String,
    /// rho1's reference model.
    pub reference: Option<String>,
    /// The critic's reward model.
    pub reward: Option<String>,
    /// The prediction heads.
    pub mtp: MtpConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            base: "builtin:micro".into(),
            reference: None,
            reward: None,
            mtp: MtpConfig::default(),
        }
    }
}

impl Validate for ModelConfig {
    fn check(&self, check: &mut Check) {
        check.when(
            blank(Some(&self.base)),
            "base",
            "must not be empty: write `builtin:micro`, a directory or a URI",
        );
        check.when(self.mtp.n_heads == 0, "mtp.n_heads", "must be 1 or more");
        check.when(self.mtp.n_heads > 64, "mtp.n_heads", "must be 64 or less");
    }
}

/// Recipe section `model.mtp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MtpConfig {
    /// Prediction heads H; 1 is ordinary next-token training.
    pub n_heads: usize,
    /// How heads that a checkpoint lacks are initialised.
    pub init: HeadInit,
}

impl Default for MtpConfig {
    fn default() -> Self {
        Self {
            n_heads: 4,
            init: HeadInit::CopyLast,
        }
    }
}

/// How missing heads are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HeadInit {
    /// A copy of the last decoder layer.
    CopyLast,
    /// Random, as a fresh layer.
    Random,
}

/// Recipe section `eval` (algorithms, section 8). Flags of `wmtp eval` override it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Which problems: a first and a last number, or a text with numbers, ranges and names
    /// (`2,5-8`, `1277_E`). The benchmark's own choice if left out: MBPP's test split 11..510, all
    /// of the others.
    pub tasks: Option<TaskChoice>,
    /// Which of a benchmark's sets: full or sanitized for mbpp, test or valid for contest, full or
    /// repaired for humaneval+.
    pub variant: Option<String>,
    /// The problems' directory or `builtin:` name; what is built in if left out. For mbpp+, humaneval+
    /// and jsonl the problems' file, plain or gzip.
    pub data: Option<String>,
    /// Accept problems that differ from the published ones; the report then says so.
    pub altered_data: bool,
    /// How a problem becomes a prompt. The benchmark's default if left out: few-shot for mbpp, zero-shot for
    /// the others.
    pub prompt: Option<PromptStyle>,
    /// Completions for each problem and temperature, n.
    pub samples: usize,
    /// The k of pass@k, none above `samples`.
    pub k: Vec<usize>,
    /// Sampling temperature, or a list of several; 0 is greedy.
    pub temperature: Temperatures,
    /// Top-p (nucleus) sampling threshold: the smallest set of tokens with at least this probability.
    pub top_p: f64,
    /// Maximum new tokens per completion.
    pub max_new_tokens: usize,
    /// Problems whose prompt exceeds the model's context: `refuse` the evaluation, or count them as failed
    /// (`fail`).
    pub too_long: TooLong,
    /// Batch size: completions sampled in parallel.
    pub batch: usize,
    /// How the weights are stored while `wmtp eval`, `wmtp generate`, `wmtp chat` and `wmtp sample` generate, and
    /// rounded to for `wmtp score`.
    pub precision: EvalPrecision,
    /// Wall-clock timeout per program, in seconds. For mbpp+ and humaneval+ it covers all inputs of a set
    /// together, and the command line's default is 60.
    pub timeout_seconds: u64,
    /// Run all tests of a contest or jsonl problem, not only up to the first that fails.
    pub all_tests: bool,
    /// Cache verdicts by content in the cache directory, and look them up there first.
    pub verdict_cache: bool,
    /// The benchmark on which `wmtp train` measures pass@1 before training and after each stage, greedily:
    /// `world`, `mbpp`. Not measured if left out.
    pub after_stages: Option<String>,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            tasks: None,
            variant: None,
            data: None,
            altered_data: false,
            prompt: None,
            samples: 1,
            k: vec![1],
            temperature: Temperatures::One(0.2),
            top_p: 0.95,
            max_new_tokens: 512,
            too_long: TooLong::Refuse,
            batch: 16,
            precision: EvalPrecision::F32,
            timeout_seconds: 10,
            all_tests: false,
            verdict_cache: true,
            after_stages: None,
        }
    }
}

impl EvalConfig {
    /// What each judged program may use.
    pub fn limits(&self) -> Limits {
        Limits {
            wall: Duration::from_secs(self.timeout_seconds),
            // Half of the wall-clock time, as by default: a longer limit is meant for CPU time as well.
            cpu: Limits::default().cpu.max(Duration::from_secs(self.timeout_seconds / 2)),
            ..Limits::default()
        }
    }

    /// The directory of verdicts in the cache directory `cache`; None if none are kept.
    pub fn verdicts(&self, cache: &Path) -> Option<PathBuf> {
        self.verdict_cache.then(|| cache.join("verdicts"))
    }
}

/// Completions of a problem: pass@k needs no more for any k that is reported.
pub const MOST_SAMPLES: usize = 1_000_000;

impl Validate for EvalConfig {
    fn check(&self, check: &mut Check) {
        check.when(
            matches!(self.tasks, Some(TaskChoice::Range((first, last))) if first > last),
            "tasks",
            "must have its first number at or below its last",
        );
        check.when(self.samples == 0, "samples", "must be 1 or more");
        check.when(self.samples > MOST_SAMPLES, "samples", "must be 1000000 or less");
        check.when(
            self.k.is_empty() || self.k.contains(&0),
            "k",
            "must hold numbers of 1 or more",
        );
        check.when(
            self.k.iter().any(|&k| k > self.samples),
            "k",
            "must not go above eval.samples: pass@k needs at least k samples a problem",
        );
        let temperatures = self.temperature.all();
        check.when(
            temperatures.is_empty() || !temperatures.iter().copied().all(non_negative),
            "temperature",
            "must be 0 (greedy) or more, or a list of such numbers",
        );
        check.when(
            temperatures.contains(&0.0) && self.samples > 1,
            "samples",
            "must be 1 with eval.temperature 0, because greedy samples are all the same",
        );
        check.when(!in_half_open(self.top_p), "top_p", "must be above 0 and at most 1");
        check.when(self.max_new_tokens == 0, "max_new_tokens", "must be 1 or more");
        check.when(self.batch == 0, "batch", "must be 1 or more");
        check.when(
            self.after_stages.as_ref().is_some_and(|name| !measurable(name)),
            "after_stages",
            "must be a benchmark that is built in: mbpp, humaneval, contest or world",
        );
        check.when(self.timeout_seconds == 0, "timeout_seconds", "must be 1 or more");
    }
}

/// Whether a benchmark's problems are built in.
fn measurable(name: &str) -> bool {
    bench::ALL.iter().any(|spec| spec.name == name && spec.file.is_none())
}

/// Problems of a benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TaskChoice {
    /// The first and the last number.
    Range((u32, u32)),
    /// Numbers, ranges and names, separated by commas.
    Text(String),
}

/// One number or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Temperatures {
    /// One.
    One(f64),
    /// Several.
    Several(Vec<f64>),
}

impl Temperatures {
    /// All of them.
    pub fn all(&self) -> Vec<f64> {
        match self {
            Self::One(temperature) => vec![*temperature],
            Self::Several(temperatures) => temperatures.clone(),
        }
    }
}

/// How weights are stored while generating; activations, products and sums are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EvalPrecision {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight, rounded to the nearest. On flex.
    Bf16,
    /// 8.5 bits a weight: integers of 8 bits, and a scale for 32 of them. On flex.
    Int8,
    /// 4.5 bits a weight: 16 levels, and a scale for 32 of them. On flex.
    Int4,
}

impl EvalPrecision {
    /// As it is written in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// The type in which a model's weights are loaded.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 | Self::Int8 | Self::Int4 => DType::BF16,
        }
    }

    /// What loaded weights are rounded to.
    pub fn quantization(self) -> Option<Quantization> {
        match self {
            Self::F32 | Self::Bf16 => None,
            Self::Int8 => Some(Quantization::Int8),
            Self::Int4 => Some(Quantization::Int4),
        }
    }
}
