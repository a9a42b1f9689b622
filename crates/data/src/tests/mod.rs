//! Behaviour of the data room: prompts, packing, tokens, labels.

mod chat;
mod chat_masks;
mod chat_turns;
mod kinds;
mod labels;
mod leak;
mod packing;
mod sentencepiece;
mod template_bounds;
mod tokens;
