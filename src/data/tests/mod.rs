//! Behaviour of the data room: files, prompts, packing, decontamination.

mod chat;
mod decontamination;
mod files;
mod kinds;
mod packing;
mod tokens;
