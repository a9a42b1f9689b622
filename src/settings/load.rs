//! Merging: defaults, then files in the order given, then variables, then `--set`, then flags.

use super::{
    Config, Recipe, config_schema,
    error::SettingsError,
    layer::{Layer, Origin, RESERVED_VARIABLES},
    recipe_schema,
    schema::Schema,
    tree::{Node, Value},
    yaml,
};
use crate::{
    scorer::Pipeline,
    validate::{Validate, Violation},
};
use figment::Figment;
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};

/// The recipe that `wmtp train NAME` starts from, as YAML.
fn recipe_text(pipeline: Pipeline) -> &'static str {
    match pipeline {
        Pipeline::Critic => include_str!("../../configs/recipe.critic.yaml"),
        Pipeline::Rho1 => include_str!("../../configs/recipe.rho1.yaml"),
        Pipeline::Baseline => include_str!("../../configs/recipe.baseline.yaml"),
    }
}

/// The recipe of the small world for a pipeline, as YAML: what all have in common, then its own.
fn world_texts(pipeline: Pipeline) -> [&'static str; 2] {
    let own = match pipeline {
        Pipeline::Critic => include_str!("../../configs/recipe.world-critic.yaml"),
        Pipeline::Rho1 => include_str!("../../configs/recipe.world-rho1.yaml"),
        Pipeline::Baseline => include_str!("../../configs/recipe.world-baseline.yaml"),
    };
    [include_str!("../../configs/recipe.world.yaml"), own]
}

/// What settings are made from. Later sources win.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pipeline: Option<Pipeline>,
    /// In the order of the command line; true: a config file.
    files: Vec<(bool, PathBuf)>,
    variables: Vec<(String, String)>,
    /// Variables whose values are no text.
    unreadable: Vec<String>,
    sets: Vec<String>,
    flags: Vec<Layer>,
    small_world: bool,
}

impl Sources {
    /// The defaults, and on top of them a pipeline's built-in recipe.
    pub fn new(pipeline: Option<Pipeline>) -> Self {
        Self {
            pipeline,
            ..Self::default()
        }
    }

    /// Where no source names a model and data, a pipeline trains a small model from scratch on the small world:
    /// `configs/recipe.world.yaml` and the pipeline's own file with it.
    pub fn small_world_unless_named(mut self) -> Self {
        self.small_world = true;
        self
    }

    /// Adds an environment file.
    pub fn config(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push((true, path.into()));
        self
    }

    /// Adds a recipe file.
    pub fn recipe(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push((false, path.into()));
        self
    }

