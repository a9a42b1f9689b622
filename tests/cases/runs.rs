//! Runs that are resumed or that fail.
