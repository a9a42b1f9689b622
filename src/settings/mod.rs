//! Settings: read, merge (defaults, files, variables, `--set`, flags), validate, explain.
//!
//! Two structs come out, [`Config`] (where and how it runs) and [`Recipe`] (what is trained), both
//! fully typed; nothing after this door handles settings as text. Nothing here opens a device, a
//! model or a connection, and no secret is ever a setting.

mod config;
mod editor;
mod error;
mod layer;
mod load;
mod recipe;
mod schema;
mod surrogates;
mod tree;
mod yaml;

pub use crate::scorer::Pipeline;
pub use config::Config;
pub use editor::for_editors;
pub use error::SettingsError;
pub use layer::RESERVED_VARIABLES;
pub use layer::has_random_weights;
pub use load::{Settings, Sources};
pub(crate) use load::{flow_text, read_file};
pub use recipe::*;

/// Any YAML document as JSON, whatever its keys, for showing settings of other runs. Hidden: only the fuzzing crate
/// needs it from outside.
///
/// # Errors
/// Line and problem of a text that is no YAML.
#[doc(hidden)]
pub fn yaml_to_json(text: &str) -> Result<serde_json::Value, String> {
    let node = tree::Node::parse_document(text).map_err(|bad| format!("line {}: {}", bad.line, bad.problem))?;
    Ok(node.to_json())
}

/// Every key that `--set` takes, config and recipe, sections left out.
pub fn setting_keys() -> Vec<String> {
    let mut paths: Vec<String> = [config_schema(), recipe_schema()]
        .into_iter()
        .flat_map(|schema| schema::Schema::new(schema).all_paths())
        .collect();
    paths.sort();
    paths.dedup();
    let is_section = |path: &String| {
        let below = format!("{path}.");
        paths.iter().any(|other| other.starts_with(&below))
    };
    paths.iter().filter(|path| !is_section(path)).cloned().collect()
}

/// The JSON Schema of a recipe file.
pub fn recipe_schema() -> serde_json::Value {
    schemars::schema_for!(Recipe).to_value()
}

/// The JSON Schema of a config file.
pub fn config_schema() -> serde_json::Value {
    schemars::schema_for!(Config).to_value()
}
