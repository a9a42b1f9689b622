//! What a run writes down as JSON, as metric values and parameters.

use serde_json::Value;
use std::collections::BTreeMap;

/// The metric values of a line of `metrics.jsonl`: its numbers but the step, a list under one key
/// for each of its elements (`valid_ce_heads` becomes `valid_ce_head_1`, ...), true as 1. What is
/// null (a loss that is not finite) has no value.
pub fn values(line: &Value) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    for (key, value) in line.as_object().into_iter().flatten().filter(|(key, _)| *key != "step") {
        match value {
            Value::Array(items) => {
                let single = key.strip_suffix('s').unwrap_or(key);
                values.extend(
                    items
                        .iter()
                        .enumerate()
                        .filter_map(|(i, item)| Some((metric_key(&format!("{single}_{}", i + 1)), number(item)?))),
                );
            }
            value => values.extend(number(value).map(|number| (metric_key(key), number))),
        }
    }
    values
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::Number(n) => n.as_f64(),
        _ => None,
    }
}

/// Which series of the run a line belongs to.
pub fn series(line: &Value) -> &'static str {
    if line.get("valid_loss").is_some() {
        "valid"
    } else {
        "train"
    }
}

/// The name of a metric, parameter or tag as MLflow takes it: `pass@1` becomes `pass_1`. MLflow
/// refuses names that are no canonical relative path, so `a//b`, `/a` and `./a` lose their empty
/// parts and dots, and `..` becomes `__`. A name of which nothing is left is `_`.
pub fn metric_key(key: &str) -> String {
    let allowed = |c: char| {
        if c.is_alphanumeric() || "_-. :/".contains(c) {
            c
        } else {
            '_'
        }
    };
    let key: String = key.chars().map(allowed).collect();
    let parts = key.split('/').filter(|part| !part.is_empty() && *part != ".");
    let parts: Vec<&str> = parts.map(|part| if part == ".." { "__" } else { part }).collect();
    if parts.is_empty() { "_".into() } else { parts.join("/") }
}

/// A tree of settings as parameters, `optim.lr` = `1e-5`; what is null is left out, and so are
/// credentials in addresses.
pub fn flatten(tree: &Value) -> BTreeMap<String, String> {
    fn walk(prefix: &str, value: &Value, out: &mut BTreeMap<String, String>) {
        match value {
            Value::Null => {}
            Value::Object(fields) => {
                for (key, value) in fields {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    walk(&format!("{prefix}{dot}{key}"), value, out);
                }
            }
            Value::String(text) => {
                out.insert(metric_key(prefix), crate::redact::redact(text));
            }
            other => {
                out.insert(metric_key(prefix), crate::redact::redact(&other.to_string()));
            }
        }
    }
    let mut out = BTreeMap::new();
    walk("", tree, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_of_metrics_gives_its_numbers() {
        let line = json!({"step": 3, "loss": 1.5, "grad_norm": null, "applied": true, "valid_ce_heads": [1.0, 2.0]});
        let expected = [
            ("applied", 1.0),
            ("loss", 1.5),
            ("valid_ce_head_1", 1.0),
            ("valid_ce_head_2", 2.0),
        ];
        assert_eq!(values(&line), expected.map(|(k, v)| (k.to_owned(), v)).into());
    }

    #[test]
    fn settings_become_dotted_parameters() {
        let tree = json!({"optim": {"lr": 1e-5, "betas": [0.9, 0.95]}, "run": {"name": null}, "a b": "x@y"});
        let expected = [("a b", "x@y"), ("optim.betas", "[0.9,0.95]"), ("optim.lr", "0.00001")];
        assert_eq!(
            flatten(&tree),
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
    }

    #[test]
    fn metric_names_hold_what_a_server_takes() {
        assert_eq!(metric_key("mbpp/pass@1"), "mbpp/pass_1");
        assert_eq!(metric_key("exp#3"), "exp_3");
        // What `posixpath.normpath` would change, MLflow refuses.
        for (written, sent) in [
            ("a//b", "a/b"),
            ("/a/", "a"),
            ("./a/./b", "a/b"),
            ("../a", "__/a"),
            (".", "_"),
            ("", "_"),
            ("größe", "größe"),
        ] {
            assert_eq!(metric_key(written), sent, "{written:?}");
        }
    }
}
