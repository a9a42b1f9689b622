//! Predictions, answers of chat models and benchmarks.
