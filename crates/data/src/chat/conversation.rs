//! A conversation as token ids, with the tokens that are trained.

use super::{
    Message, Renderer, TrainOn,
    selection::{self, is_assistant, role},
    turns::{Turns, section},
};
use crate::{
    DataError, SpecialTokens, Tokenizer,
    template::{Part, Rendered, Source},
    tokenizer::library,
};
use serde_json::Value;
use std::ops::Range;
use tokenizers::{Encoding, PostProcessor};

/// Most messages of a conversation, times those of them whose turns are looked for: for each of these, all before
/// it are rendered again. This many take some seconds.
const MOST_TURNS: usize = 2_000_000;
/// Most characters of a rendered text in an error.
const SHOWN: usize = 400;

/// Which tokens of a conversation are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConversationOptions {
    /// Which messages are trained, except for those with `train` or `weight`.
    pub train_on: TrainOn,
    /// Messages before this index are never trained.
    pub trained_from: usize,
}

/// A conversation as the model reads it. The vectors have one entry for each token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// What the chat template wrote.
    pub text: String,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Whether the token is trained, that is, predicted by the loss.
    pub trained: Vec<bool>,
    /// Weight of the token's message; 0 for a token that is not trained.
    pub weights: Vec<f32>,
    /// Index of the message that the token belongs to, headers included; None for a token that is not
    /// part of a trained turn and that the template writes outside of its loop over the messages.
    pub message_of: Vec<Option<usize>>,
    /// First and following character of each token in `text`.
    pub offsets: Vec<(usize, usize)>,
}

impl Conversation {
    /// Characters of the text where the content of a message stands, without white space around it: for
    /// weights that are given by characters of a content. None if the template changes the content or writes it
    /// more than once for this message.
    pub fn content_range(&self, message: usize, content: &str) -> Option<Range<usize>> {
        let of_message = |of: &Option<usize>| *of == Some(message);
        let (first, _) = *self.offsets.get(self.message_of.iter().position(of_message)?)?;
        let (_, last) = *self.offsets.get(self.message_of.iter().rposition(of_message)?)?;
        let content = content.trim();
        let written: String = self.text.chars().take(last).skip(first).collect();
        let (before, after) = written.split_once(content)?;
        let begin = first + before.chars().count();
        (!content.is_empty() && !after.contains(content)).then(|| begin..begin + content.chars().count())
    }
}

/// A part of the text that is trained.
struct Trained {
    range: Range<usize>,
    message: Option<usize>,
    weight: f32,
}

impl Tokenizer {
    /// A conversation through the model's chat template, as `apply_chat_template` of transformers 5 renders
    /// and tokenizes it, with the tokens that are trained.
    ///
    /// Trained is what the assistant writes: its contents, calls of tools and the token that ends a turn, not
    /// the header before it. If the template has `{% generation %}` blocks, these are trained: the tokens where
    /// `return_assistant_tokens_mask` of transformers has 1. `weight` (a number) and `train` (true or false) of a
    /// message take precedence over `options`. Of a message of another role, all tokens are trained.
    ///
    /// No special token is added to those that the template writes, unless `data.special_tokens` is `always`.
    ///
    /// # Errors
    /// No messages or template; what the template refuses; a turn whose begin or end cannot be told; no token
    /// or every token trained, although there are messages to train or not to train.
    pub fn trained_conversation(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        options: ConversationOptions,
    ) -> Result<Conversation, DataError> {
        let wrong = |problem: String| DataError::ChatTemplate {
            place: self.place.clone(),
            problem,
        };
        if messages.is_empty() {
            return Err(wrong("the conversation has no messages; leave the row out".into()));
        }
        let weights = selection::weights(messages, options.train_on, options.trained_from).map_err(wrong)?;
        let source = Source::read(self.template_for(tools)?).map_err(|error| wrong(error.to_string()))?;
        let renderer = Renderer::new(&source, &self.special, tools, &self.chat_date).map_err(wrong)?;
        let whole = renderer.render(messages, false).map_err(wrong)?;
        let turns = Turns {
            renderer: &renderer,
            messages,
            whole: &whole,
        };
        let by_blocks = source.has_generation() && options.train_on != TrainOn::All;
        let ranges = if options.train_on == TrainOn::All {
            all(&whole, &weights, options.trained_from)
        } else if by_blocks {
            blocks(&turns, &weights)
        } else {
            by_messages(&turns, &weights)
        };
        let ranges = ranges.map_err(wrong)?;
        let conversation = self.marked(&whole, ranges, by_blocks)?;
        check(&conversation, &weights, options).map_err(wrong)?;
        Ok(conversation)
    }