    /// Adds the process's `WMTP_...` variables; a value that is not UTF-8 is an error on loading.
    pub fn environment(mut self) -> Self {
        let mut read = Vec::new();
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                (Ok(name), Ok(value)) => read.push((name, value)),
                (Ok(name), Err(_)) if name.starts_with("WMTP_") && !RESERVED_VARIABLES.contains(&name.as_str()) => {
                    self.unreadable.push(name);
                }
                _ => {}
            }
        }
        self.variables(read)
    }

    /// Adds variables by name and value; names without `WMTP_` and reserved ones are left out.
    pub fn variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables
            .extend(variables.into_iter().filter(|(name, _)| name.starts_with("WMTP_")));
        self.variables.sort();
        self
    }

    /// Adds `key.path=value`.
    pub fn set(mut self, text: impl Into<String>) -> Self {
        self.sets.push(text.into());
        self
    }

    /// A text typed for `flag` becomes the value of `key`, as it is.
    pub fn flag_text(mut self, flag: &str, key: &str, text: Option<&str>) -> Self {
        if let Some(text) = text {
            self.flags.push(Layer::flag(flag, key, Value::Text(text.to_owned())));
        }
        self
    }

    /// Anything that serialises, typed for `flag`, becomes the value of `key`.
    pub fn flag<T: Serialize>(mut self, flag: &str, key: &str, value: Option<T>) -> Self {
        if let Some(json) = value.and_then(|v| serde_json::to_value(v).ok()) {
            self.flags.push(Layer::flag(flag, key, Node::from_json(&json).value));
        }
        self
    }

    /// Reads, merges, checks.
    ///
    /// # Errors
    /// The first thing that is wrong, as one sentence.
    pub fn load(self) -> Result<Settings, SettingsError> {
        if let Some(name) = self.unreadable.first() {
            return Err(SettingsError::NotText { name: name.clone() });
        }
        let config_schema = Schema::new(config_schema());
        let recipe_schema = Schema::new(recipe_schema());
        let layers = self.layers(&config_schema, &recipe_schema)?;
        let (config, config_layers) = merge::<Config>(&config_schema, &layers)?;
        let (recipe, recipe_layers) = merge::<Recipe>(&recipe_schema, &layers)?;
        let settings = Settings { config, recipe };
        for (value, layers) in [
            (serde_json::to_value(&settings.config), &config_layers),
            (serde_json::to_value(&settings.recipe), &recipe_layers),
        ] {
            if let Some(key) = value.ok().and_then(|value| with_credentials(&value, "")) {
                return Err(invalid(credentials(key), layers));
            }
        }
        if let Some(problem) = settings.config.validate().into_iter().next() {
            return Err(invalid(problem, &config_layers));
        }
        if let Some(problem) = settings.recipe.validate().into_iter().next() {
            return Err(invalid(problem, &recipe_layers));
        }
        Ok(settings)
    }

    /// The config alone, checked: a run that is resumed is found by it, and only then are all of its settings known.
    ///
    /// # Errors
    /// The first thing that is wrong, as one sentence.
    pub fn load_config(self) -> Result<Config, SettingsError> {
        let schema = Schema::new(config_schema());
        let layers = self.layers(&schema, &Schema::new(recipe_schema()))?;
        let (config, layers) = merge::<Config>(&schema, &layers)?;
        let json = serde_json::to_value(&config).unwrap_or_default();
        let secret = with_credentials(&json, "").map(credentials);
        match secret.or_else(|| config.validate().into_iter().next()) {
            Some(problem) => Err(invalid(problem, &layers)),
            None => Ok(config),
        }
    }

    /// All sources in order, each with known sections only.
    fn layers(self, config: &Schema, recipe: &Schema) -> Result<Vec<Layer>, SettingsError> {
        let mut layers = Vec::new();
        for json in [
            serde_json::to_value(Config::default()),
            serde_json::to_value(Recipe::default()),
        ] {
            let json = json.map_err(|e| extract_error("the settings", "the defaults", &e.to_string()))?;
            layers.push(Layer {
                origin: Origin::Defaults,
                root: Node::from_json(&json),
            });
        }
        if let Some(pipeline) = self.pipeline {
            layers.push(Layer::text(
                Origin::Builtin(pipeline.name().into()),
                recipe_text(pipeline),
            )?);
        }
        let built_in = layers.len();
        for (is_config, path) in &self.files {
            let layer = Layer::file(path)?;
            let (own, other, name) = if *is_config {
                (config, recipe, "recipe")
            } else {
                (recipe, config, "config")
            };
            right_file(&layer, own, other, name)?;
            layers.push(layer);
        }
        for (name, value) in &self.variables {
            layers.extend(Layer::variable(name, value)?);
        }
        for text in &self.sets {
            layers.push(Layer::set(text)?);
        }
        layers.extend(self.flags);
        if let Some(pipeline) = self.pipeline {
            let named = layers.get(built_in..).unwrap_or_default();
            let added = match self.small_world && Layer::leave_the_world(named) {
                true => world_texts(pipeline)
                    .into_iter()
                    .map(|text| Layer::text(Origin::Builtin("world".into()), text))
                    .collect::<Result<_, _>>()?,
                false => Vec::from_iter(Layer::of_random_weights(&layers)?),
            };
            layers.splice(built_in..built_in, added);
        }
        without_file_tracker(&mut layers)?;
        for layer in &layers {
            known_sections(layer, config, recipe)?;
        }
        Ok(layers)
    }
}

/// Everything resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Where and how it runs.
    pub config: Config,
    /// What is trained.
    pub recipe: Recipe,
}

impl Config {
    /// The config with every default written out, as YAML.
    pub fn to_yaml(&self) -> String {
        to_yaml(self)
    }
}

impl Recipe {
    /// The recipe with every default written out, as YAML: reading it back gives the same recipe.
    pub fn to_yaml(&self) -> String {
        to_yaml(self)
    }
}

fn to_yaml<T: Serialize>(value: &T) -> String {
    // Structs with text keys and finite numbers always serialise.
    serde_json::to_value(value)
        .map(|json| yaml::write(&json))
        .unwrap_or_default()
}

/// Checks every layer along the schema and merges them.
fn merge<T: DeserializeOwned>(schema: &Schema, all: &[Layer]) -> Result<(T, Vec<Layer>), SettingsError> {
    let mut layers: Vec<Layer> = Vec::new();
    for layer in all {
        let mut part = layer.part(schema);
        schema.normalise(&mut part.root);
        let kind_below = |path: &[String]| {
            let keys: Vec<&str> = path.iter().map(String::as_str).chain(["kind"]).collect();
            layers.iter().rev().find_map(|l| match &l.root.get(&keys)?.value {
                Value::Text(kind) => Some(kind.clone()),
                _ => None,
            })
        };
        let findings = schema.check(&part.root, &kind_below, &|_, line| part.origin.place(line))?;
        for path in &findings.rechosen {
            let keys: Vec<&str> = path.iter().map(String::as_str).collect();
            layers.iter_mut().for_each(|lower| lower.root.remove(&keys));
        }
        layers.push(part);
    }
    let figment = layers
        .iter()
        .fold(Figment::new(), |figment, layer| figment.merge(layer.clone()));
    let value: T = figment.extract().map_err(|e| {
        let error = e.into_iter().next();
        let path = error.as_ref().map(|e| e.path.clone()).unwrap_or_default();
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        let problem = error.map_or_else(|| "it can't be read".into(), |e| e.kind.to_string());
        extract_error(&path.join("."), &place_of(&keys, &layers), &problem)
    })?;
    Ok((value, layers))
}

