//! Reports: what a run did, as pages that are looked at.

pub mod plot;