    /// Tokenizes a rendered text and marks the tokens that share a character with one of `ranges`, given in
    /// bytes and in order.
    fn marked(&self, whole: &Rendered, ranges: Vec<Trained>, as_blocks: bool) -> Result<Conversation, DataError> {
        // The template spells special tokens: they are parsed.
        let encoding = if self.inner.get_encode_special_tokens() {
            let mut inner = (*self.inner).clone();
            inner.set_encode_special_tokens(false);
            library::call(|| inner.encode_char_offsets(whole.text.as_str(), false))
        } else {
            library::call(|| self.inner.encode_char_offsets(whole.text.as_str(), false))
        };
        let encoding = encoding.map_err(|error| self.wrong(error))?;
        let characters = Characters::of(&whole.text);
        let mut conversation = Conversation {
            text: whole.text.clone(),
            offsets: encoding.get_offsets().to_vec(),
            ..Conversation::default()
        };
        let ids = encoding.get_ids().to_vec();
        // transformers compares the offsets that the post-processor has trimmed.
        let compared = if as_blocks {
            self.trimmed(encoding)?
        } else {
            conversation.offsets.clone()
        };
        let mut ranges = ranges.into_iter().map(|trained| Trained {
            range: characters.range(&trained.range),
            ..trained
        });
        let mut current = ranges.next();
        let parts: Vec<Part> = whole.parts.iter().map(|part| characters.part(part)).collect();
        conversation.message_of = messages_of(&conversation.offsets, &parts);
        for ((begin, end), message) in compared.into_iter().zip(&mut conversation.message_of) {
            while current.as_ref().is_some_and(|trained| begin >= trained.range.end) {
                current = ranges.next();
            }
            let trained = current.as_ref().filter(|trained| end > trained.range.start);
            conversation.trained.push(trained.is_some());
            conversation.weights.push(trained.map_or(0.0, |trained| trained.weight));
            *message = trained.map_or(*message, |trained| trained.message);
        }
        // They are not doubled.
        let begin = match self.choice().special_tokens {
            SpecialTokens::Always if !ids.starts_with(self.begin_ids()) => self.begin_ids(),
            _ => &[],
        };
        let added = begin.len();
        conversation.tokens = self.fitting(begin.iter().copied().chain(ids).collect())?;
        conversation.trained.splice(0..0, std::iter::repeat_n(false, added));
        conversation.weights.splice(0..0, std::iter::repeat_n(0.0, added));
        conversation.message_of.splice(0..0, std::iter::repeat_n(None, added));
        conversation.offsets.splice(0..0, std::iter::repeat_n((0, 0), added));
        Ok(conversation)
    }

    /// Offsets as the tokenizer's post-processor leaves them: without white space, if it trims.
    fn trimmed(&self, encoding: Encoding) -> Result<Vec<(usize, usize)>, DataError> {
        let processed = match &self.post_processor {
            Some(processor) => {
                library::call(|| processor.process(encoding, None, false)).map_err(|error| self.wrong(error))?
            }
            None => encoding,
        };
        Ok(processed.get_offsets().to_vec())
    }
}

/// Every part of the text, except for messages that are not trained.
fn all(whole: &Rendered, weights: &[Option<f32>], trained_from: usize) -> Result<Vec<Trained>, String> {
    // What the template writes outside of its loop may be the text of a message.
    let hidden = |index: usize| whole.parts.iter().all(|part| part.message != Some(index));
    let hides_untrained = (0..weights.len()).any(|index| weights.get(index) == Some(&None) && hidden(index));
    let mut after = trained_from == 0;
    let mut ranges = Vec::new();
    for part in &whole.parts {
        after |= part.message.is_some_and(|message| message >= trained_from);
        let weight = match part.message {
            Some(message) => weights.get(message).copied().flatten(),
            None => (after && !hides_untrained).then_some(1.0),
        };
        ranges.extend(weight.map(|weight| Trained {
            range: part.range.clone(),
            message: part.message,
            weight,
        }));
    }
    Ok(ranges)
}

