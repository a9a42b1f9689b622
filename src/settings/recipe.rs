use crate::{
    data::{DataConfig, PromptStyle},
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
    /// Task ids, inclusive. MBPP's test split is 11..510.
    pub tasks: (u32, u32),
    /// How a problem becomes a prompt.
    pub prompt: PromptStyle,
    /// Completions for each problem, n.
    pub samples: usize,
    /// The k of pass@k, none above `samples`.
    pub k: Vec<usize>,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Nucleus: the smallest set of tokens with at least this probability.
    pub top_p: f64,
    /// Tokens after which a completion is cut.
    pub max_new_tokens: usize,
    /// Completions sampled at once.
    pub batch: usize,
    /// The type that weights are kept in while `wmtp eval` and `wmtp generate` write.
    pub precision: EvalPrecision,
    /// Seconds on the clock for each program.
    pub timeout_seconds: u64,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            tasks: (11, 510),
            prompt: PromptStyle::FewShot,
            samples: 1,
            k: vec![1],
            temperature: 0.2,
            top_p: 0.95,
            max_new_tokens: 512,
            batch: 16,
            precision: EvalPrecision::F32,
            timeout_seconds: 10,
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
