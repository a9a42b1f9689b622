//! Defaults for a model whose weights are random, where a fine-tuning rate would learn next to nothing.

use super::{
    error::SettingsError,
    layer::{Layer, Origin},
    tree::Value,
};

/// The only model that is made with random weights; every other one is loaded.
const RANDOM: &str = "builtin:micro";

/// The settings, as `--recipe` would read them.
const RECIPE: &str = include_str!("../../configs/recipe.random-weights.yaml");

/// Whether `model.base` names a model with random weights.
pub fn has_random_weights(base: &str) -> bool {
    base.trim() == RANDOM
}

/// The defaults for random weights, if that is what the last of `layers` that names a model names.
pub(super) fn layer(layers: &[Layer]) -> Result<Option<Layer>, SettingsError> {
    let base = layers
        .iter()
        .rev()
        .find_map(|layer| match &layer.root.get(&["model", "base"])?.value {
            Value::Text(base) => Some(base.as_str()),
            _ => None,
        });
    if base.is_some_and(has_random_weights) {
        Layer::text(Origin::Builtin("random-weights".into()), RECIPE).map(Some)
    } else {
        Ok(None)
    }
}
