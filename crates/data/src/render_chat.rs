//! A conversation as a document, through the model's chat template.

use super::{
    Conversation, ConversationOptions, DataError, Rendered, Rendering, Sample, Tokenized,
    chat::{Message, content},
    render::weight_runs,
};
use serde_json::Value;
use std::ops::Range;

impl Rendering {
    /// The conversation as one document: what comes before its first trained token is the prompt.
    ///
    /// # Errors
    /// As [`super::Tokenizer::trained_conversation`]; spans of a content that the template changes.
    pub(super) fn conversation(
        &self,
        sample: &Sample,
        name: String,
        messages: &[Message],
        tools: Option<&Value>,
        trained_from: usize,
    ) -> Result<Rendered, DataError> {
        let options = ConversationOptions {
            train_on: self.train_on,
            trained_from,
        };
        let conversation = self.chat.trained_conversation(messages, tools, options)?;
        // The first token has nothing before it that could predict it.
        let first = conversation
            .trained
            .iter()
            .position(|&trained| trained)
            .unwrap_or_default();
        let prompt_len = first.max(1);
        let spans = self.spans(sample, messages, &conversation)?;
        let weight = |token: usize| {
            let own = conversation.weights.get(token).copied().unwrap_or_default();
            let start = conversation.offsets.get(token).map_or(0, |(start, _)| *start);
            let span = spans.iter().find(|(range, _)| range.contains(&start));
            sample.weight * own * span.map_or(1.0, |(_, weight)| *weight)
        };
        let trained = |token: usize| conversation.trained.get(token).copied().unwrap_or_default();
        let len = conversation.tokens.len();
        let document = Tokenized {
            sample: 0,
            name: name.clone(),
            problem: 0,
            prompt_len,
            untrained: runs(prompt_len..len, |token| !trained(token)),
            given: weight_runs(
                (prompt_len..len)
                    .filter(|&token| trained(token))
                    .map(|token| (token, weight(token))),
            ),
            tokens: conversation.tokens.clone(),
            reward: sample.reward,
        };
        Ok(Rendered::one(sample.example(name), document))
    }

    /// The spans of a sample in characters of the rendered text: they count from the start of the last trained
    /// message's content.
    fn spans(
        &self,
        sample: &Sample,
        messages: &[Message],
        conversation: &Conversation,
    ) -> Result<Vec<(Range<usize>, f32)>, DataError> {
        if sample.spans.is_empty() {
            return Ok(Vec::new());
        }
        let wrong = |problem: &str| DataError::ChatTemplate {
            place: self.chat.place().to_owned(),
            problem: problem.into(),
        };
        let marked = conversation.trained.iter().zip(&conversation.message_of);
        let last = marked
            .clone()
            .rev()
            .find_map(|(trained, message)| message.filter(|_| *trained));
        let first = last.and_then(|last| marked.clone().position(|(trained, of)| *trained && *of == Some(last)));
        let (Some(last), Some(first)) = (last, first) else {
            return Err(wrong("`spans` have no trained message to count from; leave them out"));
        };
        let start = conversation.offsets.get(first).map_or(0, |(start, _)| *start);
        let content = messages.get(last).map(content).unwrap_or_default();
        let rendered: String = conversation
            .text
            .chars()
            .skip(start)
            .take(content.chars().count())
            .collect();
        if rendered != content {
            return Err(wrong(
                "the template changes the last trained message's content, so that `spans` can't be placed; leave them out",
            ));
        }
        let moved = |span: &super::Span| (start + span.start..start + span.end, span.weight);
        Ok(sample.spans.iter().map(moved).collect())
    }
}

/// The longest runs of positions for which `holds`.
fn runs(positions: Range<usize>, holds: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for position in positions.filter(|&position| holds(position)) {
        match runs.last_mut() {
            Some(run) if run.end == position => run.end += 1,
            _ => runs.push(position..position + 1),
        }
    }
    runs
}
