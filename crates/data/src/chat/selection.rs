//! Which messages of a conversation are trained, and with what weight.

use super::Message;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which parts of a conversation are trained, except for messages with `train` or `weight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOn {
    /// What the assistant writes, in every turn.
    #[default]
    Assistant,
    /// What the assistant writes in its last turn.
    Last,
    /// The whole text: all roles, with the headers that the template writes.
    All,
}

impl TrainOn {
    /// As it is written in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Assistant => "assistant",
            Self::Last => "last",
            Self::All => "all",
        }
    }
}

/// The weight of each message; None for one that is not trained.
///
/// A message before `trained_from`, with `train: false` or with `weight: 0` is not trained. One with
/// `train: true` or another weight is trained whatever its role and `train_on`.
///
/// # Errors
/// A `weight` that is no finite number of at least 0, a `train` that is neither true nor false.
pub(super) fn weights(
    messages: &[Message],
    train_on: TrainOn,
    trained_from: usize,
) -> Result<Vec<Option<f32>>, String> {
    let last = messages.iter().rposition(is_assistant);
    let mut weights = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let (weight, train) = (weight(message, index)?, train(message, index)?);
        let by_role = match train_on {
            TrainOn::Assistant => is_assistant(message),
            TrainOn::Last => Some(index) == last,
            TrainOn::All => true,
        };
        let excluded = index < trained_from || train == Some(false) || weight == Some(0.0);
        let trained = !excluded && (by_role || train == Some(true) || weight.is_some());
        weights.push(trained.then(|| weight.unwrap_or(1.0)));
    }
    Ok(weights)
}

pub(super) fn is_assistant(message: &Message) -> bool {
    role(message) == "assistant"
}

pub(super) fn role(message: &Message) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or_default()
}

fn weight(message: &Message, index: usize) -> Result<Option<f32>, String> {
    let Some(value) = message.get("weight").filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let weight = value.as_f64().map(|weight| weight as f32);
    match weight.filter(|weight| weight.is_finite() && *weight >= 0.0) {
        Some(weight) => Ok(Some(weight)),
        None => Err(format!(
            "message {} has the `weight` `{value}`; give a finite number of at least 0",
            index + 1
        )),
    }
}

fn train(message: &Message, index: usize) -> Result<Option<bool>, String> {
    match message.get("train") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(train)) => Ok(Some(*train)),
        Some(other) => Err(format!(
            "message {} has `train: {other}`; give true or false",
            index + 1
        )),
    }
}
