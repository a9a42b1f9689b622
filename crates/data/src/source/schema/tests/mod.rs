//! Rows of every schema: what they mean, and what is wrong with them.
