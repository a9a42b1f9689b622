//! Rotary settings of a `config.json`: `rope_theta` with `rope_scaling` (transformers 4),
//! `rope_parameters` (transformers 5), or both.
//!
//! The rule is that of transformers 5.24 (`convert_rope_params_to_dict`, `standardize_rope_params`): a
//! `rope_scaling` that is neither null nor empty replaces `rope_parameters` as a whole; a base that the block
//! lacks is the top-level `rope_theta`, else the family's default; the original context length of llama3 and
//! yarn scaling is the top-level `original_max_position_embeddings`, else the block's, else
//! `max_position_embeddings`. Where this rule drops a value that the file states explicitly, or where
//! transformers 4 would take another value, the file is ambiguous: an error names both keys.

use serde_json::{Map, Value, json};

use crate::config::{RopeConfig, RopeScaling, Yarn, YarnScale};
use crate::fields::Fields;

/// The original context length, in the block or at the top level.
const ORIGINAL: &str = "original_max_position_embeddings";

/// The rotary embedding that the fields describe; problems are added to `fields`. `default_theta`: the base
/// of the wavelengths where the file names none.
pub(crate) fn read_rope(fields: &mut Fields<'_>, max_position_embeddings: usize, default_theta: f64) -> RopeConfig {
    let rotated = fields.number("partial_rotary_factor", Some(1.0));
    if rotated != 1.0 {
        fields.problem(format!("`partial_rotary_factor` is {rotated}, only 1 is supported"));
    }
    let top = Top {
        theta: stated(fields, "rope_theta"),
        original: stated(fields, ORIGINAL),
        context: max_position_embeddings as f64,
    };
    let parameters = Block::read(fields, "rope_parameters", "rope_parameters.", &top);
    let scaling = Block::read(fields, "rope_scaling", "rope_scaling.", &top);
    if let (Some(parameters), Some(scaling)) = (&parameters, &scaling)
        && parameters.scaling != RopeScaling::None
        && parameters.scaling != scaling.scaling
    {
        fields.problem(
            "`rope_scaling` and `rope_parameters` ask for different scalings: remove one of them, or make them equal"
                .to_owned(),
        );
    }
    let in_force = scaling.as_ref().or(parameters.as_ref());
    let own = in_force.and_then(|block| Some((format!("`{}.rope_theta`", block.name), block.theta?)));
    let (key, theta) = own
        .or_else(|| Some(("`rope_theta`".to_owned(), top.theta?)))
        .unwrap_or_else(|| ("`rope_scaling.rope_theta` (by default)".to_owned(), default_theta));
    let others = [
        ("rope_theta", top.theta),
        (
            "rope_parameters.rope_theta",
            parameters.as_ref().and_then(|block| block.theta),
        ),
        (
            "rope_scaling.rope_theta",
            scaling.as_ref().and_then(|block| block.theta),
        ),
    ];
    for (other, value) in others {
        if let Some(value) = value.filter(|value| *value != theta) {
            fields.problem(format!(
                "`{other}` is {value} and {key} is {theta}: give both the same value, or remove one"
            ));
        }
    }
    RopeConfig {
        theta,
        scaling: in_force.map_or(RopeScaling::None, |block| block.scaling),
    }
}

/// A number that may be absent or null; one of another kind is a problem.
fn stated(fields: &mut Fields<'_>, name: &str) -> Option<f64> {
    fields.get(name)?;
    Some(fields.number(name, None))
}

/// What stands outside the blocks.
struct Top {
    theta: Option<f64>,
    original: Option<f64>,
    /// `max_position_embeddings`.
    context: f64,
}

/// `rope_scaling` or `rope_parameters`, neither null nor empty.
struct Block {
    name: &'static str,
    theta: Option<f64>,
    scaling: RopeScaling,
}

impl Block {
    fn read(fields: &mut Fields<'_>, name: &'static str, prefix: &'static str, top: &Top) -> Option<Self> {
        let map = fields.object(name).filter(|map| !map.is_empty())?;
        let mut inner = Fields::within(map, prefix);
        let block = Self {
            name,
            theta: stated(&mut inner, "rope_theta"),
            scaling: scaling(map, prefix, &mut inner, top),
        };
        fields.problems.append(&mut inner.problems);
        Some(block)
    }
}