/// The last source that sets `path`; where none does, its section.
fn place_of(path: &[&str], layers: &[Layer]) -> String {
    (1..=path.len())
        .rev()
        .find_map(|n| layers.iter().rev().find_map(|layer| layer.place_of(path.get(..n)?)))
        .unwrap_or_else(|| Origin::Defaults.place(0))
}

fn invalid(problem: Violation, layers: &[Layer]) -> SettingsError {
    let keys: Vec<&str> = problem.key.split('.').collect();
    let place = place_of(&keys, layers);
    let place = if place == Origin::Defaults.place(0) {
        String::new()
    } else {
        format!(" (set in {place})")
    };
    SettingsError::Invalid {
        place,
        problem: problem.problem,
        key: problem.key,
    }
}

fn extract_error(key: &str, place: &str, problem: &str) -> SettingsError {
    SettingsError::Extract {
        key: key.into(),
        place: place.into(),
        problem: problem.into(),
    }
}

/// An address with a user name or password in it.
fn credentials(key: String) -> Violation {
    Violation {
        problem: format!(
            "`{key}` has an address with a user name or password in it, and settings are saved: take them out, secrets come from the environment (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, HF_TOKEN)"
        ),
        key,
    }
}

/// The first key whose value has an address with a user name or password in it: settings are saved
/// and sent to trackers.
fn with_credentials(value: &serde_json::Value, at: &str) -> Option<String> {
    use serde_json::Value;
    let below = |key: &str| {
        if at.is_empty() {
            key.to_owned()
        } else {
            format!("{at}.{key}")
        }
    };
    match value {
        Value::String(text) => crate::redact::has_credentials(text).then(|| at.to_owned()),
        Value::Array(items) => items.iter().find_map(|item| with_credentials(item, at)),
        Value::Object(fields) => fields
            .iter()
            .find_map(|(key, value)| with_credentials(value, &below(key))),
        _ => None,
    }
}

/// Accepts what is left of the removed tracker `files`: the section `tracking.files` in the resolved
/// settings of older run directories, and its name in `tracking.kinds` where a later source overrides it.
fn without_file_tracker(layers: &mut [Layer]) -> Result<(), SettingsError> {
    const KINDS: [&str; 2] = ["tracking", "kinds"];
    let mut overridden = false;
    for layer in layers.iter_mut().rev() {
        if matches!(layer.origin, Origin::File(_)) {
            layer.root.remove(&["tracking", "files"]);
        }
        let Some(Value::List(kinds)) = layer.root.get(&KINDS).map(|node| &node.value) else {
            continue;
        };
        if kinds.iter().any(|kind| kind.value == Value::Text("files".into())) {
            if !overridden {
                let problem = Violation {
                    key: KINDS.join("."),
                    problem: "`tracking.kinds` names `files` (MLflow's file layout), which was removed: write [mlflow], or [] and send the run later with `wmtp track sync`".into(),
                };
                return Err(invalid(problem, std::slice::from_ref(layer)));
            }
            layer.root.remove(&KINDS);
        }
        overridden = true;
    }
    Ok(())
}

/// A config file holds no recipe section, and the reverse.
fn right_file(layer: &Layer, own: &Schema, other: &Schema, name: &'static str) -> Result<(), SettingsError> {
    let Value::Map(entries) = &layer.root.value else {
        return Ok(());
    };
    for (key, node) in entries {
        if !own.top_level().any(|k| k == key) && other.top_level().any(|k| k == key) {
            let place = layer.origin.place(node.line);
            return Err(SettingsError::WrongFile {
                key: key.clone(),
                place,
                other: name,
            });
        }
    }
    Ok(())
}

/// Every section of the layer is one of the two structs'.
fn known_sections(layer: &Layer, config: &Schema, recipe: &Schema) -> Result<(), SettingsError> {
    let Value::Map(entries) = &layer.root.value else {
        return Ok(());
    };
    for (key, node) in entries {
        if config.top_level().chain(recipe.top_level()).any(|k| k == key) {
            continue;
        }
        let place = layer.origin.place(node.line);
        return Err(config.unknown_section(recipe, key, place));
    }
    Ok(())
}

/// Reads a settings file of another kind than config and recipe, whose keys `schema` knows.
///
/// # Errors
/// As [`Sources::load`], for keys and types; the caller checks the values.
pub(crate) fn read_file<T: DeserializeOwned>(schema: serde_json::Value, path: &Path) -> Result<T, SettingsError> {
    let mut layer = Layer::file(path)?;
    let schema = Schema::new(schema);
    schema.normalise(&mut layer.root);
    schema.check(&layer.root, &|_| None, &|_, line| layer.origin.place(line))?;
    // Not through figment, which sorts keys.
    serde_json::from_value(layer.root.to_json())
        .map_err(|e| extract_error("the settings", &layer.origin.place(0), &e.to_string()))
}

/// A value as `--set key=` reads it back.
pub(crate) fn flow_text(value: &serde_json::Value) -> String {
    yaml::flow(value)
}
