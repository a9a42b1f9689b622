use burn::tensor::DType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate, in_unit, non_negative, positive};
use wmtp_model::{Compute, Precision};

/// Recipe section `loss` (algorithms, section 3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// Which token's weight a head's term carries.
    pub weight_by: WeightBy,
    /// Strength of the weighting, 0 to 1.
    pub lambda: f64,
    /// What lambda does.
    pub lambda_mode: LambdaMode,
    /// The relative error that the gradient of the logits may have, at most, in the Frobenius norm:
    /// elements too small to matter are then not multiplied one by one. 0: all are. On flex.
    pub filter: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            weight_by: WeightBy::Position,
            lambda: 1.0,
            lambda_mode: LambdaMode::Mix,
            filter: 0.0,
        }
    }
}

impl Validate for LossConfig {
    fn check(&self, check: &mut Check) {
        check.when(!in_unit(self.lambda), "lambda", "must be from 0 to 1");
        check.when(
            !(0.0..=0.1).contains(&self.filter),
            "filter",
            "must be from 0 (nothing is left out) to 0.1; 0.001 is a good value",
        );
    }
}

/// Which token's weight the term CE_k(t) carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WeightBy {
    /// w\[t+1\], the same for all heads at t.
    Position,
    /// w\[t+k\], the very token that the head predicts.
    Target,
}

/// What `loss.lambda` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LambdaMode {
    /// 1 - lambda + lambda * w.
    Mix,
    /// The loss is multiplied by lambda; for reproducing older runs.
    Scale,
}

/// Recipe section `train`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training data; `steps` overrides it.
    pub epochs: usize,
    /// Optimizer steps.
    pub steps: Option<usize>,
    /// Unweighted training before everything else, for a model with random weights.
    pub pretrain: PretrainConfig,
    /// Lets new heads learn before anything else moves.
    pub head_warmup: HeadWarmupConfig,
    /// Low-rank adapters instead of full fine-tuning.
    pub lora: Option<LoraConfig>,
    /// Precision of matrix products and weights.
    pub precision: PrecisionConfig,
    /// Activation recomputation (gradient checkpointing) in the backward pass.
    pub recompute: Recompute,
    /// Whether the heads share one backward pass or take one each.
    pub heads: HeadOrder,
    /// Stop when the validation loss has not improved for a while.
    pub early_stopping: EarlyStoppingConfig,
    /// Which checkpoints are kept, and how often they are written.
    pub checkpoint: CheckpointConfig,
    /// Validate every n steps (0: once at the end of every epoch).
    pub validate_every: usize,
    /// About this many of the held-out documents are validated on, where there are more: whole problems, spread
    /// evenly over them; all if 0.
    pub validate_documents: usize,
    /// What is recorded for reports, in addition to the metrics.
    pub record: RecordConfig,
}

/// Beyond any matrix of any model.
const MOST_RANK: usize = 1 << 16;
/// The order of every epoch's documents is drawn to count the steps.
const MOST_EPOCHS: usize = 10_000;

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 1,
            steps: None,
            pretrain: PretrainConfig::default(),
            head_warmup: HeadWarmupConfig::default(),
            lora: None,
            precision: PrecisionConfig::F32,
            recompute: Recompute::None,
            heads: HeadOrder::Together,
            early_stopping: EarlyStoppingConfig::default(),
            checkpoint: CheckpointConfig::default(),
            validate_every: 0,
            validate_documents: 256,
            record: RecordConfig::default(),
        }
    }
}

impl Validate for TrainConfig {
    fn check(&self, check: &mut Check) {
        check.when(
            self.epochs == 0 && self.steps.is_none(),
            "epochs",
            "must be 1 or more, or set train.steps",
        );
        check.when(
            self.epochs > MOST_EPOCHS,
            "epochs",
            "must be 10,000 or less; set train.steps for a longer run",
        );
        check.when(
            self.pretrain.lr.is_some_and(|lr| !positive(lr)),
            "pretrain.lr",
            "must be above 0",
        );
        check.when(self.steps == Some(0), "steps", "must be 1 or more");
        check.when(!positive(self.head_warmup.lr), "head_warmup.lr", "must be above 0");
        if let Some(lora) = &self.lora {
            check.when(lora.rank == 0, "lora.rank", "must be 1 or more");
            check.when(
                lora.rank > MOST_RANK,
                "lora.rank",
                "must be 65,536 or less: no matrix has a higher rank",
            );
            check.when(!positive(lora.alpha), "lora.alpha", "must be above 0");
            check.when(
                self.precision == PrecisionConfig::PureBf16,
                "precision",
                "must not be `pure-bf16`, which is for full fine-tuning, with `train.lora`: take `bf16` with adapters",
            );
        }
        check.when(
            !non_negative(self.early_stopping.min_delta),
            "early_stopping.min_delta",
            "must be 0 or more",
        );
        check.when(
            self.record.documents > 100,
            "record.documents",
            "must be 100 or less: each is written down token by token, again and again",
        );
    }
}

/// What is rounded to bf16. Sums, norms, softmax and everything else between the products stay f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionConfig {
    /// Nothing.
    F32,
    /// The factors of matrix products and, without low-rank adapters, the matrices' gradients; weights stay
    /// f32. On flex, fast where the CPU has AVX-512 with bf16.
    Bf16,
    /// The same and the weights themselves; updates are rounded stochastically. Half the memory of
    /// weights and gradients; `optim.state: bf16` halves that of the optimizer. Not with low-rank adapters.
    PureBf16,
}

/// What the backward pass recomputes instead of saving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Recompute {
    /// Norms only.
    None,
    /// Everything but the inputs of each layer's attention and MLP sublayers.
    Block,
}

