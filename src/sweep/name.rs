//! Short names for settings: for directories, runs and plots.

use serde_json::Value;

/// Maximum length of the part of an arm's name that is made of values.
const LONGEST: usize = 60;

/// The shortest distinct suffix of each key: `temperature`, or `weights.temperature` if there is also
/// `eval.temperature`.
pub fn short_keys(keys: &[&str]) -> Vec<String> {
    let tail = |key: &str, words: usize| {
        let all: Vec<&str> = key.split('.').collect();
        all.get(all.len().saturating_sub(words)..).unwrap_or(&all).join(".")
    };
    let deepest = keys.iter().map(|key| key.split('.').count()).max().unwrap_or(1);
    keys.iter()
        .map(|key| {
            let alone = |words: &usize| keys.iter().filter(|k| tail(k, *words) == tail(key, *words)).count() == 1;
            tail(key, (1..=deepest).find(alone).unwrap_or(deepest))
        })
        .collect()
}

/// `temperature-0.5-lora-rank16`: letters, digits, `-`, `_` and `.` only.
pub fn setting_name(values: &[(String, Value)]) -> String {
    let keys: Vec<&str> = values.iter().map(|(key, _)| key.as_str()).collect();
    let parts: Vec<String> = short_keys(&keys)
        .iter()
        .zip(values)
        .map(|(key, (_, value))| format!("{}-{}", safe(key), safe(&text(value))))
        .collect();
    if parts.is_empty() {
        return "base".into();
    }
    let name: String = parts.join("-").chars().take(LONGEST).collect();
    name.trim_matches(['-', '.']).to_owned()
}

/// `temperature = 0.5, lora = {rank: 16}`, for display.
pub fn setting_label(values: &[(String, Value)]) -> String {
    let keys: Vec<&str> = values.iter().map(|(key, _)| key.as_str()).collect();
    let parts: Vec<String> = short_keys(&keys)
        .iter()
        .zip(values)
        .map(|(key, (_, value))| format!("{key} = {}", shown(value)))
        .collect();
    if parts.is_empty() {
        return "as the recipe".into();
    }
    parts.join(", ")
}

/// A value as tables show it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => crate::settings::flow_text(other),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join("-"),
        Value::Object(map) => {
            let parts: Vec<String> = map.iter().map(|(key, value)| format!("{key}{}", text(value))).collect();
            parts.join("-")
        }
        other => other.to_string(),
    }
}

fn safe(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(pairs: &[(&str, Value)]) -> Vec<(String, Value)> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect()
    }

    #[test]
    fn keys_are_as_short_as_they_can_be_told_apart() {
        assert_eq!(short_keys(&["weights.temperature"]), ["temperature"]);
        assert_eq!(
            short_keys(&["weights.eps", "optim.eps", "optim.lr"]),
            ["weights.eps", "optim.eps", "lr"]
        );
        assert_eq!(short_keys(&["seed", "a.seed"]), ["seed", "a.seed"]);
    }

    #[test]
    fn names_are_fit_for_directories() {
        let name = setting_name(&values(&[
            ("train.lora", json!({"rank": 16})),
            ("model.base", json!("hf://o/n")),
            ("data.train_tasks", json!([601, 610])),
        ]));
        assert_eq!(name, "lora-rank16-base-hf---o-n-train_tasks-601-610");
        assert_eq!(setting_name(&values(&[("train.lora", Value::Null)])), "lora-none");
        assert_eq!(setting_name(&[]), "base");
        let long = setting_name(&values(&[("model.base", json!("x".repeat(300)))]));
        assert_eq!(long.len(), LONGEST);
    }

    #[test]
    fn labels_are_for_people() {
        let label = setting_label(&values(&[
            ("loss.lambda", json!(0.1)),
            ("train.lora", json!({"rank": 16})),
        ]));
        assert_eq!(label, "lambda = 0.1, lora = {rank: 16}");
    }
}