fn scaling(map: &Map<String, Value>, prefix: &str, inner: &mut Fields<'_>, top: &Top) -> RopeScaling {
    if let Some((key, _)) = map.iter().find(|(_, value)| value.is_object()) {
        inner.problem(format!(
            "`{prefix}{key}` is an object: rotary settings for each type of layer are not supported"
        ));
        return RopeScaling::None;
    }
    let rotated = inner.number("partial_rotary_factor", Some(1.0));
    if rotated != 1.0 {
        inner.problem(format!(
            "`{prefix}partial_rotary_factor` is {rotated}, only 1 is supported"
        ));
    }
    let kind = ["rope_type", "type"].iter().find_map(|key| inner.get(key));
    let scaling = match kind.map(|kind| kind.as_str().ok_or(kind)) {
        None => {
            if inner.number("factor", Some(1.0)) != 1.0 {
                inner.problem(format!(
                    "`{prefix}factor` is set and `{prefix}rope_type` is missing: name the type, or remove the factor"
                ));
            }
            RopeScaling::None
        }
        Some(Ok("default")) => RopeScaling::None,
        Some(Ok("linear")) => RopeScaling::Linear {
            factor: inner.number("factor", None),
        },
        Some(Ok("dynamic")) => RopeScaling::Dynamic {
            factor: inner.number("factor", None),
            max_position_embeddings: top.context,
        },
        Some(Ok("yarn")) => RopeScaling::Yarn(yarn(prefix, inner, top)),
        Some(Ok("llama3")) => RopeScaling::Llama3 {
            factor: inner.number("factor", None),
            low_freq_factor: inner.number("low_freq_factor", None),
            high_freq_factor: inner.number("high_freq_factor", None),
            original_max_position_embeddings: original(prefix, inner, top),
        },
        Some(Ok(other)) => {
            inner.problem(format!(
                "`{prefix}rope_type` is \"{other}\", supported are \"default\", \"linear\", \"dynamic\", \"yarn\" and \"llama3\""
            ));
            RopeScaling::None
        }
        Some(Err(other)) => {
            inner.problem(format!("`{prefix}rope_type` is {other}, it must be a text"));
            RopeScaling::None
        }
    };
    check(&scaling, prefix, inner);
    scaling
}

/// Absent or null means the default, as transformers reads `factor`, `beta_fast` and `beta_slow`.
fn yarn(prefix: &str, inner: &mut Fields<'_>, top: &Top) -> Yarn {
    let original = original(prefix, inner, top);
    let factor = if inner.is_null("factor") {
        top.context / original
    } else {
        inner.number("factor", None)
    };
    let [stated, mscale, mscale_all_dim] =
        ["attention_factor", "mscale", "mscale_all_dim"].map(|name| self::stated(inner, name));
    let scale = match (
        stated,
        mscale.filter(|m| *m != 0.0),
        mscale_all_dim.filter(|m| *m != 0.0),
    ) {
        (Some(_), ..) => YarnScale::Stated,
        (None, Some(mscale), Some(mscale_all_dim)) => YarnScale::Ratio { mscale, mscale_all_dim },
        _ => YarnScale::Paper,
    };
    Yarn {
        factor,
        original_max_position_embeddings: original,
        beta_fast: inner.number("beta_fast", Some(Yarn::BETA_FAST)),
        beta_slow: inner.number("beta_slow", Some(Yarn::BETA_SLOW)),
        attention_factor: scale.factor(factor).or(stated).unwrap_or(1.0),
        scale,
        truncate: inner.flag("truncate", true),
    }
}

/// The context length of the first training.
fn original(prefix: &str, inner: &mut Fields<'_>, top: &Top) -> f64 {
    let own = stated(inner, ORIGINAL);
    if let (Some(own), Some(top)) = (own, top.original)
        && own != top
    {
        inner.problem(format!(
            "`{ORIGINAL}` is {top} and `{prefix}{ORIGINAL}` is {own}: give both the same value, or remove one"
        ));
    }
    top.original.or(own).unwrap_or(top.context)
}

fn check(scaling: &RopeScaling, prefix: &str, fields: &mut Fields<'_>) {
    if !fields.problems.is_empty() {
        return;
    }
    match *scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } if factor > 0.0 => {}
        RopeScaling::Dynamic { factor, .. } if factor >= 1.0 => {}
        RopeScaling::Yarn(yarn)
            if yarn.factor > 0.0
                && yarn.original_max_position_embeddings > 0.0
                && yarn.beta_slow > 0.0
                && yarn.beta_fast >= yarn.beta_slow
                && yarn.attention_factor > 0.0
                && yarn.attention_factor.is_finite() => {}
        RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        } if factor > 0.0 && low > 0.0 && high > low && original > 0.0 => {}
        RopeScaling::Linear { .. } => fields.problem(format!("`{prefix}factor` must be above 0")),
        RopeScaling::Dynamic { .. } => fields.problem(format!("`{prefix}factor` must be at least 1")),
        RopeScaling::Yarn(_) => fields.problem(format!(
            "`{}` needs factor > 0, 0 < beta_slow <= beta_fast, attention_factor > 0 and {ORIGINAL} > 0",
            prefix.trim_end_matches('.')
        )),
        RopeScaling::Llama3 { .. } => fields.problem(format!(
            "`{}` needs factor > 0, 0 < low_freq_factor < high_freq_factor and {ORIGINAL} > 0",
            prefix.trim_end_matches('.')
        )),
    }
}

