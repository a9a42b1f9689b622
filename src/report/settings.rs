//! Settings as tables: what differs from the defaults, and what differs between runs.

use super::run::{Run, flattened, visible};
use crate::settings::{Config, Pipeline, Recipe, Sources};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A setting of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The default; None if it has none.
    pub default: Option<String>,
    /// Whether they differ.
    pub changed: bool,
}

/// All of a run's settings, recipe first, each with the default of its pipeline.
pub fn settings(run: &Run) -> Vec<Setting> {
    let base = run.recipe.get("model.base").and_then(Value::as_str);
    let mut all = compared(&run.recipe, &default_recipe(run.record.algorithm.as_deref(), base));
    let config = serde_json::to_value(Config::default()).unwrap_or_default();
    all.extend(compared(&run.config, &flattened(&config)));
    all
}

/// The recipe that `wmtp train NAME --model BASE` starts from, by dotted key.
fn default_recipe(algorithm: Option<&str>, base: Option<&str>) -> BTreeMap<String, Value> {
    let pipelines = [Pipeline::Critic, Pipeline::Rho1, Pipeline::Baseline];
    let pipeline = pipelines
        .into_iter()
        .find(|pipeline| Some(pipeline.name()) == algorithm);
    // rho1 needs a reference, for which there is no default.
    let sources = Sources::new(pipeline).set("model.reference=NONE");
    let default_base = Recipe::default().model.base;
    let recipe = sources
        .flag_text("--model", "model.base", base)
        .load()
        .map_or_else(|_| Recipe::default(), |settings| settings.recipe);
    let mut recipe = flattened(&serde_json::to_value(recipe).unwrap_or_default());
    recipe.insert("model.reference".into(), Value::Null);
    recipe.insert("model.base".into(), default_base.into());
    recipe
}

fn compared(values: &BTreeMap<String, Value>, defaults: &BTreeMap<String, Value>) -> Vec<Setting> {
    let setting = |(key, value): (&String, &Value)| {
        let default = defaults.get(key);
        Setting {
            key: visible(key),
            value: shown(value),
            default: default.map(shown),
            changed: default.is_none_or(|default| !same(value, default)),
        }
    };
    values.iter().map(setting).collect()
}

/// The keys in which runs differ, with the value of each run.
pub fn differences(runs: &[Run]) -> Vec<(String, Vec<String>)> {
    let keys: BTreeSet<&String> = runs
        .iter()
        .flat_map(|run| run.recipe.keys().chain(run.config.keys()))
        .collect();
    let value = |run: &Run, key: &str| run.recipe.get(key).or_else(|| run.config.get(key)).cloned();
    let mut rows = Vec::new();
    // Names always differ.
    for key in keys.into_iter().filter(|key| *key != "run.name") {
        let values: Vec<Option<Value>> = runs.iter().map(|run| value(run, key)).collect();
        let differ = values.windows(2).any(|pair| match pair {
            [Some(a), Some(b)] => !same(a, b),
            [a, b] => a != b,
            _ => false,
        });
        if differ {
            let texts = values.iter().map(|value| value.as_ref().map_or("–".into(), shown));
            rows.push((visible(key), texts.collect()));
        }
    }
    rows
}

/// `1` and `1.0` are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => visible(text),
        Value::Null => "null".into(),
        other => visible(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pipeline: Pipeline, set: &[&str]) -> Run {
        let sources = set
            .iter()
            .fold(Sources::new(Some(pipeline)), |sources, text| sources.set(*text));
        let settings = sources.load().unwrap();
        let read = |text: String| flattened(&crate::settings::yaml_to_json(&text).unwrap());
        Run {
            record: crate::run::RunRecord {
                algorithm: Some(pipeline.name().into()),
                ..Default::default()
            },
            recipe: read(settings.recipe.to_yaml()),
            config: read(settings.config.to_yaml()),
            ..Run::default()
        }
    }

    fn changed(run: &Run) -> Vec<String> {
        let all = settings(run).into_iter().filter(|setting| setting.changed);
        all.map(|setting| {
            format!(
                "{} {} {:?}",
                setting.key,
                setting.value,
                setting.default.unwrap_or_default()
            )
        })
        .collect()
    }

    #[test]
    fn a_pipeline_s_own_recipe_differs_from_its_defaults_in_nothing() {
        for pipeline in [Pipeline::Critic, Pipeline::Baseline] {
            assert_eq!(changed(&run(pipeline, &[])), Vec::<String>::new(), "{pipeline:?}");
        }
        let rho1 = run(Pipeline::Rho1, &["model.reference=runs/a/checkpoints/best"]);
        assert_eq!(changed(&rho1), ["model.reference runs/a/checkpoints/best \"null\""]);
    }

    #[test]
    fn what_was_set_is_found_with_its_default() {
        let run = run(Pipeline::Critic, &["optim.lr=3e-5", "weights.temperature=1", "seed=7"]);
        assert_eq!(
            changed(&run),
            [
                "optim.lr 0.00003 \"0.003\"",
                "weights.temperature 1.0 \"0.7\"",
                "seed 7 \"42\""
            ]
        );
    }

    #[test]
    fn runs_are_told_apart_by_their_settings_and_not_by_their_names() {
        let a = run(Pipeline::Critic, &["run.name=a", "optim.lr=3e-5"]);
        let b = run(Pipeline::Critic, &["run.name=b"]);
        assert_eq!(
            differences(&[a, b]),
            [("optim.lr".to_owned(), vec!["0.00003".to_owned(), "0.003".to_owned()])]
        );
    }
}
