use crate::{
    data::{DataConfig, PromptStyle},
    eval::TooLong,
    scorer::{ScorerConfig, WeightsConfig},
    train::{BatchingConfig, FallbackConfig, LossConfig, OptimConfig, TrainConfig},
};
use burn::tensor::DType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// What makes a token matter.
    pub scorer: ScorerConfig,
    /// From scores to weights.
    pub weights: WeightsConfig,
    /// From weights to the loss.
    pub loss: LossConfig,
    /// AdamW and its schedule.
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

/// Recipe section `run`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the run; made from the algorithm and the time if absent.
    pub name: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
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

/// Recipe section `model.mtp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MtpConfig {
    /// Prediction heads H; 1 is ordinary next-token training.
    pub n_heads: usize,
    /// How a checkpoint without extra heads gets them.
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
    /// Take problems that are not the known ones. The report then says so.
    pub altered_data: bool,
    /// How a problem becomes a prompt. The benchmark's own way if left out: few-shot for mbpp,
    /// zero-shot for the others.
    pub prompt: Option<PromptStyle>,
    /// Completions for each problem and temperature, n.
    pub samples: usize,
    /// The k of pass@k, none above `samples`.
    pub k: Vec<usize>,
    /// Sampling temperature, or a list of several; 0 is greedy.
    pub temperature: Temperatures,
    /// Nucleus: the smallest set of tokens with at least this probability.
    pub top_p: f64,
    /// Tokens after which a completion is cut.
    pub max_new_tokens: usize,
    /// What becomes of problems whose prompt is longer than the model takes: `refuse` the evaluation, or
    /// count them as failed (`fail`).
    pub too_long: TooLong,
    /// Completions sampled at once.
    pub batch: usize,
    /// The type that weights are kept in while `wmtp eval` and `wmtp generate` write.
    pub precision: EvalPrecision,
    /// Seconds on the clock for each program. For mbpp+ and humaneval+ for all inputs of a set together,
    /// where the command line's default is 60.
    pub timeout_seconds: u64,
    /// Run all tests of a contest or jsonl problem, not only up to the first that fails.
    pub all_tests: bool,
    /// Keep verdicts by content in the cache directory, and look there first.
    pub verdict_cache: bool,
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
        }
    }
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

/// The type of weights while generating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EvalPrecision {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight, rounded to the nearest; activations, products and sums stay f32. On flex.
    Bf16,
}

impl EvalPrecision {
    /// As it is written in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// The type of a loaded model's weights.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}