/// The blocks `rope_scaling` (null without scaling) and `rope_parameters`.
pub(crate) fn rope_json(rope: &RopeConfig) -> (Value, Value) {
    let scaling = match rope.scaling {
        RopeScaling::None => {
            return (Value::Null, json!({"rope_type": "default", "rope_theta": rope.theta}));
        }
        RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
        RopeScaling::Dynamic { factor, .. } => json!({"rope_type": "dynamic", "factor": factor}),
        RopeScaling::Yarn(yarn) => yarn_json(&yarn),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings as u64,
        }),
    };
    let mut parameters = scaling.clone();
    if let Value::Object(map) = &mut parameters {
        map.insert("rope_theta".to_owned(), json!(rope.theta));
    }
    (scaling, parameters)
}

fn yarn_json(yarn: &Yarn) -> Value {
    let mut block = json!({
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_max_position_embeddings as u64,
    });
    for (name, value, default) in [
        ("beta_fast", yarn.beta_fast, Yarn::BETA_FAST),
        ("beta_slow", yarn.beta_slow, Yarn::BETA_SLOW),
    ] {
        if value != default {
            block[name] = json!(value);
        }
    }
    match yarn.scale {
        YarnScale::Paper => {}
        YarnScale::Stated => block["attention_factor"] = json!(yarn.attention_factor),
        YarnScale::Ratio { mscale, mscale_all_dim } => {
            block["mscale"] = json!(mscale);
            block["mscale_all_dim"] = json!(mscale_all_dim);
        }
    }
    if !yarn.truncate {
        block["truncate"] = json!(false);
    }
    block
}

#[cfg(test)]
mod tests {
    use crate::config::LlamaConfig;
    use crate::rope::inverse_frequencies;
    use serde_json::Value;

    /// What transformers 5.24 computes from the same files; made by `make_rope.py` in the same folder.
    const TABLE: &str = include_str!("../tests/fixtures/rope/resolved.json");

    fn parse(case: &Value) -> Result<LlamaConfig, String> {
        let mut config: Value = serde_json::from_str(TABLE).expect("the table is JSON");
        let mut config = config["base"].take();
        for (key, value) in case["fields"].as_object().expect("fields") {
            config[key] = value.clone();
        }
        LlamaConfig::parse(&config.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn frequencies_are_those_of_transformers_wherever_no_stated_value_is_dropped() {
        let table: Value = serde_json::from_str(TABLE).expect("the table is JSON");
        let cases = table["cases"].as_array().expect("cases");
        let (mut loaded, mut refused) = (0, 0);
        for case in cases {
            let fields = &case["fields"];
            match (parse(case), case["inv_freq"].as_array(), case["drops"].as_str()) {
                (Ok(config), Some(expected), None) => {
                    loaded += 1;
                    let found = inverse_frequencies(&config.rope, config.head_dim);
                    assert_eq!(found.len(), expected.len(), "{fields}");
                    let amplitude = case["attention"].as_f64().unwrap_or(1.0);
                    assert!(
                        (config.rope.amplitude() - amplitude).abs() < 1e-9,
                        "{fields}: {amplitude}"
                    );
                    for (found, expected) in found.iter().zip(expected) {
                        let expected = expected.as_f64().expect("a number");
                        let gap = (f64::from(*found) / expected - 1.0).abs();
                        assert!(gap < 1e-6, "{fields}: {found} instead of {expected}");
                    }
                }
                // transformers refuses it as well.
                (Err(_), None, _) => refused += 1,
                (Err(error), Some(_), Some(keys)) => {
                    refused += 1;
                    for key in keys.split(' ') {
                        assert!(
                            error.contains(&format!("`{key}`")),
                            "{fields}: {error} does not name {key}"
                        );
                    }
                }
                (found, expected, drops) => panic!("{fields}: {found:?}, transformers {expected:?}, drops {drops:?}"),
            }
        }
        assert!(loaded > 60 && refused > 40, "{loaded} loaded, {refused} refused");
    }

    /// What is saved reads the same in both spellings, and back.
    #[test]
    fn a_saved_configuration_states_the_same_rotation_in_both_spellings() {
        let table: Value = serde_json::from_str(TABLE).expect("the table is JSON");
        for case in table["cases"].as_array().expect("cases") {
            let Ok(config) = parse(case) else { continue };
            let saved = config.to_json("float32");
            let of = |keep: &str, drop: &[&str]| {
                let mut file = saved.clone();
                let map = file.as_object_mut().expect("an object");
                drop.iter().for_each(|key| drop_key(map, key));
                let read = LlamaConfig::parse(&file.to_string()).unwrap_or_else(|e| panic!("{keep}: {e}"));
                assert_eq!(read.rope, config.rope, "{keep} of {}", case["fields"]);
            };
            of("everything", &[]);
            of("transformers 4's keys", &["rope_parameters"]);
            of("transformers 5's keys", &["rope_scaling", "rope_theta"]);
        }
    }

    fn drop_key(map: &mut serde_json::Map<String, Value>, key: &str) {
        map.remove(key);
    }
}
