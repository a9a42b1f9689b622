//! Behaviour of the data room: prompts, packing, tokens.

mod chat;
mod chat_masks;
mod chat_turns;
mod kinds;
mod packing;
mod tokens;
