//! Where a turn of the assistant begins and ends in the text of a whole conversation.
//!
//! A turn is what the model has to write: it begins after the header that the template writes for it
//! (`<|im_start|>assistant\n`) and ends with the token that ends it and what the template writes after
//! that (`<|im_end|>\n`).
//!
//! End: where the template's loop over the messages arrives at another message. This holds for templates
//! that write a message in another way once more messages follow (Qwen3 drops the thinking of earlier
//! turns). Where the messages are not written by a loop, the end is that of the rendering of the messages
//! up to this one, which must then be a prefix of the whole. What a template writes after all messages (Phi-3
//! an end of text) belongs to the last one.
//!
//! Begin: the rendering of the messages before the turn, with the generation prompt, if that is a prefix of
//! the whole. Else the generation prompt alone is compared with what the template writes for this turn. If
//! it writes only a part of it (DeepSeek-V3 prompts with `<｜Assistant｜><think>\n` and writes
//! `<｜Assistant｜>`), the header is that part which it also writes for messages of other contents.

use super::{Message, Renderer, message};
use crate::template::Rendered;
use std::ops::Range;

/// Contents that begin with no text that a template writes.
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
        if let Some(prompt) = &prompt
            && whole.starts_with(prompt.as_str())
            && prompt.len() <= section.end
        {
            return Ok(prompt.len().max(section.start)..section.end);
        }
        let user = [message("user", PROBES[0])];
        let before = if before.is_empty() { &user[..] } else { before };
        let prompt = match prompt {
            Some(prompt) => prompt,
            None => self.renderer.render(before, true)?.text,
        };
        let plain = self.renderer.render(before, false)?.text;
        let header = prompt.strip_prefix(plain.as_str()).ok_or_else(|| {
            unlike(
                index,
                &prompt,
                &plain,
                "the messages before it without the generation prompt",
            )
        })?;
        let written = whole.get(section.clone()).unwrap_or_default();
        let mut length = common(header, written);
        if length < header.len() {
            length = length.min(self.header_of_probes(index, header)?);
            if length == 0 {
                return Err(unlike(index, header, written, "what it writes for the message"));
            }
        }
        Ok(section.start + length..section.end)
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

    /// Bytes of `header` that the template writes before any content.
    fn header_of_probes(&self, index: usize, header: &str) -> Result<usize, String> {
        let mut messages = self.messages.get(..index).unwrap_or_default().to_vec();
        let mut length = header.len();
        for probe in PROBES {
            messages.push(message("assistant", probe));
            let rendered = self.renderer.render(&messages, false)?;
            let section = section(&rendered, index).unwrap_or_default();
            length = length.min(common(header, rendered.text.get(section).unwrap_or_default()));
            messages.pop();
        }
        Ok(length)
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

fn unlike(index: usize, expected: &str, found: &str, of_what: &str) -> String {
    let at = common(expected, found);
    let excerpt = |text: &str| {
        let rest = text.get(at..).unwrap_or_default();
        rest.chars().take(40).collect::<String>().escape_debug().to_string()
    };
    format!(
        "the turn of message {} is not found: `{}` differs from {of_what}, `{}`; mark what is trained with \
         `{{% generation %}}` in the template",
        index + 1,
        excerpt(expected),
        excerpt(found)
    )
}