/// The `{% generation %}` blocks of messages that are trained.
fn blocks(turns: &Turns<'_>, weights: &[Option<f32>]) -> Result<Vec<Trained>, String> {
    if turns.whole.generation_misplaced {
        return Err(
            "a `{% generation %}` block stands in a macro, a `set` block or another block, where its place in the \
             text is not known; move it out"
                .into(),
        );
    }
    let mut ranges = Vec::new();
    // A block after the loop belongs to the message before it.
    let mut message = None;
    for block in &turns.whole.generated {
        message = block.message.or(message);
        let weight = match message {
            Some(message) => weights.get(message).copied().flatten(),
            None => weights.iter().rev().find_map(|weight| *weight),
        };
        ranges.extend(weight.map(|weight| Trained {
            range: block.range.clone(),
            message,
            weight,
        }));
    }
    for (index, weight) in weights.iter().enumerate() {
        if let (Some(weight), Some(false)) = (*weight, turns.messages.get(index).map(is_assistant)) {
            let range = of_other_role(turns, index)?;
            ranges.push(Trained {
                range,
                message: Some(index),
                weight,
            });
        }
    }
    ranges.sort_by_key(|trained| trained.range.start);
    Ok(ranges)
}

/// The turns of messages that are trained.
fn by_messages(turns: &Turns<'_>, weights: &[Option<f32>]) -> Result<Vec<Trained>, String> {
    let (messages, trained) = (weights.len(), weights.iter().flatten().count());
    if messages.saturating_mul(trained) > MOST_TURNS {
        return Err(format!(
            "the conversation has {messages} messages, of which {trained} are trained: too many to find each in the \
             text; divide it, or mark what is trained with `{{% generation %}}` in the template"
        ));
    }
    let mut ranges = Vec::new();
    for (index, (message, weight)) in turns.messages.iter().zip(weights).enumerate() {
        let Some(weight) = *weight else { continue };
        let range = if is_assistant(message) {
            turns.turn(index)?
        } else {
            of_other_role(turns, index)?
        };
        ranges.push(Trained {
            range,
            message: Some(index),
            weight,
        });
    }
    ranges.sort_by_key(|trained| trained.range.start);
    Ok(ranges)
}

/// All that the template writes for a message of another role.
fn of_other_role(turns: &Turns<'_>, index: usize) -> Result<Range<usize>, String> {
    section(turns.whole, index).ok_or_else(|| {
        format!(
            "message {} (`{}`) has `train` or `weight`, but the template does not write it in its loop over the \
             messages; remove them",
            index + 1,
            turns.messages.get(index).map(role).unwrap_or_default()
        )
    })
}

/// Fails on a mask that can only be a mistake.
fn check(conversation: &Conversation, weights: &[Option<f32>], options: ConversationOptions) -> Result<(), String> {
    let trained = conversation.trained.iter().filter(|trained| **trained).count();
    if trained == 0 {
        let why = if weights.iter().all(Option::is_none) {
            "no message is trained (role `assistant`, `weight`, `train`); leave the row out or mend its roles"
        } else {
            "the template writes nothing for the messages that are trained; set `data.train_on: all`, or mend it"
        };
        return Err(format!("{why}; rendered: `{}`", shortened(&conversation.text)));
    }
    let covers_untrained = weights.iter().any(Option::is_none) && options.train_on != TrainOn::All;
    if covers_untrained && trained == conversation.trained.len() {
        return Err(format!(
            "every token is trained, also those of messages that must not be; move `{{% generation %}}` in the \
             template, or set `data.train_on: all`; rendered: `{}`",
            shortened(&conversation.text)
        ));
    }
    Ok(())
}

/// Begin and end of a text, on one line.
fn shortened(text: &str) -> String {
    let count = text.chars().count();
    let line = |text: String| text.replace('\n', "\\n");
    if count <= SHOWN {
        return line(text.to_owned());
    }
    let head: String = text.chars().take(SHOWN / 2).collect();
    let tail: String = text.chars().skip(count - SHOWN / 2).collect();
    format!("{} … {}", line(head), line(tail))
}

/// The message of each token: that of the part in which it begins. Both are in characters and in order.
fn messages_of(offsets: &[(usize, usize)], parts: &[Part]) -> Vec<Option<usize>> {
    let part_at = |at: usize| parts.get(parts.partition_point(|part| part.range.end <= at));
    let messages = offsets
        .iter()
        .map(|(begin, _)| part_at(*begin).and_then(|part| part.message));
    messages.collect()
}

/// Byte offsets of a text as counts of characters, as the tokenizer gives them.
struct Characters {
    /// Byte offset of each character.
    starts: Vec<usize>,
}

impl Characters {
    fn of(text: &str) -> Self {
        Self {
            starts: text.char_indices().map(|(at, _)| at).collect(),
        }
    }

    fn range(&self, bytes: &Range<usize>) -> Range<usize> {
        let before = |at: usize| self.starts.partition_point(|start| *start < at);
        before(bytes.start)..before(bytes.end)
    }

    fn part(&self, part: &Part) -> Part {
        Part {
            range: self.range(&part.range),
            message: part.message,
        }
    }
}
