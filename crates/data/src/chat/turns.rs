//! Where a turn of the assistant begins and ends in the text of a whole conversation.
//!
//! A turn is what the model has to write: it begins after the header that the template writes for it
//! (`<|im_start|>assistant\n`) and ends with the token that ends it and what the template writes after
//! that (`<|im_end|>\n`).
//!
//! End: where the iteration of the template's loop over the messages ends. This holds for templates
//! that write a message differently once more messages follow (Qwen3 drops the thinking of earlier
//! turns). Where the messages are not written by a loop, the end is that of the rendering of the messages
//! up to this one, which must then be a prefix of the whole. What a template writes after all messages (Phi-3
//! an end of text) belongs to the last one.
//!
//! Begin: the rendering of the messages before the turn, with the generation prompt, if that is a prefix of
//! the whole. Else the generation prompt alone is searched in what the template writes for this turn before
//! the content, whatever the content is. If it writes only the beginning of the prompt (DeepSeek-V3 prompts
//! with `<｜Assistant｜><think>\n` and writes `<｜Assistant｜>`), that beginning is the header.

use super::{Message, Renderer, message};
use crate::template::Rendered;
use std::ops::Range;

/// Contents that differ from the first character on.
const PROBES: [&str; 2] = ["x", "Y"];

/// Finds turns in the rendering of a conversation.
pub(super) struct Turns<'a> {
    pub renderer: &'a Renderer<'a>,
    pub messages: &'a [Message],
    pub whole: &'a Rendered,
}

impl Turns<'_> {
    /// Byte range of what the assistant writes in the message with this index.
    ///
    /// # Errors
    /// A turn whose begin or end cannot be told, with what differs.
    pub fn turn(&self, index: usize) -> Result<Range<usize>, String> {
        let whole = self.whole.text.as_str();
        let before = self.messages.get(..index).unwrap_or_default();
        let prompt = match before {
            // There is no text of no messages.
            [] => None,
            before => Some(self.renderer.render(before, true)?.text),
        };
        let mut section = match section(self.whole, index) {
            Some(section) => section,
            None => self.section_by_prefixes(index)?,
        };
        let tail = self.whole.parts.last().filter(|part| part.message.is_none());
        if index + 1 == self.messages.len() && tail.is_some_and(|tail| tail.range.start == section.end) {
            section.end = whole.len();
        }
        let written = whole.get(section.clone()).unwrap_or_default();
        let prefix = prompt.filter(|prompt| whole.starts_with(prompt) && prompt.len() <= section.end);
        if let Some(prompt) = prefix {
            if prompt.len() > section.start {
                return Ok(prompt.len()..section.end);
            }
            // No prompt after these messages (the last one is the assistant's, say), but perhaps a header.
            let header = self.header(&after_user(before)).unwrap_or_default();
            let length = written.starts_with(&header).then_some(header.len());
            return Ok(section.start + length.unwrap_or_default()..section.end);
        }
        let header = match before {
            [] => self.header(&after_user(before)),
            before => self.header(before),
        };
        let header = header.map_err(|problem| format!("the turn of message {} is not found: {problem}", index + 1))?;
        if written.starts_with(&header) {
            return Ok(section.start + header.len()..section.end);
        }
        let fixed = self.before_content(index)?;
        let length = match fixed.rfind(&header) {
            Some(at) => at + header.len(),
            None => common(&header, &fixed),
        };
        let begins = fixed.get(..length).is_some_and(|fixed| written.starts_with(fixed));
        if length == 0 || !begins {
            return Err(unlike(index, &header, written, "what it writes for the message"));
        }
        Ok(section.start + length..section.end)
    }

    /// The generation prompt after these messages.
    fn header(&self, messages: &[Message]) -> Result<String, String> {
        let prompt = self.renderer.render(messages, true)?;
        let plain = self.renderer.render(messages, false)?.text;
        if let Some(header) = prompt.text.strip_prefix(plain.as_str()) {
            return Ok(header.to_owned());
        }
        // Without the prompt, the template writes something else after all messages (Phi-3).
        let last = prompt.parts.iter().rfind(|part| part.message.is_some());
        let split = last.and_then(|last| prompt.text.split_at_checked(last.range.end));
        match split.filter(|(messages, _)| plain.starts_with(messages)) {
            Some((_, header)) => Ok(header.to_owned()),
            None => Err(differs(
                &plain,
                &prompt.text,
                "the same messages with the generation prompt",
            )),
        }
    }

    /// The part of the text that a message has, where the template does not loop over the messages.
    fn section_by_prefixes(&self, index: usize) -> Result<Range<usize>, String> {
        let whole = self.whole.text.as_str();
        let length = |count: usize| -> Result<usize, String> {
            if count == self.messages.len() {
                return Ok(whole.len());
            }
            let messages = self.messages.get(..count).unwrap_or_default();
            if messages.is_empty() {
                return Ok(0);
            }
            let text = self.renderer.render(messages, false)?.text;
            if !whole.starts_with(&text) {
                return Err(unlike(index, &text, whole, "the whole conversation"));
            }
            Ok(text.len())
        };
        Ok(length(index)?..length(index + 1)?)
    }

    /// What the template writes for this turn before the content, whatever that is.
    fn before_content(&self, index: usize) -> Result<String, String> {
        let mut messages = self.messages.get(..index).unwrap_or_default().to_vec();
        let mut texts = Vec::new();
        for probe in PROBES {
            messages.push(message("assistant", probe));
            let rendered = self.renderer.render(&messages, false)?;
            let section = section(&rendered, index).unwrap_or_default();
            texts.push(rendered.text.get(section).unwrap_or_default().to_owned());
            messages.pop();
        }
        let mut fixed = texts.pop().unwrap_or_default();
        fixed.truncate(texts.iter().map(|text| common(text, &fixed)).min().unwrap_or_default());
        Ok(fixed)
    }
}

/// The part of a text that the template's loop wrote for a message; None if there is none or another
/// message's text lies within it.
pub(super) fn section(rendered: &Rendered, index: usize) -> Option<Range<usize>> {
    let of_message = |part: &&crate::template::Part| part.message == Some(index);
    let first = rendered.parts.iter().find(of_message)?;
    let last = rendered.parts.iter().rfind(of_message)?;
    let range = first.range.start..last.range.end;
    let mut within = rendered.parts.iter().filter(|part| range.contains(&part.range.start));
    within
        .all(|part| part.message.is_none_or(|message| message == index))
        .then_some(range)
}

/// Bytes that two texts have in common at their beginning, whole characters.
fn common(a: &str, b: &str) -> usize {
    let equal = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    equal.map(|(c, _)| c.len_utf8()).sum()
}

fn after_user(before: &[Message]) -> Vec<Message> {
    let user = message("user", PROBES[0]);
    before.iter().cloned().chain([user]).collect()
}

fn unlike(index: usize, expected: &str, found: &str, of_what: &str) -> String {
    format!(
        "the turn of message {} is not found: {}",
        index + 1,
        differs(expected, found, of_what)
    )
}

/// What two texts have after their common beginning, and what to do.
fn differs(expected: &str, found: &str, of_what: &str) -> String {
    let at = common(expected, found);
    let excerpt = |text: &str| {
        let rest = text.get(at..).unwrap_or_default();
        rest.chars().take(40).collect::<String>().escape_debug().to_string()
    };
    format!(
        "`{}` differs from {of_what}, `{}`; mark what is trained with `{{% generation %}}` in the template",
        excerpt(expected),
        excerpt(found)
    )
}
