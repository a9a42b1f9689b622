//! What every crate of wmtp stands on; knows none of them.

pub mod fs;
pub mod paths;
pub mod redact;
pub mod statistics;
pub mod stop;
pub mod text;
pub mod token_cache;
pub mod validate;
pub mod yaml;
