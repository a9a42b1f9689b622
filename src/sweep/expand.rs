//! From a sweep file to its settings: every combination of the grid, or a number of draws.

use super::{
    SweepError,
    config::{Distribution, SweepConfig},
    name::{setting_label, setting_name},
};
use serde_json::{Map, Value};
use std::path::Path;

/// Draws per setting before the distributions count as exhausted.
const TRIES: u64 = 1000;
/// Limit on the number of settings: more is a typing error.
const MOST: usize = 10_000;

/// Values of the swept keys; with a seed it is an arm.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Key paths and values, in the file's order.
    pub values: Vec<(String, Value)>,
}

impl Setting {
    /// For directories.
    pub fn name(&self) -> String {
        setting_name(&self.values)
    }

    /// For people.
    pub fn label(&self) -> String {
        setting_label(&self.values)
    }

    /// The value of a swept key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }
}

/// The settings of a sweep, the baseline's number among them.
///
/// # Errors
/// Lists that are empty or repeat themselves, keys that can't be swept, too few different draws.
pub fn settings(config: &SweepConfig, path: &Path) -> Result<(Vec<Setting>, usize), SweepError> {
    let invalid = |key: &str, problem: String| SweepError::Invalid {
        key: key.to_owned(),
        problem,
        path: path.to_owned(),
    };
    if config.random.is_some() && !config.grid.is_empty() {
        return Err(invalid(
            "random",
            "and `grid` exclude each other: keep one of the two".into(),
        ));
    }
    let mut settings = match &config.random {
        Some(_) => drawn(config, &invalid)?,
        None => product(&config.grid, &invalid)?,
    };
    let Some(baseline) = &config.baseline else {
        return Ok((settings, 0));
    };
    let keys: Vec<&str> = settings
        .first()
        .into_iter()
        .flat_map(|s| s.values.iter())
        .map(|(k, _)| k.as_str())
        .collect();
    if let Some(key) = baseline.keys().find(|key| !keys.contains(&key.as_str())) {
        return Err(invalid(
            &format!("baseline.{key}"),
            format!("is not varied by this sweep; varied keys: {}", keys.join(", ")),
        ));
    }
    if let Some(key) = keys.iter().find(|key| !baseline.contains_key(**key)) {
        return Err(invalid("baseline", format!("must have a value for `{key}`")));
    }
    if let Some(at) = settings.iter().position(|s| same(s, baseline)) {
        return Ok((settings, at));
    }
    let values = keys
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), baseline.get(*key)?.clone())))
        .collect();
    settings.insert(0, Setting { values });
    Ok((settings, 0))
}

fn same(setting: &Setting, map: &Map<String, Value>) -> bool {
    setting
        .values
        .iter()
        .all(|(key, value)| map.get(key).is_some_and(|other| equal(value, other)))
}

/// Whether both are the same value: `1` and `1.0` are.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn product(
    grid: &Map<String, Value>,
    invalid: &dyn Fn(&str, String) -> SweepError,
) -> Result<Vec<Setting>, SweepError> {
    let mut settings = vec![Setting { values: Vec::new() }];
    for (key, list) in grid {
        let at = format!("grid.{key}");
        let values = list
            .as_array()
            .filter(|values| !values.is_empty())
            .ok_or_else(|| invalid(&at, "must be a list with at least one value".into()))?;
        may_be_swept(key, &at, invalid)?;
        for (n, value) in values.iter().enumerate() {
            if values.iter().take(n).any(|earlier| equal(earlier, value)) {
                return Err(invalid(&at, format!("holds {value} twice")));
            }
        }
        if settings.len() * values.len() > MOST {
            return Err(invalid("grid", format!("has more than {MOST} combinations")));
        }
        settings = settings
            .iter()
            .flat_map(|setting| {
                values.iter().map(|value| {
                    let mut longer = setting.clone();
                    longer.values.push((key.clone(), value.clone()));
                    longer
                })
            })
            .collect();
    }
    Ok(settings)
}

fn drawn(config: &SweepConfig, invalid: &dyn Fn(&str, String) -> SweepError) -> Result<Vec<Setting>, SweepError> {
    let Some(random) = &config.random else {
        return Ok(Vec::new());
    };
    if random.n == 0 || random.n > MOST {
        return Err(invalid("random.n", format!("must be from 1 to {MOST}")));
    }
    if random.draw.is_empty() {
        return Err(invalid(
            "random.draw",
            "must name a distribution: `optim.lr: {kind: log-uniform, low: 1e-5, high: 1e-3}`".into(),
        ));
    }
    let mut keys = Vec::new();
    for (key, value) in &random.draw {
        let at = format!("random.draw.{key}");
        may_be_swept(key, &at, invalid)?;
        // The schema has checked the form.
        let distribution: Distribution =
            serde_json::from_value(value.clone()).map_err(|e| invalid(&at, format!("can't be read: {e}")))?;
        if let Some(problem) = distribution.problem() {
            return Err(invalid(&at, problem.to_owned()));
        }
        keys.push((key, distribution));
    }
    let mut settings: Vec<Setting> = Vec::new();
    let mut tries = 0;
    for index in 0.. {
        let values = keys
            .iter()
            .map(|(key, distribution)| ((*key).clone(), distribution.draw(random.seed, index, key)))
            .collect();
        let setting = Setting { values };
        tries += 1;
        if !settings.contains(&setting) {
            settings.push(setting);
            tries = 0;
        }
        if settings.len() == random.n {
            break;
        }
        if tries > TRIES {
            return Err(invalid(
                "random.n",
                format!(
                    "is {}, but only {} different settings were found",
                    random.n,
                    settings.len()
                ),
            ));
        }
    }
    Ok(settings)
}

