//! Behaviour of the data room: files, prompts, packing, decontamination.

mod decontamination;
mod files;
mod kinds;
mod packing;
mod tokens;
