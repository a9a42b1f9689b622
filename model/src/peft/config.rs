//! `adapter_config.json` as peft writes it: scales, targets, and what is not supported here.
//!
//! Field names and their meaning are those of peft 0.21 (`LoraConfig`, `check_target_module_exists`,
//! `get_pattern_key`). An unknown field is ignored where it is null, false or empty, and
//! refused otherwise: it would change the result.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fancy_regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use crate::error::ModelError;
use crate::fields::Fields;
use crate::file_content::other_content;
use crate::lora::ADAPTER_CONFIG_FILE;

/// Fields that do not change what a loaded adapter computes, or whose effect is seen in its tensors.
const WITHOUT_EFFECT: [&str; 26] = [
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    // For linear maps stored as [in, out], of which a Llama has none: peft ignores it, too.
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "wmtp",
];

/// Ways to initialise an adapter that leave the base model as it is.
const PLAIN_STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What to do with an adapter that is refused.
const MERGE: &str = "merge it with peft (`merge_and_unload()`) and give the merged model";

/// Which modules an adapter changes.
#[derive(Debug)]
enum Targets {
    /// By the ends of their names.
    Names(Vec<String>),
    /// By a regular expression for the whole name.
    Pattern(Regex),
    /// `all-linear`: every linear map but the unembedding.
    AllLinear,
}

/// The settings of an adapter.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    rank: usize,
    alpha: f64,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
    rank_stabilised: bool,
    /// Weight-decomposed: every targeted weight has a magnitude.
    pub(super) dora: bool,
    targets: Targets,
    excluded: Option<Targets>,
    saved: Vec<String>,
    /// None: all layers.
    layers: Option<Vec<usize>>,
    /// False where `layers_pattern` names another list than a Llama's.
    layers_match: bool,
    /// Whether matching a name was given up.
    gave_up: AtomicBool,
}

impl AdapterConfig {
    /// Reads the file in `dir`; what is not supported is added to `problems`.
    pub(super) fn read(dir: &Path, problems: &mut Vec<String>) -> Result<Self, ModelError> {
        let path = dir.join(ADAPTER_CONFIG_FILE);
        let text = std::fs::read(&path).map_err(|source| ModelError::io("read", &path, source))?;
        let map: Map<String, Value> = serde_json::from_slice(&text).map_err(|error| {
            let reason = other_content(&text).map_or_else(|| error.to_string(), str::to_owned);
            ModelError::format(&path, "adapter configuration", reason)
        })?;
        let mut fields = Fields::new(&map);
        let config = Self::from_fields(&map, &mut fields);
        problems.append(&mut fields.problems);
        Ok(config)
    }

    fn from_fields(map: &Map<String, Value>, fields: &mut Fields<'_>) -> Self {
        check_kind(map, fields);
        let names = |fields: &mut Fields<'_>, key: &str| match fields.get(key) {
            None => None,
            Some(Value::String(pattern)) => Some(pattern_of(pattern, key, fields)),
            Some(Value::Array(list)) => {
                let names: Vec<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                (!names.is_empty()).then_some(Targets::Names(names))
            }
            Some(other) => {
                fields.problem(format!("`{key}` is {other}, it must be a text or a list of texts"));
                None
            }
        };
        let targets = names(fields, "target_modules");
        if targets.is_none() && fields.problems.is_empty() {
            fields.problem(format!("`target_modules` names no module: {MERGE}"));
        }
        let excluded = names(fields, "exclude_modules");
        let saved = match names(fields, "modules_to_save") {
            Some(Targets::Names(names)) => names,
            _ => Vec::new(),
        };
        // Another kind of adapter has other fields.
        let missing = if fields.problems.is_empty() { None } else { Some(0) };
        Self {
            rank: fields.size("r", missing),
            alpha: fields.number("lora_alpha", missing.map(|_| 0.0)),
            ranks: patterns(fields, "rank_pattern"),
            alphas: patterns(fields, "alpha_pattern"),
            rank_stabilised: fields.flag("use_rslora", false),
            dora: fields.flag("use_dora", false),
            targets: targets.unwrap_or(Targets::Names(Vec::new())),
            excluded,
            saved,
            layers: layers(fields),
            layers_match: match fields.get("layers_pattern") {
                None => true,
                Some(Value::String(one)) => one.is_empty() || one == "layers",
                Some(Value::Array(list)) => list.is_empty() || list.iter().any(|name| name == "layers"),
                Some(_) => false,
            },
            gave_up: AtomicBool::new(false),
        }
    }

    /// Whether a pattern needed too many steps for a name, so that nobody knows whether it fits.
    pub(super) fn gave_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    fn fits(&self, pattern: &Regex, module: &str) -> bool {
        pattern.is_match(module).unwrap_or_else(|_| {
            self.gave_up.store(true, Ordering::Relaxed);
            false
        })
    }

    /// The number of the first pattern that fits.
    fn of_pattern(&self, patterns: &[(Regex, f64)], module: &str) -> Option<f64> {
        let found = patterns.iter().find(|(pattern, _)| self.fits(pattern, module));
        found.map(|(_, value)| *value)
    }

    /// The factor of `B A` for a module (`model.layers.0.self_attn.q_proj`) with factors of this rank.
    pub(super) fn scale(&self, module: &str, rank: usize) -> f64 {
        let alpha = self.of_pattern(&self.alphas, module).unwrap_or(self.alpha);
        let rank = rank as f64;
        alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    /// The rank that the file gives a module.
    pub(super) fn rank(&self, module: &str) -> usize {
        self.of_pattern(&self.ranks, module)
            .map_or(self.rank, |rank| rank as usize)
    }

    /// Whether `module` has factors. Of `all-linear`, `module` must not be the unembedding.
    pub(super) fn targets(&self, module: &str) -> bool {
        let is_in = |targets: &Targets| match targets {
            Targets::Names(names) => names
                .iter()
                .any(|name| module == name || module.ends_with(&format!(".{name}"))),
            Targets::Pattern(pattern) => self.fits(pattern, module),
            Targets::AllLinear => module.contains("layers.") || module.starts_with("mtp."),
        };
        let saved = |name: &String| format!(".{module}.").contains(&format!(".{name}."));
        if self.excluded.as_ref().is_some_and(is_in) || self.saved.iter().any(saved) || !is_in(&self.targets) {
            return false;
        }
        match (&self.layers, &self.targets) {
            (Some(layers), Targets::Names(_)) => {
                let layer = module.split('.').skip_while(|part| *part != "layers").nth(1);
                let layer = layer.and_then(|layer| layer.parse().ok());
                self.layers_match && layer.is_some_and(|layer: usize| layers.contains(&layer))
            }
            _ => true,
        }
    }

    /// Whether the module is replaced as a whole.
    pub(super) fn saves(&self, module: &str) -> bool {
        let by = |name: &String| module.ends_with(name.as_str());
        self.saved.iter().any(by)
    }
}

