//! Behaviour of the data room: prompts, packing, tokens.

mod chat;
mod kinds;
mod packing;
mod sentencepiece;
mod tokens;
