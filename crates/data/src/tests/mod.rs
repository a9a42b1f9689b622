//! Behaviour of the data room: prompts, packing, tokens, labels.

mod chat;
mod kinds;
mod labels;
mod leak;
mod packing;
mod tokens;
