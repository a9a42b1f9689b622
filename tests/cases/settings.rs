//! Settings files as other tools write them.
