//! What several tests share.
#![allow(dead_code)] // Each test uses its own part.

pub mod hub;