/// Refuses other kinds of adapter, other tasks, and fields with an effect that is not known.
fn check_kind(map: &Map<String, Value>, fields: &mut Fields<'_>) {
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    let kind = map.get("peft_type").unwrap_or(&Value::Null);
    if kind.as_str() != Some("LORA") {
        fields.problem(format!("`peft_type` is {kind}, only \"LORA\" is read: {MERGE}"));
        return;
    }
    if let Some(task) = text("task_type").filter(|task| *task != "CAUSAL_LM") {
        fields.problem(format!("`task_type` is \"{task}\", only \"CAUSAL_LM\" is read"));
    }
    if let Some(start) = text("init_lora_weights").filter(|start| !PLAIN_STARTS.contains(start)) {
        fields.problem(format!(
            "`init_lora_weights` is \"{start}\", which changes the base's weights: {MERGE}"
        ));
    }
    for (key, value) in map {
        let checked = ["peft_type", "task_type", "init_lora_weights", "use_rslora", "use_dora"];
        let without_effect = WITHOUT_EFFECT.contains(&key.as_str()) || checked.contains(&key.as_str());
        if !without_effect && !is_off(value) {
            fields.problem(format!("`{key}` is {value}, which is not supported: {MERGE}"));
        }
    }
}

/// Null, false, or empty.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Keys of `rank_pattern` or `alpha_pattern`, and bytes of a pattern: each is matched with every weight's name.
const MOST_PATTERNS: usize = 1000;
const LONGEST_PATTERN: usize = 1000;
/// Steps back while a name is matched.
const MOST_STEPS: usize = 10_000;

fn too_long(pattern: &str, key: &str) -> Option<String> {
    let bytes = pattern.len();
    (bytes > LONGEST_PATTERN)
        .then(|| format!("`{key}` has a pattern of {bytes} bytes, at most {LONGEST_PATTERN} are read"))
}

fn regex(pattern: &str) -> Result<Regex, Box<fancy_regex::Error>> {
    Ok(RegexBuilder::new(pattern).backtrack_limit(MOST_STEPS).build()?)
}

fn pattern_of(pattern: &str, key: &str, fields: &mut Fields<'_>) -> Targets {
    if key == "target_modules" && pattern.eq_ignore_ascii_case("all-linear") {
        return Targets::AllLinear;
    }
    if let Some(problem) = too_long(pattern, key) {
        fields.problem(problem);
        return Targets::Names(Vec::new());
    }
    match regex(&format!("^(?:{pattern})$")) {
        Ok(pattern) => Targets::Pattern(pattern),
        Err(error) => {
            fields.problem(format!(
                "`{key}` is \"{pattern}\", no regular expression that can be read ({error})"
            ));
            Targets::Names(Vec::new())
        }
    }
}

/// `rank_pattern` or `alpha_pattern`: numbers by regular expressions for the ends of names, in order.
fn patterns(fields: &mut Fields<'_>, key: &str) -> Vec<(Regex, f64)> {
    let mut found = Vec::new();
    let object = fields.object(key);
    if object.is_some_and(|object| object.len() > MOST_PATTERNS) {
        fields.problem(format!("`{key}` has more than {MOST_PATTERNS} keys"));
        return found;
    }
    for (pattern, value) in object.into_iter().flatten() {
        if let Some(problem) = too_long(pattern, key) {
            fields.problem(problem);
            continue;
        }
        match (regex(&format!(r"^(.*\.)?({pattern})$")), value.as_f64()) {
            (Ok(pattern), Some(value)) => found.push((pattern, value)),
            (Err(error), _) => fields.problem(format!(
                "`{key}` has the key \"{pattern}\", no regular expression that can be read ({error})"
            )),
            (_, None) => fields.problem(format!("`{key}.{pattern}` is {value}, it must be a number")),
        }
    }
    found
}

/// `layers_to_transform`: a number or a list of them.
fn layers(fields: &mut Fields<'_>) -> Option<Vec<usize>> {
    let index = |value: &Value| value.as_u64().and_then(|index| usize::try_from(index).ok());
    let layers: Option<Vec<usize>> = match fields.get("layers_to_transform")? {
        Value::Array(list) => list.iter().map(index).collect(),
        one => index(one).map(|index| vec![index]),
    };
    if layers.is_none() {
        fields.problem("`layers_to_transform` must be a layer's number or a list of them".to_owned());
    }
    layers.filter(|layers| !layers.is_empty())
}
