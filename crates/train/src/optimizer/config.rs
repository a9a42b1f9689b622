//! The recipe's section `optim`.

use super::UpdateRule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wmtp_base::validate::{Check, Validate, in_unit, non_negative, positive};

/// Recipe section `optim` (algorithms, section 6): the update rule, its schedule, and the settings of AdamW,
/// which other rules take for the parameters that they are not made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimConfig {
    /// Which optimizer, and what it alone can set.
    pub rule: UpdateRule,
    /// Peak learning rate.
    pub lr: f64,
    /// First moment's decay.
    pub beta1: f64,
    /// Second moment's decay.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled; none on norms and embeddings.
    pub weight_decay: f64,
    /// The global gradient norm is clipped to this; 0 leaves it alone.
    pub clip_norm: f64,
    /// Share of the steps with linear warm-up.
    pub warmup: f64,
    /// The cosine ends at this share of `lr`.
    pub min_lr_ratio: f64,
    /// The type of both moments.
    pub state: StatePrecision,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            rule: UpdateRule::default(),
            lr: 1e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip_norm: 1.0,
            warmup: 0.03,
            min_lr_ratio: 0.0,
            state: StatePrecision::F32,
        }
    }
}

impl Validate for OptimConfig {
    fn check(&self, check: &mut Check) {
        check.section("rule", &self.rule);
        check.when(!positive(self.lr), "lr", "must be above 0");
        for (key, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check.when(!(beta > 0.0 && beta < 1.0), key, "must be above 0 and below 1");
        }
        check.when(!positive(self.eps), "eps", "must be above 0");
        check.when(!non_negative(self.weight_decay), "weight_decay", "must be 0 or more");
        check.when(
            !non_negative(self.clip_norm),
            "clip_norm",
            "must be 0 (no clipping) or more",
        );
        check.when(
            !in_unit(self.warmup),
            "warmup",
            "must be a share of the steps, from 0 to 1",
        );
        check.when(!in_unit(self.min_lr_ratio), "min_lr_ratio", "must be from 0 to 1");
    }
}

/// The type of the optimizer's moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StatePrecision {
    /// 4 bytes a moment.
    F32,
    /// 2 bytes a moment, rounded stochastically; on flex.
    Bf16,
}
