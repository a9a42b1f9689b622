//! A conversation as a document, through the model's chat template.

use super::{DataError, Rendered, Rendering, Sample, chat::Message};
use serde_json::Value;

impl Rendering {
    /// Refuses: the mask of trained tokens is not there yet.
    pub(super) fn conversation(
        &self,
        _sample: &Sample,
        _name: String,
        _messages: &[Message],
        _tools: Option<&Value>,
        _trained_from: usize,
    ) -> Result<Rendered, DataError> {
        Err(DataError::ChatTemplate {
            place: self.chat.place().to_owned(),
            problem: "conversations can't be trained on yet; give prompts and completions".into(),
        })
    }
}
