//! Model cards: what a promoted model is, from its run's files and from what its maker says.

use crate::{
    eval::passk::with_width,
    run::{Manifest, RunRecord, TrainerState, file},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// What only people know of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CardFields {
    /// What it is for, and for whom.
    pub intended_use: Option<String>,
    /// What it is not for, and what it does badly.
    pub limits: Option<String>,
    /// Licence of the weights. That of `builtin:micro` is known.
    pub licence: Option<String>,
    /// Licence of the training data. That of `builtin:mbpp` is known.
    pub data_licence: Option<String>,
}

/// A card that can't be written: one sentence that says what is missing and how to give it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CardError(pub String);

/// An evaluation of the very weights that are promoted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Evaluation {
    /// `mbpp`.
    pub benchmark: String,
    /// Which of its sets.
    #[serde(default)]
    pub variant: String,
    /// Number of problems.
    pub tasks: usize,
    /// Samples of each.
    pub samples: usize,
    /// Sampling temperature; null where several or none.
    pub temperature: Option<f64>,
    /// pass@k for each k, between 0 and 1.
    pub pass_at_k: BTreeMap<usize, f64>,
    /// Their 95% intervals.
    pub ci95_at_k: BTreeMap<usize, [f64; 2]>,
    /// Passes by means that solve nothing.
    #[serde(default)]
    pub suspect: usize,
    /// The sandbox's level.
    #[serde(default)]
    pub sandbox: String,
    /// Where the samples came from; `model_hash` names the weights.
    #[serde(default)]
    pub origin: BTreeMap<String, String>,
}

impl Evaluation {
    /// The evaluations kept in a run's directory, in the order of their names.
    pub fn of_run(dir: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(dir.join(file::EVALUATIONS))
            .into_iter()
            .flatten()
            .flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| Self::read(path))
            .collect()
    }

    fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
    }

    /// Whether it judged the weights with this hash.
    pub fn is_of(&self, sha256: &str) -> bool {
        self.origin.get("model_hash").is_some_and(|hash| hash == sha256)
    }
}

/// A model card, complete.
#[derive(Clone, Debug)]
pub struct ModelCard<'a> {
    /// The registered model's name.
    pub name: &'a str,
    /// `best`.
    pub checkpoint: &'a str,
    /// Hash of its weights.
    pub sha256: &'a str,
    /// `run.json`.
    pub run: &'a RunRecord,
    /// `trainer.json` of the checkpoint.
    pub trainer: &'a TrainerState,
    /// `manifest.json` of the checkpoint.
    pub manifest: &'a Manifest,
    /// `recipe.yaml`.
    pub recipe: &'a str,
    /// Evaluations of these weights, at least one.
    pub evaluations: &'a [Evaluation],
    /// What its maker says.
    pub fields: &'a CardFields,
}

