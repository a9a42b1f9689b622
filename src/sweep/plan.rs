//! Estimated cost of a sweep: `wmtp train --dry-run --json` of its arms, in child processes.

use super::{
    SweepError,
    arm::{Arm, Sweep},
    child::program,
    config::Parallel,
    resources::{arms_at_once, cores, free_memory},
    run::Limits,
};
use crate::device::Capabilities;
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::Command};

/// The plan of an arm.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ArmPlan {
    /// Optimizer steps.
    pub steps: u64,
    /// Approximate number of tokens of all steps.
    pub tokens: f64,
    /// Estimated peak memory of training, bytes.
    pub memory: u64,
    /// The device.
    pub device: String,
}

impl ArmPlan {
    /// Of an arm whose size doesn't matter.
    pub fn on_processor() -> Self {
        Self {
            device: "flex".into(),
            ..Self::default()
        }
    }
}

/// The plans of some arms; arms of the same size share one dry run.
///
/// # Errors
/// The program can't be started. A failed plan is a sentence in its place.
pub fn plans(sweep: &Sweep, arms: &[usize]) -> Result<Vec<Result<ArmPlan, String>>, SweepError> {
    let mut known: BTreeMap<String, Result<ArmPlan, String>> = BTreeMap::new();
    let mut plans = Vec::new();
    for arm in arms.iter().filter_map(|&arm| sweep.arms.get(arm)) {
        let key = sizes(arm);
        let plan = match known.get(&key) {
            Some(plan) => plan.clone(),
            None => plan(sweep, arm)?,
        };
        known.insert(key, plan.clone());
        plans.push(plan);
    }
    Ok(plans)
}

/// The settings that decide memory and number of steps.
fn sizes(arm: &Arm) -> String {
    let recipe = &arm.recipe;
    json!([
        arm.pipeline,
        recipe.model,
        recipe.data,
        recipe.batching,
        recipe.train,
        recipe.optim.state,
        recipe.weights.over,
        serde_json::to_value(&recipe.scorer).unwrap_or_default()["kind"],
        arm.config.devices.backend
    ])
    .to_string()
}

fn plan(sweep: &Sweep, arm: &Arm) -> Result<Result<ArmPlan, String>, SweepError> {
    let output = Command::new(program())
        .args(sweep.plan_args(arm))
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(SweepError::io("starting", &program()))?;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if !output.status.success() {
        let message = json["error"]["message"].as_str().unwrap_or("its plan can't be made");
        return Ok(Err(message.to_owned()));
    }
    let number = |key: &str| json[key].as_u64().unwrap_or(0);
    let steps = number("steps");
    let row_tokens = number("accumulate")
        * json["micro_batch"][0].as_u64().unwrap_or(0)
        * json["micro_batch"][1].as_u64().unwrap_or(0);
    // Rows are not always full: at most the data's tokens per epoch.
    let of_rows = (steps * row_tokens) as f64;
    let epochs = match arm.recipe.train.steps {
        None => Some(number("tokens_per_epoch") as f64 * arm.recipe.train.epochs as f64),
        Some(_) => None,
    };
    Ok(Ok(ArmPlan {
        steps,
        tokens: epochs.unwrap_or(of_rows),
        memory: number("estimated_peak_memory"),
        device: json["device"].as_str().unwrap_or_default().to_owned(),
    }))
}

/// How many arms may run at once, by the sweep's `parallel` and the plans of the remaining arms.
pub fn limits(sweep: &Sweep, plans: &[Result<ArmPlan, String>]) -> Limits {
    let made = || plans.iter().filter_map(|plan| plan.as_ref().ok());
    let largest = made().map(|plan| plan.memory).max();
    let on_processor = made().all(|plan| Capabilities::of_name(&plan.device).host_threads);
    let at_once = match sweep.config.parallel {
        Parallel::Count(n) => n.min(plans.len()).max(1),
        Parallel::Word(_) if !on_processor => 1,
        Parallel::Word(_) => arms_at_once(plans.len(), cores(), free_memory(), largest),
    };
    Limits {
        at_once,
        threads: (at_once > 1 && on_processor).then(|| (cores() / at_once).max(1)),
        memory: match sweep.config.parallel {
            Parallel::Word(_) => largest,
            Parallel::Count(_) => None,
        },
    }
}
