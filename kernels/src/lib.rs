//! Fused operations for weighted multi-token prediction, one folder per operation, each a burn backend
//! extension with a hand-written backward pass.
//!
//! This crate knows tensors and nothing else: no models, no data, no training. Functions take and return
//! burn's `Tensor`; the device of a tensor selects the implementation: `flex.rs` on slices in CPU memory,
//! `cube.rs` for CubeCL (wgpu, cuda), `plain.rs` in a backend's own operations. Wrong shapes and ids outside
//! the vocabulary are programmer errors and panic with a message that names them, as burn's own tensor
//! operations do.
//!
//! The `flex` modules of a decoder layer's operations ([`attention::flex`], [`rms_norm::flex`],
//! [`rotary::flex`], [`swiglu::flex`]) are public: on the CPU a whole layer runs on slices. Activations are
//! f32 rows; what is saved for the backward pass can be stored in bf16 ([`SavedActivations`]). No result
//! depends on the number of threads: rows are computed independently, and sums over rows are taken over
//! blocks of a fixed size, added in order.
pub mod accumulate;
pub mod adamw;
pub mod attention;
mod backends;
#[cfg(feature = "cube")]
pub mod cube;
mod memory;
pub mod rms_norm;
pub mod rotary;
pub mod row_sums;
mod saved;
mod simd;
pub mod square_sums;
pub mod swiglu;
#[cfg(test)]
mod test_support;
#[cfg(test)]
#[path = "../../crates/gemm/src/test_values.rs"]
mod test_values;
pub mod weighted_ce;

pub use backends::{accumulator_dtype, cast, register_gradients};
pub use memory::disable_malloc_trim;
pub use saved::SavedActivations;
pub use weighted_ce::{
    Accuracy, WeightedCrossEntropy, weighted_linear_cross_entropy, weighted_linear_cross_entropy_in,
};
pub use wmtp_gemm::{Isa, Precision, VARIABLE as GEMM_VARIABLE, instruction_sets};