/// Keys that can't be varied, each with what to do instead.
fn may_be_swept(key: &str, at: &str, invalid: &dyn Fn(&str, String) -> SweepError) -> Result<(), SweepError> {
    let section = key.split('.').next().unwrap_or(key);
    let problem = match (key, section) {
        ("seed", _) => "can't be varied: list seeds in `seeds`",
        (_, "run") => "is set by the sweep for each arm",
        (_, "eval") => "would train the same model again for each value: configure evaluations under `evaluate`",
        (_, "paths" | "project" | "tracking" | "storage") => "has no effect on the weights",
        _ => return Ok(()),
    };
    Err(invalid(at, problem.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sweep(json: Value) -> Result<(Vec<Setting>, usize), String> {
        let config: SweepConfig = serde_json::from_value(json).unwrap();
        settings(&config, Path::new("s.yaml")).map_err(|e| e.to_string())
    }

    fn labels(json: Value) -> Vec<String> {
        sweep(json).unwrap().0.iter().map(Setting::label).collect()
    }

    #[test]
    fn a_grid_is_every_combination_and_its_last_key_varies_fastest() {
        assert_eq!(
            labels(json!({"grid": {"loss.lambda": [0.1, 1], "train.lora": [null, {"rank": 16}]}})),
            [
                "lambda = 0.1, lora = none",
                "lambda = 0.1, lora = {rank: 16}",
                "lambda = 1, lora = none",
                "lambda = 1, lora = {rank: 16}"
            ]
        );
        assert_eq!(labels(json!({})), ["as the recipe"]);
    }

    #[test]
    fn draws_repeat_and_a_larger_n_keeps_the_smaller_ones_values() {
        let of = |n: usize| {
            sweep(json!({"random": {"n": n, "seed": 7, "draw": {
                "optim.lr": {"kind": "log-uniform", "low": 1e-5, "high": 1e-3},
                "train.lora": {"kind": "choice", "values": [null, {"rank": 8}]},
            }}}))
            .unwrap()
            .0
        };
        let (four, six) = (of(4), of(6));
        assert_eq!(four, of(4));
        assert_eq!(four[..], six[..4]);
        // Literal values: they must not change with a library or a machine.
        let lr: Vec<f64> = four.iter().filter_map(|s| s.get("optim.lr")?.as_f64()).collect();
        assert_eq!(lr, LITERAL_DRAWS);
    }

    /// SplitMix64, xoshiro256++ and SHA-256 by hand in Python give these.
    const LITERAL_DRAWS: [f64; 4] = [4.479e-4, 9.248e-4, 4.652e-4, 1.308e-4];

    #[test]
    fn repeated_draws_are_passed_over_until_there_are_no_others() {
        let of = |n: usize| {
            sweep(
                json!({"random": {"n": n, "draw": {"batching.micro_batch": {"kind": "integers", "low": 1, "high": 3}}}}),
            )
        };
        assert_eq!(of(3).unwrap().0.len(), 3);
        assert!(of(4).unwrap_err().contains("only 3 different settings"));
    }

    #[test]
    fn the_baseline_is_one_of_the_settings_or_becomes_the_first() {
        let of = |baseline: Value| sweep(json!({"grid": {"loss.lambda": [0.1, 1.0]}, "baseline": baseline}));
        assert_eq!(of(json!({"loss.lambda": 1})).unwrap().1, 1, "1 is 1.0");
        let (settings, baseline) = of(json!({"loss.lambda": 0.0})).unwrap();
        assert_eq!((settings.len(), baseline), (3, 0));
        assert_eq!(settings[0].label(), "lambda = 0.0");
        assert!(
            of(json!({"loss.lamda": 1}))
                .unwrap_err()
                .contains("baseline.loss.lamda")
        );
        assert!(of(json!({})).unwrap_err().contains("a value for `loss.lambda`"));
    }

    #[test]
    fn what_is_no_sweep_is_refused_with_what_to_do() {
        for (bad, expected) in [
            (json!({"grid": {"optim.lr": []}}), "at least one value"),
            (json!({"grid": {"optim.lr": [1, 1.0]}}), "twice"),
            (json!({"grid": {"seed": [1, 2]}}), "`seeds`"),
            (json!({"grid": {"eval.temperature": [0.2]}}), "`evaluate`"),
            (json!({"grid": {"run.name": ["a"]}}), "by the sweep"),
            (
                json!({"grid": {"optim.lr": [1]}, "random": {"n": 1}}),
                "exclude each other",
            ),
            (json!({"random": {"n": 0}}), "random.n"),
            (json!({"random": {"n": 1}}), "random.draw"),
            (
                json!({"random": {"n": 1, "draw": {"optim.lr": {"kind": "uniform", "low": 1.0, "high": 0.0}}}}),
                "`low` below `high`",
            ),
        ] {
            let error = sweep(bad).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("s.yaml"), "{error}");
        }
    }
}
