//! What is trained: short runs of the built-in micro model, one configuration for each pipeline and precision.

/// Optimizer steps of a run.
pub const STEPS: usize = 8;

/// Settings of every run: few documents, a checkpoint every other step, validations in between.
const COMMON: &[&str] = &[
    "data.source=builtin:mbpp",
    "data.train_tasks=[602,650]",
    "data.valid_tasks=[511,516]",
    "data.seq_len=256",
    "model.mtp.n_heads=2",
    "train.steps=8",
    "train.checkpoint.last_every=2",
    "train.checkpoint.every=4",
    "train.validate_every=3",
    "train.record.weights_every=2",
];

/// A pipeline with the settings that it needs.
struct PipelineOf {
    name: &'static str,
    command: &'static str,
    set: &'static [&'static str],
}

const PIPELINES: [PipelineOf; 4] = [
    PipelineOf {
        name: "baseline",
        command: "baseline",
        set: &["scorer.kind=random"],
    },
    PipelineOf {
        name: "critic",
        command: "critic",
        set: &["scorer.batch=8", "scorer.max_steps=6"],
    },
    PipelineOf {
        name: "rho1",
        command: "rho1",
        set: &["model.reference=builtin:micro"],
    },
    PipelineOf {
        name: "joint",
        command: "critic",
        set: &["scorer.batch=8", "scorer.max_steps=4", "scorer.value=joint"],
    },
];

const PRECISIONS: [(&str, &[&str]); 4] = [
    ("f32", &[]),
    ("bf16", &["train.precision=pure-bf16", "optim.state=bf16"]),
    ("lora", &["train.lora.rank=4"]),
    ("lora-bf16", &["train.lora.rank=4", "train.precision=bf16"]),
];

/// How many configurations there are.
pub const COUNT: usize = PIPELINES.len() * PRECISIONS.len();

/// A pipeline at a precision.
#[derive(Clone, Debug)]
pub struct Config {
    /// For people: `critic-bf16`.
    pub name: String,
    /// The argument of `wmtp train`.
    pub pipeline: &'static str,
    /// `--set` arguments.
    pub set: Vec<&'static str>,
    /// Its place in the list.
    pub index: usize,
}

impl Config {
    /// The configuration that a seed trains: neighbouring seeds train all of them in turn.
    pub fn of(seed: u64) -> Self {
        Self::at(usize::try_from(seed % COUNT as u64).unwrap_or_default())
    }

    /// The configuration at `index` below [`COUNT`].
    pub fn at(index: usize) -> Self {
        // Pipelines change first, and precisions with every round, shifted so that four seeds have all of both.
        let pipeline = &PIPELINES[index % PIPELINES.len()];
        let shift = index / PIPELINES.len();
        let (precision, set) = PRECISIONS[(index + shift) % PRECISIONS.len()];
        Self {
            name: format!("{}-{precision}", pipeline.name),
            pipeline: pipeline.command,
            set: COMMON.iter().chain(pipeline.set).chain(set).copied().collect(),
            index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn sixteen_seeds_in_a_row_train_every_pipeline_at_every_precision() {
        let names: BTreeSet<String> = (40..56).map(|seed| Config::of(seed).name).collect();
        assert_eq!(names.len(), 16);
        assert!(names.contains("critic-lora-bf16") && names.contains("joint-bf16"));
        let first: Vec<String> = (0..4).map(|seed| Config::of(seed).name).collect();
        assert_eq!(first, ["baseline-f32", "critic-bf16", "rho1-lora", "joint-lora-bf16"]);
    }

    #[test]
    fn the_steps_are_those_of_the_settings() {
        let steps = format!("train.steps={STEPS}");
        assert!(Config::of(0).set.contains(&steps.as_str()));
    }
}
