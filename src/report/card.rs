//! Model cards: what a promoted model is, from its run's files and from what its maker says.

use super::page::render;
use crate::{
    eval::passk::with_width,
    run::{Manifest, RunRecord, TrainerState, file},
};
use minijinja::context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path};

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Passes that are not verified.
    #[serde(default)]
    pub not_verified: usize,
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
        self.write(true)
    }

    /// The same of a model that few people see: what is missing is said to be missing.
    ///
    /// # Errors
    /// The template cannot be filled in.
    pub fn draft(&self) -> Result<String, CardError> {
        self.write(false)
    }

    /// The licence of the weights, if it was given or is known.
    pub fn licence(&self) -> Option<&str> {
        let known = self.run.model.as_deref() == Some("builtin:micro");
        let known = known.then_some("MIT OR Apache-2.0 (random weights made by this program)");
        stated(&self.fields.licence).or(known)
    }

    fn write(&self, complete: bool) -> Result<String, CardError> {
        let record = serde_json::to_value(self.run).unwrap_or_default();
        let keys = [
            "algorithm",
            "name",
            "started",
            "steps",
            "model",
            "model_sha256",
            "recipe_sha256",
            "wmtp",
            "commit",
            "device",
            "seed",
            "data",
            "data_sha256",
            "documents",
            "response_tokens",
        ];
        let run = BTreeMap::from(keys.map(|key| (key, plain(&record[key]))));
        let is = |key: &str, value: &str| run.get(key).is_some_and(|found| found == value);
        let given = |key: &str, value: Option<&str>| match value {
            None if complete => Err(CardError(format!(
                "the model card lacks `{key}`: write `{key}: TEXT` into a YAML file and give it with --card FILE"
            ))),
            value => Ok(value.unwrap_or("Not stated.").to_owned()),
        };
        let intended_use = given("intended_use", stated(&self.fields.intended_use))?;
        let limits = given("limits", stated(&self.fields.limits))?;
        let licence = given("licence", self.licence())?;
        let known = is("data", "builtin:mbpp").then_some("CC-BY-4.0 (MBPP, Austin et al. 2021)");
        let data_licence = given("data_licence", stated(&self.fields.data_licence).or(known))?;
        if complete && self.evaluations.is_empty() {
            return Err(CardError(format!(
                "there is no evaluation of checkpoints/{} as it is: run `wmtp eval mbpp --model` on it first",
                self.checkpoint
            )));
        }
        let percent = |x: f64| format!("{:.1}%", 100.0 * x);
        let scores = self.evaluations.iter().flat_map(|evaluation| {
            evaluation.pass_at_k.iter().map(move |(k, value)| {
                let ends = evaluation.ci95_at_k.get(k).copied().unwrap_or([f64::NAN; 2]);
                let [low, high] = with_width(ends, *value, evaluation.tasks).map(percent);
                let temperature = evaluation.temperature.map_or("-".into(), |t| t.to_string());
                context! { of => evaluation, k, value => percent(*value), low, high, temperature }
            })
        });
        let files = self.manifest.files.iter().filter(|(name, _)| file::is_of_model(name));
        let best_loss = self.trainer.best_loss;
        let context = context! {
            name => self.name,
            checkpoint => self.checkpoint,
            sha256 => self.sha256,
            run,
            trainer => self.trainer,
            best_loss => best_loss.map_or("unknown".into(), |loss| json!(loss).to_string()),
            recipe => self.recipe,
            licence,
            data_licence,
            intended_use,
            limits,
            scores => scores.collect::<Vec<_>>(),
            files => files.map(|(name, entry)| context! { name, sha256 => entry.sha256 }).collect::<Vec<_>>(),
        };
        render("card.md", &context).map_err(CardError)
    }
}

/// A text that is none if it is empty.
fn stated(field: &Option<String>) -> Option<&str> {
    field.as_deref().map(str::trim).filter(|text| !text.is_empty())
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
        with_card(fields, evaluations, data, |card| card.markdown())
    }

    fn with_card<T>(
        fields: &CardFields,
        evaluations: &[Evaluation],
        data: &str,
        make: impl Fn(&ModelCard<'_>) -> T,
    ) -> T {
        make(&ModelCard {
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
        })
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

    #[test]
    fn a_draft_says_what_is_missing() {
        let draft = |fields: &CardFields| with_card(fields, &[], "my/data", |card| card.draft()).unwrap();
        let text = draft(&CardFields::default());
        for part in [
            "## Intended use\n\nNot stated.",
            "Licence: Not stated.",
            "These weights were not evaluated.",
            "MIT OR Apache-2.0",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("| benchmark |"), "{text}");
        let fields = CardFields {
            limits: Some("knows nothing".into()),
            ..CardFields::default()
        };
        assert!(draft(&fields).contains("knows nothing"));
    }
}
