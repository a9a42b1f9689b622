//! Fused operations for weighted multi-token prediction, one folder per operation, each a burn
//! backend extension with a hand-written backward pass.
//!
//! This crate knows tensors and nothing else: no models, no data, no training. Functions take and
//! return burn's `Tensor`; which implementation runs is decided by the device that a tensor lives
//! on. Wrong shapes and ids outside the vocabulary are programmer errors here and panic with a
//! message that names them, as burn's own tensor operations do.
#![deny(missing_docs)]

pub mod accumulate;
pub mod adamw;
pub mod attention;
mod backends;
#[cfg(feature = "cube")]
pub mod cube;
pub mod host;
mod memory;
mod precision;
pub mod product;
pub mod rms_norm;
pub mod rotary;
pub mod row_sums;
pub mod square_sums;
pub mod swiglu;
#[cfg(test)]
mod test_values;
pub mod weighted_ce;

pub use memory::keep_freed_memory;
pub use precision::{Accuracy, Precision};
pub use weighted_ce::{WeightedCrossEntropy, weighted_linear_cross_entropy, weighted_linear_cross_entropy_in};