/// Whether the heads of a micro-batch share one backward pass or take one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HeadOrder {
    /// One backward pass for all heads: the unembedding's gradient is summed once.
    Together,
    /// One backward pass per head, then the trunk's: the activations of only one head are in memory at a
    /// time.
    #[serde(alias = "in-turn")]
    #[schemars(extend("x-aliases" = ["in-turn"]))]
    Sequential,
}

impl TrainConfig {
    /// How the model's layers are computed.
    pub fn compute(&self) -> Compute {
        Compute {
            precision: match self.precision {
                PrecisionConfig::F32 => Precision::F32,
                PrecisionConfig::Bf16 | PrecisionConfig::PureBf16 => Precision::Bf16,
            },
            gradients: match (self.precision, &self.lora) {
                (PrecisionConfig::F32, _) | (_, Some(_)) => Precision::F32,
                _ => Precision::Bf16,
            },
            recompute: self.recompute == Recompute::Block,
            rounded_activations: false,
        }
    }

    /// The type that weights are kept in.
    pub fn dtype(&self) -> DType {
        match self.precision {
            PrecisionConfig::PureBf16 => DType::BF16,
            PrecisionConfig::F32 | PrecisionConfig::Bf16 => DType::F32,
        }
    }
}

/// Recipe section `train.pretrain`: a stage before the value head is learned and before tokens are weighted,
/// with a schedule of its own. A scorer can tell nothing from a model that knows nothing.
///
/// With `scorer.kind: rho1` and without `model.reference` the stage trains the reference model, and the weighted
/// stage starts from the same random weights as the stage did. Otherwise the weighted stage continues where it
/// ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainConfig {
    /// Optimizer steps; 0: no such stage.
    pub steps: usize,
    /// Its peak learning rate, with `optim`'s schedule; `optim.lr` if left out.
    pub lr: Option<f64>,
}

/// Recipe section `train.head_warmup`: at the start only heads 2..H learn. Trunk, head 1, embeddings
/// and norm keep their weights, so that the losses of new heads can't spoil them (as Medusa-2 trains
/// its heads, Cai et al. 2024, arXiv 2401.10774). The schedule of `optim` covers the steps after that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeadWarmupConfig {
    /// Optimizer steps; 0: everything learns from the start.
    pub steps: usize,
    /// The learning rate meanwhile, after a linear rise over the first `optim.warmup` share of them. It
    /// stays there, but where these are all steps of the run it falls along `optim`'s cosine.
    pub lr: f64,
}

impl Default for HeadWarmupConfig {
    fn default() -> Self {
        Self { steps: 0, lr: 1e-3 }
    }
}

/// LoRA on q, k, v, o, gate, up and down of all layers and heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the two factors.
    pub rank: usize,
    /// The adapter is scaled by alpha / rank.
    pub alpha: f64,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 16, alpha: 32.0 }
    }
}

/// Recipe section `train.early_stopping`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EarlyStoppingConfig {
    /// Validations without improvement before the run stops; 0 never stops.
    pub patience: usize,
    /// An improvement is at least this much.
    pub min_delta: f64,
}

/// Recipe section `train.checkpoint`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointConfig {
    /// A `step-000500` checkpoint every n steps, kept; 0: none.
    pub every: usize,
    /// `last` is renewed every n steps; 0: at validations and at the end only.
    pub last_every: usize,
    /// Number of `step-*` checkpoints to keep; 0: all.
    pub keep: usize,
    /// Keep the checkpoint with the best validation loss.
    pub best: bool,
    /// `best` and `step-*` hold the model without the optimizer's state. Such a checkpoint cannot be
    /// resumed exactly; `last` and `previous` always can.
    pub only_model: bool,
    /// The stored type of the weights of `best` and `step-*`. `last` and `previous` always have the type
    /// that training keeps.
    pub dtype: CheckpointDtype,
}

/// The stored type of a kept checkpoint's weights; `config.json` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointDtype {
    /// As training keeps them: bf16 with `train.precision: pure-bf16`, else f32.
    Auto,
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight, rounded to the nearest. With f32 weights in training, such a checkpoint cannot be
    /// resumed exactly.
    Bf16,
    /// The same with IEEE half precision; values beyond 65504 stop the run with an error.
    F16,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            every: 0,
            last_every: 50,
            keep: 3,
            best: true,
            only_model: false,
            dtype: CheckpointDtype::Auto,
        }
    }
}

/// Recipe section `train.record`: what reports show in addition to the metrics. Nothing of it changes what is
/// trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecordConfig {
    /// A histogram of the step's weights into `weights.jsonl` every n steps; 0: none.
    pub weights_every: usize,
    /// Number of training documents, and of held-out ones, recorded token by token in `tokens.jsonl` at the
    /// start, at validations (where that costs less than 1% of the training) and at the end; 0: none.
    pub documents: usize,
    /// Maximum tokens of such a document; if too few are short enough, the shortest are recorded.
    pub max_tokens: usize,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self {
            weights_every: 10,
            documents: 2,
            max_tokens: 128,
        }
    }
}

/// Recipe section `fallback` (algorithms, section 7).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FallbackConfig {
    /// Non-finite steps in a row before the run returns to the last good checkpoint.
    pub patience: usize,
    /// Returns before the run stops.
    pub max_rollbacks: usize,
}

impl Default for FallbackConfig {
    fn default() -> Self {
        Self {
            patience: 3,
            max_rollbacks: 3,
        }
    }
}

impl Validate for FallbackConfig {
    fn check(&self, check: &mut Check) {
        check.when(self.patience == 0, "patience", "must be 1 or more");
    }
}