impl ModelCard<'_> {
    /// The card as Markdown.
    ///
    /// # Errors
    /// Something is missing: an evaluation, intended use, limits or a licence.
    pub fn markdown(&self) -> Result<String, CardError> {
        let record = serde_json::to_value(self.run).unwrap_or_default();
        let run = |key: &str| plain(&record[key]);
        let (base, data) = (run("model"), run("data"));
        let intended_use = self.given("intended_use", &self.fields.intended_use, None)?;
        let limits = self.given("limits", &self.fields.limits, None)?;
        let known = (base == "builtin:micro").then_some("MIT OR Apache-2.0 (random weights made by this program)");
        let licence = self.given("licence", &self.fields.licence, known)?;
        let known = (data == "builtin:mbpp").then_some("CC-BY-4.0 (MBPP, Austin et al. 2021)");
        let data_licence = self.given("data_licence", &self.fields.data_licence, known)?;
        if self.evaluations.is_empty() {
            return Err(CardError(format!(
                "there is no evaluation of checkpoints/{} as it is: run `wmtp eval mbpp --model` on it first",
                self.checkpoint
            )));
        }
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = write!(
            out,
            "# {}\n\nA multi-token-prediction language model of code, fine-tuned with the pipeline `{}` from `{base}`.\n\n\
             | | |\n|---|---|\n\
             | run | {} ({}) |\n| checkpoint | {}, step {} of {} |\n| weights (SHA-256) | `{}` |\n| base model (SHA-256) | `{}` |\n\
             | recipe (SHA-256) | `{}` |\n| made by | wmtp {}, commit {} |\n| device, seed | {}, {} |\n| licence | {licence} |\n\n\
             ## Intended use\n\n{intended_use}\n\n## Limits\n\n{limits}\n\n## Data\n\n\
             `{data}` (SHA-256 of the tokenised documents `{}`): {} documents, {} response tokens. Licence: {data_licence}.\n\n",
            self.name,
            run("algorithm"),
            run("name"),
            run("started"),
            self.checkpoint,
            self.trainer.step,
            run("steps"),
            self.sha256,
            run("model_sha256"),
            run("recipe_sha256"),
            run("wmtp"),
            run("commit"),
            run("device"),
            run("seed"),
            run("data_sha256"),
            run("documents"),
            run("response_tokens"),
        );
        out += "## Evaluation\n\nOf exactly these weights; intervals are 95% intervals over problems: a percentile bootstrap, or Wilson's where all problems have the same outcome. With several temperatures each pass@k is that of its best one, chosen by the score itself: an oracle choice.\n\n\
                | benchmark | problems | samples | temperature | metric | value | interval | suspect passes | sandbox |\n\
                |---|---|---|---|---|---|---|---|---|\n";
        for evaluation in self.evaluations {
            for (k, value) in &evaluation.pass_at_k {
                let ends = evaluation.ci95_at_k.get(k).copied().unwrap_or([f64::NAN; 2]);
                let [low, high] = with_width(ends, *value, evaluation.tasks);
                let temperature = evaluation.temperature.map_or("-".into(), |t| t.to_string());
                let _ = writeln!(
                    out,
                    "| {} {} | {} | {} | {temperature} | pass@{k} | {:.1}% | {:.1}% to {:.1}% | {} | {} |",
                    evaluation.benchmark,
                    evaluation.variant,
                    evaluation.tasks,
                    evaluation.samples,
                    100.0 * value,
                    100.0 * low,
                    100.0 * high,
                    evaluation.suspect,
                    evaluation.sandbox,
                );
            }
        }
        let _ = write!(
            out,
            "\n## Training\n\n{} tokens read in {} steps, {} of them not applied, {} returns to an earlier checkpoint; \
             best validation loss {}.\n\n```yaml\n{}```\n\n## Files\n\n| file | SHA-256 |\n|---|---|\n",
            self.trainer.tokens,
            self.trainer.step,
            self.trainer.skipped,
            self.trainer.rollbacks,
            self.trainer
                .best_loss
                .map_or("unknown".into(), |loss| json!(loss).to_string()),
            self.recipe,
        );
        for (name, entry) in &self.manifest.files {
            if file::is_of_model(name) {
                let _ = writeln!(out, "| `{name}` | `{}` |", entry.sha256);
            }
        }
        Ok(out)
    }

    fn given(&self, key: &str, field: &Option<String>, known: Option<&str>) -> Result<String, CardError> {
        let field = field.as_deref().map(str::trim).filter(|text| !text.is_empty());
        field.or(known).map(str::to_owned).ok_or_else(|| {
            CardError(format!(
                "the model card lacks `{key}`: write `{key}: TEXT` into a YAML file and give it with --card FILE"
            ))
        })
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "unknown".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation() -> Evaluation {
        serde_json::from_value(json!({
            "benchmark": "mbpp", "variant": "full", "tasks": 500, "samples": 1, "temperature": 0.0,
            "pass_at_k": {"1": 0.25}, "ci95_at_k": {"1": [0.2, 0.3]}, "origin": {"model_hash": "w"},
        }))
        .unwrap()
    }

    fn read<T: serde::de::DeserializeOwned>(json: Value) -> T {
        serde_json::from_value(json).unwrap()
    }

    fn card(fields: &CardFields, evaluations: &[Evaluation], data: &str) -> Result<String, CardError> {
        ModelCard {
            name: "m",
            checkpoint: "best",
            sha256: "w",
            run: &read(json!({"model": "builtin:micro", "data": data, "algorithm": "critic", "data_sha256": "d"})),
            trainer: &read(json!({"step": 7})),
            manifest: &read(json!({"format": 1, "step": 7, "files": {
                "model.safetensors": {"bytes": 1, "sha256": "f"}, "optimizer.bpk": {"bytes": 1, "sha256": "o"},
            }})),
            recipe: "scorer:\n  kind: critic\n",
            evaluations,
            fields,
        }
        .markdown()
    }

    #[test]
    fn a_card_says_what_the_model_is() {
        let fields = CardFields {
            intended_use: Some("research".into()),
            limits: Some("knows nothing".into()),
            ..CardFields::default()
        };
        let text = card(&fields, &[evaluation()], "builtin:mbpp").unwrap();
        for part in [
            "research",
            "knows nothing",
            "CC-BY-4.0",
            "MIT OR Apache-2.0",
            "| mbpp full | 500 | 1 | 0 | pass@1 | 25.0% | 20.0% to 30.0% |",
            "kind: critic",
            "`model.safetensors` | `f`",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("optimizer.bpk"));
        assert!(evaluation().is_of("w") && !evaluation().is_of("x"));
    }

    #[test]
    fn an_incomplete_card_is_refused_with_what_is_missing() {
        let mut fields = CardFields {
            intended_use: Some("x".into()),
            limits: Some("y".into()),
            ..CardFields::default()
        };
        let missing = |fields: &CardFields, evaluations: &[Evaluation], data: &str| {
            card(fields, evaluations, data).unwrap_err().to_string()
        };
        assert!(missing(&fields, &[], "builtin:mbpp").contains("no evaluation"));
        assert!(missing(&fields, &[evaluation()], "my/data").contains("`data_licence`"));
        fields.limits = Some(" ".into());
        assert!(missing(&fields, &[evaluation()], "builtin:mbpp").contains("`limits`"));
    }
}
